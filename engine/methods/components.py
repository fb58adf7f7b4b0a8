"""Connected components of a class map, cell by cell, and their union over the seams of the cells.

::

    cell A │ cell B          each cell numbers its own parts; two parts are one object
      2 2  │  1 1            where pixels on both sides of a seam are neighbours
      2 2  │  1 .

What a cell keeps of a part are sums of whole numbers, so those of an object do not depend on the
order in which its parts are added; its anchor is its first pixel in raster order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Literal

    Connectivity = Literal[4, 8]


@dataclass(frozen=True)
class Parts:
    """Parts of objects inside one cell.

    Parameters
    ----------
    first : ndarray of shape (n, 2), int64
        (y, x) of the first pixel in raster order, in pixels of the plane.
    area : ndarray of shape (n,), int64
        Pixels.
    sums : ndarray of shape (n, 2), int64
        Sums of y and of x.
    boxes : ndarray of shape (n, 4), int64
        y0, x0, y1, x1, half-open.
    classes : ndarray of shape (n, C), int64
        Pixels of each class.
    entropy : ndarray of shape (n,), int64
        Sum of the stored entropy, 255 for 1.
    """

    first: np.ndarray
    area: np.ndarray
    sums: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    entropy: np.ndarray

    def __len__(self) -> int:
        return len(self.area)

    def take(self, index: np.ndarray) -> Parts:
        """Take some of the parts."""
        return Parts(**{f.name: getattr(self, f.name)[index] for f in fields(self)})

    @classmethod
    def concatenate(cls, parts: list[Parts]) -> Parts:
        """Put parts behind each other; at least one group of them."""
        names = [f.name for f in fields(cls)]
        return cls(**{n: np.concatenate([getattr(p, n) for p in parts]) for n in names})

    def united(self, group: np.ndarray, count: int) -> Parts:
        """Objects made of parts: those with the same number in `group`, each below `count`."""
        order = np.lexsort((self.first[:, 1], self.first[:, 0], group))
        heads = order[np.searchsorted(group[order], np.arange(count))]

        def added(values: np.ndarray) -> np.ndarray:
            total = np.zeros((count, *values.shape[1:]), np.int64)
            np.add.at(total, group, values)
            return total

        low = np.full((count, 2), np.iinfo(np.int64).max)
        high = np.zeros((count, 2), np.int64)
        np.minimum.at(low, group, self.boxes[:, :2])
        np.maximum.at(high, group, self.boxes[:, 2:])
        return Parts(
            self.first[heads],
            added(self.area),
            added(self.sums),
            np.concatenate([low, high], axis=1),
            added(self.classes),
            added(self.entropy),
        )


@dataclass(frozen=True)
class Edges:
    """Parts along the four sides of a cell: 0 for none, else one more than their index.

    Parameters
    ----------
    top, bottom : ndarray of shape (x,), int32
        First and last row.
    left, right : ndarray of shape (y,), int32
        First and last column.
    """

    top: np.ndarray
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray

    def touching(self) -> np.ndarray:
        """Find the parts that touch a side: their indices, ascending, (n,) int64."""
        found = np.unique(np.concatenate([self.top, self.bottom, self.left, self.right]))
        return found[found > 0].astype(np.int64) - 1


def number_parts(mask: np.ndarray, connectivity: Connectivity) -> np.ndarray:
    """Give each connected component of a mask a number: (y, x) int32, 0 outside.

    Parameters
    ----------
    mask : ndarray of shape (y, x), bool
        Pixels of objects.
    connectivity : {4, 8}
        Neighbours of a pixel.
    """
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    found: np.ndarray = ndimage.label(mask, structure, output=np.int32)[0]
    return found


def measure_parts(
    numbers: np.ndarray, classes: np.ndarray, entropy: np.ndarray, start: tuple[int, int], n: int
) -> Parts:
    """Measure the parts of a cell.

    Parameters
    ----------
    numbers : ndarray of shape (y, x), int32
        From `number_parts`.
    classes, entropy : ndarray of shape (y, x), uint8
        Class and stored entropy of each pixel.
    start : tuple of int
        (y, x) of the cell's first pixel in the plane.
    n : int
        Classes.
    """
    count = int(numbers.max(initial=0))
    y, x = np.nonzero(numbers)
    index = numbers[y, x] - 1
    first = np.empty((count, 2), np.int64)
    # Backwards, so that the first pixel is written last.
    first[index[::-1]] = np.stack([y[::-1], x[::-1]], axis=1)
    y, x = y + start[0], x + start[1]
    # Sums of whole numbers below 2^53 are exact in float64.
    sums = np.stack([np.bincount(index, w, count) for w in (y, x)], axis=1)
    kinds = np.bincount(index * n + classes[numbers > 0], minlength=count * n)
    found = ndimage.find_objects(numbers)
    boxes = [[a.start, b.start, a.stop, b.stop] for a, b in found]
    return Parts(
        first + start,
        np.bincount(index, minlength=count),
        sums.astype(np.int64),
        np.array(boxes, np.int64).reshape(-1, 4) + np.array((*start, *start)),
        kinds.reshape(count, n),
        np.bincount(index, entropy[numbers > 0], count).astype(np.int64),
    )


def cell_edges(numbers: np.ndarray) -> Edges:
    """Read the parts along the four sides of a cell."""
    return Edges(*(np.array(s) for s in (numbers[0], numbers[-1], numbers[:, 0], numbers[:, -1])))


def join_over_seams(
    rows: Iterable[tuple[int, Mapping[int, Edges]]], connectivity: Connectivity
) -> tuple[np.ndarray, np.ndarray]:
    """Find which parts of different cells belong to one object.

    Parameters
    ----------
    rows : iterable of (int, mapping of int to Edges)
        Row of cells and its cells by column, rows ascending; two rows are held at once. Cells
        that are missing join nothing.
    connectivity : {4, 8}
        Neighbours of a pixel.

    Returns
    -------
    parts : ndarray of shape (n, 3), int64
        Row and column of the cell, and index, of every part that touches a side of its cell, in
        C order.
    group : ndarray of shape (n,), int64
        Number of its object, from 0; the same for parts that are joined.
    """
    found: list[np.ndarray] = [np.zeros((0, 3), np.int64)]
    links: list[np.ndarray] = [np.zeros((0, 2), np.int64)]
    above, total = _Row(-2, {}, 0), 0
    for number, edges in rows:
        row = _Row(number, edges, total)
        total = row.stop
        found += [row.parts(column) for column in sorted(edges)]
        links += row.beside(connectivity)
        if above.number == number - 1:
            links += above.below(row, connectivity)
        above = row
    pairs = np.concatenate(links)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (total, total))
    _, group = connected_components(graph, directed=False) if total else (0, np.zeros(0))
    return np.concatenate(found), np.asarray(group, np.int64)


class _Row:
    """A row of cells, whose parts that touch a side are numbered on from `start`."""

    def __init__(self, number: int, edges: Mapping[int, Edges], start: int) -> None:
        self.number = number
        self._edges = edges
        self._touching = {column: edges[column].touching() for column in sorted(edges)}
        self._start = {}
        for column, touching in self._touching.items():
            self._start[column] = start
            start += len(touching)
        self.stop = start

    def parts(self, column: int) -> np.ndarray:
        """Row, column and index of the parts of a cell: (n, 3) int64."""
        touching = self._touching[column]
        cell = np.tile((self.number, column), (len(touching), 1))
        return np.column_stack([cell, touching]).reshape(-1, 3).astype(np.int64)

    def beside(self, connectivity: Connectivity) -> list[np.ndarray]:
        """Pairs of parts of neighbouring cells of the row."""
        links = []
        for column, mine in self._edges.items():
            if column + 1 in self._edges:
                both = _meeting(mine.right, self._edges[column + 1].left, connectivity)
                links.append(self._linked(column, self, column + 1, both))
        return links

    def below(self, other: _Row, connectivity: Connectivity) -> list[np.ndarray]:
        """Pairs of parts of this row and of the next one, over corners too where these count."""
        links, steps = [], (0, 1, -1) if connectivity == 8 else (0,)
        for column, mine in self._edges.items():
            for step in steps:
                if column + step not in other._edges:
                    continue
                one, two = mine.bottom, other._edges[column + step].top
                if step:
                    # Cells that meet at a corner: one pixel of each.
                    one, two = (one[-1:], two[:1]) if step > 0 else (one[:1], two[-1:])
                both = _meeting(one, two, connectivity)
                links.append(self._linked(column, other, column + step, both))
        return links

    def _linked(self, column: int, other: _Row, its: int, both: np.ndarray) -> np.ndarray:
        """Pairs of parts of two cells, as numbers of the plane: (n, 2) int64."""
        numbers = self.numbers(column, both[:, 0]), other.numbers(its, both[:, 1])
        return np.stack(numbers, axis=1)

    def numbers(self, column: int, parts: np.ndarray) -> np.ndarray:
        """Numbers of parts of a cell, given as on its sides: one more than their indices."""
        places = np.searchsorted(self._touching[column], parts - 1)
        numbers: np.ndarray = self._start[column] + places
        return numbers


def _meeting(one: np.ndarray, other: np.ndarray, connectivity: Connectivity) -> np.ndarray:
    """Pairs of parts, one more than their indices, that are neighbours over a seam: (n, 2)."""
    shifts = [(one, other)]
    if connectivity == 8:
        shifts += [(one[1:], other[:-1]), (one[:-1], other[1:])]
    found = [np.stack([a, b], axis=1)[(a > 0) & (b > 0)] for a, b in shifts]
    pairs: np.ndarray = np.unique(np.concatenate(found), axis=0).astype(np.int64)
    return pairs
