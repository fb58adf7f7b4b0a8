"""A source whose axes the user names, where its file names none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.store.sources.base import AXES, FileStamp, Source, SourceInfo
from engine.store.sources.checks import check_request
from tiling.box import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Planes of fewer pixels on a side, in a file that names no axes, are none: channels, most often.
NARROWEST_PLANE = 16


class AxedSource(Source):
    """A source with its axes named otherwise; the pixels are those of the array in the file.

    Parameters
    ----------
    source : Source
        As it reads without the user's word; closed with this one.
    axes : str
        One letter for each of ``source.info.stored``, in that order.
    """

    def __init__(self, source: Source, axes: str) -> None:
        self._source = source
        stored = source.info.stored
        self._inner = dict(zip(axes, stored, strict=True))
        self._outer = dict(zip(stored, axes, strict=True))
        self.info = _renamed(source.info, self._inner, tuple(axes))

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box of one plane; see `Source.read`.

        Parameters
        ----------
        plane : mapping of str to int
            One index for each of ``info.plane_axes``.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (C, Y, X)
            Native byte order.

        Raises
        ------
        InputError
            If the file cannot be decoded here.
        """
        check_request(self.info, plane, box)
        spans = {axis: range(k, k + 1) for axis, k in plane.items()}
        spans |= {axis: range(a, b) for axis, a, b in zip("yx", box.start, box.stop, strict=True)}
        spans["c"] = range(self.info.channels)
        pixels = self._cut({self._inner[a]: span for a, span in spans.items() if a in self._inner})
        leading = self._source.info.plane_axes
        names = [self._outer.get(axis, "") for axis in (*leading, "c", "y", "x")]
        # What is left of axes of planes has length one, and goes to the front.
        order = sorted(range(len(names)), key=lambda i: ("", "t", "z", *"cyx").index(names[i]))
        return np.ascontiguousarray(pixels.transpose(order)).reshape(-1, *box.shape)

    def _cut(self, spans: Mapping[str, range]) -> NDArray[np.generic]:
        """Read spans of the axes of the array: its axes of planes, then (C, Y, X)."""
        info = self._source.info
        planes = [spans[axis] for axis in info.plane_axes]
        rows, columns = spans["y"], spans["x"]
        part = Box((rows.start, columns.start), (rows.stop, columns.stop))
        channels = spans.get("c", range(1))
        shape = (*map(len, planes), len(channels), *part.shape)
        found = np.empty(shape, info.dtype)
        for at in np.ndindex(shape[:-3]):
            index = {a: s[k] for a, s, k in zip(info.plane_axes, planes, at, strict=True)}
            found[at] = self._source.read(index, part)[channels.start : channels.stop]
        return found

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """Stamps of the files."""
        return self._source.fingerprint()

    def close(self) -> None:
        """Close the files."""
        self._source.close()


def as_named(where: str, source: Source, axes: str) -> Source:
    """Name the axes of a source as the user does.

    Parameters
    ----------
    where : str
        Path of the file, for messages.
    source : Source
        As it reads without the user's word.
    axes : str
        As `engine.store.sources.address.with_axes` takes them.

    Returns
    -------
    Source
        `source` itself where it has these axes already.

    Raises
    ------
    InputError
        If the file itself names other axes, or has more axes or fewer.
    """
    info = source.info
    long = [a for a in info.stored if a in "yx" or info.size(a) > 1]
    if axes in {"".join(info.stored), "".join(long)}:
        return source
    if info.named_by:
        raise InputError(
            where=where,
            expected=f"the axes {''.join(info.stored or info.axes)}, which {info.named_by} names",
            found=f"--axes {axes}",
            remedy="Leave --axes out; where the file is wrong, export it with the right axes.",
        )
    if len(axes) != len(info.stored):
        raise InputError(
            where=where,
            expected=f"{len(info.stored)} letters for the {_lengths(info)} that the file holds "
            "(axes of length one have none)",
            found=f"--axes {axes}",
            remedy="Name each of these axes, in this order.",
        )
    return AxedSource(source, axes)


def check_planes(where: str, info: SourceInfo) -> None:
    """Refuse planes that are most likely none, where nothing but their place names the axes.

    Parameters
    ----------
    where : str
        Path of the file.
    info : SourceInfo
        Facts of the source.

    Raises
    ------
    InputError
        If there are several planes, and one of their sides is shorter than `NARROWEST_PLANE`.
    """
    planes = prod(info.size(axis) for axis in info.plane_axes)
    height, width = info.shape[-2:]
    if info.named_by or planes == 1 or min(height, width) >= NARROWEST_PLANE:
        return
    raise InputError(
        where=where,
        expected=f"planes of at least {NARROWEST_PLANE} pixels on each side, where the file names "
        "no axes",
        found=f"{planes} planes of {height} x {width} pixels (y, x)",
        remedy=f"{_channels_instead(info)}If it is right as it is: --axes {''.join(info.stored)}.",
    )


def _channels_instead(info: SourceInfo) -> str:
    """Say which axes the array has, if the narrow side of its planes is that of channels."""
    if "c" in info.axes:
        return ""
    narrow = "x" if info.size("x") <= info.size("y") else "y"
    others = iter("tzyx"[1 - len(info.stored) :])
    letters = "".join("c" if axis == narrow else next(others) for axis in info.stored)
    place = "last dimension" if info.stored[-1] == narrow else f"dimension of {info.size(narrow)}"
    return f"If the {place} holds channels: --axes {letters}. "


def _renamed(info: SourceInfo, inner: Mapping[str, str], stored: tuple[str, ...]) -> SourceInfo:
    """Facts under other names; what was said of an axis holds while it keeps its name."""
    axes = tuple(axis for axis in AXES if axis in inner)
    sizes = {axis: (info.scale[k], info.units[k]) for k, axis in enumerate(info.axes)}
    kept = {axis: sizes[axis] if inner[axis] == axis else (1.0, None) for axis in axes}
    blocks = dict(zip("yx", info.preferred_block, strict=True))
    shape = {axis: info.size(inner[axis]) for axis in axes}
    plain = tuple(f"channel {k}" for k in range(shape.get("c", 0)))
    same = inner.get("c") == "c"
    return replace(
        info,
        axes=axes,
        shape=tuple(shape.values()),
        scale=tuple(size for size, _ in kept.values()),
        units=tuple(unit for _, unit in kept.values()),
        channel_names=info.channel_names if same else plain,
        channel_colors=info.channel_colors if same else (),
        preferred_block=(blocks.get(inner["y"], 1), blocks.get(inner["x"], 1)),
        stored=stored,
        named_by="--axes",
    )


def _lengths(info: SourceInfo) -> str:
    return " x ".join(str(info.size(axis)) for axis in info.stored)
