"""Preview: a picture file of labels over an image, sized for a screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.review.overlay import check_pair, draw_overlay
from engine.review.pictures import enlarge, enlargement
from engine.review.png import png_path, write_png
from engine.review.scalebar import add_scale_bar
from engine.review.suspects import draw_outlines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.review.suspects import Outline

# Sides of a picture between which a thin outline can be told apart on a screen.
_SMALL_SIDE, _LARGE_SIDE = 1024, 2048


def write_preview(
    image: NDArray[Any],
    labels: NDArray[np.integer[Any]],
    out_png: str | Path,
    *,
    pixel_size_um: float | None = None,
    suspects: Sequence[Outline] | None = None,
) -> None:
    """Write a picture of the labels over the image, with a scale bar below it.

    Images beyond 2048 pixels on a side are shrunk by a whole factor (the image by means, labels
    by the nearest pixel) and small ones enlarged by one, so that outlines stay visible and thin.

    Parameters
    ----------
    image : (Y, X) or (3, Y, X), any real dtype
        One channel, or red, green and blue.
    labels : (Y, X) integer
        Object ids, 0 = background.
    out_png : str or Path
        Where to write; replaced in one step where it exists.
    pixel_size_um : float, optional
        Side of a pixel of `image` in micrometres; without it the picture says so
        where the scale bar would stand.
    suspects : sequence of Outline, optional
        Drawn in red (false positives) and yellow (false negatives), in pixels of `image`; where
        given, all other objects are outlined in one pale colour.

    Raises
    ------
    InputError
        If the arrays do not fit together or the pixel size is not positive and finite.
    OutputError
        If the path does not end in ``.png``, is a folder, or cannot be written.
    """
    path = png_path(out_png)
    check_pair(image, labels)
    side = max(labels.shape)
    shrink = -(-side // _LARGE_SIDE)
    grow = enlargement(side, _SMALL_SIDE)
    shown, ids = _shrink_mean(image, shrink), _shrink_nearest(labels, shrink)
    picture = draw_overlay(enlarge(shown, grow), enlarge(ids, grow), suspects is not None)
    if suspects:
        draw_outlines(picture, suspects, (0.0, 0.0), grow / shrink)
    pixel = None if pixel_size_um is None else pixel_size_um * shrink / grow
    write_png(path, add_scale_bar(picture, pixel))


def _shrink_mean(image: NDArray[Any], factor: int) -> NDArray[Any]:
    """Means of `factor` by `factor` pixels; what is over at the far edges is averaged alone."""
    if factor == 1:
        return image
    means: NDArray[np.float64] = image.astype(np.float64)
    for axis in (-2, -1):
        n = image.shape[axis]
        starts = np.arange(0, n, factor)
        counts = np.diff(starts, append=n)
        means = np.add.reduceat(means, starts, axis=axis)
        means /= counts[:, None] if axis == -2 else counts
    return means


def _shrink_nearest(labels: NDArray[np.integer[Any]], factor: int) -> NDArray[np.integer[Any]]:
    """Label at the middle of every `factor` by `factor` pixels."""
    rows, columns = (np.minimum(np.arange(0, n, factor) + factor // 2, n - 1) for n in labels.shape)
    middle: NDArray[np.integer[Any]] = labels[rows[:, None], columns]
    return middle
