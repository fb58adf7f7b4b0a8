"""Noises that polynomial defenses are held against: the paper's own, and ones of equal energy.

Jain, Shao, Hecht 2025, section 3, compare defenses with Gaussian and Poisson noise. Theirs differ
from the defenses in energy, and Poisson also in its mean; the fair ones here differ in neither.
"""

from __future__ import annotations

import numpy as np

from engine.methods.defenses import CAP, FIELD, stretch

#: Spread and mean of the paper's noises before they are scaled (its published code).
_GAUSSIAN_SIGMA, _POISSON_MEAN = 0.01, 0.1


def gaussian(rng: np.random.Generator, side: int = FIELD) -> np.ndarray:
    """Gaussian noise as the paper's code draws it.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    side : int
        Pixels along an axis.

    Returns
    -------
    ndarray of shape (side, side), float32 in [-0.25, 0.25]
        N(0, 0.01) stretched to a range of 0.5 and centred.
    """
    drawn = rng.normal(0, _GAUSSIAN_SIGMA, (side, side))
    drawn *= 2 * CAP / np.ptp(drawn)
    drawn -= drawn.mean()
    return np.clip(drawn, -CAP, CAP).astype(np.float32)


def poisson(rng: np.random.Generator, side: int = FIELD) -> np.ndarray:
    """Poisson noise as the paper's code draws it: mostly an offset, since it is not centred.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of the draw.
    side : int
        Pixels along an axis.

    Returns
    -------
    ndarray of shape (side, side), float32 in [-0.25, 0.25]
        Counts of mean 0.1, the smallest at -0.25 and the largest at 0.25.
    """
    drawn = rng.poisson(_POISSON_MEAN, (side, side)).astype(np.float32)
    scaled: np.ndarray = stretch(drawn) * np.float32(2 * CAP) - np.float32(CAP)
    return scaled


def fair_gaussian(field: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of mean 0 with the energy of a defense.

    Parameters
    ----------
    field : ndarray of shape (F, F), float32
        The defense; to be used at the same strength.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of shape (F, F), float32
        Root mean square exactly that of the defense (to rounding), mean 0; not in the paper, whose
        noises differ from its defenses in energy and, for Poisson, in mean.
    """
    drawn = rng.normal(size=field.shape)
    drawn -= drawn.mean()
    energy = np.mean(np.square(field, dtype=np.float64)) / np.mean(np.square(drawn))
    noise: np.ndarray = drawn * np.sqrt(energy)
    return noise.astype(np.float32)


def fair_poisson(pixels: np.ndarray, rms: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the counting noise of an image, with the energy of a defense.

    Parameters
    ----------
    pixels : ndarray of shape (C, Y, X), float32
        The image; values below 0 count as 0.
    rms : float
        Root mean square of X times the defense, above 0.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of shape (C, Y, X), float32
        ``(Poisson(k · x) - k · x) / k`` with ``k = mean(x) / rms²``: mean 0 and, in expectation,
        that root mean square. To be added to the image; 0 where the whole image is 0. Not in the
        paper, whose Poisson noise does not depend on the image.
    """
    light = np.maximum(pixels, 0).astype(np.float64)
    scale = light.mean() / rms**2
    if scale == 0:
        return np.zeros_like(pixels)
    noise: np.ndarray = rng.poisson(scale * light) / scale - light
    return noise.astype(np.float32)
