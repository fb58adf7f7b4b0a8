"""The image of a phantom scene: a pan-stain, as in super-resolution or expansion microscopy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from engine.phantom.drawing import draw, smooth_noise

if TYPE_CHECKING:
    from engine.phantom.parameters import ImageParameters, Span

#: Half-width of a stained membrane, pixels (standard deviation of its profile).
_MEMBRANE_SIGMA = 0.75

#: Grey levels at full scale, and of the camera's offset.
_FULL_SCALE, _OFFSET = 4000, 100


@dataclass(frozen=True, slots=True, eq=False)
class _Spots:
    """Loss of stain at each pixel, a share in [0, 1], and where it is above half its centre's."""

    loss: np.ndarray
    mask: np.ndarray


def draw_image(
    classes: np.ndarray, parameters: ImageParameters, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the image of a truth.

    Parameters
    ----------
    classes : ndarray of shape (Y, X), uint8
        0 background, 1 intermembrane space, 2 cristae, 3 matrix.
    parameters : ImageParameters
        Ranges of brightness and quality.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    image : ndarray of shape (Y, X), uint16
        All protein is stained, membranes most: outer membrane at the rim of class 1, inner
        membrane around the matrix, so also along the cristae. Blurred, exposed unevenly, with the
        noise of photons and of the camera.
    spots : ndarray of shape (Y, X), bool
        Where the stain was spoiled.
    """
    stain = _stain(classes, parameters, rng)
    spots = _draw_spots(classes > 0, parameters, rng)
    level = float(np.median(stain[classes == 0])) if np.any(classes == 0) else 0.0
    stain += spots.loss * (level - stain)
    seen = ndimage.gaussian_filter(stain, draw(parameters.blur, rng))
    uneven = 1 + draw(parameters.unevenness, rng) * _slow(seen.shape, rng)
    photons = draw(parameters.photons, rng)
    expected = np.maximum(seen * uneven, 0) * photons
    noisy = rng.poisson(expected) + rng.normal(0, draw(parameters.read_noise, rng), seen.shape)
    grey = np.rint(_OFFSET + noisy * (_FULL_SCALE / photons))
    return np.clip(grey, 0, 65535).astype(np.uint16), spots.mask


def _stain(
    classes: np.ndarray, parameters: ImageParameters, rng: np.random.Generator
) -> np.ndarray:
    """Protein at each pixel, float32, 1 = full scale."""
    outside = classes == 0
    cytoplasm = draw(parameters.cytoplasm, rng)
    lumen, matrix = draw(parameters.lumen, rng), draw(parameters.matrix, rng)
    levels = np.array([cytoplasm, lumen, lumen, matrix], np.float32)
    stain = levels[classes]
    grain = smooth_noise(stain.shape, 1.2, rng) + 0.6 * smooth_noise(stain.shape, 5.0, rng)
    share = draw(parameters.texture, rng) * np.where(outside, 1.0, 0.35)
    stain += share * cytoplasm * grain
    _add_clutter(stain, ndimage.distance_transform_edt(outside), parameters, rng)
    membrane = draw(parameters.membrane, rng)
    varying = membrane * (1 + 0.15 * smooth_noise(stain.shape, 4.0, rng))
    stain += varying * np.maximum(_rim(~outside), _rim(classes == 3))
    cells = 1 + 0.12 * smooth_noise(stain.shape, 30.0, rng)
    stained: np.ndarray = stain * np.where(outside, 1.0, cells).astype(np.float32)
    return stained


def _rim(mask: np.ndarray) -> np.ndarray:
    """Profile of a membrane on the border of a mask, in [0, 1]."""
    away = np.where(
        mask,
        ndimage.distance_transform_edt(mask),
        ndimage.distance_transform_edt(~mask),
    )
    profile: np.ndarray = np.exp(-(((away - 0.5) / _MEMBRANE_SIGMA) ** 2) / 2)
    return profile.astype(np.float32)


def _add_clutter(
    stain: np.ndarray, away: np.ndarray, parameters: ImageParameters, rng: np.random.Generator
) -> None:
    """Add vesicles and tubules to the cytoplasm, not nearer than 2 pixels to a mitochondrion."""
    height, width = stain.shape
    count = round(draw(parameters.clutter, rng) * stain.size / 512**2)
    level = draw(parameters.membrane, rng)
    added = np.zeros_like(stain)
    for _ in range(count):
        if rng.random() < 0.5:
            angle = np.linspace(0, 2 * np.pi, 48)
            radius = rng.uniform(2, 6)
            path = radius * np.stack([np.sin(angle), np.cos(angle)], 1)
        else:
            heading = rng.uniform(0, 7) + np.cumsum(rng.normal(0, 0.08, int(rng.uniform(20, 90))))
            path = np.cumsum(np.stack([np.sin(heading), np.cos(heading)], 1), 0)
        points = (path + rng.uniform((0, 0), (height, width))).round().astype(int)
        within = np.all((points >= 0) & (points < (height, width)), 1)
        ys, xs = points[within].T
        added[ys, xs] = rng.uniform(0.5, 1.0) * level
    # Nearer, its blur would run into the outer membrane.
    added[away < 2] = 0
    added = ndimage.gaussian_filter(added, 0.7) * 1.7
    stain += np.where(away > 0, added, 0)


def _slow(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Exposure: a gradient and one wave over the whole field, float32 in [-1, 1]."""
    y = np.linspace(-1, 1, shape[0])[:, None]
    x = np.linspace(-1, 1, shape[1])[None]
    angle, phase = rng.uniform(0, 2 * np.pi, 2)
    along = y * np.sin(angle) + x * np.cos(angle)
    across = x * np.sin(angle) - y * np.cos(angle)
    field = along / np.sqrt(2) + 0.7 * np.cos(2.5 * across + phase)
    scaled: np.ndarray = (field / np.abs(field).max()).astype(np.float32)
    return scaled


def _draw_spots(
    mitochondria: np.ndarray, parameters: ImageParameters, rng: np.random.Generator
) -> _Spots:
    """Spots centred on mitochondria, round with a soft rim."""
    loss = np.zeros(mitochondria.shape, np.float32)
    mask = np.zeros(mitochondria.shape, bool)
    places = np.argwhere(mitochondria)
    count = round(draw(parameters.spots, rng) * mitochondria.size / 512**2)
    for _ in range(count if len(places) else 0):
        y, x = places[rng.integers(len(places))]
        window, away = _ellipse((int(y), int(x)), parameters.spot_radius, mitochondria.shape, rng)
        profile = np.clip(1.6 * (1 - away), 0, 1)
        loss[window] = np.maximum(loss[window], draw(parameters.spot_loss, rng) * profile)
        mask[window] |= profile > 0.5
    return _Spots(loss, mask)


def _ellipse(
    centre: tuple[int, int], radius: Span, shape: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[slice, slice], np.ndarray]:
    """Window around an ellipse and the distance from its centre there, 1 on its rim."""
    half = np.array([draw(radius, rng), draw(radius, rng)])
    angle = rng.uniform(0, np.pi)
    reach = int(np.ceil(half.max()))
    rows = slice(max(centre[0] - reach, 0), min(centre[0] + reach + 1, shape[0]))
    cols = slice(max(centre[1] - reach, 0), min(centre[1] + reach + 1, shape[1]))
    y = np.arange(rows.start, rows.stop)[:, None] - centre[0]
    x = np.arange(cols.start, cols.stop)[None] - centre[1]
    along = (y * np.sin(angle) + x * np.cos(angle)) / half[0]
    across = (x * np.sin(angle) - y * np.cos(angle)) / half[1]
    return (rows, cols), np.hypot(along, across)
