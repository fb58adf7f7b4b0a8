"""Overlay: outlines of objects over a contrast-stretched image, as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is shown black and white: StarDist's percentiles, usual for nuclei.
_DARK, _BRIGHT = 1.0, 99.8

# Brightest gray shown under outlines, so that they stand out on saturated nuclei too.
_WHITE = 200 / 255

# Brightness (ITU-R BT.601) of outlines: at least this on dark images, just this on bright ones.
_LUMA = 0.48

# Of objects that are only there for comparison, on dark and on bright images.
_PALE = (96, 150, 170)

# 2**64 over the golden ratio: consecutive ids get colours far apart (Knuth, The Art of Computer
# Programming 3, section 6.4, Fibonacci hashing).
_GOLDEN = np.uint64(11400714819323198485)


def draw_overlay(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    pale: bool = False,
) -> NDArray[np.uint8]:
    """Draw the outline of every object over the contrast-stretched image.

    Outlines are one pixel thin and lie inside their object, so touching objects show two lines,
    each in the colour of its own id; nothing is filled.

    Parameters
    ----------
    image : (Y, X) or (3, Y, X), any real dtype
        One channel, shown gray, or red, green and blue.
    labels : (Y, X) integer
        Object ids, 0 = background.
    pale : bool
        Outline all objects in one pale colour, so that something else can stand out.

    Returns
    -------
    (Y, X, 3) uint8
        Red, green and blue.

    Raises
    ------
    InputError
        If the shapes do not fit together, there is no pixel, or labels are not integers.

    Examples
    --------
    >>> labels = np.zeros((5, 5), np.uint8)
    >>> labels[1:4, 1:4] = 1
    >>> picture = draw_overlay(np.zeros((5, 5)), labels)
    >>> int((picture.max(axis=-1) > 0).sum())
    8
    """
    check_pair(image, labels)
    shown = stretch(image)
    bright = float(np.median(shown)) > 127
    if shown.ndim == 2:
        shown = np.stack([shown] * 3)
    if not bright:
        shown = _to_bytes(shown * (_WHITE / 255))
    picture = np.moveaxis(shown, 0, -1).copy()
    edge = _inner_edges(labels)
    picture[edge] = _PALE if pale else object_colors(labels[edge], dark=bright)
    return picture


def stretch(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Map the 1st percentile to black and the 99.8th to white, as one range for all channels.

    Parameters
    ----------
    image : array of any real dtype
        Values that are not finite count for nothing and are shown black.

    Returns
    -------
    uint8 array of the same shape
        All black where the image is constant.

    Examples
    --------
    >>> stretch(np.array([[5.0, 5.0, 10.0, np.nan]]))
    array([[  0,   0, 255,   0]], dtype=uint8)
    """
    values = image.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(image.shape, np.uint8)
    low, high = np.percentile(values[finite], (_DARK, _BRIGHT))
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    scaled = np.clip((np.where(finite, values, low) - low) / (high - low), 0, 1)
    return _to_bytes(scaled)


def object_colors(ids: NDArray[np.integer[Any]], *, dark: bool = False) -> NDArray[np.uint8]:
    """Colour of each id: the same everywhere and always, never gray.

    Parameters
    ----------
    ids : (K,) integer
        Object ids.
    dark : bool
        For a bright background: deep greens to blues, which stains do not have.

    Returns
    -------
    (K, 3) uint8
        Red, green and blue.
    """
    turn = (ids.astype(np.uint64) * _GOLDEN >> np.uint64(40)) / 2**24
    hue = 0.2 + 0.36 * turn if dark else turn
    # HSV at full saturation: each channel is a trapezium of the hue, a third of a turn apart.
    phase = (hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1
    rgb = np.clip(np.abs(phase * 6 - 3) - 1, 0, 1)
    # Hues differ much in brightness: blue would be lost on black, yellow on white.
    luma = (rgb @ np.array([0.299, 0.587, 0.114]))[:, None]
    lifted = rgb + (1 - rgb) * np.clip((_LUMA - luma) / (1 - luma), 0, 1)
    if dark:
        lifted *= np.minimum(1, _LUMA / luma)
    return _to_bytes(lifted)


def check_pair(image: NDArray[Any], labels: NDArray[np.integer[Any]]) -> None:
    """Refuse arrays that cannot be drawn over each other.

    Parameters
    ----------
    image, labels : array
        As for `draw_overlay`.

    Raises
    ------
    InputError
        As for `draw_overlay`.
    """
    channels = image.shape[:-2]
    if labels.ndim != 2 or image.shape[-2:] != labels.shape or channels not in ((), (3,)):
        raise InputError(
            where="preview",
            expected="an image (Y, X) or (3, Y, X) and labels (Y, X) of equal size",
            found=f"shapes {image.shape} and {labels.shape}",
            remedy="Choose one channel, and the same level for image and labels.",
        )
    if not labels.size or labels.dtype.kind not in "iu" or image.dtype.kind not in "biuf":
        raise InputError(
            where="preview",
            expected="at least one pixel, an image of real numbers and labels of integers",
            found=f"shape {labels.shape}, dtypes {image.dtype} and {labels.dtype}",
            remedy="Choose another part of the image, or convert it.",
        )


def _to_bytes(scaled: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in [0, 1] as 0 to 255."""
    out: NDArray[np.uint8] = np.rint(scaled * 255).astype(np.uint8)
    return out


def _inner_edges(labels: NDArray[np.integer[Any]]) -> NDArray[np.bool_]:
    """Pixels of objects with another id beside them; exact for ids of 64 bits."""
    edge = np.zeros(labels.shape, bool)
    down, right = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    edge &= labels != 0
    return edge
