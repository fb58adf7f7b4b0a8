"""Pixels of any box of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InputError
from engine.store.arrays import open_array
from engine.store.failures import read_error
from engine.store.info import inspect_image, plane_shape
from engine.store.location import Location
from engine.store.objects import spread, tags_of, touched

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tiling.box import Box


class ImageReader:
    """Pixels of one level of an image; opened once in each process, used by all its threads.

    Parameters
    ----------
    place : str, Path or Location
        As for `resolve_path`.
    level : int
        Which of the image's levels; 0 is the largest.

    Attributes
    ----------
    info : ImageInfo
        What the metadata say.
    level : int
        The level that is read.

    Raises
    ------
    InputError
        As `inspect_image`, and if there is no such level.
    """

    def __init__(self, place: str | Path | Location, level: int = 0) -> None:
        self.info = inspect_image(place)
        self.level = level
        if not 0 <= level < len(self.info.levels):
            raise InputError(
                where=f"{self.info.path}, level",
                expected=f"0 to {len(self.info.levels) - 1}",
                found=str(level),
                remedy="Choose one of the levels that the image has.",
            )
        self._image = Location.parse(self.info.path)
        self._array = open_array(self._image / self.info.levels[level].path)

    @property
    def extent(self) -> tuple[int, int]:
        """Rows and columns of this level."""
        y, x = self._array.shape[-2:]
        return y, x

    @property
    def plane_shape(self) -> tuple[int, ...]:
        """Planes of this level along each of ``info.plane_axes``."""
        return plane_shape(self.info.axes, self._array.shape)

    def read(
        self, plane: Sequence[int], channels: Sequence[int], box: Box
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Read some channels of a box of one plane.

        Parameters
        ----------
        plane : sequence of int
            One index for each of ``info.plane_axes``.
        channels : sequence of int
            Indices on the c axis, in the order wanted; ``(0,)`` where there is no such axis.
        box : Box
            Rows and columns, inside `extent`.

        Returns
        -------
        (C, Y, X) ndarray
            In the image's dtype, native byte order, C-contiguous.

        Raises
        ------
        InputError
            If an index or the box lies outside the image, or stored bytes are damaged.
        """
        self._check(plane, channels, box)
        dtype = self._array.dtype.newbyteorder("=")
        if box.empty or not channels:
            return np.empty((len(channels), *box.shape), dtype)
        first, last = channels[0], channels[0] + len(channels)
        try:
            if tuple(channels) == tuple(range(first, last)):
                pixels = self._cut(plane, slice(first, last), box)
            else:
                parts = [self._cut(plane, slice(c, c + 1), box) for c in channels]
                pixels = np.concatenate(parts)
        except OSError as err:
            raise read_error(self._where(plane, box), err) from err
        except (RuntimeError, ValueError) as err:
            raise InputError(
                where=self._where(plane, box),
                expected="stored bytes that decode to pixels",
                found=f"{type(err).__name__}: {err}",
                remedy="Copy this part of the image again from its source, with its time of change "
                "(cp -p, rsync -t), so that a run still knows the image.",
            ) from err
        return np.ascontiguousarray(pixels, dtype)

    def sources(
        self, plane: Sequence[int], channels: Sequence[int], box: Box
    ) -> tuple[tuple[str, str], ...]:
        """Name the stored objects that a box is read from, and what tells whether they changed.

        Parameters
        ----------
        plane, channels, box
            As for `read`.

        Returns
        -------
        tuple of (str, str)
            Name below the image, and tag: size and time of change, or etag; ``absent`` where the
            object is not stored.

        Raises
        ------
        InputError
            If an index or the box lies outside the image, or the store does not answer.
        """
        self._check(plane, channels, box)
        indices = iter(plane)
        leading: list[Sequence[int]] = [
            channels if axis.name == "c" else (next(indices),) for axis in self.info.axes[:-2]
        ]
        rows, columns = (range(a, b) for a, b in zip(box.start, box.stop, strict=True))
        return self._tags(touched(self._array, [*leading, rows, columns]))

    def probe(self, most: int = 32) -> tuple[tuple[str, str], ...]:
        """Look at objects that lie spread over the level, those in its corners first.

        Parameters
        ----------
        most : int
            Objects to look at.

        Returns
        -------
        tuple of (str, str)
            As of `sources`.

        Raises
        ------
        InputError
            If the store does not answer.
        """
        return self._tags(spread(self._array, most))

    def _where(self, plane: Sequence[int], box: Box) -> str:
        """Say what errors name."""
        level = self._image / self.info.levels[self.level].path
        return f"{level}, plane {tuple(plane)}, box {box}"

    def _tags(self, keys: Sequence[str]) -> tuple[tuple[str, str], ...]:
        """Names below the image, and tags, of some objects of the level."""
        names = [f"{self.info.levels[self.level].path}/{key}" for key in keys]
        try:
            return tuple(zip(names, tags_of(self._image, names), strict=True))
        except OSError as err:
            raise read_error(self.info.path, err) from err

    def _cut(
        self, plane: Sequence[int], channels: slice, box: Box
    ) -> np.ndarray[Any, np.dtype[Any]]:
        """Decode consecutive channels of a box; (C, Y, X)."""
        indices = iter(plane)
        # Slices of length 1, not indices: the Rust codecs then need no guess at dropped axes.
        leading = tuple(
            channels if axis.name == "c" else slice(i := next(indices), i + 1)
            for axis in self.info.axes[:-2]
        )
        pixels = np.asarray(self._array[leading + box.slices()])
        return pixels.reshape(-1, *box.shape)

    def _check(self, plane: Sequence[int], channels: Sequence[int], box: Box) -> None:
        """Refuse indices and boxes outside the level."""
        planes, (rows, columns) = self.plane_shape, self.extent
        good = len(plane) == len(planes) and len(box.start) == 2
        good = good and all(0 <= i < n for i, n in zip(plane, planes, strict=True))
        good = good and all(0 <= c < self.info.n_channels for c in channels)
        good = good and min(box.start) >= 0 and box.stop[0] <= rows and box.stop[1] <= columns
        if not good:
            raise InputError(
                where=f"{self.info.path}, level {self.level}",
                expected=(
                    f"planes below {planes}, channels below {self.info.n_channels}, "
                    f"a box inside {(rows, columns)}"
                ),
                found=f"plane {tuple(plane)}, channels {tuple(channels)}, box {box}",
                remedy="Choose what the image has.",
            )
