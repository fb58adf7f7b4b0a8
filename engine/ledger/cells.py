"""From the regions of many lines to cells of a grid, without an object for each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tiling import Grid

#: Cells that are listed at once, which bounds memory.
_AT_ONCE = 2**18


class Places:
    """Where the regions of some lines lie in a grid.

    Parameters
    ----------
    grid : Grid
        Grid of the pass.
    lines : sequence of mapping
        Fields of the lines.

    Raises
    ------
    KeyError, TypeError, ValueError
        If a line has no region, or one that is no union of cells.

    Examples
    --------
    >>> from tiling import Grid
    >>> grid = Grid((), (100, 100), (64, 64))
    >>> places = Places(grid, [{"plane": [], "box": [0, 64, 100, 100]}])
    >>> [(rows.tolist(), cells.tolist()) for rows, cells in places.cells()]
    [([0], [[1, 3]])]
    """

    def __init__(self, grid: Grid, lines: Sequence[dict[str, Any]]) -> None:
        n, planes = len(lines), len(grid.planes)
        box = np.array([line["box"] for line in lines], np.int64).reshape(n, 4)
        plane = np.array([line["plane"] for line in lines], np.int64).reshape(n, planes)
        cell, extent = np.array(grid.cell), np.array(grid.extent)
        start, stop = box[:, :2], box[:, 2:]
        inside = (start >= 0) & (start < stop) & (stop <= extent)
        aligned = (start % cell == 0) & ((stop % cell == 0) | (stop == extent))
        known = (plane >= 0) & (plane < np.array(grid.planes, np.int64))
        if not (inside.all() and aligned.all() and known.all()):
            msg = "a region that does not fit the image"
            raise ValueError(msg)
        first = start // cell
        self._size = -(-stop // cell) - first
        self._first = np.zeros(n, np.int64)
        for index, length in zip((*plane.T, *first.T), grid.shape, strict=True):
            self._first = self._first * length + index
        self._columns = grid.shape[-1]

    def cells(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Go through the lines in groups of regions of one size.

        Yields
        ------
        rows : ndarray of shape (k,), int64
            Which lines.
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
