"""Scale bar: a strip below a picture that says how long things are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.review.keys import words

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What stands in the place of the bar where the size of a pixel is not known.
_UNKNOWN = "no pixel size"

# Pixels of the picture's longer side for each of the bar's units, of which it is three thick.
_SIDE_OVER_UNIT = 512

# Height of letters, in units, and in pixels at least.
_LETTERS, _LEAST_LETTERS = 10, 12


def add_scale_bar(
    picture: NDArray[np.uint8], pixel_size_um: float | None, unit: int | None = None
) -> NDArray[np.uint8]:
    """Add a black strip with a scale bar below the picture, where it hides nothing.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        Red, green and blue.
    pixel_size_um : float or None
        Side of a pixel of the picture in micrometres; where it is not known the strip says so.
    unit : int, optional
        Pixels of a third of the bar's thickness; as fits the picture if not given.

    Returns
    -------
    (Y + strip, X, 3) uint8
        The picture, and a bar of 1, 2 or 5 times a power of ten, at most a quarter as wide. A
        picture narrower than bar and letters gets black at its right.

    Raises
    ------
    InputError
        If the pixel size is not positive and finite.
    """
    if unit is None:
        unit = max(1, round(max(picture.shape[:2]) / _SIDE_OVER_UNIT))
    width, bar, said = picture.shape[1], 0, _UNKNOWN
    if pixel_size_um is not None:
        _check_pixel_size(pixel_size_um)
        length_um = _round_length(width / 4 * pixel_size_um)
        bar, said = max(1, round(length_um / pixel_size_um)), _length_name(length_um)
    text = words(said, max(_LEAST_LETTERS, _LETTERS * unit))
    left = 4 * unit
    at, top = left + (bar + left if bar else 0), (13 * unit - len(text)) // 2
    strip = np.zeros((13 * unit, max(width, at + text.shape[1]), 3), np.uint8)
    strip[5 * unit : 8 * unit, left : left + bar] = 255
    strip[top : top + len(text), at : at + text.shape[1]] = text
    return np.concatenate([np.pad(picture, ((0, 0), (0, strip.shape[1] - width), (0, 0))), strip])


def _check_pixel_size(pixel_size_um: float) -> None:
    if not (math.isfinite(pixel_size_um) and pixel_size_um > 0):
        raise InputError(
            where="pixel_size_um",
            expected="a positive, finite size",
            found=str(pixel_size_um),
            remedy="Correct the physical scale of the image, or leave the scale bar out.",
        )


def _round_length(limit: float) -> float:
    """Largest of 1, 2 and 5 times a power of ten that is not above `limit`."""
    power = 10.0 ** math.floor(math.log10(limit))
    return next(k * power for k in (5, 2, 1) if k * power <= limit or k == 1)


def _length_name(length_um: float) -> str:
    """Length in the unit that a microscopist would say."""
    for unit, size in (("mm", 1000.0), ("µm", 1.0)):
        if length_um >= size * 0.999:
            return f"{round(length_um / size):d} {unit}"
    return f"{round(length_um * 1000, 3):g} nm"
