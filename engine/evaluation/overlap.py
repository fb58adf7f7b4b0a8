"""Overlap: how many pixels each predicted object shares with each true one, as a sparse table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Overlap:
    """Pixels of every pair (id in the prediction, id in the truth) that occurs, 0 = background.

    The pair (0, 0) is left out. Every pixel of an object is in some pair, so areas and pixel
    scores follow from the table alone and no array of size n by m is ever made.

    Parameters
    ----------
    pred : (K,) uint64
        Id in the prediction; rows are sorted by (pred, truth) and each pair occurs once.
    truth : (K,) uint64
        Id in the truth.
    pixels : (K,) int64
        Pixels of the pair, at least 1.

    Examples
    --------
    >>> a = np.array([[1, 1, 0], [0, 0, 0]])
    >>> b = np.array([[0, 7, 7], [0, 0, 0]])
    >>> table = count_overlap(a, b)
    >>> [(int(p), int(t), int(n)) for p, t, n in zip(table.pred, table.truth, table.pixels)]
    [(0, 7, 1), (1, 0, 1), (1, 7, 1)]
    """

    pred: NDArray[np.uint64]
    truth: NDArray[np.uint64]
    pixels: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not self.pred.shape == self.truth.shape == self.pixels.shape:
            msg = (
                "pred, truth and pixels must be equally long, got "
                f"{self.pred.shape}, {self.truth.shape} and {self.pixels.shape}"
            )
            raise ValueError(msg)


def count_overlap(pred: NDArray[np.generic], truth: NDArray[np.generic]) -> Overlap:
    """Overlap of two label arrays of equal shape.

    Parameters
    ----------
    pred, truth : integer arrays of one shape, no value below 0
        Labels, 0 = background.

    Returns
    -------
    Overlap
        Its rows are the pairs of ids that occur.
    """
    p, t = pred.ravel(), truth.ravel()
    if not p.size:
        return merge_overlaps(())
    # Runs of equal pairs first: labels change rarely along a row, so sorting runs is cheap.
    starts = np.flatnonzero((p[1:] != p[:-1]) | (t[1:] != t[:-1])) + 1
    starts = np.concatenate(([0], starts))
    lengths = np.diff(starts, append=p.size)
    return _reduce(p[starts].astype(np.uint64), t[starts].astype(np.uint64), lengths)


def merge_overlaps(parts: Iterable[Overlap]) -> Overlap:
    """Overlap of the whole from the overlaps of disjoint parts, in any order."""
    parts = tuple(parts)
    if not parts:
        none = np.empty(0, np.uint64)
        return Overlap(none, none, np.empty(0, np.int64))
    return _reduce(
        np.concatenate([part.pred for part in parts]),
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.pixels for part in parts]),
    )


def _reduce(
    pred: NDArray[np.uint64], truth: NDArray[np.uint64], pixels: NDArray[np.int64]
) -> Overlap:
    """Sort by pair, add up equal pairs, leave out background against background."""
    some = (pred != 0) | (truth != 0)
    pred, truth, pixels = pred[some], truth[some], pixels[some]
    if not pred.size:
        return Overlap(pred, truth, pixels)
    order = np.lexsort((truth, pred))
    pred, truth, pixels = pred[order], truth[order], pixels[order]
    new = (pred[1:] != pred[:-1]) | (truth[1:] != truth[:-1])
    first = np.concatenate(([0], np.flatnonzero(new) + 1))
    return Overlap(pred[first], truth[first], np.add.reduceat(pixels, first))
