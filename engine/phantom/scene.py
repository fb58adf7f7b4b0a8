"""A phantom scene: its truth, by construction, and the image of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from engine.phantom.cristae import draw_cristae
from engine.phantom.drawing import draw
from engine.phantom.imaging import draw_image
from engine.phantom.shapes import draw_outline

if TYPE_CHECKING:
    from engine.phantom.parameters import SceneParameters

#: Names of the classes, in the order of their indices.
CLASSES = ("background", "intermembrane", "cristae", "matrix")
BACKGROUND, INTERMEMBRANE, CRISTAE, MATRIX = range(4)

#: Cytoplasm between two mitochondria and at the rim of a scene, pixels at the least.
_GAP = 4

#: Places tried for a mitochondrion before it is given up.
_TRIES = 40


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is where in a scene.

    Parameters
    ----------
    classes : ndarray of shape (Y, X), uint8
        0 background, 1 intermembrane space, 2 cristae, 3 matrix.
    instances : ndarray of shape (Y, X), int32
        Mitochondrion of each pixel, 1 to N; 0 = background.
    """

    classes: np.ndarray
    instances: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A phantom scene.

    Parameters
    ----------
    image : ndarray of shape (Y, X), uint16
        Pan-stain.
    classes : ndarray of shape (Y, X), uint8
        0 background, 1 intermembrane space, 2 cristae, 3 matrix.
    instances : ndarray of shape (Y, X), int32
        Mitochondrion of each pixel, 1 to N; 0 = background.
    spots : ndarray of shape (Y, X), bool
        Where the stain was spoiled: more than half of the loss at the centre of a spot.
    """

    image: np.ndarray
    classes: np.ndarray
    instances: np.ndarray
    spots: np.ndarray


def make_scene(parameters: SceneParameters, seed: int, index: int = 0) -> Scene:
    """Make a scene: the same arguments give the same pixels.

    Parameters
    ----------
    parameters : SceneParameters
        Ranges to draw from; `SEEN` or `UNSEEN`, or others.
    seed : int
        Of a set of scenes, at least 0.
    index : int
        Of a scene in the set, at least 0; scenes of other indices are independent.

    Returns
    -------
    Scene
        Image and truth.
    """
    truth = make_truth(parameters, seed, index)
    # A stream of its own, so that another image of the same truth is a change of parameters.
    image, spots = draw_image(truth.classes, parameters.image, _stream(seed, index, 1))
    return Scene(image, truth.classes, truth.instances, spots)


def make_truth(parameters: SceneParameters, seed: int, index: int = 0) -> Truth:
    """Make the truth of a scene without its image.

    Parameters
    ----------
    parameters : SceneParameters
        Ranges to draw from.
    seed, index : int
        As of `make_scene`.

    Returns
    -------
    Truth
        Mitochondria that lie whole in the scene, at least 4 pixels apart.
    """
    rng = _stream(seed, index, 0)
    size = parameters.size
    classes = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.int32)
    blocked = np.zeros((size, size), bool)
    wanted = round(draw(parameters.shape.count, rng) * (size / 512) ** 2)
    last = 0
    for _ in range(wanted):
        outline = draw_outline(parameters.shape, rng)
        place = _place(outline.outer, blocked, rng)
        if place is None:
            continue
        last += 1
        cristae = draw_cristae(outline.inner, parameters.cristae, rng)
        local = np.where(outline.inner, MATRIX, INTERMEMBRANE).astype(np.uint8)
        local[cristae] = CRISTAE
        classes[place][outline.outer] = local[outline.outer]
        instances[place][outline.outer] = last
        blocked[place] |= ndimage.binary_dilation(outline.outer, iterations=_GAP)
    return Truth(classes, instances)


def _place(
    outer: np.ndarray, blocked: np.ndarray, rng: np.random.Generator
) -> tuple[slice, slice] | None:
    """Find a free place for a window; None where none was found."""
    room = [n - m for n, m in zip(blocked.shape, outer.shape, strict=True)]
    if min(room) < 0:
        return None
    for _ in range(_TRIES):
        y, x = (int(rng.integers(n + 1)) for n in room)
        place = (slice(y, y + outer.shape[0]), slice(x, x + outer.shape[1]))
        if not np.any(blocked[place] & outer):
            return place
    return None


def _stream(seed: int, index: int, part: int) -> np.random.Generator:
    """Random numbers of one part of one scene."""
    return np.random.default_rng([seed, index, part])
