"""Outlines of labelled pixels, along the edges of the pixels: closed rings of corners, exact.

::

    . . . .        +---+          Pixel (y, x) lies between the lattice points (y, x) and
    . # # .        |   +-+        (y + 1, x + 1). A corner is a lattice point where an outline
    . # # #   ->   |     |        turns; each has one horizontal and one vertical edge, and along
    . . . .        +-----+        a row, or a column, corners of one object pair up in order.

So the corners of a large object can be collected from one block of pixels after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: A shell, then the holes in it: each (n, 2) int64, lattice points (y, x), the first not repeated.
Polygon = list[np.ndarray]

# Which of the pixels around a lattice point an object has: bits for NW, NE, SW, SE. Where it has
# two that touch at the point alone, there are two corners.
_NW_SE, _NE_SW = 0b1001, 0b0110
_TURNS = np.isin(np.arange(16), (1, 2, 4, 8, 7, 11, 13, 14, _NW_SE, _NE_SW))


@dataclass(frozen=True)
class Corners:
    """Points where outlines turn.

    Parameters
    ----------
    labels : ndarray of shape (n,)
        Object of each.
    points : ndarray of shape (n, 2), int64
        Lattice points (y, x).
    right : ndarray of shape (n,), bool
        Whether the horizontal edge lies to the right; else to the left.
    down : ndarray of shape (n,), bool
        Whether the vertical edge lies below; else above.
    leaves : ndarray of shape (n,), bool
        Whether the outline, with the object to its right as it is seen on a screen, leaves along
        the horizontal edge; else it comes along it.
    """

    labels: np.ndarray
    points: np.ndarray
    right: np.ndarray
    down: np.ndarray
    leaves: np.ndarray

    def among(self, labels: np.ndarray) -> Corners:
        """Those of some objects."""
        chosen = np.isin(self.labels, labels)
        return Corners(
            self.labels[chosen],
            self.points[chosen],
            self.right[chosen],
            self.down[chosen],
            self.leaves[chosen],
        )

    @staticmethod
    def concatenate(parts: Iterable[Corners]) -> Corners:
        """Corners of several blocks."""
        listed = list(parts)
        return Corners(
            np.concatenate([one.labels for one in listed]),
            np.concatenate([one.points for one in listed]),
            np.concatenate([one.right for one in listed]),
            np.concatenate([one.down for one in listed]),
            np.concatenate([one.leaves for one in listed]),
        )


def find_corners(pixels: np.ndarray, origin: tuple[int, int]) -> Corners:
    """Corners of all objects at the lattice points between some pixels.

    Parameters
    ----------
    pixels : ndarray of shape (Y, X), integer
        Labels, 0 for background.
    origin : tuple of int
        Place of the first pixel, (y, x); the lattice points are those from (y + 1, x + 1) to
        (y + Y - 1, x + X - 1).

    Returns
    -------
    Corners
        In no order.
    """
    around = pixels[:-1, :-1], pixels[:-1, 1:], pixels[1:, :-1], pixels[1:, 1:]
    changes = np.logical_or.reduce([around[0] != other for other in around[1:]])
    y, x = np.nonzero(changes)
    here = np.stack([one[y, x] for one in around])
    points = np.stack([y + origin[0] + 1, x + origin[1] + 1], axis=1)
    found: list[Corners] = []
    for k, labels in enumerate(here):
        has = here == labels
        code = has[0] | has[1] << 1 | has[2] << 2 | has[3] << 3
        # Each object once, at the first of its pixels around the point.
        use = (labels != 0) & ~has[:k].any(axis=0) & _TURNS[code]
        found += _turns(labels[use], points[use], has[:, use], code[use])
    return Corners.concatenate(found)


def _turns(
    labels: np.ndarray, points: np.ndarray, has: np.ndarray, code: np.ndarray
) -> Iterator[Corners]:
    """Corners of the objects that have some of the pixels around points: (4, n) bool."""
    nw, ne, sw, se = has
    double = (code == _NW_SE) | (code == _NE_SW)
    right, down = ne != se, sw != se
    # Of two corners the first one is that of the northern pixel.
    right, down = np.where(double, ne, right), down & ~double
    yield Corners(labels, points, right, down, np.where(right, se, nw))
    nw, sw, se = nw[double], sw[double], se[double]
    down = np.ones(len(sw), np.bool_)
    yield Corners(labels[double], points[double], ~sw, down, np.where(sw, nw, se))


def trace(corners: Corners) -> dict[int, list[Polygon]]:
    """Join corners of whole objects to polygons.

    Parameters
    ----------
    corners : Corners
        All corners of each of some objects.

    Returns
    -------
    dict of int to list of Polygon
        By label. Pixels that touch at a point alone are of different polygons, so no ring meets
        itself; shells turn, with y upwards, against the clock, holes with it.
    """
    following = _following(corners)
    points: list[list[int]] = corners.points.tolist()
    labels: list[int] = corners.labels.tolist()
    waiting = np.ones(len(points), np.bool_).tolist()
    rings: dict[int, list[np.ndarray]] = {}
    for first in range(len(points)):
        if waiting[first]:
            found = rings.setdefault(labels[first], [])
            walk, at = [], first
            while waiting[at]:
                waiting[at] = False
                walk.append((points[at][0], points[at][1]))
                at = following[at]
            found += (np.array(ring, np.int64) for ring in _simple(walk))
    return {label: _polygons(found) for label, found in rings.items()}


def _following(corners: Corners) -> list[int]:
    """Corner that comes after each corner on its outline."""
    y, x = corners.points.T
    along, across = np.empty(len(y), np.int64), np.empty(len(y), np.int64)
    for partner, order in (
        (along, np.lexsort((corners.right, x, y, corners.labels))),
        (across, np.lexsort((corners.down, y, x, corners.labels))),
    ):
        partner[order[0::2]], partner[order[1::2]] = order[1::2], order[0::2]
    following: list[int] = np.where(corners.leaves, along, across).tolist()
    return following


def _simple(walk: list[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Cut a ring where it meets itself."""
    if len(set(walk)) == len(walk):
        yield walk
        return
    ring: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for point in walk:
        if point in place:
            start = place[point]
            yield ring[start:]
            for gone in ring[start:]:
                del place[gone]
            del ring[start:]
        place[point] = len(ring)
        ring.append(point)
    yield ring


def _polygons(rings: list[np.ndarray]) -> list[Polygon]:
    """Give each hole to the smallest shell around it."""
    areas = [ring_area(ring) for ring in rings]
    shells = [k for k, area in enumerate(areas) if area > 0]
    polygons = {k: [rings[k]] for k in shells}
    if len(shells) == 1:
        return [[rings[shells[0]], *(r for k, r in enumerate(rings) if k != shells[0])]]
    shells.sort(key=areas.__getitem__)
    boxes = np.array([[*rings[k].min(axis=0), *rings[k].max(axis=0)] for k in shells])
    for ring, area in zip(rings, areas, strict=True):
        if area < 0:
            # The pixel above the first corner of a hole belongs to what is around it.
            y, x = min(map(tuple, ring.tolist()))
            near = (boxes[:, 0] < y) & (boxes[:, 2] >= y) & (boxes[:, 1] <= x) & (boxes[:, 3] > x)
            around = (shells[k] for k in np.flatnonzero(near))
            polygons[next(k for k in around if _contains(rings[k], y - 1, x))].append(ring)
    return list(polygons.values())


def ring_area(ring: np.ndarray) -> float:
    """Area inside a ring, in pixels; negative for one that turns with the clock, y upwards."""
    y, x = ring.T
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / 2


def _contains(ring: np.ndarray, y: int, x: int) -> bool:
    """Whether a pixel lies inside a ring: edges to its left are crossed an odd number of times."""
    after = np.roll(ring, -1, axis=0)
    low, high = np.minimum(ring[:, 0], after[:, 0]), np.maximum(ring[:, 0], after[:, 0])
    crossed = (low <= y) & (high > y) & (ring[:, 1] <= x)
    return bool(np.count_nonzero(crossed) % 2)
