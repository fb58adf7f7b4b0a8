"""Algorithm 1 as a loop over tiles and defenses, with what the stardist package offers.

Jain, Shao, Hecht 2025: perturb, predict, suppress, render, measure boxes and centroids of masks,
compare by the whole matrix of distances, paint candidates. Only the perturbation is ours, so that
the flags can be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from skimage.measure import regionprops
from stardist.geometry import polygons_to_label
from stardist.nms import non_maximum_suppression

from engine.methods.defenses import evaluate, perturb
from engine.networks.runtime import open_network
from tiling import BlendPlan, Lattice

if TYPE_CHECKING:
    from engine.device import Launch
    from engine.networks.defense_bank import DefenseBank
    from engine.networks.model_folder import ModelFolder
    from engine.recipe import FlagSettings
    from tiling import Placement, Tiling


class Loop:
    """What a user of the stardist package would write."""

    def __init__(
        self, model: ModelFolder, launch: Launch, tiling: Tiling, settings: FlagSettings
    ) -> None:
        self.model, self.tiling, self.settings = model, tiling, settings
        self.network = open_network(model, launch)

    def run(self, image: np.ndarray, bank: DefenseBank) -> dict[str, int]:
        """Votes against each object of an image (C, Y, X), by its centre."""
        votes: dict[str, int] = {}
        lattice = Lattice(image.shape[1:], self.tiling)
        height, width = (b - a for a, b in zip(image.shape[1:], lattice.padded.shape, strict=True))
        image = np.pad(image, [(0, 0), (0, height), (0, width)], mode="reflect")
        for row in BlendPlan(lattice, lattice.padded).rows():
            for place in row.tiles:
                votes.update(self._tile(image[(slice(None), *place.tile.slices())], place, bank))
        return votes

    def _tile(self, pixels: np.ndarray, place: Placement, bank: DefenseBank) -> dict[str, int]:
        """Let all defenses look at one tile."""
        settings, count = self.settings, 0
        points, known, _ = self._look(pixels)
        votes = np.zeros(len(known), np.int64)
        painted = np.zeros(pixels.shape[1:], np.int32)
        for coefficients in bank.coefficients:
            field = evaluate(coefficients, bank.layout)
            y, x = place.tile.start
            variant = perturb(pixels, field, settings.strength, (y, x))
            _, found, labels = self._look(variant)
            missing, extra = obvious(known, found, settings.tau)
            votes += missing
            for k in np.flatnonzero(extra):
                cell = labels == k + 1
                over = painted[cell]
                taken = np.count_nonzero(over)
                if over.size - taken > settings.merge * taken:
                    count += 1
                    painted[cell & (painted == 0)] = count
        grid = self.model.config.grid[0]
        inside = place.source
        own = ((points // grid >= inside.start) & (points // grid < inside.stop)).all(axis=1)
        names = (points + place.tile.start).tolist()
        return {f"{names[k][0]},{names[k][1]}": int(votes[k]) for k in np.flatnonzero(own)}

    def _look(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Centres, boxes and centroids of masks, and the painted labels of a tile."""
        model = self.model
        prob, rays = self.network.predict(pixels[None])
        points, scores, dist = non_maximum_suppression(
            rays[0].numpy(), prob[0].numpy(), grid=model.config.grid,
            prob_thresh=model.thresholds.prob, nms_thresh=model.thresholds.nms,
        )  # fmt: skip
        shape = pixels.shape[1:]
        if len(points) == 0:
            return points.reshape(0, 2), np.zeros((0, 6)), np.zeros(shape, np.int32)
        # Labels are ranks among the objects, the most probable first.
        labels = polygons_to_label(dist, points, shape=shape, prob=scores)
        rows = np.full((len(points), 6), np.inf)
        for one in regionprops(labels):
            (y0, x0, y1, x1), (cy, cx) = one.bbox, one.centroid
            rows[one.label - 1] = x0, y0, x1 - 1, y1 - 1, int(cx), int(cy)
        return points, rows, labels


def obvious(known: np.ndarray, found: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """Missing and extra objects by the whole matrix of distances."""
    if len(known) == 0 or len(found) == 0:
        return np.ones(len(known), bool), np.ones(len(found), bool)
    table = np.sqrt(((known[:, None] - found[None]) ** 2).sum(axis=2))
    there, back = table.argmin(axis=1), table.argmin(axis=0)
    missing = (back[there] != np.arange(len(known))) | (table.min(axis=1) > tau)
    extra = (there[back] != np.arange(len(found))) | (table.min(axis=0) > tau)
    return missing, extra
