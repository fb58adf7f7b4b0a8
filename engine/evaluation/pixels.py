"""Pixel scores: Dice, IoU and the Hausdorff distance of foreground against background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engine.evaluation.overlap import Overlap
    from tiling.box import Box


@dataclass(frozen=True, slots=True)
class PixelCounts:
    """Foreground pixels of prediction and truth, and of both at once.

    Parameters
    ----------
    pred, truth, both : int
        Pixels of any object in the prediction, in the truth, in both.

    Examples
    --------
    >>> PixelCounts(pred=4, truth=6, both=4).dice
    0.8
    """

    pred: int
    truth: int
    both: int

    def __post_init__(self) -> None:
        if not 0 <= self.both <= min(self.pred, self.truth):
            msg = f"both must lie in [0, min(pred, truth)], got {self}"
            raise ValueError(msg)

    @classmethod
    def of_overlap(cls, overlap: Overlap) -> PixelCounts:
        """Count the foreground of one plane in its table."""
        in_pred, in_truth = overlap.pred != 0, overlap.truth != 0
        return cls(
            int(overlap.pixels[in_pred].sum()),
            int(overlap.pixels[in_truth].sum()),
            int(overlap.pixels[in_pred & in_truth].sum()),
        )

    @property
    def dice(self) -> float | None:
        """Dice coefficient; None where neither side has a pixel (0 / 0)."""
        total = self.pred + self.truth
        return 2 * self.both / total if total else None

    @property
    def iou(self) -> float | None:
        """Intersection over union; None where neither side has a pixel (0 / 0)."""
        union = self.pred + self.truth - self.both
        return self.both / union if union else None

    def add(self, other: PixelCounts) -> PixelCounts:
        """Add the counts of another plane."""
        return PixelCounts(self.pred + other.pred, self.truth + other.truth, self.both + other.both)


def outline(mask: NDArray[np.bool_], outer: Box, core: Box) -> NDArray[np.int32]:
    """Pixels of a mask that touch, by a side, what is not in it.

    Parameters
    ----------
    mask : (H, W) bool
        Foreground of `outer`.
    outer : Box
        `core` grown by at least one pixel and clipped to the plane; outside the plane nothing is
        foreground, so an object at the plane's edge has an outline there.
    core : Box
        What to report.

    Returns
    -------
    (K, 2) int32
        Positions (y, x) in the plane, raster order.
    """
    inside = core.slices(outer.start)
    edge = mask[inside] & ~_eroded(mask)[inside]
    points: NDArray[np.int32] = np.argwhere(edge).astype(np.int32)
    return points + np.asarray(core.start, np.int32)


def _eroded(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels whose four neighbours are in the mask too; beyond the array nothing is.

    The same as ``scipy.ndimage.binary_erosion(mask)``, ten times as fast.
    """
    inner = np.zeros_like(mask)
    core = inner[1:-1, 1:-1]
    core |= mask[1:-1, 1:-1] & mask[:-2, 1:-1]
    core &= mask[2:, 1:-1]
    core &= mask[1:-1, :-2]
    core &= mask[1:-1, 2:]
    return inner


def hausdorff95(pred: NDArray[np.int32], truth: NDArray[np.int32]) -> float:
    """95th percentile of the Hausdorff distance between two outlines.

    Parameters
    ----------
    pred, truth : (K, 2) and (L, 2) int32, neither empty
        Outline pixels (y, x) of one plane.

    Returns
    -------
    float
        Pixels. The larger of the two directed percentiles (linear interpolation), equal to
        ``monai.metrics.compute_hausdorff_distance(..., percentile=95)`` on the masks.
    """
    return max(_directed95(pred, truth), _directed95(truth, pred))


def _directed95(points: NDArray[np.int32], others: NDArray[np.int32]) -> float:
    """95th percentile of the distance from each point to the nearest of the others."""
    distances, _ = KDTree(others.astype(np.float64), leafsize=32).query(points, k=1)
    return float(np.percentile(distances, 95))
