"""Reading and writing of OME-Zarr, and the foreign formats that are ingested."""

from engine.store.arrays import DTYPES, open_array, shard_shape, use_fast_codecs
from engine.store.axes import Axis, make_axes, micrometres
from engine.store.create import (
    ArraySpec,
    create_array,
    create_group,
    effective_shard,
    pyramid_levels,
    pyramid_shapes,
)
from engine.store.files import free_bytes, local_path, read_json, write_atomic, write_json
from engine.store.groups import (
    MEAN,
    MODE,
    NEAREST,
    Downsampling,
    ImageMetadata,
    display_range,
    update_group,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)
from engine.store.image import ImageReader
from engine.store.info import ImageInfo, inspect_image
from engine.store.metadata import Channel, Level
from engine.store.resolve import resolve_path
from engine.store.write import array_folder, remove_partial, write_box

__all__ = [
    "DTYPES",
    "MEAN",
    "MODE",
    "NEAREST",
    "ArraySpec",
    "Axis",
    "Channel",
    "Downsampling",
    "ImageInfo",
    "ImageMetadata",
    "ImageReader",
    "Level",
    "array_folder",
    "create_array",
    "create_group",
    "display_range",
    "effective_shard",
    "free_bytes",
    "inspect_image",
    "local_path",
    "make_axes",
    "micrometres",
    "open_array",
    "pyramid_levels",
    "pyramid_shapes",
    "read_json",
    "remove_partial",
    "resolve_path",
    "shard_shape",
    "update_group",
    "use_fast_codecs",
    "write_atomic",
    "write_box",
    "write_image_metadata",
    "write_json",
    "write_label_metadata",
    "write_labels_group",
]
