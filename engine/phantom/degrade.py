"""The degradation test: spoil the stain of a mitochondrion in one place, where entropy must rise.

Sauer et al. (BioMaeRef): an ellipsoid on the skeleton of a mitochondrion is faded towards the
background. Here in 2-D, so without the ellipsoid's half-axis along z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage
from skimage.morphology import skeletonize

from engine.errors import InputError, RecipeError
from engine.phantom.drawing import draw
from engine.phantom.parameters import Span

#: What the source draws its half-axes from, pixels.
_SOURCE_HALF_AXES = Span(8, 18)


@dataclass(frozen=True, slots=True)
class DegradeSettings:
    """How the stain is spoiled.

    Parameters
    ----------
    half_axes : Span
        Of the ellipse, along y and x, pixels; the source draws 8 to 18.
    strength : float
        Share of the stain lost at the centre, the source's t, in (0, 1].
    noisy : bool
        The source's variant: add noise with mean and standard deviation of the background first.

    Raises
    ------
    RecipeError
        If the strength is out of range, or a half-axis is below 1 pixel.

    Examples
    --------
    >>> DegradeSettings().strength
    0.8
    """

    half_axes: Span = _SOURCE_HALF_AXES
    strength: float = 0.8
    noisy: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise RecipeError(
                where="strength of a degradation",
                expected="above 0, at most 1",
                found=str(self.strength),
                remedy="The source uses 0.8.",
            )
        if self.half_axes.low < 1:
            raise RecipeError(
                where="half_axes of a degradation",
                expected="at least 1 pixel",
                found=str(self.half_axes.low),
                remedy="The source draws them from 8 to 18.",
            )


@dataclass(frozen=True, slots=True, eq=False)
class Degraded:
    """An image with one spoiled place.

    Parameters
    ----------
    image : ndarray of shape (Y, X)
        Of the type that was given.
    region : ndarray of shape (Y, X), bool
        The ellipse: only there the image may differ.
    centre : tuple of 2 int
        Pixel of the skeleton that it lies on.
    """

    image: np.ndarray
    region: np.ndarray
    centre: tuple[int, int]


def degrade(
    image: np.ndarray,
    mitochondrion: np.ndarray,
    background: np.ndarray,
    settings: DegradeSettings,
    rng: np.random.Generator,
) -> Degraded:
    """Spoil the stain of one mitochondrion in one place.

    Parameters
    ----------
    image : ndarray of shape (Y, X), uint8, uint16 or float
        The stain.
    mitochondrion : ndarray of shape (Y, X), bool
        The one to spoil.
    background : ndarray of shape (Y, X), bool
        Where there is none.
    settings : DegradeSettings
        How.
    rng : numpy.random.Generator
        Source of place, half-axes and noise.

    Returns
    -------
    Degraded
        ``d t b + (1 - d t) x`` in the ellipse, with b the mean of the background, t the strength
        and d the square root of the distance to the ellipse's border over its largest; x is the
        image or, in the variant, the image plus N(mean, standard deviation of the background).
        Integers are rounded and kept in the range of their type.

    Raises
    ------
    InputError
        If shapes differ, or there is no mitochondrion or no background.

    Notes
    -----
    The source's background value is read as the background's mean. Its ellipsoid is not turned,
    nor cut to the mitochondrion, and so is this ellipse.
    """
    _check(image, mitochondrion, background)
    places = np.argwhere(skeletonize(mitochondrion, method="lee") > 0)
    y, x = (int(n) for n in places[rng.integers(len(places))])
    half_y, half_x = draw(settings.half_axes, rng), draw(settings.half_axes, rng)
    rows, cols = np.ogrid[: image.shape[0], : image.shape[1]]
    region = ((rows - y) / half_y) ** 2 + ((cols - x) / half_x) ** 2 <= 1
    # The rim of the image is no border of the ellipse: distances are taken beyond it.
    reach = int(np.ceil(max(half_y, half_x))) + 1
    inside = ndimage.distance_transform_edt(_whole(half_y, half_x, reach))
    depth = np.zeros(image.shape)
    cut = _overlap((y, x), reach, image.shape)
    depth[cut[0]] = inside[cut[1]]
    fading = np.sqrt(depth / inside.max()) * settings.strength
    grey = image[background].astype(np.float64)
    stain = image.astype(np.float64)
    if settings.noisy:
        stain = stain + rng.normal(grey.mean(), grey.std(), image.shape)
    faded = fading * grey.mean() + (1 - fading) * stain
    return Degraded(_as_type(np.where(region, faded, image), image.dtype), region, (y, x))


def _whole(half_y: float, half_x: float, reach: int) -> np.ndarray:
    """Ellipse in a window of its own, (2 reach + 1) pixels wide."""
    rows, cols = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    ellipse: np.ndarray = (rows / half_y) ** 2 + (cols / half_x) ** 2 <= 1
    return ellipse


def _overlap(
    centre: tuple[int, int], reach: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Part of an image that a window around a pixel covers, in the image and in the window."""
    starts = [max(c - reach, 0) for c in centre]
    stops = [min(c + reach + 1, n) for c, n in zip(centre, shape, strict=True)]
    image = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
    window = tuple(
        slice(a - c + reach, b - c + reach) for a, b, c in zip(starts, stops, centre, strict=True)
    )
    return image, window


def _as_type(values: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Values in the type of the image, integers rounded and clipped."""
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype)


def _check(image: np.ndarray, mitochondrion: np.ndarray, background: np.ndarray) -> None:
    """Refuse what the test cannot be done on."""
    shapes = [one.shape for one in (image, mitochondrion, background)]
    if image.ndim != 2 or len(set(shapes)) > 1:
        raise InputError(
            where="image to degrade",
            expected="axes y, x, and masks of the same shape",
            found=", ".join(map(str, shapes)),
            remedy="Give one plane and its masks.",
        )
    for name, mask in (("mitochondrion", mitochondrion), ("background", background)):
        if not np.any(mask):
            raise InputError(
                where=f"{name} of an image to degrade",
                expected="a mask with some pixels",
                found="none",
                remedy="Choose another object or image.",
            )
