"""Intensity statistics that do not depend on how an image is cut, and the mapping they give.

Values are counted by keys: unsigned integers of 8, 16 or 32 bits in the order of the values, one
per value. Up to 16 bits all keys are counted in one sweep. Of 32 bits a first sweep counts the
upper 16; a second one counts the lower 16 inside the few bins that hold the wanted order
statistics. Counts add up in any order to the same sums, so the percentiles are those of the whole
image, exactly, whatever the outliers. 64-bit types are counted as the float32 that they are
normalised as.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bins of a count: keys of 16 bits, or one half of a key of 32.
BINS = 2**16

#: Values that are counted at once: copies of a whole region would be its largest arrays.
_PIECE = 2**20

#: Largest size of a normalised value. No intensity lies a million contrasts away from the others
#: for a good reason, and the sums of a network must stay finite.
LARGEST_NORMALISED = np.float32(1e6)


def counted_dtype(dtype: str) -> np.dtype[np.generic]:
    """Type as which values are counted: their own up to 32 bits, float32 for wider ones."""
    kind = np.dtype(dtype)
    if kind.kind == "b":
        return np.dtype(np.uint8)
    return kind if kind.itemsize <= 4 else np.dtype(np.float32)


def wide(dtype: str) -> bool:
    """Whether keys of a dtype have 32 bits, so that they are counted in two sweeps."""
    return counted_dtype(dtype).itemsize > 2


def keys_of(values: np.ndarray) -> np.ndarray:
    """Name values by unsigned integers in the same order.

    Parameters
    ----------
    values : ndarray, of a dtype that `counted_dtype` gives
        Finite.

    Returns
    -------
    ndarray of uint8, uint16 or uint32
        For floats the ordering of IEEE 754 bit patterns: those of negative values are inverted,
        the others moved above them.

    Examples
    --------
    >>> keys_of(np.array([-2, 0, 5], np.int8)).tolist()
    [126, 128, 133]
    """
    if values.dtype.kind == "u":
        return values
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    sign = unsigned.type(1 << (8 * unsigned.itemsize - 1))
    bits = np.ascontiguousarray(values).view(unsigned)
    keys: np.ndarray = bits ^ sign
    if values.dtype.kind == "f":
        keys = np.where(bits & sign, ~bits, keys)
    return keys


def value_of(key: int, dtype: np.dtype[np.generic]) -> float:
    """Value that a key names, exactly.

    Examples
    --------
    >>> value_of(int(keys_of(np.array([-1.5], np.float32))[0]), np.dtype("float32"))
    -1.5
    """
    if dtype.kind == "u":
        return float(key)
    unsigned = np.dtype(f"u{dtype.itemsize}")
    sign = 1 << (8 * unsigned.itemsize - 1)
    bits = key ^ (2 * sign - 1) if dtype.kind == "f" and not key & sign else key ^ sign
    return float(np.array([bits], unsigned).view(dtype)[0])


@dataclass(frozen=True)
class Count:
    """Counted keys of one channel; those that do not occur are left out.

    Parameters
    ----------
    bins : ndarray of shape (n,), uint32
        Keys, or their upper 16 bits where keys have 32; ascending.
    counts : ndarray of shape (n,), int64
        Values in each.
    least, most : int
        Smallest and largest key; `least` > `most` where there is no finite value.
    nonfinite : int
        Values that are NaN, infinite, or too large for the type that they are counted as.
    """

    bins: np.ndarray
    counts: np.ndarray
    least: int
    most: int
    nonfinite: int


def count(values: np.ndarray) -> Count:
    """Count values by their keys, or by the upper 16 bits of keys of 32.

    Parameters
    ----------
    values : ndarray, any real dtype
    """
    shift = 16 if wide(values.dtype.name) else 0
    total = np.zeros(BINS, np.int64)
    least, most, nonfinite = 2**32 - 1, 0, 0
    for keys, bad in _pieces(values):
        nonfinite += bad
        if keys.size:
            least, most = min(least, int(keys.min())), max(most, int(keys.max()))
            total += np.bincount(keys >> shift, minlength=BINS)
    found = np.flatnonzero(total)
    return Count(found.astype(np.uint32), total[found], least, most, nonfinite)


def count_within(values: np.ndarray, bins: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count the keys of 32 bits whose upper 16 are among `bins`.

    Parameters
    ----------
    values : ndarray, any real dtype
        Of keys of 32 bits.
    bins : ndarray of shape (n,), integer
        Ascending.

    Returns
    -------
    keys : ndarray of shape (m,), uint32
        Ascending; those that occur.
    counts : ndarray of shape (m,), int64
    """
    place = np.full(BINS, -1, np.int64)
    place[bins] = np.arange(len(bins))
    total = np.zeros(len(bins) * BINS, np.int64)
    for keys, _ in _pieces(values):
        at = place[keys >> 16]
        inside = at >= 0
        lower = keys[inside] & np.uint32(BINS - 1)
        total += np.bincount(at[inside] * BINS + lower, minlength=len(total))
    found = np.flatnonzero(total)
    keys = (np.asarray(bins)[found // BINS].astype(np.int64) << 16) + found % BINS
    return keys.astype(np.uint32), total[found]


def finite_values(values: np.ndarray) -> np.ndarray:
    """Finite values in the type that they are counted as: (n,)."""
    single = _single(values.ravel())
    return single[np.isfinite(single)] if single.dtype.kind == "f" else single


def ranks(total: int, q: float) -> tuple[int, int, float]:
    """Order statistics between which percentile `q` lies, and how far from the first.

    Linear interpolation, as NumPy defines it.

    Examples
    --------
    >>> ranks(5, 50)
    (2, 2, 0.0)
    """
    place = (total - 1) * (q / 100)
    below = min(int(place), total - 1)
    part = place - below
    return below, min(below + 1, total - 1) if part > 0 else below, part


def place_of(counts: np.ndarray, rank: int) -> tuple[int, int]:
    """Bin that holds the value of a rank, and its rank among the values of the bin."""
    ends = np.cumsum(counts)
    at = int(np.searchsorted(ends, rank, side="right"))
    return at, rank - int(ends[at] - counts[at])


def between(a: float, b: float, part: float) -> float:
    """Interpolate linearly; from the nearer end, as NumPy does."""
    return b - (b - a) * (1 - part) if part >= 0.5 else a + (b - a) * part


def normalise(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Map intensities so that `low` becomes 0 and `high` becomes 1, without clipping to these.

    Parameters
    ----------
    values : ndarray of shape (C, Y, X), any real dtype
        Finite as float32.
    low, high : ndarray of shape (C,) or (C, Y, X), float32
        Intensities that are mapped to 0 and 1.

    Returns
    -------
    ndarray of shape (C, Y, X), float32
        Finite; at most `LARGEST_NORMALISED` in size.

    Notes
    -----
    As StarDist's own preprocessing (csbdeep ``normalize_mi_ma``): float32 throughout, 1e-20 in the
    denominator, so that a constant image becomes 0 and not NaN.
    """
    if low.ndim == 1:
        low, high = low[:, None, None], high[:, None, None]
    low, high = low.astype(np.float32), high.astype(np.float32)
    result = values.astype(np.float32)
    with np.errstate(over="ignore"):
        spread = high - low
        if not np.isfinite(spread).all():
            # Powers of two change no digit.
            quarter = np.float32(0.25)
            result *= quarter
            low, high = low * quarter, high * quarter
            spread = high - low
        spread += np.float32(1e-20)
        result -= low
        result /= spread
    return np.clip(result, -LARGEST_NORMALISED, LARGEST_NORMALISED, out=result)


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


def _pieces(values: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Keys of the finite values, some at a time, and how many were not finite."""
    flat = values.ravel()
    for start in range(0, flat.size, _PIECE):
        piece = _single(flat[start : start + _PIECE])
        bad = 0
        if piece.dtype.kind == "f":
            finite = np.isfinite(piece)
            bad = int(piece.size - np.count_nonzero(finite))
            piece = piece[finite] if bad else piece
        yield keys_of(piece), bad


def _single(values: np.ndarray) -> np.ndarray:
    """Values in the type that they are counted as; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(counted_dtype(values.dtype.name), copy=False)
