"""What defenses do to the objects of a piece: prediction in batches, F1, and a finer measure."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.device import Device, Precision
from engine.methods.defenses import perturb_tensor
from engine.networks.defense_bank import Mode
from engine.networks.model_folder import ModelFolder
from engine.networks.star_unet import LEAST_DISTANCE, StarDistUNet
from engine.networks.stardist import load_network
from engine.training.defenses.pieces import Piece
from engine.training.whole_image import Maps, find_objects

#: IoU at which objects count, and beyond which a better one counts no more.
IOU = 0.75

#: Weight of the finer measure beside F1.
FINE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class Score:
    """How well found objects fit the true ones.

    Parameters
    ----------
    f1 : float
        At IoU 0.75.
    fine : float
        Mean over the true objects of their best IoU, each counted up to 0.75.
    """

    f1: float
    fine: float

    @property
    def total(self) -> float:
        """``f1 + 0.3 · fine``: what is maximised.

        Not in the paper, whose loss is -F1 alone: the second term leads over the plateaus on
        which no object passes the threshold.
        """
        return self.f1 + FINE_WEIGHT * self.fine


def score_labels(truth: NDArray[np.int32], found: NDArray[np.int32]) -> Score:
    """Compare label images.

    Parameters
    ----------
    truth : ndarray
        (H, W) int32, ids 1…n without gaps, n at least 1.
    found : ndarray
        (H, W) int32, ids with or without gaps.

    Returns
    -------
    Score
        F1 as ``stardist.matching.matching``: above IoU 0.5 no object has two partners.
    """
    rows, columns = int(truth.max()) + 1, int(found.max()) + 1
    table = np.bincount((truth * columns + found).ravel(), minlength=rows * columns)
    shared = table.reshape(rows, columns)
    true_areas, found_areas = shared.sum(axis=1)[1:], shared.sum(axis=0)[1:]
    inner = shared[1:, 1:]
    # float32, as the package compares.
    iou = (inner / (true_areas[:, None] + found_areas - inner)).astype(np.float32)
    matched = np.count_nonzero(iou >= np.float32(IOU))
    count = len(true_areas) + np.count_nonzero(found_areas)
    best = np.minimum(iou.max(axis=1, initial=0), IOU)
    return Score(float(2 * matched / count), float(best.mean()))


class Judge:
    """A network that says how well it sees a piece through each defense.

    Parameters
    ----------
    model : ModelFolder
        The model.
    device : {"cpu", "cuda"}
        Where it runs.
    precision : {"float32", "bfloat16"}
        Of the network that searches; the last word has one in float32.
    mode : {"global", "field"}
        How intensities are scaled.
    """

    def __init__(
        self, model: ModelFolder, device: Device, precision: Precision, mode: Mode
    ) -> None:
        self.device = torch.device(device)
        self.config = model.config
        self._thresholds = model.thresholds
        self._mode = mode
        self._exact = _ready(load_network(model), self.device, torch.float32)
        self._quick = self._exact
        if precision == "bfloat16":
            self._quick = _ready(load_network(model), self.device, torch.bfloat16)

    def raw(self, piece: Piece, fields: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, 1, h, w) and unclamped distances (N, R, h, w), float32, with gradients.

        Parameters
        ----------
        piece : Piece
            What is looked at.
        fields : Tensor
            (N, 256, 256) float32, on the device.
        """
        return self._run(self._quick, piece, fields)

    @torch.no_grad()
    def scores(
        self, piece: Piece, fields: NDArray[np.float32], *, exact: bool = False
    ) -> list[Score]:
        """Score a piece through each of some defenses.

        Parameters
        ----------
        piece : Piece
            What is looked at.
        fields : ndarray
            (N, 256, 256) float32.
        exact : bool
            Whether to predict in float32.

        Returns
        -------
        list of Score
            One for each field.
        """
        network = self._exact if exact else self._quick
        logits, dist = self._run(network, piece, torch.from_numpy(fields).to(self.device))
        return self.scores_of(piece, logits, dist)

    def scores_of(self, piece: Piece, logits: Tensor, dist: Tensor) -> list[Score]:
        """Score what `raw` gave."""
        prob = torch.sigmoid(logits[:, 0].detach()).cpu().numpy()
        clamped = dist.detach().clamp_min(LEAST_DISTANCE).permute(0, 2, 3, 1)
        rays = clamped.contiguous().cpu().numpy()
        shape, grid = (piece.labels.shape[0], piece.labels.shape[1]), self.config.grid
        found = (
            find_objects(Maps(p, r, shape, grid), self._thresholds).labels()
            for p, r in zip(prob, rays, strict=True)
        )
        return [score_labels(piece.labels, labels) for labels in found]

    def _run(self, network: StarDistUNet, piece: Piece, fields: Tensor) -> tuple[Tensor, Tensor]:
        pixels = torch.from_numpy(piece.pixels).to(self.device)
        variants = (
            perturb_tensor(pixels, fields, 1.0, (0, 0))
            if self._mode == "global"
            else scaled_variants(pixels, fields)
        )
        dtype = next(network.parameters()).dtype
        return network.raw(variants.to(dtype).contiguous(memory_format=torch.channels_last))


def scaled_variants(pixels: Tensor, fields: Tensor) -> Tensor:
    """Subtract defenses at strength 1 as `engine.methods.defenses.perturb_field` does.

    Parameters
    ----------
    pixels : Tensor
        (C, F, F) float32.
    fields : Tensor
        (N, F, F) float32.

    Returns
    -------
    Tensor
        (N, C, F, F) float32 in [0, 1], with gradients.
    """
    changed = (_stretched(pixels[None]) - fields[:, None]).clamp_min(0)
    return _stretched(changed)


def _stretched(batch: Tensor) -> Tensor:
    """Each element of a batch, smallest value to 0 and largest to 1; constant ones to 0."""
    low, high = batch.amin((1, 2, 3), keepdim=True), batch.amax((1, 2, 3), keepdim=True)
    span = torch.where(high > low, high - low, torch.ones_like(low))
    return (batch - low) / span


def _ready(network: StarDistUNet, device: torch.device, dtype: torch.dtype) -> StarDistUNet:
    """Move a network, its kernels laid out for images with channels last."""
    network = network.to(device, dtype)
    for weight in network.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return network
