"""The thresholds at which a trained network scores best on validation images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.networks.model_folder import Thresholds
from engine.networks.star_unet import StarDistUNet
from engine.training.data import Sample
from engine.training.whole_image import find_objects, predict_maps, scores

logger = logging.getLogger(__name__)

NMS_CHOICES = (0.2, 0.3, 0.4, 0.5)
PROB_CHOICES = tuple(round(0.3 + 0.04 * i, 2) for i in range(14))


@dataclass(frozen=True, slots=True)
class Optimum:
    """Thresholds and what they give on the images on which they were chosen.

    Parameters
    ----------
    thresholds : Thresholds
        The best pair.
    f1 : tuple of float
        F1 at the IoUs of `engine.training.whole_image.SCORED_IOUS`.
    """

    thresholds: Thresholds
    f1: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean F1 over the IoUs, which is what was maximised."""
        return float(np.mean(self.f1))


def optimise_thresholds(
    network: StarDistUNet, samples: Sequence[Sample], *, bfloat16: bool = False
) -> Optimum:
    """Find the thresholds with the highest mean F1 over IoU 0.5…0.9, on a fixed grid of values.

    Parameters
    ----------
    network : StarDistUNet
        In eval mode.
    samples : sequence of Sample
        Validation images, predicted whole.
    bfloat16 : bool
        Whether convolutions run in bfloat16.

    Returns
    -------
    Optimum
        The first best pair in the order of `NMS_CHOICES`, then `PROB_CHOICES`.

    Notes
    -----
    Each overlap threshold needs one suppression: what survives at a higher probability threshold
    is what survives at the lowest, without the less probable ones.
    """
    maps = [predict_maps(network, s.image, bfloat16=bfloat16) for s in samples]
    truth = [s.labels for s in samples]
    best: Optimum | None = None
    for nms in NMS_CHOICES:
        objects = [find_objects(m, Thresholds(min(PROB_CHOICES), nms)) for m in maps]
        for prob in PROB_CHOICES:
            rows = scores(truth, [o.above(prob).labels() for o in objects])
            this = Optimum(Thresholds(prob, nms), tuple(row["f1"] for row in rows))
            logger.debug("prob %.2f nms %.2f: mean F1 %.4f", prob, nms, this.mean)
            if best is None or this.mean > best.mean:
                best = this
    if best is None:
        raise RuntimeError("no thresholds to choose from")
    return best
