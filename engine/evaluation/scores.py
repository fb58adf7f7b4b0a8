"""Scores of one plane and of all planes together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from statistics import fmean
from typing import TYPE_CHECKING

from engine.evaluation.matching import InstanceScores
from engine.evaluation.pixels import PixelCounts

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Scores of a prediction against the truth, all planes together.

    Parameters
    ----------
    instances : tuple of InstanceScores
        One per IoU threshold; counts are added up over planes.
    dice, iou_pixels : float or None
        Of foreground (any object) against background, pixels of all planes together; None where
        neither image has an object.
    hd95 : float or None
        95th percentile of the Hausdorff distance of the foregrounds in pixels, mean over the
        planes that have one; None where no plane has.
    hd95_note : str or None
        Which planes `hd95` leaves out and why; None where it leaves out none.
    """

    instances: tuple[InstanceScores, ...]
    dice: float | None
    iou_pixels: float | None
    hd95: float | None
    hd95_note: str | None

    def as_json(self) -> list[dict[str, float | int | str | None]]:
        """Make the scores a list with one flat object per threshold.

        Returns
        -------
        list of dict
            Keys ``iou, f1, precision, recall, accuracy, panoptic_quality, mean_matched_score, tp,
            fp, fn, n_true, n_pred`` and, the same in each, ``dice, iou_pixels, hd95, hd95_note``.
        """
        return [
            {
                "iou": at.iou,
                "f1": at.f1,
                "precision": at.precision,
                "recall": at.recall,
                "accuracy": at.accuracy,
                "panoptic_quality": at.panoptic_quality,
                "mean_matched_score": at.mean_matched_score,
                "tp": at.tp,
                "fp": at.fp,
                "fn": at.fn,
                "n_true": at.n_true,
                "n_pred": at.n_pred,
                "dice": self.dice,
                "iou_pixels": self.iou_pixels,
                "hd95": self.hd95,
                "hd95_note": self.hd95_note,
            }
            for at in self.instances
        ]


@dataclass(frozen=True, slots=True)
class PlaneScores:
    """What one plane adds to an evaluation.

    Parameters
    ----------
    instances : tuple of InstanceScores
        One per IoU threshold.
    pixels : PixelCounts
        Foreground of prediction and truth.
    hd95 : float or None
        Pixels; None where the plane has none.
    note : str or None
        Why the plane has no `hd95`.
    """

    instances: tuple[InstanceScores, ...]
    pixels: PixelCounts
    hd95: float | None
    note: str | None

    def __post_init__(self) -> None:
        if (self.hd95 is None) == (self.note is None):
            raise ValueError(f"hd95 or the reason of its absence, got {self.hd95}, {self.note}")


def pool(planes: Sequence[PlaneScores]) -> Evaluation:
    """Put planes together: counts add up, HD95 is the mean of the planes that have one.

    Parameters
    ----------
    planes : sequence of PlaneScores, at least one
        All taken at the same thresholds.

    Returns
    -------
    Evaluation
        Scores of all planes.
    """
    columns = zip(*(plane.instances for plane in planes), strict=True)
    pixels = reduce(PixelCounts.add, (plane.pixels for plane in planes))
    distances = [plane.hd95 for plane in planes if plane.hd95 is not None]
    return Evaluation(
        tuple(reduce(InstanceScores.add, column) for column in columns),
        pixels.dice,
        pixels.iou,
        fmean(distances) if distances else None,
        _join_notes([plane.note for plane in planes]),
    )


def _join_notes(notes: Sequence[str | None]) -> str | None:
    """One line on the planes that the mean of HD95 leaves out."""
    missing = [note for note in notes if note is not None]
    if not missing:
        return None
    first = "; ".join(missing[:3])
    more = f"; and {len(missing) - 3} more" if len(missing) > 3 else ""
    return f"hd95 leaves out {len(missing)} of {len(notes)} planes: {first}{more}"
