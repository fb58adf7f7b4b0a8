"""The pixels inside polygons, many polygons at once; pixel for pixel as scikit-image decides.

Each edge is crossed by some rows, and a pixel is inside where the crossings to its left are odd.
`skimage.draw.polygon` counts twice, an edge with its upper end and without its lower one, then
the other way round, and calls a pixel inside where either count is odd: outlines belong to the
polygon. So does this module; a polygon that comes within `NEAR` of deciding a pixel by its last
bits goes to scikit-image itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.draw import polygon

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Pixels; the arithmetic of both ways to decide is good to 1e-12.
NEAR = 1e-6

#: Pixels of the polygons' boxes that are filled at once; the buffers take 18 bytes each.
_BLOCK = 2**18


def fill(
    outlines: np.ndarray, boxes: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the pixels of polygons.

    Parameters
    ----------
    outlines : ndarray of shape (n, 2, R), float64
        Vertices (y, x).
    boxes : ndarray of shape (n, 4), int64
        Boxes (y0, x0, y1, x1) that hold every pixel of each polygon.

    Yields
    ------
    which : ndarray of shape (m,), int64
        Indices of polygons, ascending; block by block.
    y, x : ndarray of shape (m,), int64
        A pixel of each, in C order for one polygon.
    """
    sizes = boxes[:, 2:] - boxes[:, :2]
    # One column more than the box: what ends at its last pixel is closed there.
    ends = np.cumsum(sizes[:, 0] * (sizes[:, 1] + 1))
    start = 0
    while start < len(boxes):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _BLOCK, side="right")))
        some = slice(start, stop)
        local = outlines[some] - boxes[some, :2, None]
        which, y, x = _fill_block(local, sizes[some], ends[some] - before)
        yield which + start, y + boxes[which + start, 0], x + boxes[which + start, 1]
        start = stop


def _fill_block(
    outlines: np.ndarray, sizes: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygon, row and column of the pixels inside; rows and columns inside each box."""
    starts = ends - sizes[:, 0] * (sizes[:, 1] + 1)
    unclear = (np.abs(outlines - np.rint(outlines)) < NEAR).all(axis=1).any(axis=1)
    inside = np.zeros(ends[-1], bool)
    for lower in (False, True):
        which, row, column = _crossings(outlines, lower=lower)
        near = np.abs(column - np.rint(column)) < NEAR
        unclear[which[near]] = True
        at = starts[which] + row * (sizes[which, 1] + 1) + np.floor(column).astype(np.int64) + 1
        # Crossings of a row are even in number, so that the count is even again at its end.
        inside |= (np.cumsum(np.bincount(at, minlength=ends[-1])[: ends[-1]]) & 1).astype(bool)
    for k in np.flatnonzero(unclear):
        own = inside[starts[k] : ends[k]].reshape(sizes[k, 0], sizes[k, 1] + 1)
        own[:] = False
        own[polygon(*outlines[k], sizes[k])] = True
    pixels = np.flatnonzero(inside)
    which = np.repeat(np.arange(len(ends)), np.diff(np.searchsorted(pixels, [0, *ends])))
    y, x = np.divmod(pixels - starts[which], sizes[which, 1] + 1)
    return which, y, x


def _crossings(outlines: np.ndarray, *, lower: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polygon, row and column (float64) of each crossing of an edge and a row of pixels.

    An edge is crossed by the rows [top, bottom), or (top, bottom] where `lower`.
    """
    y0, x0 = outlines[:, 0], outlines[:, 1]
    y1, x1 = np.roll(y0, -1, axis=1), np.roll(x0, -1, axis=1)
    top, bottom = np.minimum(y0, y1), np.maximum(y0, y1)
    first, end = (np.floor(v) + 1 if lower else np.ceil(v) for v in (top, bottom))
    count = (end - first).astype(np.int64).ravel()
    edge = np.repeat(np.arange(count.size), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count)
    row += first.ravel()[edge].astype(np.int64)
    y0, x0, y1, x1 = (v.ravel()[edge] for v in (y0, x0, y1, x1))
    return edge // outlines.shape[2], row, x0 + (row - y0) * (x1 - x0) / (y1 - y0)
