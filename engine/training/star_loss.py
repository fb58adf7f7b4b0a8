"""The loss of a StarDist network."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from engine.training.batches import Batch

# stardist's train_loss_weights and train_background_reg.
DIST_WEIGHT = 0.2
BACKGROUND_WEIGHT = 1e-4
_EPSILON = 1e-7


@dataclass(frozen=True, slots=True)
class StarLoss:
    """Loss of one batch.

    Parameters
    ----------
    total : Tensor
        Scalar to descend: ``prob + 0.2 · dist + 0.2 · 1e-4 · background``.
    prob : Tensor
        Scalar: binary cross-entropy of the object probability.
    dist : Tensor
        Scalar, pixels: mean absolute error of the distances, weighted by the true probability.
    """

    total: Tensor
    prob: Tensor
    dist: Tensor


def star_loss(logits: Tensor, dist: Tensor, batch: Batch) -> StarLoss:
    """Compare what a network gives with what it should give.

    Parameters
    ----------
    logits : Tensor
        (B, 1, h, w) float32, logits of the object probability.
    dist : Tensor
        (B, R, h, w) float32, pixels, not clamped.
    batch : Batch
        The targets.

    Returns
    -------
    StarLoss
        Scalars, float32.

    Notes
    -----
    Schmidt et al. 2018, section 2.1, and stardist's ``masked_loss_mae``: pixels deep inside an
    object count more, distances on background are drawn to 0 weakly. Invalid pixels count nowhere.
    """
    cross = F.binary_cross_entropy_with_logits(logits, batch.prob, reduction="none")
    prob = (cross * batch.valid).sum() / batch.valid.sum().clamp_min(1)
    inside = batch.prob * batch.valid
    outside = (1 - batch.prob) * batch.valid
    error = (dist - batch.dist).abs().mean(dim=1, keepdim=True)
    mae = (error * inside).sum() / (inside.sum() + _EPSILON * inside.numel())
    background = (dist.abs().mean(dim=1, keepdim=True) * outside).mean()
    total = prob + DIST_WEIGHT * (mae + BACKGROUND_WEIGHT * background)
    return StarLoss(total, prob, mae)
