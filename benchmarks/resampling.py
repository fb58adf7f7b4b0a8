"""Intervals by resampling: how far other images, objects or scenes like these might lead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence


def drawn(count: int, draws: int) -> np.ndarray:
    """Rows of each draw, with replacement, the same always: (draws, count) int64."""
    return np.random.default_rng(0).integers(0, count, (draws, count))


def drawn_weights(count: int, draws: int) -> np.ndarray:
    """How often each draw takes each row, for measures of sums: (draws, count) int64."""
    return np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), size=draws)


def limits(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """Bounds of the 95 % in the middle; no numbers where there are no values."""
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
