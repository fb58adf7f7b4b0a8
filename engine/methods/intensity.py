"""Intensity statistics that do not depend on how an image is cut, and the mapping they give.

Integer images are counted exactly, one bin per value. Wider types and floats are counted in 2^16
equal bins between the least and the largest value of the whole image, which a pass before found.
Counts add up in any order to the same sums, so the percentiles are those of the whole image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Bins of a histogram over values that are too many to count one by one.
BINS = 2**16

#: Values that are counted at once.
_PIECE = 2**20


@dataclass(frozen=True, slots=True)
class Binning:
    """How values are counted.

    Parameters
    ----------
    first : float
        Value of the first bin (its left edge where bins are wider than one value).
    width : float
        Width of a bin; 1 for integers that are counted one by one.
    bins : int
        Number of bins.
    exact : bool
        Whether a bin holds exactly one value.

    Examples
    --------
    >>> Binning.for_dtype("uint8")
    Binning(first=0.0, width=1.0, bins=256, exact=True)
    """

    first: float
    width: float
    bins: int
    exact: bool

    @classmethod
    def for_dtype(cls, dtype: str) -> Binning | None:
        """Binning that is known from the dtype alone; None where the range must be found first."""
        kind = np.dtype(dtype)
        if kind.kind not in "iu" or kind.itemsize > 2:
            return None
        limits = np.iinfo(kind)
        return cls(float(limits.min), 1.0, int(limits.max) - int(limits.min) + 1, exact=True)

    @classmethod
    def for_range(cls, low: float, high: float) -> Binning:
        """Binning of `BINS` equal bins over [low, high]."""
        return cls(float(low), max(float(high) - float(low), 1e-30) / BINS, BINS, exact=False)

    def count(self, values: np.ndarray) -> np.ndarray:
        """Histogram of finite values: (bins,) int64."""
        counts = np.zeros(self.bins, np.int64)
        flat = values.ravel()
        # In pieces: the integer copies of a whole region would be its largest arrays.
        for start in range(0, flat.size, _PIECE):
            piece = flat[start : start + _PIECE]
            if self.exact:
                index = piece.astype(np.int64) - int(self.first)
            else:
                place = (piece.astype(np.float64) - self.first) / self.width
                index = np.clip(place.astype(np.int64), 0, self.bins - 1)
            counts += np.bincount(index, minlength=self.bins)
        return counts

    def percentile(self, counts: np.ndarray, q: float) -> float:
        """Percentile `q` with linear interpolation between order statistics, as NumPy defines it.

        Exact where the bins are; within one bin width else.
        """
        total = int(counts.sum())
        if total == 0:
            return 0.0
        rank = (total - 1) * q / 100
        below = int(np.floor(rank))
        ends = np.cumsum(counts)
        low, high = np.searchsorted(ends, [below, min(below + 1, total - 1)], side="right")
        centre = 0.0 if self.exact else 0.5
        a, b = ((self.first + (k + centre) * self.width) for k in (low, high))
        return float(a + (b - a) * (rank - below))


def normalise(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Map intensities so that `low` becomes 0 and `high` becomes 1, without clipping.

    Parameters
    ----------
    values : ndarray of shape (C, Y, X), any real dtype
    low, high : ndarray of shape (C,) or (C, Y, X), float32
        Intensities that are mapped to 0 and 1.

    Returns
    -------
    ndarray of shape (C, Y, X), float32

    Notes
    -----
    As StarDist's own preprocessing (csbdeep ``normalize_mi_ma``): float32 throughout, 1e-20 in the
    denominator, so that a constant image becomes 0 and not NaN.
    """
    if low.ndim == 1:
        low, high = low[:, None, None], high[:, None, None]
    low, high = low.astype(np.float32), high.astype(np.float32)
    result: np.ndarray = (values.astype(np.float32) - low) / (high - low + np.float32(1e-20))
    return result


def interpolate_cells(
    cells: np.ndarray, cell: int, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Values of a coarse lattice, interpolated linearly between cell centres.

    Parameters
    ----------
    cells : ndarray of shape (C, n, m), float32
        One value per cell; cells start at pixel 0 and are `cell` pixels wide.
    cell : int
        Side of a cell in pixels.
    rows, columns : ndarray, integer
        Pixels, in coordinates of the whole plane.

    Returns
    -------
    ndarray of shape (C, rows, columns), float32
        Constant beyond the outermost centres. A pixel's value depends on its place alone.
    """
    (y0, y1, fy), (x0, x1, fx) = (
        _between(pixels, cell, n)
        for pixels, n in zip((rows, columns), cells.shape[1:], strict=True)
    )
    fy = fy[None, :, None]
    left = cells[:, y0] * (1 - fy) + cells[:, y1] * fy
    result: np.ndarray = left[:, :, x0] * (1 - fx) + left[:, :, x1] * fx
    return result


def _between(pixels: np.ndarray, cell: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Neighbouring cells of each pixel, and how far it lies from the first to the second."""
    place = np.clip((pixels + 0.5) / cell - 0.5, 0, n - 1)
    first = np.minimum(place.astype(np.intp), n - 1)
    return first, np.minimum(first + 1, n - 1), (place - first).astype(np.float32)
