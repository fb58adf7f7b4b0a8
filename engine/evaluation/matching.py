"""Matching: which predicted object is which true one, and the scores of it, as stardist counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from engine.evaluation.overlap import Overlap


@dataclass(frozen=True, slots=True)
class InstanceScores:
    """Objects found, invented and missed at one IoU threshold.

    Every ratio is 0 where no object is matched, two empty images included: the convention of
    ``stardist.matching.matching``.

    Parameters
    ----------
    iou : float
        Threshold in [0.5, 1]: a pair counts where its intersection over union is at least this.
    tp, fp, fn : int
        Matched objects; predicted ones without a match; true ones without a match.
    matched_score_sum : float
        Sum of the IoU of the matched pairs.

    Examples
    --------
    >>> scores = InstanceScores(iou=0.5, tp=3, fp=1, fn=0, matched_score_sum=2.4)
    >>> round(scores.f1, 3), scores.precision, scores.recall, scores.accuracy
    (0.857, 0.75, 1.0, 0.75)
    """

    iou: float
    tp: int
    fp: int
    fn: int
    matched_score_sum: float

    def __post_init__(self) -> None:
        if not 0.5 <= self.iou <= 1:
            raise ValueError(f"iou must lie in [0.5, 1], got {self.iou}")
        if min(self.tp, self.fp, self.fn) < 0:
            msg = f"tp, fp and fn must be >= 0, got {self.tp}, {self.fp} and {self.fn}"
            raise ValueError(msg)

    @property
    def n_pred(self) -> int:
        """Objects in the prediction."""
        return self.tp + self.fp

    @property
    def n_true(self) -> int:
        """Objects in the truth."""
        return self.tp + self.fn

    @property
    def precision(self) -> float:
        """Matched share of the predicted objects."""
        return self.tp / self.n_pred if self.tp else 0.0

    @property
    def recall(self) -> float:
        """Matched share of the true objects."""
        return self.tp / self.n_true if self.tp else 0.0

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.tp / (2 * self.tp + self.fp + self.fn) if self.tp else 0.0

    @property
    def accuracy(self) -> float:
        """``tp / (tp + fp + fn)``, called average precision in the 2018 Data Science Bowl."""
        return self.tp / (self.tp + self.fp + self.fn) if self.tp else 0.0

    @property
    def mean_matched_score(self) -> float:
        """Mean IoU of the matched pairs (segmentation quality)."""
        return self.matched_score_sum / self.tp if self.tp else 0.0

    @property
    def panoptic_quality(self) -> float:
        """Eq. 1 of Kirillov et al., Panoptic Segmentation, CVPR 2019."""
        weight = self.tp + self.fp / 2 + self.fn / 2
        return self.matched_score_sum / weight if self.tp else 0.0

    def add(self, other: InstanceScores) -> InstanceScores:
        """Scores of two planes together: counts and scores add up.

        Raises
        ------
        ValueError
            If the two were taken at different thresholds.
        """
        if self.iou != other.iou:
            raise ValueError(f"iou must be equal to add scores, got {self.iou} and {other.iou}")
        return InstanceScores(
            self.iou,
            self.tp + other.tp,
            self.fp + other.fp,
            self.fn + other.fn,
            self.matched_score_sum + other.matched_score_sum,
        )


def match(overlap: Overlap, thresholds: Sequence[float]) -> tuple[InstanceScores, ...]:
    """Match the objects of one plane one to one at each IoU threshold.

    Parameters
    ----------
    overlap : Overlap
        Table of one plane.
    thresholds : sequence of float in [0.5, 1]
        IoU thresholds.

    Returns
    -------
    tuple of InstanceScores
        One per threshold, in the order given.

    Notes
    -----
    ``stardist.matching.matching`` (criterion ``iou``) solves one dense assignment over all
    objects: as many pairs at or above the threshold as possible, and of those the largest sum
    of IoU. From 0.5 upwards the sparse graph of such pairs says the same. An object has two
    partners there only where each covers exactly one half of it, both at IoU 0.5, so any largest
    matching of that graph has the largest sum too; above 0.5 no object has two. Ratios and the
    comparison are in float32 as there, so that ties fall alike.
    """
    pred_ids, pred_at = np.unique(overlap.pred, return_inverse=True)
    true_ids, true_at = np.unique(overlap.truth, return_inverse=True)
    n_pred, n_true = int((pred_ids != 0).sum()), int((true_ids != 0).sum())
    both = (overlap.pred != 0) & (overlap.truth != 0)
    rows, columns = true_at[both], pred_at[both]
    union = _areas(pred_at, overlap.pixels)[columns] + _areas(true_at, overlap.pixels)[rows]
    union -= overlap.pixels[both]
    iou = (overlap.pixels[both] / union).astype(np.float32)
    shape = (len(true_ids), len(pred_ids))
    scores = []
    for threshold in thresholds:
        good = iou >= np.float32(threshold)
        chosen = _largest_matching(rows[good], columns[good], shape)
        tp = int(chosen.sum())
        score_sum = float(iou[good][chosen].sum(dtype=np.float64))
        scores.append(InstanceScores(float(threshold), tp, n_pred - tp, n_true - tp, score_sum))
    return tuple(scores)


def _areas(at: NDArray[np.intp], pixels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Pixels of each object; `at` names the object of each row of the table."""
    areas = np.zeros(int(at.max(initial=-1)) + 1, np.int64)
    np.add.at(areas, at, pixels)
    return areas


def _largest_matching(
    rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which edges of a bipartite graph belong to a matching of the largest size."""
    if not rows.size:
        return np.zeros(0, bool)
    graph = csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=shape)
    partner = maximum_bipartite_matching(graph, perm_type="column")
    chosen: NDArray[np.bool_] = partner[rows] == columns
    return chosen
