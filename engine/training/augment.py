"""Crops of training images, changed at random: place, size, orientation, light, blur, noise."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F

from engine.errors import InputError
from engine.training.data import Sample

# As stardist's train_foreground_only: this share of crops must show an object.
FOREGROUND_SHARE = 0.9
BLURRED_SHARE = 0.5
_PLACES = 8

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Ranges from which changes are drawn, evenly unless said otherwise.

    Parameters
    ----------
    orientation : bool
        Whether to flip and to rotate by quarter turns.
    zoom : tuple of float
        Magnification, drawn evenly in its logarithm; nearest neighbour for labels.
    zoom_share : float
        Share of crops that are zoomed, in [0, 1].
    scale, shift, gamma : tuple of float
        Intensity x becomes scale · sign(x)·|x|^gamma + shift.
    noise : float
        Largest standard deviation of added Gaussian noise, in units of normalised intensity.
    blur : float
        Largest standard deviation of a Gaussian blur, in pixels, for half of the crops; 0: none.
    exposure : float
        Uneven exposure: intensities are multiplied by a smooth field within 1 ± this, which is
        drawn at 3 by 3 points; in [0, 1], 0: none.

    Raises
    ------
    InputError
        If a range is empty or a factor is not positive.
    """

    orientation: bool = True
    zoom: tuple[float, float] = (0.6, 1.6)
    zoom_share: float = 0.5
    scale: tuple[float, float] = (0.6, 1.6)
    shift: tuple[float, float] = (-0.15, 0.15)
    gamma: tuple[float, float] = (0.7, 1.4)
    noise: float = 0.04
    blur: float = 0.0
    exposure: float = 0.0

    def __post_init__(self) -> None:
        for field in ("zoom", "scale", "gamma", "shift"):
            low, high = getattr(self, field)
            if low > high or (field != "shift" and low <= 0):
                raise InputError(
                    where=f"augmentation.{field}", expected="low <= high, factors > 0",
                    found=f"({low}, {high})", remedy="Correct the range.",
                )  # fmt: skip
        for field, most in (("zoom_share", 1), ("noise", np.inf), ("blur", np.inf),
                            ("exposure", 1)):  # fmt: skip
            value = getattr(self, field)
            if not 0 <= value <= most:
                raise InputError(
                    where=f"augmentation.{field}", expected=f"a number in [0, {most}]",
                    found=str(value), remedy="Correct the value.",
                )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crop:
    """A square piece of a sample.

    Parameters
    ----------
    image : ndarray
        (C, S, S) float32.
    labels : ndarray
        (S, S) int32.
    valid : ndarray
        (S, S) bool: False where the piece reaches beyond the image (mirrored pixels, no labels).
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    valid: NDArray[np.bool_]


def draw_crop(sample: Sample, size: int, how: Augmentation, rng: np.random.Generator) -> Crop:
    """Draw a changed crop of a sample.

    Parameters
    ----------
    sample : Sample
        Where to cut.
    size : int
        Side of the crop.
    how : Augmentation
        What to draw from.
    rng : numpy.random.Generator
        Decides everything.

    Returns
    -------
    Crop
        Of side `size`.
    """
    zoom = 1.0
    if rng.random() < how.zoom_share:
        zoom = float(np.exp(rng.uniform(*np.log(how.zoom))))
    side = max(1, round(size / zoom))
    crop = cut(sample, _place(sample, side, rng), side)
    crop = _resized(crop, size) if side != size else crop
    if how.orientation:
        crop = _turned(crop, int(rng.integers(4)), flip=bool(rng.integers(2)))
    return Crop(_relit(crop.image, how, rng), crop.labels, crop.valid)


def cut(sample: Sample, corner: tuple[int, int], side: int) -> Crop:
    """Cut a square out of a sample; beyond the image it is mirrored and marked invalid.

    Parameters
    ----------
    sample : Sample
        Where to cut.
    corner : tuple of int
        (y, x) of the first pixel; may be negative.
    side : int
        Height and width.

    Returns
    -------
    Crop
        Of side `side`.
    """
    height, width = sample.labels.shape
    (y, x) = corner
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + side, height), min(x + side, width)
    pad = ((y0 - y, y + side - y1), (x0 - x, x + side - x1))
    image, labels = sample.image[:, y0:y1, x0:x1], sample.labels[y0:y1, x0:x1]
    valid = np.ones(labels.shape, np.bool_)
    if not any(p for axis in pad for p in axis):
        return Crop(image, labels, valid)
    return Crop(
        np.pad(image, ((0, 0), *pad), mode="symmetric"), np.pad(labels, pad), np.pad(valid, pad)
    )


def _place(sample: Sample, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Choose a corner; mostly one whose crop shows an object."""
    spare = [n - side for n in sample.labels.shape]
    foreground = rng.random() < FOREGROUND_SHARE
    y = x = 0
    for _ in range(_PLACES):
        y, x = (int(rng.integers(min(0, s), max(0, s) + 1)) for s in spare)
        piece = sample.labels[max(y, 0) : max(y + side, 0), max(x, 0) : max(x + side, 0)]
        if not foreground or piece.any():
            break
    return y, x


def _resized(crop: Crop, size: int) -> Crop:
    shrinking = size < crop.labels.shape[0]
    image = F.interpolate(
        torch.from_numpy(np.ascontiguousarray(crop.image))[None],
        size=(size, size), mode="bilinear", antialias=shrinking,
    )[0].numpy()  # fmt: skip
    # Nearest, not bilinear: averaging two labels invents a third.
    place = ((np.arange(size) + 0.5) * crop.labels.shape[0] / size).astype(np.intp)
    pick = np.ix_(place, place)
    return Crop(image, crop.labels[pick], crop.valid[pick])


def _turned(crop: Crop, quarters: int, *, flip: bool) -> Crop:
    return Crop(
        _turn(crop.image, quarters, flip=flip),
        _turn(crop.labels, quarters, flip=flip),
        _turn(crop.valid, quarters, flip=flip),
    )


def _turn(array: NDArray[_T], quarters: int, *, flip: bool) -> NDArray[_T]:
    turned = np.rot90(array, quarters, axes=(-2, -1))
    return np.ascontiguousarray(turned[..., ::-1] if flip else turned)


def _relit(
    image: NDArray[np.float32], how: Augmentation, rng: np.random.Generator
) -> NDArray[np.float32]:
    if how.exposure:
        image = image * _exposure(image.shape[-1], how.exposure, rng)
    if how.blur and rng.random() < BLURRED_SHARE:
        sigma = rng.uniform(0, how.blur)
        image = gaussian_filter(image, (0, sigma, sigma), mode="nearest", truncate=3.0)
    gamma, scale, shift = (rng.uniform(*r) for r in (how.gamma, how.scale, how.shift))
    sigma = rng.uniform(0, how.noise)
    bent = np.sign(image) * np.abs(image) ** np.float32(gamma)
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    relit: NDArray[np.float32] = bent * np.float32(scale) + np.float32(shift) + noise
    return relit


def _exposure(size: int, most: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw a smooth field within 1 ± `most`: 3 by 3 values, interpolated linearly; (S, S)."""
    places = np.linspace(0, 2, size, dtype=np.float32)
    # Hat functions: the weight of each of the three points at each pixel.
    weights = np.clip(1 - np.abs(places[:, None] - np.arange(3, dtype=np.float32)), 0, 1)
    values = rng.uniform(1 - most, 1 + most, (3, 3)).astype(np.float32)
    field: NDArray[np.float32] = weights @ values @ weights.T
    return field
