"""From the regions of many lines to cells of a grid, without an object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiling import Grid

#: Cells that are listed at once, which bounds memory.
_AT_ONCE = 2**18


class Places:
    """Where some regions lie in a grid.

    Parameters
    ----------
    grid : Grid
        Grid of the pass.
    planes : ndarray of shape (n, P), int64
        Plane of each region.
    boxes : ndarray of shape (n, 4), int64
        Its core: y0, x0, y1, x1.

    Raises
    ------
    ValueError
        If a region is no union of cells.

    Examples
    --------
    >>> from tiling import Grid
    >>> grid = Grid((), (100, 100), (64, 64))
    >>> places = Places(grid, np.zeros((1, 0), int), np.array([[0, 64, 100, 100]]))
    >>> [(rows.tolist(), cells.tolist()) for rows, cells in places.cells()]
    [([0], [[1, 3]])]
    """

    def __init__(self, grid: Grid, planes: np.ndarray, boxes: np.ndarray) -> None:
        if planes.shape[1] != len(grid.planes):
            msg = f"{planes.shape[1]} planes where the image has {len(grid.planes)}"
            raise ValueError(msg)
        cell, extent = np.array(grid.cell), np.array(grid.extent)
        start, stop = boxes[:, :2], boxes[:, 2:]
        inside = (start >= 0) & (start < stop) & (stop <= extent)
        aligned = (start % cell == 0) & ((stop % cell == 0) | (stop == extent))
        known = (planes >= 0) & (planes < np.array(grid.planes, np.int64))
        if not (inside.all() and aligned.all() and known.all()):
            msg = "a region that does not fit the image"
            raise ValueError(msg)
        first = start // cell
        self._size = -(-stop // cell) - first
        self._first = np.zeros(len(boxes), np.int64)
        for index, length in zip((*planes.T, *first.T), grid.shape, strict=True):
            self._first = self._first * length + index
        self._columns = grid.shape[-1]

    def cells(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Go through the regions in groups of one size.

        Yields
        ------
        rows : ndarray of shape (k,), int64
            Which regions.
        cells : ndarray of shape (k, m), int64
            Places, in C order of the grid, of the cells of each.
        """
        if not len(self._first):
            return
        for size in np.unique(self._size, axis=0):
            rows = np.flatnonzero((self._size == size).all(axis=1))
            down, across = (np.arange(int(n)) for n in size)
            offsets = (down[:, None] * self._columns + across).ravel()
            step = max(1, _AT_ONCE // len(offsets))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                yield some, self._first[some, None] + offsets
