"""Scale bar: a strip below a picture that says how long things are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Five by seven dots a glyph, one number per row, the leftmost dot the highest bit.
_GLYPHS = {
    "0": (14, 17, 19, 21, 25, 17, 14),
    "1": (4, 12, 4, 4, 4, 4, 14),
    "2": (14, 17, 1, 2, 4, 8, 31),
    "3": (31, 2, 4, 2, 1, 17, 14),
    "4": (2, 6, 10, 18, 31, 2, 2),
    "5": (31, 16, 30, 1, 1, 17, 14),
    ".": (0, 0, 0, 0, 0, 12, 12),
    "n": (0, 0, 22, 25, 17, 17, 17),
    "m": (0, 0, 26, 21, 21, 21, 21),
    "µ": (0, 0, 17, 17, 19, 29, 16),
    " ": (0,) * 7,
}


def add_scale_bar(picture: NDArray[np.uint8], pixel_size_um: float) -> NDArray[np.uint8]:
    """Add a black strip with a scale bar below the picture, where it hides nothing.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        Red, green and blue.
    pixel_size_um : float
        Side of a pixel of the picture in micrometres.

    Returns
    -------
    (Y + strip, X, 3) uint8
        The picture, and a bar of 1, 2 or 5 times a power of ten, at most a quarter as wide.

    Raises
    ------
    InputError
        If the pixel size is not positive and finite.
    """
    _check_pixel_size(pixel_size_um)
    width = picture.shape[1]
    length_um = _round_length(width / 4 * pixel_size_um)
    dots = max(1, width // 512)
    text = _text(_length_name(length_um), dots)
    bar = max(1, round(length_um / pixel_size_um))
    strip = np.zeros((13 * dots, width, 3), np.uint8)
    left = 4 * dots
    strip[5 * dots : 8 * dots, left : left + bar] = 255
    at = left + bar + 4 * dots
    room = strip[3 * dots : 10 * dots, at : at + text.shape[1]]
    room[text[:, : room.shape[1]]] = 255
    return np.concatenate([picture, strip])


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


def _text(text: str, dots: int) -> NDArray[np.bool_]:
    """Dots of a line of text, each drawn `dots` pixels wide."""
    bits = [[[row >> (4 - k) & 1 for k in range(5)] + [0] for row in _GLYPHS[c]] for c in text]
    line: NDArray[np.bool_] = np.concatenate(np.array(bits, bool), axis=1)
    return line.repeat(dots, axis=0).repeat(dots, axis=1)
