"""Reading and writing of OME-Zarr on disks, in buckets and from web servers; foreign formats."""

from engine.store.arrays import DTYPES, open_array, read_plane, shard_shape, use_fast_codecs
from engine.store.axes import Axis, make_axes, micrometres
from engine.store.checking import Checker
from engine.store.checksums import ABSENT, StoredObject, checksum
from engine.store.create import (
    ArraySpec,
    create_array,
    create_group,
    effective_shard,
    pyramid_levels,
    pyramid_shapes,
)
from engine.store.failures import is_damage, is_fatal
from engine.store.files import free_bytes, local_path, read_json, write_atomic, write_json
from engine.store.groups import (
    MEAN,
    MODE,
    NEAREST,
    Downsampling,
    ImageMetadata,
    display_range,
    image_groups,
    update_group,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)
from engine.store.image import ImageReader
from engine.store.info import ImageInfo, inspect_image
from engine.store.location import Location, Stat, delete_all
from engine.store.metadata import Channel, Level
from engine.store.objects import ABSENT_TAG
from engine.store.packing import pack_arrays, unpack_arrays
from engine.store.reach import check_exclusive_create, check_store
from engine.store.resolve import resolve_path
from engine.store.write import Target, open_target, remove_partial, write_box, write_file

__all__ = [
    "ABSENT",
    "ABSENT_TAG",
    "DTYPES",
    "MEAN",
    "MODE",
    "NEAREST",
    "ArraySpec",
    "Axis",
    "Channel",
    "Checker",
    "Downsampling",
    "ImageInfo",
    "ImageMetadata",
    "ImageReader",
    "Level",
    "Location",
    "Stat",
    "StoredObject",
    "Target",
    "check_exclusive_create",
    "check_store",
    "checksum",
    "create_array",
    "create_group",
    "delete_all",
    "display_range",
    "effective_shard",
    "free_bytes",
    "image_groups",
    "inspect_image",
    "is_damage",
    "is_fatal",
    "local_path",
    "make_axes",
    "micrometres",
    "open_array",
    "open_target",
    "pack_arrays",
    "pyramid_levels",
    "pyramid_shapes",
    "read_json",
    "read_plane",
    "remove_partial",
    "resolve_path",
    "shard_shape",
    "unpack_arrays",
    "update_group",
    "use_fast_codecs",
    "write_atomic",
    "write_box",
    "write_file",
    "write_image_metadata",
    "write_json",
    "write_label_metadata",
    "write_labels_group",
]
