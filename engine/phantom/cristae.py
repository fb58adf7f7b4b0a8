"""Cristae of phantom mitochondria: folds that open at the inner membrane and end in the matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from engine.phantom.drawing import draw

if TYPE_CHECKING:
    from engine.phantom.parameters import CristaeParameters

#: Distance of the points along a crista, pixels.
_STEP = 1.0

#: Matrix between the end of a crista and the membrane it would run into, pixels.
_CLEARANCE = 2.5

#: Slope of the depth below which neither side is deeper: an inner region a pixel thick.
_FLAT = 1e-6

#: Steps of a path that are its junction.
_JUNCTION = 3


@dataclass(frozen=True, slots=True, eq=False)
class _Room:
    """Inside of a mitochondrion.

    Parameters
    ----------
    depth : ndarray of shape (Y, X), float32
        Distance to the inner membrane, pixels; 0 outside.
    inward : ndarray of shape (2, Y, X), float32
        Gradient of the smoothed depth: where it is deeper.
    """

    depth: np.ndarray
    inward: np.ndarray

    def at(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Depth at a point and the direction to deeper places, not normalised."""
        y, x = int(point[0] + 0.5), int(point[1] + 0.5)
        return float(self.depth[y, x]), self.inward[:, y, x]


@dataclass(frozen=True, slots=True)
class _Form:
    """Form of one crista; pixels and radians."""

    width: float
    neck: float
    length: float
    lengthwise: bool
    turn: float


def draw_cristae(
    inner: np.ndarray, parameters: CristaeParameters, rng: np.random.Generator
) -> np.ndarray:
    """Draw the cristae of one mitochondrion.

    Parameters
    ----------
    inner : ndarray of shape (Y, X), bool
        What the inner membrane encloses, False on the rim of the window.
    parameters : CristaeParameters
        Ranges of their density and form.
    rng : numpy.random.Generator
        Source of the draw.

    Returns
    -------
    ndarray of shape (Y, X), bool
        Cristae, inside `inner`; each component touches the rim of `inner` by construction: it is
        grown from there, and what clipping cuts off is given back to the matrix.
    """
    depth = ndimage.distance_transform_edt(inner).astype(np.float32)
    inward = np.stack(np.gradient(ndimage.gaussian_filter(depth, 1.5)))
    room = _Room(depth, inward)
    rim = inner & (depth <= 1)
    paths = _grow(room, np.argwhere(rim), parameters, rng)
    cristae = _thicken(paths, inner)
    found, _ = ndimage.label(cristae, np.ones((3, 3)))
    joined = np.zeros(found.max() + 1, bool)
    joined[found[rim]] = True
    joined[0] = False
    kept: np.ndarray = joined[found]
    return kept


def _grow(
    room: _Room, rim: np.ndarray, parameters: CristaeParameters, rng: np.random.Generator
) -> list[np.ndarray]:
    """Paths of cristae, each (N, 3): y, x, half-width; enough to open the wanted share of rim."""
    wanted = draw(parameters.junctions, rng) * len(rim)
    gap, lengthwise = draw(parameters.gap, rng), draw(parameters.lengthwise, rng)
    taken = np.zeros(room.depth.shape, bool)
    paths: list[np.ndarray] = []
    opened = 0.0
    for start in rng.permutation(rim):
        if opened >= wanted:
            break
        if taken[tuple(start)]:
            continue
        form = _form(room, start, parameters, rng, lengthwise=rng.random() < lengthwise)
        tilt = draw(parameters.tilt, rng) * rng.uniform(-1, 1)
        path = _walk(room, start.astype(np.float64), tilt, form, taken)
        # Shorter, it is a dent and no crista.
        if len(path) * _STEP < 5:
            continue
        paths.append(path)
        opened += form.width * form.neck
        reach = int(form.width + gap + 0.5)
        for y, x in path[:: max(reach // 3, 1), :2].astype(int):
            taken[max(y - reach, 0) : y + reach + 1, max(x - reach, 0) : x + reach + 1] = True
    return paths


def _form(
    room: _Room,
    start: np.ndarray,
    parameters: CristaeParameters,
    rng: np.random.Generator,
    *,
    lengthwise: bool,
) -> _Form:
    """Draw the form of a crista that starts here."""
    chord = _chord(room, start)
    length = draw(parameters.reach, rng) * chord
    if lengthwise:
        length += rng.uniform(8, 24)
    return _Form(
        width=draw(parameters.width, rng),
        neck=draw(parameters.neck, rng),
        length=length,
        lengthwise=lengthwise,
        turn=rng.uniform(-0.03, 0.03),
    )


def _chord(room: _Room, start: np.ndarray) -> float:
    """Pixels from the rim straight inward to the rim opposite; 1 where no side is deeper."""
    _, normal = room.at(start)
    slope = float(np.hypot(*normal))
    if slope < _FLAT:
        return 1.0
    # Steps of a pixel leave the window's inside, whose rim is outside, before this many.
    point, step = start, normal / slope
    for length in range(1, sum(room.depth.shape)):
        point = point + step
        if room.at(point)[0] == 0:
            return float(length)
    msg = f"a line from {start} never left the inner region"
    raise ValueError(msg)


def _walk(
    room: _Room, start: np.ndarray, tilt: float, form: _Form, taken: np.ndarray
) -> np.ndarray:
    """Path of one crista, up to its length, to another crista, or to the membrane opposite."""
    _, normal = room.at(start)
    heading = float(np.arctan2(normal[0], normal[1])) + tilt
    side = 1 if tilt >= 0 else -1
    point, path, deepest = start, [], 0.0
    for step in range(int(form.length / _STEP)):
        depth, inward = room.at(point)
        # Past its deepest point, a crista comes nearer to the membrane again.
        if taken[int(point[0] + 0.5), int(point[1] + 0.5)] or depth == 0:
            break
        deepest = max(deepest, depth)
        if depth < deepest - 1 and depth < form.width / 2 + _CLEARANCE:
            break
        narrow = form.neck if step < _JUNCTION else 1.0
        path.append((*point, form.width / 2 * narrow))
        if form.lengthwise and depth > form.width / 2 + form.width + 1:
            along = float(np.arctan2(inward[0], inward[1])) + side * np.pi / 2
            heading += 0.25 * float(np.angle(np.exp(1j * (along - heading))))
        heading += form.turn
        point = point + _STEP * np.array([np.sin(heading), np.cos(heading)])
    return np.asarray(path).reshape(-1, 3)


def _thicken(paths: list[np.ndarray], inner: np.ndarray) -> np.ndarray:
    """Pixels of the inner region nearer to a path than its half-width."""
    cristae = np.zeros(inner.shape, bool)
    if not paths:
        return cristae
    points = np.concatenate(paths)
    pixels = np.argwhere(inner)
    away, nearest = KDTree(points[:, :2]).query(pixels, distance_upper_bound=6)
    near = np.isfinite(away)
    near[near] = away[near] <= points[nearest[near], 2]
    cristae[tuple(pixels[near].T)] = True
    return cristae
