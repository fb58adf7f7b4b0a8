"""Whole-image prediction, objects and scores: what a model is worth before any tiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stardist.geometry import polygons_to_label
from stardist.matching import matching_dataset
from stardist.nms import non_maximum_suppression

from engine.networks.model_folder import Thresholds
from engine.networks.star_unet import StarDistUNet
from engine.training.data import Sample

SCORED_IOUS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)

# Candidates this close to the border, in grid pixels, are dropped, as stardist does.
BORDER = 2


@dataclass(frozen=True, slots=True)
class Maps:
    """What a network says about an image.

    Parameters
    ----------
    prob : ndarray
        (h, w) float32 in [0, 1], on the grid.
    dist : ndarray
        (h, w, R) float32, pixels.
    shape : tuple of int
        (H, W) of the image.
    grid : tuple of int
        (y, x) pixels per grid pixel.
    """

    prob: NDArray[np.float32]
    dist: NDArray[np.float32]
    shape: tuple[int, int]
    grid: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects that survived the suppression, by falling probability.

    Parameters
    ----------
    points : ndarray
        (n, 2) int64, (y, x) of centres in pixels.
    scores : ndarray
        (n,) float32.
    dist : ndarray
        (n, R) float32, pixels.
    shape : tuple of int
        (H, W) of the image.
    """

    points: NDArray[np.int64]
    scores: NDArray[np.float32]
    dist: NDArray[np.float32]
    shape: tuple[int, int]

    def above(self, prob: float) -> "Objects":
        """Keep those more probable than `prob`.

        Suppression goes by falling probability, so this equals suppressing at that threshold.
        """
        keep = self.scores > prob
        return Objects(self.points[keep], self.scores[keep], self.dist[keep], self.shape)

    def labels(self) -> NDArray[np.int32]:
        """Render them, (H, W) int32; where two overlap the more probable one wins."""
        if not len(self.points):
            return np.zeros(self.shape, np.int32)
        drawn = polygons_to_label(self.dist, self.points, shape=self.shape, prob=self.scores)
        return np.asarray(drawn, dtype=np.int32)


@torch.inference_mode()
def predict_maps(
    network: StarDistUNet, image: NDArray[np.float32], *, bfloat16: bool = False
) -> Maps:
    """Predict a whole image at once.

    Parameters
    ----------
    network : StarDistUNet
        In eval mode.
    image : ndarray
        (C, H, W) float32, normalised.
    bfloat16 : bool
        Whether convolutions run in bfloat16.

    Returns
    -------
    Maps
        Of ceil(H / gy) by ceil(W / gx) grid pixels.

    Notes
    -----
    As stardist's dense prediction: reflected at the end to a multiple of the divisor, cut after.
    """
    height, width = image.shape[1:]
    (dy, dx), (gy, gx) = network.config.divisor, network.config.grid
    padded = np.pad(image, ((0, 0), (0, -height % dy), (0, -width % dx)), mode="reflect")
    x = torch.from_numpy(padded)[None].contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        prob, dist = network(x)
    h, w = -(-height // gy), -(-width // gx)
    return Maps(
        prob=prob[0, 0, :h, :w].contiguous().numpy(),
        dist=dist[0, :, :h, :w].permute(1, 2, 0).contiguous().numpy(),
        shape=(height, width),
        grid=(gy, gx),
    )


def find_objects(maps: Maps, thresholds: Thresholds) -> Objects:
    """Choose among candidates by non-maximum suppression of their polygons.

    Parameters
    ----------
    maps : Maps
        Of a whole image.
    thresholds : Thresholds
        Least probability, and overlap above which one suppresses another.

    Returns
    -------
    Objects
        Those that remain.
    """
    points, scores, dist = non_maximum_suppression(
        maps.dist, maps.prob, grid=maps.grid, b=BORDER,
        prob_thresh=thresholds.prob, nms_thresh=thresholds.nms,
    )  # fmt: skip
    return Objects(np.asarray(points, np.int64), scores, dist, maps.shape)


def scores(
    truth: Sequence[NDArray[np.int32]], found: Sequence[NDArray[np.int32]]
) -> list[dict[str, Any]]:
    """Score label images as one data set: objects of all images are counted together.

    Parameters
    ----------
    truth, found : sequence of ndarray
        (H, W) integer label images, in the same order.

    Returns
    -------
    list of dict
        For each of `SCORED_IOUS`: iou, f1, precision, recall, accuracy, panoptic_quality.
    """
    all_stats = matching_dataset(
        list(truth), list(found), thresh=SCORED_IOUS, show_progress=False, parallel=False
    )
    names = ("f1", "precision", "recall", "accuracy", "panoptic_quality")
    return [
        {"iou": iou} | {name: float(getattr(stats, name)) for name in names}
        for iou, stats in zip(SCORED_IOUS, all_stats, strict=True)
    ]


def score_network(
    network: StarDistUNet, samples: Sequence[Sample], thresholds: Thresholds, *, bfloat16: bool
) -> tuple[float, ...]:
    """F1 of a network on whole images at `SCORED_IOUS`.

    Parameters
    ----------
    network : StarDistUNet
        In eval mode.
    samples : sequence of Sample
        Images and truth.
    thresholds : Thresholds
        Which candidates become objects.
    bfloat16 : bool
        Whether convolutions run in bfloat16.

    Returns
    -------
    tuple of float
        One value for each IoU.
    """
    found = [
        find_objects(predict_maps(network, s.image, bfloat16=bfloat16), thresholds).labels()
        for s in samples
    ]
    return tuple(row["f1"] for row in scores([s.labels for s in samples], found))
