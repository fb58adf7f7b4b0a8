"""Flags held against the truth: which are right, and what heeding them would do to F1.

Jain, Shao, Hecht 2025, section 3: a false-positive flag is right if no true object reaches IoU 0.5
with the flagged one, a false-negative flag if it reaches IoU 0.5 with a true object that the
reference misses. Everything that does not depend on tau and R is found once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.methods.filling import fill
from engine.methods.flag_extras import best_first, leaders
from engine.methods.flag_matching import features, pair
from engine.methods.starconvex import StarObjects, render
from tiling import Box

#: IoU from which an object is a true one.
IOU = 0.5


@dataclass(frozen=True)
class Judged:
    """One image: its reference, its variants and the truth.

    Parameters
    ----------
    name : str
        Of the image.
    truths : int
        True objects.
    partner : ndarray of shape (n,), int64
        True object that each reference object reaches IoU 0.5 with; 0 for none.
    distance, mutual : ndarray of shape (N, n)
        Nearest object of each variant, as `pair` says.
    number : ndarray of shape (m,), int64
        Variant of each object that may be extra, best first over all variants.
    boxes : ndarray of shape (m, 4), float64
        Their boxes (x0, y0, x1, y1).
    extra_distance, extra_mutual : ndarray of shape (m,)
        Nearest object of the reference.
    hit : ndarray of shape (m,), int64
        Missed true object that each reaches IoU 0.5 with; 0 for none.
    covered : ndarray of shape (m,), float64
        Share of each polygon's pixels under the reference.
    """

    name: str
    truths: int
    partner: np.ndarray
    distance: np.ndarray
    mutual: np.ndarray
    number: np.ndarray
    boxes: np.ndarray
    extra_distance: np.ndarray
    extra_mutual: np.ndarray
    hit: np.ndarray
    covered: np.ndarray

    @property
    def variants(self) -> int:
        """Number of variants."""
        return len(self.distance)

    @property
    def missed(self) -> int:
        """True objects that the reference misses."""
        return self.truths - len(np.unique(self.partner[self.partner > 0]))

    @property
    def f1(self) -> float:
        """F1 of the reference at IoU 0.5."""
        return _f1(self.partner, self.truths, len(self.partner))

    def missing(self, tau: float) -> np.ndarray:
        """Votes against each reference object, variant by variant: (N, n) bool."""
        missing: np.ndarray = ~(self.mutual & (self.distance <= tau))
        return missing

    def vote(self, tau: float, share: float, fn_max_covered: float) -> Voted:
        """Count the votes at a largest distance and a share of boxes.

        Parameters
        ----------
        tau : float
            Largest distance; at least the least one that `judge` was told of.
        share : float
            As for `merge_extras`.
        fn_max_covered : float
            Candidates that are covered by more are dropped.
        """
        extra = ~(self.extra_mutual & (self.extra_distance <= tau))
        leader = leaders(self.boxes[extra], share)
        heads, cluster = np.unique(leader, return_inverse=True)
        rows = np.unique(np.stack([cluster, self.number[extra]], axis=1), axis=0)
        votes = np.bincount(rows[:, 0], minlength=len(heads))
        kept = self.covered[extra][heads] <= fn_max_covered
        against = self.missing(tau).sum(axis=0)
        return Voted(self, against, votes[kept], self.hit[extra][heads][kept])


@dataclass(frozen=True)
class Voted:
    """Votes of all variants of one image.

    Parameters
    ----------
    judged : Judged
        The image.
    against : ndarray of shape (n,), int64
        Variants that do not show each reference object.
    votes : ndarray of shape (c,), int64
        Variants that show each candidate of a false negative.
    hit : ndarray of shape (c,), int64
        Missed true object that it is; 0 for none.
    """

    judged: Judged
    against: np.ndarray
    votes: np.ndarray
    hit: np.ndarray

    def counts(self, needed: int, needed_missing: int | None = None) -> Counts:
        """Judge the flags that get at least `needed` votes; candidates their own number."""
        partner, truths = self.judged.partner, self.judged.truths
        least = needed if needed_missing is None else needed_missing
        flagged, shown = self.against >= needed, self.hit[self.votes >= least]
        added = np.concatenate([partner, shown])
        return Counts(
            fp_right=int((flagged & (partner == 0)).sum()),
            fp_wrong=int((flagged & (partner > 0)).sum()),
            fp_all=int((partner == 0).sum()),
            fn_right=int((shown > 0).sum()),
            fn_wrong=int((shown == 0).sum()),
            fn_found=len(np.unique(shown[shown > 0])),
            fn_all=self.judged.missed,
            f1=self.judged.f1,
            f1_deleted=_f1(partner[~flagged], truths, int((~flagged).sum())),
            f1_added=_f1(added, truths, len(added)),
        )


@dataclass(frozen=True)
class Counts:
    """Flags of one image against its truth.

    Parameters
    ----------
    fp_right, fp_wrong : int
        Reference objects that are flagged and are none, or are true ones.
    fp_all : int
        Reference objects that are none.
    fn_right, fn_wrong : int
        Candidates that are missed true objects, or are not.
    fn_found, fn_all : int
        Missed true objects that some candidate is, and all of them.
    f1, f1_deleted, f1_added : float
        F1 at IoU 0.5 of the reference, after deleting what is flagged, after adding candidates.
    """

    fp_right: int
    fp_wrong: int
    fp_all: int
    fn_right: int
    fn_wrong: int
    fn_found: int
    fn_all: int
    f1: float
    f1_deleted: float
    f1_added: float


def judge(
    name: str,
    truth: np.ndarray,
    reference: StarObjects,
    variants: Sequence[StarObjects],
    least_tau: float,
) -> Judged:
    """Hold a reference and its variants against the truth.

    Parameters
    ----------
    name : str
        Of the image.
    truth : ndarray of shape (Y, X), int32
        Labels 0…n without gaps.
    reference : StarObjects
        In the order of `suppress`.
    variants : sequence of StarObjects
        At least one, each in that order.
    least_tau : float
        Smallest tau that will be asked for: what is nearer and mutual can be no candidate.

    Returns
    -------
    Judged

    Notes
    -----
    Reference objects are judged as painted, the better on top; candidates by their own polygons.
    """
    known = features(reference)
    pairs = [pair(known, features(one)) for one in variants]
    painted = render(reference, Box.of_shape(truth.shape))
    partner = np.zeros(len(reference) + 1, np.int64)
    rows, best = _best(painted.ravel(), truth.ravel(), truth)
    partner[rows] = best
    partner = partner[1:]
    missed = np.where(np.isin(truth, partner[partner > 0]), 0, truth)
    near = [p.variant_mutual & (p.variant_distance <= least_tau) for p in pairs]
    extra = [one.take(~known) for one, known in zip(variants, near, strict=True)]
    objects = StarObjects.concatenate(extra, reference.rays.shape[1])
    order = best_first(objects)
    objects = objects.take(order)
    hit, covered = _judge_extras(objects, missed, painted > 0)

    def joined(parts: list[np.ndarray]) -> np.ndarray:
        chosen = [part[~known] for part, known in zip(parts, near, strict=True)]
        together: np.ndarray = np.concatenate(chosen)[order]
        return together

    return Judged(
        name, int(truth.max(initial=0)), partner,
        np.stack([p.distance for p in pairs]), np.stack([p.mutual for p in pairs]),
        joined([np.full(len(one), k) for k, one in enumerate(variants)]),
        features(objects)[:, :4],
        joined([p.variant_distance for p in pairs]), joined([p.variant_mutual for p in pairs]),
        hit, covered,
    )  # fmt: skip


def _judge_extras(
    objects: StarObjects, missed: np.ndarray, under: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Missed true object of each polygon, (m,) int64, and its covered share, (m,) float64."""
    hit, covered = np.zeros(len(objects), np.int64), np.zeros(len(objects))
    if len(objects) == 0:
        return hit, covered
    height, width = missed.shape
    for which, y, x in fill(objects.outlines().astype(np.float64), objects.boxes()):
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        which, y, x = which[inside], y[inside], x[inside]
        pixels = np.bincount(which, minlength=len(objects))
        covered += np.bincount(which, under[y, x], len(objects)) / np.maximum(pixels, 1)
        rows, best = _best(which + 1, missed[y, x], missed)
        hit[rows - 1] = best
    return hit, covered


def _best(ids: np.ndarray, truth: np.ndarray, whole: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Objects that reach the IoU, and the true object each reaches it with.

    `ids` and `truth` name an object, or 0, at the same pixels, all those of each object.
    """
    count = int(whole.max(initial=0)) + 1
    pairs, pixels = np.unique(ids.astype(np.int64) * count + truth, return_counts=True)
    rows, columns = np.divmod(pairs, count)
    own = np.bincount(rows, pixels)
    areas = np.bincount(whole.ravel(), minlength=count)
    iou = pixels / (own[rows] + areas[columns] - pixels)
    good = (iou >= IOU) & (rows > 0) & (columns > 0)
    return rows[good], columns[good]


def _f1(partner: np.ndarray, truths: int, objects: int) -> float:
    """F1 of objects of which each names its true one, or 0; 0 where nothing is matched."""
    named = partner[partner > 0]
    matched = len(np.unique(named))
    return 2 * matched / (objects + truths) if matched else 0.0
