"""Connected components of a class map, cell by cell: the parts of objects, and what they measure.

What is kept of a part are sums of whole numbers, so those of an object do not depend on the order
in which its parts are added; its anchor is its first pixel in raster order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
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

    def heads(self, group: np.ndarray, count: int) -> np.ndarray:
        """Find, for each group, the part with the first pixel: its index, (count,) int64."""
        order = np.lexsort((self.first[:, 1], self.first[:, 0], group))
        found: np.ndarray = order[np.searchsorted(group[order], np.arange(count))]
        return found

    def replaced(self, index: np.ndarray, others: Parts) -> Parts:
        """Put others in the place of some of the parts."""

        def put(name: str) -> np.ndarray:
            values = np.array(getattr(self, name))
            values[index] = getattr(others, name)
            return values

        return Parts(**{f.name: put(f.name) for f in fields(self)})

    def united(self, group: np.ndarray, count: int) -> Parts:
        """Objects made of parts: those with the same number in `group`, each below `count`."""

        def added(values: np.ndarray) -> np.ndarray:
            total = np.zeros((count, *values.shape[1:]), np.int64)
            np.add.at(total, group, values)
            return total

        low = np.full((count, 2), np.iinfo(np.int64).max)
        high = np.zeros((count, 2), np.int64)
        np.minimum.at(low, group, self.boxes[:, :2])
        np.maximum.at(high, group, self.boxes[:, 2:])
        return Parts(
            self.first[self.heads(group, count)],
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
        found = np.unique(np.concatenate(self._sides))
        return found[found > 0].astype(np.int64) - 1

    def renumbered(self, kept: np.ndarray) -> Edges:
        """Give what touches a side, as `touching` finds it, its place there for a number."""
        sides = (np.searchsorted(kept + 1, s) + 1 for s in self._sides)
        return Edges(
            *(
                np.where(old > 0, new, 0).astype(np.int32)
                for old, new in zip(self._sides, sides, strict=True)
            )
        )

    @property
    def _sides(self) -> tuple[np.ndarray, ...]:
        return self.top, self.bottom, self.left, self.right


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
