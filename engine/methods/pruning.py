"""Survivors of non-maximum suppression, with the obvious cases decided before the package's turn.

Most candidates lie deep inside a better one. The package clips two polygons to find that out; a
lower bound of what they share needs no clipping. A candidate is left out only where the bound
proves that the package would suppress it, and only if the one that suppresses it (its witness)
turns out to survive; so the survivors are the package's own, all of them and no others.

Two convex sets, one in each polygon, meet in a convex set (drawn: the two polygons)::

        ╭──────╮                every point of both sets is at least `MARGIN` inside its
      ╭─┼────╮ │                polygon, farther than truncation and rounding move an outline,
      │ │▒▒▒▒│ │  ▒ shared      so the package sees it inside both, too
      │ ╰────┼─╯
      ╰──────╯
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from scipy.spatial import cKDTree
from stardist.nms import non_maximum_suppression_inds

if TYPE_CHECKING:
    from torch import Tensor

NumbersT = TypeVar("NumbersT", np.ndarray, "Tensor")

#: Farthest, in pixels, that the package moves an outline, twice half a pixel on either axis: it
#: truncates vertices (relative to their common shift of half a pixel) and rounds crossings. With
#: what float32 adds below `LARGEST_PLACE`, 1.46.
MARGIN = 1.5

#: Largest coordinate for which `MARGIN` holds.
LARGEST_PLACE = 2.0**20

#: Largest sum that the package's float32 areas hold exactly.
EXACT = 2.0**24

#: Fewest rays for which half-planes through the rays' ends cut a convex set out of a polygon.
_FEWEST_RAYS = 8

#: Pairs bounded at once: the buffers stay in the processor's cache.
_BLOCK = 2048


def survivors(
    points: np.ndarray, rays: np.ndarray, scores: np.ndarray, threshold: float
) -> np.ndarray:
    """Decide which candidates survive, as ``stardist.nms.non_maximum_suppression_inds`` does.

    Parameters
    ----------
    points : ndarray of shape (n, 2), int64
        Centres (y, x), best candidate first.
    rays : ndarray of shape (n, R), float32
        Distances to the outline in pixels.
    scores : ndarray of shape (n,), float32
        Descending.
    threshold : float
        A candidate goes where it shares more than this part of the smaller with a better one.

    Returns
    -------
    ndarray of shape (n,), bool

    Notes
    -----
    By induction over the order: while all decisions agree, a candidate that was left out is
    suppressed by its witness, hence suppresses nothing; the others meet the same survivors in
    both lists. What a witness that does not survive stood for is given back; mostly the survivors
    suppress that too, which a short list shows, and else the long list is done again.
    """
    witness, out = _left_out(points, rays, scores, threshold)
    every = np.arange(len(points))
    while True:
        kept = np.zeros(len(points), bool)
        kept[_package(every[~out], points, rays, scores, threshold)] = True
        wrong = out & ~kept[witness]
        short = every[kept | wrong]
        if not wrong.any() or kept[_package(short, points, rays, scores, threshold)].all():
            return kept
        out &= ~wrong


def _left_out(
    points: np.ndarray, rays: np.ndarray, scores: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Witness of every candidate, (n,) int64, and whether it would suppress it, (n,) bool."""
    witness, out = np.zeros(len(points), np.int64), np.zeros(len(points), bool)
    reach = rays.max(axis=1, initial=0)
    sound = _sound(points, reach)
    peaks = _peaks(points)
    if rays.shape[1] < _FEWEST_RAYS or len(peaks) == 0 or not sound.any():
        return witness, out
    # The package looks for neighbours as far as the longest ray of all: that one has to stay.
    sound[np.argmax(reach)] = False
    likely = _package(peaks, points, rays, scores, threshold)
    witness = likely[cKDTree(points[likely]).query(points)[1]]
    tried = np.flatnonzero(sound & (witness < np.arange(len(points))) & sound[witness])
    pairs = tried, witness[tried]
    largest = area_at_most(rays)
    smaller = np.minimum(*(largest[k] for k in pairs))
    # The package divides in float32: a relative error of 1e-7, and 1e-10 added to the area.
    out[tried] = shared_at_least(points, rays, *pairs) > threshold * smaller * (1 + 1e-5) + 1e-5
    return witness, out


def _sound(points: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Mask of the candidates for which `MARGIN` holds and the package's areas are exact."""
    low, high = points.min(axis=1) - reach, points.max(axis=1) + reach
    exact: np.ndarray = largest_sum(high, reach) < EXACT
    sound: np.ndarray = (low >= 1) & (high < LARGEST_PLACE) & exact
    return sound


def largest_sum(high: NumbersT, reach: NumbersT) -> NumbersT:
    """Bound the largest sum on the package's way to an area, twice a fan's area from pixel (0, 0).

    Parameters
    ----------
    high : ndarray or Tensor of shape (n,)
        Largest coordinate of each polygon.
    reach : the same
        Longest ray of each.
    """
    bound: NumbersT = 2 * math.sqrt(2) * high * (2 * reach + 2) + 8 * (reach + 2) ** 2
    return bound


def _peaks(points: np.ndarray) -> np.ndarray:
    """Candidates without a better one among their eight neighbours; none where they lie thinly."""
    if len(points) == 0:
        return np.empty(0, np.int64)
    low = points.min(axis=0)
    step = max(1, int(np.gcd.reduce((points - low).ravel())))
    at = (points - low) // step + 1
    shape = at.max(axis=0) + 2
    if int(np.prod(shape)) > 256 * len(points) + 2**16:
        return np.empty(0, np.int64)
    number = np.arange(len(points), dtype=np.int32)
    best = np.full(shape, len(points), np.int32)
    best[at[:, 0], at[:, 1]] = number
    best = np.minimum(np.minimum(best[:-2], best[2:]), best[1:-1])
    best = np.minimum(np.minimum(best[:, :-2], best[:, 2:]), best[:, 1:-1])
    return np.flatnonzero(best[at[:, 0] - 1, at[:, 1] - 1] == number)


def area_at_most(rays: np.ndarray) -> np.ndarray:
    """Bound the package's area of each polygon from above: (n,) float32, square pixels.

    Notes
    -----
    The area of the polygon and what its outline sweeps while its vertices are truncated: each
    edge its length times `MARGIN` / 2, and for R turning edges R / 2 in all.
    """
    count = rays.shape[1]
    angle = 2 * np.pi / count
    bound = np.empty(len(rays), np.float32)
    for start in range(0, len(rays), _BLOCK):
        here = rays[start : start + _BLOCK]
        following = np.roll(here, -1, axis=1)
        product = here * following
        area = product.sum(axis=1) * np.float32(np.sin(angle) / 2)
        # The square of an edge, without a difference of large numbers.
        product *= np.float32(4 * np.sin(angle / 2) ** 2)
        following -= here
        following *= following
        following += product
        length = np.sqrt(following, out=following).sum(axis=1)
        bound[start : start + _BLOCK] = area + np.float32(MARGIN / 2) * length
    bound *= np.float32(1.0001)
    bound += count
    return bound


def shared_at_least(
    points: np.ndarray, rays: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Bound what the package finds shared by pairs of polygons from below.

    Parameters
    ----------
    points : ndarray of shape (n, 2), int64
        Centres (y, x).
    rays : ndarray of shape (n, R), float32
        Distances to the outline in pixels; R >= 8.
    first, second : ndarray of shape (m,), int64
        The pairs.

    Returns
    -------
    ndarray of shape (m,), float32
        Square pixels; 0 where nothing is known.

    Notes
    -----
    With n_k the directions of the rays r_k and d the angle between them, the half-planes
    ``n_k x <= cos(d/2)**2 r_k`` about the centre meet inside the polygon: in the sector of rays k
    and k + 1, x = a n_k + b n_(k+1), the two give ``a / r_k + b / r_(k+1) <= 1``, the side of the
    polygon's edge. Moved inwards by `MARGIN`, those of both polygons bound a convex set inside
    both; the triangles between its points on the rays from the first centre lie in it.
    """
    count = rays.shape[1]
    angle = 2 * np.pi * np.arange(count) / count
    ahead = np.stack([np.sin(angle), np.cos(angle)]).astype(np.float32)
    cosine = np.cos(angle[:, None] - angle[None, :])
    steps = np.where(cosine > 1e-6, 1 / np.maximum(cosine, 1e-6), np.inf).astype(np.float32)
    inner = np.float32(np.cos(np.pi / count) ** 2)
    shared = np.zeros(len(first), np.float32)
    for start in range(0, len(first), _BLOCK):
        one, two = first[start : start + _BLOCK], second[start : start + _BLOCK]
        offset = (points[one] - points[two]).astype(np.float32)
        depth = np.minimum(rays[one] * inner, rays[two] * inner - offset @ ahead)
        depth -= np.float32(MARGIN + 1e-3)
        depth[(depth <= 0).any(axis=1)] = 0  # the first centre lies outside: nothing is known
        ends, along = depth.copy(), np.empty_like(depth)
        with np.errstate(invalid="ignore"):  # 0 x inf where nothing is known; fmin skips it
            for k in range(count):
                np.multiply(depth[:, k, None], steps[k], out=along)
                np.fmin(ends, along, out=ends)
        shared[start : start + _BLOCK] = (ends * np.roll(ends, -1, axis=1)).sum(axis=1)
    half: np.ndarray = shared * np.float32(np.sin(2 * np.pi / count) / 2)
    return half


def _package(
    which: np.ndarray, points: np.ndarray, rays: np.ndarray, scores: np.ndarray, threshold: float
) -> np.ndarray:
    """Survivors among some candidates, by the package: indices like `which`."""
    if len(which) == 0:
        return which
    kept: np.ndarray = non_maximum_suppression_inds(
        np.ascontiguousarray(rays[which]),
        points[which].astype(np.int32),
        scores=scores[which],
        thresh=threshold,
        verbose=False,
    )
    best: np.ndarray = which[kept]
    return best
