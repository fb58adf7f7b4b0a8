"""Pictures of one array: the image in gray, a class map over it, a map of values; and enlarging."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.planning.elements import CLASS_COLORS
from engine.review.overlay import stretch

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CLASS_COLORS = np.array(CLASS_COLORS, np.float32)

#: From little to much: black, violet, red, orange, pale yellow; brightness rises all the way.
_HEAT = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32
)

#: Share of a class's colour over the image.
_TINT = 0.55

#: Small images are enlarged so far and no further.
_LARGEST_PIXEL = 8


def gray_picture(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Contrast-stretched image, (Y, X) or (3, Y, X), as (Y, X, 3) uint8."""
    shown = stretch(image)
    return np.moveaxis(np.stack([shown] * 3) if shown.ndim == 2 else shown, 0, -1)


def class_picture(image: NDArray[Any], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Image tinted by class; where it is background, as it is.

    Parameters
    ----------
    image : (Y, X) or (3, Y, X), any real dtype
        The image.
    classes : (Y, X) uint8
        Class of each pixel; colours repeat from the ninth on.

    Returns
    -------
    (Y, X, 3) uint8
    """
    gray = gray_picture(image).astype(np.float32)
    index = np.where(classes > 0, (classes - 1) % (len(_CLASS_COLORS) - 1) + 1, 0)
    tint = np.where(classes > 0, np.float32(_TINT), np.float32(0))[..., None]
    mixed: NDArray[np.uint8] = np.rint(gray * (1 - tint) + _CLASS_COLORS[index] * tint).astype(
        np.uint8
    )
    return mixed


def heat_picture(values: NDArray[Any], most: float) -> NDArray[np.uint8]:
    """Map of values from 0 to `most`, dark to bright: (Y, X) to (Y, X, 3) uint8."""
    share = np.clip(values.astype(np.float32) / max(most, 1e-9), 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(share.astype(np.int64), len(_HEAT) - 2)
    part = (share - low)[..., None]
    heat: NDArray[np.uint8] = np.rint(_HEAT[low] * (1 - part) + _HEAT[low + 1] * part).astype(
        np.uint8
    )
    return heat


def enlargement(side: int, wanted: int) -> int:
    """Whole factor, at least 1, by which an image is enlarged so that its side nears `wanted`.

    Examples
    --------
    >>> [enlargement(side, 512) for side in (10, 40, 200, 512, 9000)]
    [8, 8, 2, 1, 1]
    """
    return min(max(1, wanted // side), _LARGEST_PIXEL)


def enlarge(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """Each pixel of (..., Y, X) `factor` times on both axes: nothing is interpolated."""
    return array.repeat(factor, axis=-2).repeat(factor, axis=-1)
