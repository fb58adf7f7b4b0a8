"""Making the arrays of an OME-Zarr 0.5 image: sharded zarr v3, made once and never changed."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import zarr
from zarr.codecs import BloscCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from engine.errors import OutputError
from engine.store.arrays import DTYPES
from engine.store.axes import Axis, check_axes
from engine.store.failures import read_error
from engine.store.files import parse_json, read_first, read_optional, write_json
from engine.store.location import Location
from engine.store.metadata import Level

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Bit shuffling before zstd level 3: on 16-bit fluorescence written 3 times, read 1.7 times as fast
# as byte shuffling at the same size.
_CODEC = BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle")


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """Everything that decides how an array is stored.

    Parameters
    ----------
    shape : tuple of int
        Pixels on each axis; all at least 1.
    dtype : str
        One of `DTYPES`.
    chunk : tuple of int
        Rows and columns of the smallest part that is decoded by itself; 1 on the other axes.
    shard : tuple of int
        Rows and columns of one stored object, a whole number of chunks; 1 on the other axes.
    axes : tuple of Axis
        One per axis of the shape, y and x last.

    Raises
    ------
    OutputError
        If a field breaks its rule.
    InputError
        If the axes do.

    Examples
    --------
    >>> from engine.store.axes import make_axes
    >>> spec = ArraySpec((2, 3000, 4000), "uint16", (512, 512), (2048, 2048), make_axes("cyx"))
    >>> spec.shards
    (1, 2048, 2048)
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: tuple[int, int]
    shard: tuple[int, int]
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        check_axes(self.axes, where="axes of a new array")
        if len(self.shape) != len(self.axes) or min(self.shape) < 1:
            raise _refuse("shape", f"at least 1 on each of {len(self.axes)} axes", self.shape)
        if self.dtype not in DTYPES:
            raise _refuse("dtype", f"one of {', '.join(sorted(DTYPES))}", self.dtype)
        if min(self.chunk) < 1 or len(self.chunk) != 2:
            raise _refuse("chunk", "rows and columns, at least 1 each", self.chunk)
        if len(self.shard) != 2 or any(
            s < c or s % c for s, c in zip(self.shard, self.chunk, strict=True)
        ):
            raise _refuse("shard", f"whole numbers of chunks of {self.chunk}", self.shard)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Pixels of a chunk on every axis."""
        return (1,) * (len(self.shape) - 2) + self.chunk

    @property
    def shards(self) -> tuple[int, ...]:
        """Pixels of a shard on every axis, not larger than covers the array."""
        shard = effective_shard(self.shape[-2:], self.chunk, self.shard)
        return (1,) * (len(self.shape) - 2) + shard


def _refuse(field: str, expected: str, found: object) -> OutputError:
    """Say which setting of a new array is wrong."""
    return OutputError(
        where=f"{field} of a new array",
        expected=expected,
        found=str(found),
        remedy=f"Choose another {field}.",
    )


def effective_shard(
    shape_yx: Sequence[int], chunk: Sequence[int], shard: Sequence[int]
) -> tuple[int, int]:
    """Shard shrunk to the whole number of chunks that covers the array, where that is less.

    Parameters
    ----------
    shape_yx : sequence of int
        Rows and columns of the array.
    chunk, shard : sequence of int
        Rows and columns of a chunk and of the wanted shard.

    Returns
    -------
    tuple of int
        Rows and columns of the shard.

    Examples
    --------
    >>> effective_shard((600, 9000), (512, 512), (4096, 4096))
    (1024, 4096)
    """
    y, x = (min(s, math.ceil(n / c) * c) for n, c, s in zip(shape_yx, chunk, shard, strict=True))
    return y, x


def pyramid_shapes(extent_yx: Sequence[int], smallest: int) -> tuple[tuple[int, int], ...]:
    """Rows and columns of every level of a pyramid, each half of the one before, rounded up.

    Parameters
    ----------
    extent_yx : sequence of int
        Rows and columns of the largest level, which is the first returned.
    smallest : int
        The last level is the first whose sides are both at most this.

    Returns
    -------
    tuple of tuple of int
        From large to small; at least one level.

    Raises
    ------
    ValueError
        If `smallest` is below 1.

    Examples
    --------
    >>> pyramid_shapes((3000, 4001), 1024)
    ((3000, 4001), (1500, 2001), (750, 1001))
    """
    if smallest < 1:
        msg = f"smallest must be >= 1, got {smallest}"
        raise ValueError(msg)
    y, x = extent_yx
    shapes = [(y, x)]
    while max(shapes[-1]) > smallest:
        y, x = shapes[-1]
        shapes.append((math.ceil(y / 2), math.ceil(x / 2)))
    return tuple(shapes)


def pyramid_levels(first: Level, smallest: int) -> tuple[Level, ...]:
    """Levels of a pyramid that halves rows and columns and nothing else.

    Parameters
    ----------
    first : Level
        The largest one; its path ends in ``0``, those of the others in 1, 2, ….
    smallest : int
        As in `pyramid_shapes`.

    Returns
    -------
    tuple of Level
        Pixels of level k are 2^k as large, and the centre of the first one moves accordingly
        (the centre of a pixel is its place, OME-NGFF 0.5).

    Examples
    --------
    >>> levels = pyramid_levels(Level("0", (1024, 1024), (0.5, 0.5), (0.0, 0.0)), 512)
    >>> levels[1]
    Level(path='1', shape=(512, 512), scale=(1.0, 1.0), translation=(0.25, 0.25))
    """
    stem = first.path.removesuffix("0")
    levels = []
    for k, shape in enumerate(pyramid_shapes(first.shape[-2:], smallest)):
        scale = tuple(s * 2**k for s in first.scale[-2:])
        shift = tuple(
            t + s * (2**k - 1) / 2
            for t, s in zip(first.translation[-2:], first.scale[-2:], strict=True)
        )
        levels.append(
            Level(
                path=f"{stem}{k}",
                shape=(*first.shape[:-2], *shape),
                scale=(*first.scale[:-2], *scale),
                translation=(*first.translation[:-2], *shift),
            )
        )
    return tuple(levels)


def create_array(group_place: str | Path | Location, name: str, spec: ArraySpec) -> None:
    """Make an empty array (all zero), and the groups above it, unless it is there already.

    Parameters
    ----------
    group_place : str, Path or Location
        Folder of the group; made where it is missing.
    name : str
        Path of the array inside the group, such as ``"0"`` or ``"maps/votes/0"``.
    spec : ArraySpec
        How it is stored.

    Raises
    ------
    OutputError
        If another array, or something else, stands there.

    Notes
    -----
    Zarr v3 with the sharding codec, https://zarr-specs.readthedocs.io/en/latest/v3/.
    """
    document, group = _array_document(spec), Location.parse(group_place, OutputError)
    folder = (place := group / name).parent
    while folder != group:
        create_group(folder)
        folder = folder.parent
    create_group(group)
    try:
        data = read_optional(place / "zarr.json")
    except OSError as err:
        raise read_error(str(place), err, OutputError) from err
    if data is None:
        write_json(place / "zarr.json", document)
        return
    found = parse_json(data, str(place / "zarr.json"), OutputError)
    keys = (document.keys() | found.keys()) - {"attributes"}
    different = sorted(k for k in keys if document.get(k) != found.get(k))
    if different:
        raise OutputError(
            where=str(place),
            expected="no array, or one that is stored in the same way",
            found=f"one that differs in {', '.join(different)}",
            remedy="Choose another place for the result, or remove this one.",
        )


def create_group(place: str | Path | Location) -> None:
    """Make an empty zarr v3 group, unless one is there already.

    Parameters
    ----------
    place : str, Path or Location
        Its folder.

    Raises
    ------
    OutputError
        If an array, a zarr v2 store or a file stands there.
    """
    folder = Location.parse(place, OutputError)
    standing = read_first(folder, ("zarr.json", ".zgroup", ".zarray"), OutputError)
    if standing is not None:
        name, document = standing
        if name == "zarr.json" and document.get("node_type") == "group":
            return
        found = "an array" if name == "zarr.json" else "a zarr v2 store"
    elif folder.is_local and folder.is_file():
        found = "a file"
    else:
        write_json(folder / "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {}})
        return
    raise OutputError(
        where=str(folder),
        expected="nothing, or a zarr v3 group",
        found=found,
        remedy="Choose another place for the result, or remove this one.",
    )


def _array_document(spec: ArraySpec) -> dict[str, Any]:
    """Metadata document that zarr itself writes for such an array."""
    array = zarr.create_array(
        MemoryStore(),
        shape=spec.shape,
        dtype=spec.dtype,
        chunks=spec.chunks,
        shards=spec.shards,
        compressors=_CODEC,
        fill_value=0,
        dimension_names=[axis.name for axis in spec.axes],
    )
    made = array.metadata.to_buffer_dict(default_buffer_prototype())["zarr.json"]
    return dict(json.loads(made.to_bytes()))
