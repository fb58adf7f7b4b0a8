"""Objects that a network finds in an image and in its variants, each predicted whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from engine.methods.defenses import perturb
from engine.methods.starconvex import BORDER, StarObjects, suppress
from engine.networks.runtime import open_network

if TYPE_CHECKING:
    from engine.device import Launch
    from engine.networks.model_folder import ModelFolder

#: Pixels that go through the network at once on a GPU: 64 tiles of 256 by 256.
LAUNCH_PIXELS = 2**22

#: Makes a variant of a normalised image: (C, Y, X) float32 to the same.
Change = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Segmenter:
    """A model that segments whole images of one shape, as many at once as fit a launch.

    Parameters
    ----------
    model : ModelFolder
        Network and thresholds.
    launch : Launch
        Device and precision; its number of tiles is not used.

    Notes
    -----
    As stardist's dense prediction: reflected at the far edge to what the network divides by, no
    candidate within `BORDER` grid pixels of an edge. A run works on tiles instead, whose objects
    are the same up to what the tiling loses.
    """

    model: ModelFolder
    launch: Launch

    def objects(self, images: Sequence[np.ndarray]) -> list[StarObjects]:
        """Segment images.

        Parameters
        ----------
        images : sequence of ndarray of shape (C, Y, X), float32
            Normalised, of equal shape.

        Returns
        -------
        list of StarObjects
            Of each, ordered by (-score, y, x).
        """
        height, width = images[0].shape[1:]
        dy, dx = self.model.config.divisor
        widths = ((0, 0), (0, -height % dy), (0, -width % dx))
        at_once = self._at_once(height * width)
        network = open_network(self.model, self.launch)
        found = []
        for start in range(0, len(images), at_once):
            batch = [np.pad(one, widths, mode="reflect") for one in images[start : start + at_once]]
            prob, rays = network.predict(np.stack(batch))
            extent = (height, width)
            found += [
                self._suppressed(p, r, extent)
                for p, r in zip(prob.cpu().numpy(), rays.cpu().numpy(), strict=True)
            ]
        return found

    def variants(self, image: np.ndarray, changes: Sequence[Change]) -> list[StarObjects]:
        """Segment variants of one image, made when they are needed: one for each change."""
        at_once = self._at_once(image[0].size)
        found: list[StarObjects] = []
        for start in range(0, len(changes), at_once):
            found += self.objects([change(image) for change in changes[start : start + at_once]])
        return found

    def _at_once(self, pixels: int) -> int:
        """Images of that many pixels in a launch.

        One on a CPU: not slower, and a small image's last bits may change with its neighbours.
        """
        return 1 if self.launch.device == "cpu" else max(1, LAUNCH_PIXELS // pixels)

    def _suppressed(
        self, prob: np.ndarray, rays: np.ndarray, extent: tuple[int, int]
    ) -> StarObjects:
        """Candidates of one image that survive: prob (y, x) and rays (y, x, R) on the grid."""
        (gy, gx), thresholds = self.model.config.grid, self.model.thresholds
        height, width = -(-extent[0] // gy), -(-extent[1] // gx)
        inner = prob[BORDER : height - BORDER, BORDER : width - BORDER]
        y, x = np.nonzero(inner > thresholds.prob)
        y, x = y + BORDER, x + BORDER
        points = np.stack([y * gy, x * gx], axis=1).astype(np.int64)
        return suppress(StarObjects(points, prob[y, x], rays[y, x]), thresholds.nms)


def bank_changes(fields: np.ndarray, strength: float) -> list[Change]:
    """Make the changes that the defenses of a bank are to an image normalised by percentiles.

    Parameters
    ----------
    fields : ndarray of shape (N, F, F), float32
        Defenses at strength 1.
    strength : float
        X.
    """
    return [partial(perturb, field=field, strength=strength) for field in fields]
