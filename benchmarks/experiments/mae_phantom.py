"""Experiment a: phantom mitochondria whose truth is known, normal and with spoiled stain."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from mae_measures import interval, ratio
from scipy.ndimage import maximum_filter, minimum_filter

from engine.phantom import SEEN, UNSEEN, Scene, make_scene
from engine.phantom.degrade import DegradeSettings, degrade

if TYPE_CHECKING:
    from mae_maps import Maps

#: Seeds that no training uses: of the scenes to score on, and of those to choose settings on.
TEST_SEED, VALIDATION_SEED = 70_001, 70_002

#: The source's degradation, and its variant.
VARIANTS = {"plain": DegradeSettings(), "noisy": DegradeSettings(noisy=True)}


@dataclass(frozen=True)
class Spoiled:
    """A scene with one spoiled place in each mitochondrion, where they do not overlap.

    Parameters
    ----------
    image : ndarray of shape (Y, X), uint16
        Spoiled image.
    regions : tuple of ndarray of shape (Y, X), bool
        The places.
    owners : tuple of int
        Mitochondrion of each.
    """

    image: np.ndarray
    regions: tuple[np.ndarray, ...]
    owners: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """Scenes, and their images in one stack: normal, plain, noisy, validation.

    Parameters
    ----------
    test, validation : tuple of Scene
        Of unseen and of seen ranges.
    spoiled : dict of str to tuple of Spoiled
        The test scenes, by variant.
    """

    test: tuple[Scene, ...]
    validation: tuple[Scene, ...]
    spoiled: dict[str, tuple[Spoiled, ...]]

    @classmethod
    def draw(cls, scenes: int, validation: int, size: int) -> Work:
        """Draw scenes and spoil them; the same always."""
        unseen, seen = (replace(one, size=size) for one in (UNSEEN, SEEN))
        test = tuple(make_scene(unseen, TEST_SEED, k) for k in range(scenes))
        spoiled = {
            name: tuple(spoil(scene, settings, k) for k, scene in enumerate(test))
            for name, settings in VARIANTS.items()
        }
        chosen = tuple(make_scene(seen, VALIDATION_SEED, k) for k in range(validation))
        return cls(test, chosen, spoiled)

    @property
    def stack(self) -> np.ndarray:
        """All images: (Z, Y, X) uint16."""
        spoiled = [one.image for row in self.spoiled.values() for one in row]
        return np.stack([*(s.image for s in self.test), *spoiled,
                         *(s.image for s in self.validation)])  # fmt: skip

    def planes(self, name: str) -> range:
        """Planes of "normal", a variant or "validation"."""
        n = len(self.test)
        first = ["normal", *self.spoiled, "validation"].index(name) * n
        return range(first, first + (len(self.validation) if name == "validation" else n))

    def truths(self, name: str) -> list[np.ndarray]:
        """Class maps of these planes."""
        return [s.classes for s in (self.validation if name == "validation" else self.test)]


def spoil(scene: Scene, settings: DegradeSettings, index: int) -> Spoiled:
    """Spoil each mitochondrion of a scene in one place, but for places that would overlap."""
    image, taken = scene.image, np.zeros(scene.image.shape, bool)
    regions, owners = [], []
    for label in range(1, int(scene.instances.max()) + 1):
        rng = np.random.default_rng([TEST_SEED, index, label])
        done = degrade(image, scene.instances == label, scene.classes == 0, settings, rng)
        if not (done.region & taken).any():
            image, taken = done.image, taken | done.region
            regions.append(done.region)
            owners.append(label)
    return Spoiled(image, tuple(regions), tuple(owners))


def entropy_rise(work: Work, maps: Maps) -> dict[str, Any]:
    """How far entropy, and the share of wrong pixels, rise where stain was spoiled, by variant."""
    normal = work.planes("normal")
    entropy = maps.entropy.astype(np.float32) / 255
    found = {}
    for name, row in work.spoiled.items():
        sums: dict[str, list[list[float]]] = {}
        for k, spoiled in enumerate(row):
            pair = normal[k], work.planes(name)[k]
            places = _places(work.test[k], spoiled)
            wrong = [(maps.initial[p] != work.test[k].classes).astype(np.float32) for p in pair]
            measured = {where: ([entropy[p] for p in pair], places[where]) for where in places}
            measured["wrong pixels in the ellipse"] = (wrong, places["in the ellipse"])
            for where, (planes, regions) in measured.items():
                means = [sum(float(p[r].mean()) for r in regions) for p in planes]
                sums.setdefault(where, []).append([means[1], means[0], len(regions)])
        found[name] = {"mitochondria": sum(len(s.regions) for s in row)} | {
            where: _rise(np.array(values)) for where, values in sums.items()
        }
    return found


def _places(scene: Scene, spoiled: Spoiled) -> dict[str, list[np.ndarray]]:
    """Where entropy is measured, for each spoiled place: bool masks with some pixels."""
    pairs = list(zip(spoiled.regions, spoiled.owners, strict=True))
    inside = [region & (scene.instances == owner) for region, owner in pairs]
    # Members never agree on the pixel at which one class ends: it is uncertain in any image.
    border = maximum_filter(scene.classes, 3) != minimum_filter(scene.classes, 3)
    away = [one & ~border for one in inside]
    return {
        "in the ellipse": list(spoiled.regions), "in the mitochondrion": inside,
        "away from borders": [one for one in away if one.any()],
    }  # fmt: skip


def _rise(sums: np.ndarray) -> dict[str, list[float | None]]:
    """Means over mitochondria after and before, and their ratio less 1."""
    return {
        "after": interval(sums[:, [0, 2]], ratio),
        "before": interval(sums[:, [1, 2]], ratio),
        "rise": interval(sums[:, :2], lambda s: float(s[0] / s[1] - 1) if s[1] else None),
    }
