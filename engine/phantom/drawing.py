"""Draws that the parts of a phantom share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from engine.phantom.parameters import Span


def draw(span: Span, rng: np.random.Generator) -> float:
    """Draw a parameter from its range.

    Parameters
    ----------
    span : Span
        The range.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    float
        Uniform between its bounds.
    """
    return float(rng.uniform(span.low, span.high))


def smooth_noise(shape: tuple[int, int], scale: float, rng: np.random.Generator) -> np.ndarray:
    """Make a random field without structure below a scale.

    Parameters
    ----------
    shape : tuple of 2 int
        Pixels on each axis.
    scale : float
        Standard deviation of the Gaussian that smooths it, pixels.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of that shape, float32
        Mean 0 and standard deviation 1 over the field.
    """
    # Coarser by so much, a Gaussian of 3 pixels is left to be interpolated.
    factor = max(int(scale / 3), 1)
    coarse = [-(-n // factor) + 1 for n in shape]
    field = ndimage.gaussian_filter(
        rng.standard_normal(coarse, dtype=np.float32), scale / factor, mode="wrap"
    )
    if factor > 1:
        field = ndimage.zoom(field, factor, order=1)
    field = field[: shape[0], : shape[1]]
    field -= field.mean()
    scaled: np.ndarray = field / max(float(field.std()), 1e-6)
    return scaled
