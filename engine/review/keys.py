"""Keys: words, swatches of classes and bars of values, as small pictures on black."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.review.pictures import class_picture, heat_picture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# Pictures larger than a screen are seen as a whole, so their letters grow with them: at a height
# of 1000 pixels on the screen, no letter is smaller than on a picture of that size.
_LEAST_SIZE, _SIDE_OVER_SIZE = 15, 64

# Around swatches and bars: black at their end would be lost on the black around them.
_FRAME = 112


def text_size(side: int) -> int:
    """Height of letters, in pixels, on a picture whose longer side has so many pixels.

    Examples
    --------
    >>> [text_size(side) for side in (40, 1000, 1536, 2304)]
    [15, 15, 24, 36]
    """
    return max(_LEAST_SIZE, side // _SIDE_OVER_SIZE)


def words(text: str, size: int) -> NDArray[np.uint8]:
    """Words in white on black: (Y, X, 3) uint8, of equal height for equal size."""
    font = ImageFont.load_default(size)
    plain = text.replace("µ", "u")
    height, base = round(1.1 * size), round(0.82 * size)
    line = Image.new("RGB", (math.ceil(font.getlength(plain)), height))
    ImageDraw.Draw(line).text((0, base), plain, fill=(255, 255, 255), font=font, anchor="ls")
    drawn = np.array(line)
    # The font has no µ: it is a u whose left stem goes on below the line.
    half = round(font.getlength("u") / 2)
    for k in (k for k, letter in enumerate(text) if letter == "µ"):
        at = round(font.getlength(plain[:k]))
        stem = drawn[base - size // 4, at : at + half]
        tail = drawn[base - size // 4 : base + size // 5, at : at + half]
        np.maximum(tail, stem, out=tail)
    return drawn


def beside(parts: Sequence[NDArray[np.uint8]], gap: int) -> NDArray[np.uint8]:
    """Pictures from left to right, each in the middle of the height."""
    height = max(part.shape[0] for part in parts)
    return _joined(
        [np.pad(p, (((n := height - len(p)) // 2, n - n // 2), (0, 0), (0, 0))) for p in parts],
        gap,
        axis=1,
    )


def below(parts: Sequence[NDArray[np.uint8]], gap: int) -> NDArray[np.uint8]:
    """Pictures from top to bottom, each at the left."""
    width = max(part.shape[1] for part in parts)
    return _joined(
        [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in parts], gap, axis=0
    )


def class_key(names: Mapping[int, str], size: int, width: int) -> NDArray[np.uint8]:
    """Swatch and name of each class, in as many lines as `width` makes.

    Parameters
    ----------
    names : mapping of int to str
        Name of each class; at least one.
    size : int
        Height of letters.
    width : int
        Pixels of a line; wider only where one name alone is.

    Returns
    -------
    (Y, X, 3) uint8
        A swatch runs from the class's colour on a black pixel of the image to that on a white one.
    """
    ramp = np.tile(np.linspace(0, 1, 2 * size), (size, 1))
    space = size // 2
    lines: list[list[NDArray[np.uint8]]] = []
    free = 0
    for value, name in names.items():
        swatch = class_picture(ramp, np.full(ramp.shape, value, np.uint8))
        entry = beside([_framed(swatch), words(name, size)], space)
        if entry.shape[1] > free:
            lines.append([])
            free = width
        lines[-1].append(entry)
        free -= entry.shape[1] + 3 * space
    return below([beside(line, 3 * space) for line in lines], space)


def value_key(most: float, size: int, width: int) -> NDArray[np.uint8]:
    """Slim bar of the colours of a map of values, between its end values.

    Parameters
    ----------
    most : float
        Value of the brightest colour; the darkest is 0.
    size : int
        Height of letters.
    width : int
        Pixels to fill, with black after the last value; wider only where both values and a short
        bar are.

    Returns
    -------
    (Y, X, 3) uint8
    """
    ends = words("0", size), words(f"{most:g}", size)
    space = size // 2
    # A value at the very end would read as one number with the first value of the next bar.
    margin = np.zeros((1, 2 * size, 3), np.uint8)
    room = width - 3 * space - sum(part.shape[1] for part in (*ends, margin))
    bar = heat_picture(np.tile(np.linspace(0, 1, max(4 * size, room)), (max(6, space), 1)), 1)
    return beside([ends[0], _framed(bar), ends[1], margin], space)


def _framed(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Picture whose outermost pixels are a gray frame."""
    framed = np.full_like(picture, _FRAME)
    framed[1:-1, 1:-1] = picture[1:-1, 1:-1]
    return framed


def _joined(parts: Sequence[NDArray[np.uint8]], gap: int, axis: int) -> NDArray[np.uint8]:
    """Join pictures that fit along an axis, with black between them."""
    between = list(parts[0].shape)
    between[axis] = gap
    spaced = [piece for part in parts for piece in (np.zeros(between, np.uint8), part)]
    joined: NDArray[np.uint8] = np.concatenate(spaced[1:], axis=axis)
    return joined
