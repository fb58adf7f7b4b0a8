"""Scoring: two label images in, streamed cell by cell, one set of scores out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.evaluation.labels import LabelArray, LabelPlane, LabelSource
from engine.evaluation.loading import open_labels
from engine.evaluation.matching import match
from engine.evaluation.overlap import Overlap, count_overlap, merge_overlaps
from engine.evaluation.pixels import PixelCounts, hausdorff95, outline
from engine.evaluation.scores import Evaluation, PlaneScores, pool
from tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)

# Side of what is read at once, in pixels: a multiple of the usual chunks and shards.
CELL = 4096

# Outline pixels of one plane and side up to which HD95 is computed. A k-d tree takes about
# 40 bytes per point, so about 1.5 GB at most; typical nuclei reach it near 25 000 x 25 000 pixels.
OUTLINE_LIMIT = 2**24


def evaluate(
    pred: LabelArray,
    truth: LabelArray,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    cell: int = CELL,
) -> Evaluation:
    """Score predicted labels against true ones, reading `cell` by `cell` pixels at a time.

    Parameters
    ----------
    pred, truth : array-like, (..., Y, X) of any integer dtype
        Labels, 0 = background, of any size (NumPy, Zarr and other sliceable arrays). Each plane
        (Y, X) is an image of its own: the same id in two planes is two objects.
    thresholds : sequence of float in [0.5, 1]
        IoU from which a pair of objects matches.
    cell : int
        Side of the square read at once; it changes memory and speed, never a score.

    Returns
    -------
    Evaluation
        Equal to ``stardist.matching.matching_dataset(..., by_image=False)`` over the planes;
        HD95 as ``monai.metrics.compute_hausdorff_distance(percentile=95)`` of each plane.

    Raises
    ------
    InputError
        If an array holds no integers or a negative id, shapes differ (leading axes of length 1
        do not count), or a threshold or `cell` is out of range.

    Examples
    --------
    >>> truth = np.zeros((6, 6), np.uint8)
    >>> truth[1:3, 1:5] = 1
    >>> pred = np.zeros((6, 6), np.uint16)
    >>> pred[1:3, 1:4] = 9
    >>> found = evaluate(pred, truth, thresholds=(0.5, 0.9))
    >>> [at.f1 for at in found.instances], found.iou_pixels
    ([1.0, 0.0], 0.75)
    """
    return _evaluate(_wrap(pred, "pred"), _wrap(truth, "truth"), thresholds, cell)


def evaluate_paths(
    pred: str,
    truth: str,
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    pred_label: str | None = None,
    truth_label: str | None = None,
) -> Evaluation:
    """Score the labels at one path against those at another.

    Parameters
    ----------
    pred, truth : str
        Paths that `open_labels` takes.
    thresholds : sequence of float in [0.5, 1]
        IoU from which a pair of objects matches.
    pred_label, truth_label : str, optional
        Which label image, where the path holds several.

    Returns
    -------
    Evaluation
        As of `evaluate`.

    Raises
    ------
    InputError
        As `open_labels` and `evaluate` do.
    """
    a = open_labels(pred, label=pred_label)
    b = open_labels(truth, label=truth_label)
    return _evaluate(a, b, thresholds, CELL)


def _wrap(array: LabelArray, name: str) -> LabelSource:
    """Source of a bare array: its last two axes are y and x."""
    if len(array.shape) < 2:
        raise InputError(
            where=name,
            expected="at least two axes, the last two y and x",
            found=f"shape {tuple(array.shape)}",
            remedy="Give a label image.",
        )
    lead = tuple(f"axis {k}" for k in range(len(array.shape) - 2))
    return LabelSource(name, array, (*lead, "y", "x"))


def _evaluate(
    pred: LabelSource, truth: LabelSource, thresholds: Sequence[float], cell: int
) -> Evaluation:
    """Pool the scores of all planes."""
    _check(pred, truth, thresholds, cell)
    pairs = zip(pred.planes, truth.planes, strict=True)
    return pool([_score_plane(a, b, thresholds, cell) for a, b in pairs])


def _check(pred: LabelSource, truth: LabelSource, thresholds: Sequence[float], cell: int) -> None:
    """Refuse what cannot be compared, before anything is read."""
    if pred.shape != truth.shape:
        raise InputError(
            where=f"{pred.name} against {truth.name}",
            expected="equal shapes",
            found=f"{pred.shape} and {truth.shape}",
            remedy="Score labels of the same image at the same level.",
        )
    if not thresholds or not all(0.5 <= threshold <= 1 for threshold in thresholds):
        raise InputError(
            where="thresholds",
            expected="at least one IoU, each in [0.5, 1]",
            found=f"{tuple(thresholds)}",
            remedy="Below 0.5 an object can match several others and scores are ambiguous.",
        )
    if cell < 1:
        raise InputError(
            where="cell", expected="at least 1 pixel", found=str(cell), remedy="Raise it."
        )


def _score_plane(
    pred: LabelPlane, truth: LabelPlane, thresholds: Sequence[float], cell: int
) -> PlaneScores:
    """Stream one plane: the overlap table and both outlines grow, the pixels are let go."""
    bounds = Box.of_shape(pred.source.shape[-2:])
    table: list[Overlap] = []
    edges = _Outline(), _Outline()
    for core in bounds.split((cell, cell)):
        outer = core.grow(1).clip(bounds)
        p, t = pred.read(outer), truth.read(outer)
        inside = core.slices(outer.start)
        table.append(count_overlap(p[inside], t[inside]))
        edges[0].extend(outline(p != 0, outer, core))
        edges[1].extend(outline(t != 0, outer, core))
    overlap = merge_overlaps(table)
    hd95, note = _distance(*edges)
    if note is not None and pred.index:
        note = f"plane {pred.index}: {note}"
    return PlaneScores(match(overlap, thresholds), PixelCounts.of_overlap(overlap), hd95, note)


class _Outline:
    """Outline pixels of one plane, let go (but counted) beyond the limit."""

    def __init__(self) -> None:
        self.count = 0
        self._parts: list[NDArray[np.int32]] = []

    def extend(self, points: NDArray[np.int32]) -> None:
        self.count += len(points)
        self._parts.append(points)
        if self.count > OUTLINE_LIMIT:
            self._parts.clear()

    def points(self) -> NDArray[np.int32]:
        return np.concatenate(self._parts)


def _distance(pred: _Outline, truth: _Outline) -> tuple[float | None, str | None]:
    """HD95 of a plane, or why it has none."""
    if not pred.count or not truth.count:
        empty = "prediction" if truth.count else "truth" if pred.count else "prediction and truth"
        return None, f"{empty} without objects"
    if max(pred.count, truth.count) > OUTLINE_LIMIT:
        return None, (
            f"{max(pred.count, truth.count)} outline pixels, more than the {OUTLINE_LIMIT} "
            "up to which the distance is computed"
        )
    return hausdorff95(pred.points(), truth.points()), None
