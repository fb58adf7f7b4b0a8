"""Outlines of the objects of a label image, read in windows: large objects block by block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InputError
from engine.methods.rings import Corners, find_corners, ring_area, trace
from engine.store import ImageReader, use_fast_codecs
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from engine.methods.rings import Polygon
    from engine.store import Location

#: Side of the blocks that are read; larger objects are read on their own, in several.
BLOCK = 1024


class Shapes:
    """Outlines of objects.

    Parameters
    ----------
    place : Location
        The label image.
    area : Box
        Part of each plane that the run made. Star-convex objects that begin in it are whole in
        their table; of those that reach beyond, the labels show only the pixels inside.

    Raises
    ------
    InputError
        If it is not there.
    """

    def __init__(self, place: Location, area: Box) -> None:
        use_fast_codecs()
        self._area = area
        self._reader = ImageReader(place)

    def of(self, rows: pa.Table) -> Iterator[tuple[dict[str, Any], list[Polygon]]]:
        """Outlines of the objects of a part of a table.

        Parameters
        ----------
        rows : pyarrow.Table
            Objects of one plane, with ids, boxes and areas; the box of an object may lie anywhere.

        Yields
        ------
        row : dict
            Values of an object by column: near ones come one after the other.
        polygons : list of Polygon
            Outlines of its pixels, along their edges; of one that shows none inside the area, its
            box.

        Raises
        ------
        InputError
            If the label image cannot be read, or does not show what the table says.
        """
        if rows.num_rows == 0:
            return
        planes = [rows[name][0].as_py() for name in self._reader.info.plane_axes]
        boxes = np.stack([rows[name].to_numpy() for name in ("y0", "x0", "y1", "x1")], axis=1)
        for chosen in _groups(boxes):
            low, high = boxes[chosen, :2].min(axis=0), boxes[chosen, 2:].max(axis=0)
            around = Box(tuple(low.tolist()), tuple(high.tolist()))
            some = rows.take(chosen)
            polygons = trace(self._corners(tuple(planes), around, some["id"].to_numpy()))
            for row in some.to_pylist():
                yield row, self._checked(row, polygons.get(row["id"], []))

    def _corners(self, plane: tuple[int, ...], around: Box, ids: np.ndarray) -> Corners:
        """Corners of objects that lie in a box: none of them is open at its sides."""
        lattice = Box(around.start, (around.stop[0] + 1, around.stop[1] + 1))
        found = []
        for block in lattice.split((BLOCK, BLOCK) if len(ids) == 1 else lattice.shape):
            origin = (block.start[0] - 1, block.start[1] - 1)
            outer = Box(origin, block.stop)
            inner = outer.clip(around).clip(self._area)
            pixels = np.zeros(outer.shape, self._reader.info.dtype)
            pixels[inner.slices(origin)] = self._reader.read(plane, (0,), inner)[0]
            found.append(find_corners(pixels, origin).among(ids))
        return Corners.concatenate(found)

    def _checked(self, row: dict[str, Any], polygons: list[Polygon]) -> list[Polygon]:
        """Outlines of an object, where they are what its table says."""
        shown = sum(ring_area(ring) for polygon in polygons for ring in polygon)
        low, high = (row["y0"], row["x0"]), (row["y1"], row["x1"])
        if shown != row["area"] and self._area.contains(Box(low, high)):
            raise InputError(
                where=f"'{self._reader.info.path}', object {row['id']}",
                expected=f"{row['area']} pixels, as its table says",
                found=f"{shown:.0f}",
                remedy="`tilewright verify OUT --repair`, then give the run again.",
            )
        corners = [low, (low[0], high[1]), high, (high[0], low[1])]
        return polygons or [[np.array(corners, np.int64)]]


def _groups(boxes: np.ndarray) -> Iterator[np.ndarray]:
    """List the boxes that are looked at together: small ones by block, large ones alone."""
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) > BLOCK
    small = np.flatnonzero(~large)
    blocks, which = np.unique(boxes[small, :2] // BLOCK, axis=0, return_inverse=True)
    order = np.argsort(which.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(which.ravel(), minlength=len(blocks)))
    yield from np.split(small[order], ends[:-1]) if len(small) else ()
    for k in np.flatnonzero(large):
        yield np.array([k])
