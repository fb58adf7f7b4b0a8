"""Flags, step 3: what variants show and the reference does not, merged over all defenses."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from engine.methods.flag_matching import features
from engine.methods.starconvex import StarObjects, render
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Extras:
    """Candidates of false negatives, one per cluster.

    Parameters
    ----------
    objects : StarObjects
        The best of each cluster, ordered by (-score, y, x).
    votes : ndarray of shape (n,), int32
        Defenses that show the object.
    defenses : tuple of ndarray, int64
        Their numbers for each cluster, ascending.
    """

    objects: StarObjects
    votes: np.ndarray
    defenses: tuple[np.ndarray, ...]

    def take(self, which: np.ndarray) -> Extras:
        """Clusters by index or by mask."""
        chosen = np.arange(len(self.votes))[which]
        defenses = tuple(self.defenses[k] for k in chosen)
        return Extras(self.objects.take(chosen), self.votes[chosen], defenses)


def share_of(merge: float) -> float:
    """Share of the smaller box from which two candidates are one: 1 / (1 + R).

    Parameters
    ----------
    merge : float
        R of the paper, at least 0 (1.7 there).

    Raises
    ------
    ValueError
        If it is negative or no number.

    Examples
    --------
    >>> round(share_of(1.7), 2)
    0.37
    """
    if not merge >= 0:
        msg = f"merge must be >= 0, got {merge}"
        raise ValueError(msg)
    return 1 / (1 + merge)


def merge_extras(parts: Sequence[tuple[int, StarObjects]], share: float, n_rays: int) -> Extras:
    """Merge the candidates of many defenses; their order changes nothing.

    Parameters
    ----------
    parts : sequence of (int, StarObjects)
        Number of a defense and its extra objects; a defense may come more than once.
    share : float
        Part of the smaller box, in (0, 1], that two candidates have in common to be one.
    n_rays : int
        Rays of the objects, for the case that there are none.

    Returns
    -------
    Extras
        Clusters in the order of their best candidates.

    Raises
    ------
    ValueError
        If `share` is out of its range.

    Notes
    -----
    Algorithm 1 paints candidates one after the other onto a map and gives a new number where more
    than R / (1 + R) of one is unpainted, so that its result depends on the order. Here the best
    candidate opens a cluster and takes all it shares enough with, then the best of the others, as
    suppression does; boxes instead of painted pixels.
    """
    if not 0 < share <= 1:
        msg = f"share must lie in (0, 1], got {share}"
        raise ValueError(msg)
    objects = StarObjects.concatenate([found for _, found in parts], n_rays)
    numbers = np.concatenate(
        [np.empty(0, np.int64), *(np.full(len(found), k, np.int64) for k, found in parts)]
    )
    order = best_first(objects)
    objects, numbers = objects.take(order), numbers[order]
    leader = leaders(features(objects)[:, :4], share)
    heads = np.flatnonzero(leader == np.arange(len(leader)))
    defenses = _numbers_by_cluster(np.searchsorted(heads, leader), numbers, len(heads))
    votes = np.array([len(own) for own in defenses], np.int32)
    return Extras(objects.take(heads), votes, defenses)


def covered(objects: StarObjects, reference: StarObjects) -> np.ndarray:
    """Share of each polygon's pixels that lie under any reference polygon.

    Parameters
    ----------
    objects, reference : StarObjects
        In the plane's coordinates; few objects, since each is painted.

    Returns
    -------
    ndarray of shape (n,), float64
        In [0, 1]; 0 for a polygon without a pixel.

    Notes
    -----
    Line 18 of Algorithm 1 wants a candidate to lie where the reference shows nothing, and the
    authors' code does not test it; a candidate whose share exceeds `fn_max_covered` is dropped.
    """
    shares = np.zeros(len(objects))
    edges, others = objects.boxes(), reference.boxes()
    for k, (y0, x0, y1, x1) in enumerate(edges.tolist()):
        meets = (others[:, 0] < y1) & (others[:, 2] > y0) & (others[:, 1] < x1)
        near = np.flatnonzero(meets & (others[:, 3] > x0))
        if len(near) == 0:
            continue
        box = Box((y0, x0), (y1, x1))
        own = render(objects.take(np.array([k])), box) > 0
        under = render(reference.take(near), box) > 0
        shares[k] = (own & under).sum() / max(1, int(own.sum()))
    return shares


def best_first(objects: StarObjects) -> np.ndarray:
    """Order objects by (-score, y, x), equal ones by their rays.

    Parameters
    ----------
    objects : StarObjects
        Of any number of variants.

    Returns
    -------
    ndarray of shape (n,), int64
        Indices; the same objects in the same order, however they were given.
    """
    keys = (*objects.rays.T[::-1], objects.points[:, 1], objects.points[:, 0], -objects.scores)
    order: np.ndarray = np.lexsort(keys)
    return order


def leaders(boxes: np.ndarray, share: float) -> np.ndarray:
    """Put candidates into clusters: the best opens one and takes all it shares enough with.

    Parameters
    ----------
    boxes : ndarray of shape (n, 4), float64
        (x0, y0, x1, y1) of each, in the order of `best_first`.
    share : float
        Part of the smaller box, in (0, 1], that two candidates have in common to be one.

    Returns
    -------
    ndarray of shape (n,), int64
        Index of the candidate that opened the cluster of each.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    area = (high - low).prod(axis=1)
    leader = np.full(len(boxes), -1, np.int64)
    free = np.arange(len(boxes))
    while len(free):
        best = free[0]
        sides = np.minimum(high[free], high[best]) - np.maximum(low[free], low[best])
        common = np.maximum(sides, 0).prod(axis=1)
        joins = (common > 0) & (common >= share * np.minimum(area[free], area[best]))
        joins[0] = True
        leader[free[joins]] = best
        free = free[~joins]
    return leader


def _numbers_by_cluster(
    cluster: np.ndarray, numbers: np.ndarray, count: int
) -> tuple[np.ndarray, ...]:
    """Distinct numbers in each of `count` clusters, ascending."""
    rows = np.unique(np.stack([cluster, numbers], axis=1), axis=0)
    edges = np.searchsorted(rows[:, 0], np.arange(count + 1))
    return tuple(rows[a:b, 1] for a, b in pairwise(edges.tolist()))
