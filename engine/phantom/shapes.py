"""Outlines of phantom mitochondria: tubes around smooth centre lines that bend, branch or close."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from engine.phantom.drawing import draw, smooth_noise

if TYPE_CHECKING:
    from engine.phantom.parameters import ShapeParameters

#: Distance of the points of a centre line, pixels.
_STEP = 1.5

#: Holes of the inner region below this area are filled: no ring is as small.
_SMALLEST_HOLE = 120


@dataclass(frozen=True, slots=True)
class _Form:
    """Length, turn from end to end (radians) and half-width of a tube."""

    length: float
    turn: float
    half_width: float


@dataclass(frozen=True, slots=True, eq=False)
class CentreLine:
    """Points along the middle of a tube.

    Parameters
    ----------
    points : ndarray of shape (N, 2), float64
        y, x in pixels, in order.
    headings : ndarray of shape (N,), float64
        Direction at each, radians from the x axis.
    radii : ndarray of shape (N,), float64
        Half-width of the tube at each.
    """

    points: np.ndarray
    headings: np.ndarray
    radii: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Outline:
    """A mitochondrion in a window of its own.

    Parameters
    ----------
    inner : ndarray of shape (Y, X), bool
        What the inner membrane encloses; connected.
    outer : ndarray of shape (Y, X), bool
        What the outer membrane encloses: `inner` and at least 1.5 pixels all around it.
    """

    inner: np.ndarray
    outer: np.ndarray


def draw_outline(parameters: ShapeParameters, rng: np.random.Generator) -> Outline:
    """Draw the outline of one mitochondrion.

    Parameters
    ----------
    parameters : ShapeParameters
        Ranges of its size and shape.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    Outline
        The outer region is made from the inner one, by distance, so that the intermembrane space
        is closed by construction.
    """
    kinds = np.asarray(parameters.kinds)
    kind = rng.choice(4, p=kinds / kinds.sum())
    lines = (_oval, _rod, _branched, _ring)[kind](parameters, rng)
    inner = _fill_tubes(lines, draw(parameters.roughness, rng), rng)
    distance = ndimage.distance_transform_edt(~inner)
    wave = 0.35 * smooth_noise(inner.shape, 8.0, rng)
    low = parameters.intermembrane.low
    thickness = np.maximum(draw(parameters.intermembrane, rng) + wave, low)
    outer = distance <= thickness
    return Outline(inner, _without_small_holes(outer))


def _oval(parameters: ShapeParameters, rng: np.random.Generator) -> list[CentreLine]:
    """Thick and short."""
    half_width = draw(parameters.oval_half_width, rng)
    length = half_width * rng.uniform(0.8, 2.8)
    return [_line(parameters, length, half_width, rng)]


def _rod(parameters: ShapeParameters, rng: np.random.Generator) -> list[CentreLine]:
    """Long and thin."""
    return [_line(parameters, draw(parameters.length, rng), draw(parameters.half_width, rng), rng)]


def _branched(parameters: ShapeParameters, rng: np.random.Generator) -> list[CentreLine]:
    """Rod with branches."""
    (trunk,) = _rod(parameters, rng)
    frequency = np.asarray(parameters.branches)
    count = 1 + int(rng.choice(len(frequency), p=frequency / frequency.sum()))
    return [trunk, *_branches(trunk, count, rng)]


def _ring(parameters: ShapeParameters, rng: np.random.Generator) -> list[CentreLine]:
    """Draw a closed tube around cytoplasm, with or without branches."""
    half_width = draw(parameters.half_width, rng)
    semi = half_width + rng.uniform(10, 28, 2)
    angle = np.arange(0, 2 * np.pi, _STEP / semi.max())
    wobble = 1 + sum(
        rng.uniform(0, 0.16) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3)
    )
    points = np.stack([semi[0] * wobble * np.sin(angle), semi[1] * wobble * np.cos(angle)], 1)
    # Outward, so that a branch leaves the ring and does not cross it.
    headings = np.arctan2(points[:, 0], points[:, 1]) + np.pi / 2
    radii = half_width * (0.9 + 0.15 * np.sin(angle + rng.uniform(0, 2 * np.pi)))
    ring = CentreLine(points, headings, radii)
    frequency = np.asarray(parameters.ring_branches)
    count = int(rng.choice(len(frequency), p=frequency / frequency.sum()))
    return [ring, *_branches(ring, count, rng, sides=(-1,))]


def _line(
    parameters: ShapeParameters, length: float, half_width: float, rng: np.random.Generator
) -> CentreLine:
    """Smooth curve from the origin, its half-width varying a little."""
    turn = draw(parameters.bend, rng) * rng.choice((-1, 1))
    return _curve(np.zeros(2), rng.uniform(0, 2 * np.pi), _Form(length, turn, half_width), rng)


def _curve(start: np.ndarray, heading: float, form: _Form, rng: np.random.Generator) -> CentreLine:
    """Curve from a place in a direction, with a slow wave on both."""
    steps = max(int(form.length / _STEP), 2)
    along = np.linspace(0, 1, steps)
    wave = rng.uniform(0.0, 0.35) * np.sin(
        2 * np.pi * (along * rng.uniform(0.7, 1.6) + rng.uniform())
    )
    headings = heading + form.turn * along + wave - wave[0]
    moves = _STEP * np.stack([np.sin(headings), np.cos(headings)], 1)
    points = start + np.cumsum(moves, 0)
    swell = 1 + 0.12 * np.sin(2 * np.pi * (along * rng.uniform(0.8, 2.2) + rng.uniform()))
    return CentreLine(points, headings, form.half_width * swell)


def _branches(
    trunk: CentreLine, count: int, rng: np.random.Generator, sides: tuple[int, ...] = (-1, 1)
) -> list[CentreLine]:
    """Branches that leave a trunk well apart from each other and from its ends."""
    found = []
    offset = rng.uniform(0, 0.2)
    first = int(rng.integers(len(sides)))
    for i in range(count):
        place = 0.15 + 0.6 * (i + offset + rng.uniform(0, 0.4)) / count
        k = min(int(place * len(trunk.points)), len(trunk.points) - 1)
        side = sides[(first + i) % len(sides)]
        heading = trunk.headings[k] + side * rng.uniform(0.9, 1.5)
        half_width = trunk.radii[k] * rng.uniform(0.75, 0.95)
        length = trunk.radii[k] + half_width + rng.uniform(12, 34)
        form = _Form(length, rng.uniform(-0.6, 0.6), half_width)
        found.append(_curve(trunk.points[k], heading, form, rng))
    return found


def _fill_tubes(lines: list[CentreLine], roughness: float, rng: np.random.Generator) -> np.ndarray:
    """Pixels nearer to a centre line than its half-width, the contour smoothed and roughened."""
    points = np.concatenate([line.points for line in lines]).astype(np.float32)
    radii = np.concatenate([line.radii for line in lines]).astype(np.float32)
    margin = radii.max() + 12
    points += margin - points.min(0)
    height, width = (int(n) for n in np.ceil(points.max(0) + margin))
    depth = np.full((height, width), np.inf, np.float32)
    ys, xs = np.arange(height, dtype=np.float32), np.arange(width, dtype=np.float32)
    for (y, x), radius in zip(points, radii, strict=True):
        rows = slice(int(y - margin), int(y + margin) + 1)
        cols = slice(int(x - margin), int(x + margin) + 1)
        away = np.hypot(ys[rows, None] - y, xs[None, cols] - x) - radius
        np.minimum(depth[rows, cols], away, out=depth[rows, cols])
    depth = ndimage.gaussian_filter(np.minimum(depth, 12), 1.5)
    depth += roughness * smooth_noise(depth.shape, 5.0, rng)
    found, _ = ndimage.label(depth < 0)
    inner = found == np.argmax(np.bincount(found.ravel())[1:]) + 1
    return _without_small_holes(ndimage.binary_opening(inner, iterations=2) & inner)


def _without_small_holes(mask: np.ndarray) -> np.ndarray:
    """Largest component of a mask, its small holes filled."""
    found, _ = ndimage.label(mask)
    kept = found == np.argmax(np.bincount(found.ravel())[1:]) + 1
    holes, _ = ndimage.label(~kept)
    area = np.bincount(holes.ravel())
    small = area < _SMALLEST_HOLE
    small[0] = False
    filled: np.ndarray = kept | small[holes]
    return filled
