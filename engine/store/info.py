"""What is known of an image before a pixel of it is read."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from engine.store.arrays import open_array
from engine.store.axes import micrometres
from engine.store.metadata import PROPERTIES_KEY, Channel, Level, parse_multiscale
from engine.store.resolve import read_group, read_group_if_any, resolve_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import zarr

    from engine.store.axes import Axis
    from engine.store.location import Location
    from engine.store.metadata import Dataset
    from engine.store.resolve import Group


# Beyond these the metadata are damaged: each channel is described, pixels are counted in int64.
_MOST_CHANNELS = 2**16
_MOST_PIXELS = 2**40


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What is known of an image before a pixel is read.

    Parameters
    ----------
    path : str
        Folder of its group: an absolute path, or a URL.
    version : str
        ``"0.4"`` or ``"0.5"``.
    name : str
        From the metadata, else the folder's.
    axes : tuple of Axis
        In the order of the arrays; y and x last.
    levels : tuple of Level
        Largest first.
    dtype : str
        NumPy's name of the pixels' type, native byte order.
    chunks : tuple of int
        Pixels on each axis that are decoded together.
    shards : tuple of int or None
        Pixels on each axis of one stored object, where that holds several chunks.
    channels : tuple of Channel
        One for every index on the c axis, one where there is no such axis.
    is_label : bool
        Whether pixels are ids of objects.
    properties : mapping
        What the source said about the image (`PROPERTIES_KEY`), as JSON; empty if unknown.
    """

    path: str
    version: str
    name: str
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    dtype: str
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    channels: tuple[Channel, ...]
    is_label: bool
    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def plane_axes(self) -> tuple[str, ...]:
        """Names of the axes that count planes: all but c, y and x, in the arrays' order."""
        return tuple(axis.name for axis in self.axes[:-2] if axis.name != "c")

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Planes along each of `plane_axes`; empty for a single plane."""
        return plane_shape(self.axes, self.levels[0].shape)

    @property
    def n_planes(self) -> int:
        """Planes in all."""
        return math.prod(self.plane_shape)

    @property
    def n_channels(self) -> int:
        """Length of the c axis, 1 where there is none."""
        return len(self.channels)

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of level 0."""
        y, x = self.levels[0].shape[-2:]
        return y, x

    @property
    def channel_names(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(channel.name for channel in self.channels)

    @property
    def channel_colors(self) -> tuple[str | None, ...]:
        """Colours of the channels, RRGGBB; None where unknown."""
        return tuple(channel.color for channel in self.channels)

    @property
    def pixel_size_um(self) -> tuple[float, float] | None:
        """Height and width of a pixel of level 0; None where unit or size are not known."""
        sizes = [
            micrometres(size, axis.unit)
            for size, axis in zip(self.levels[0].scale[-2:], self.axes[-2:], strict=True)
        ]
        y, x = sizes
        return None if y is None or x is None or min(y, x) <= 0 else (y, x)


def plane_shape(axes: Sequence[Axis], shape: Sequence[int]) -> tuple[int, ...]:
    """Planes along each axis that is neither c nor y nor x.

    Parameters
    ----------
    axes : sequence of Axis
        Axes of an image.
    shape : sequence of int
        Pixels of one of its levels along them.

    Returns
    -------
    tuple of int
        Empty for a single plane.
    """
    return tuple(n for n, axis in zip(shape, axes, strict=True) if axis.name not in "cyx")


def inspect_image(place: str | Path | Location) -> ImageInfo:
    """Read the metadata of an image, of OME-Zarr 0.4 or 0.5, and check them; no pixel is read.

    Parameters
    ----------
    place : str, Path or Location
        As for `resolve_path`.

    Returns
    -------
    ImageInfo
        What was found.

    Raises
    ------
    InputError
        If there is no such image, its metadata break the specification, a level is missing or
        empty, or the pixels are of a type that is not taken.
    """
    folder = resolve_path(place)
    group = read_group(folder)
    document = parse_multiscale(group.ome, group.zarr_format, where=str(folder))
    arrays = [open_array(folder / dataset.path) for dataset in document.datasets]
    for array, dataset in zip(arrays, document.datasets, strict=True):
        _check_level(folder, array, dataset, document.axes, arrays[0].dtype)
    counts = [n for n, axis in zip(arrays[0].shape, document.axes, strict=True) if axis.name == "c"]
    own = group.attributes.get(PROPERTIES_KEY)
    return ImageInfo(
        path=str(folder),
        version=document.version,
        name=document.name or folder.name.removesuffix(".zarr").removesuffix(".ome"),
        axes=document.axes,
        levels=tuple(
            Level(dataset.path, tuple(array.shape), dataset.scale, dataset.translation)
            for array, dataset in zip(arrays, document.datasets, strict=True)
        ),
        dtype=arrays[0].dtype.name,
        chunks=tuple(arrays[0].chunks),
        shards=None if arrays[0].shards is None else tuple(arrays[0].shards),
        channels=_complete(document.channels, counts[0] if counts else 1),
        is_label=document.is_label or _listed_as_label(group),
        properties=own if isinstance(own, dict) else {},
    )


def _check_level(
    folder: Location,
    array: zarr.Array[Any],
    dataset: Dataset,
    axes: tuple[Axis, ...],
    dtype: np.dtype[Any],
) -> None:
    """Refuse a level whose array does not fit the metadata."""
    names = "".join(axis.name for axis in axes)
    sizes = zip(names, array.shape, strict=False)
    if array.ndim != len(axes):
        expected, found = f"an array with {len(axes)} axes ({names})", f"shape {array.shape}"
    elif any(n > (_MOST_CHANNELS if name == "c" else _MOST_PIXELS) for name, n in sizes):
        expected = f"at most {_MOST_CHANNELS} channels and {_MOST_PIXELS} pixels along an axis"
        found = f"shape {array.shape} for {names}"
    elif not all(1 <= n <= _MOST_PIXELS for n in (*array.chunks, *(array.shards or ()))):
        expected, found = "chunks of at least one pixel", f"{array.chunks} in {array.shards}"
    elif 0 in array.shape:
        expected, found = "at least one pixel on every axis", f"shape {array.shape} for {names}"
    elif array.dtype != dtype:
        expected, found = f"{dtype.name}, as level 0 has", array.dtype.name
    else:
        return
    raise InputError(
        where=str(folder / dataset.path),
        expected=expected,
        found=found,
        remedy="Correct the image's metadata, or write the image again from its source.",
    )


def _complete(named: tuple[Channel, ...], count: int) -> tuple[Channel, ...]:
    """One channel per index: those that the metadata name, then numbered ones."""
    return named[:count] + tuple(Channel(f"channel {k}") for k in range(len(named), count))


def _listed_as_label(group: Group) -> bool:
    """Whether the group above lists this one as a label image, which some writers only do."""
    above = group.path.parent
    if above.name != "labels":
        return False
    listing = read_group_if_any(above)
    names = listing.ome.get("labels") if listing is not None else None
    return isinstance(names, list) and group.path.name in names
