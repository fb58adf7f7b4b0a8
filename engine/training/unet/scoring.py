"""How good an ensemble of U-Nets is on validation crops, and whether its members differ."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.networks.unet import UNet
from engine.training.unet.loss import IGNORED, ClassBatch


@dataclass(frozen=True, slots=True)
class EnsembleScore:
    """What was measured on validation crops, all pixels counted together.

    Parameters
    ----------
    members : tuple of tuple of float
        Dice of each class, for each member.
    mean : tuple of float
        Dice of each class, of the members' mean probability.
    disagreeing : float
        Share of pixels for which not all members choose the same class.
    wrong : float
        Share of pixels that the mean gets wrong.
    wrong_found : float
        Share of those that lie where members disagree.
    """

    members: tuple[tuple[float, ...], ...]
    mean: tuple[float, ...]
    disagreeing: float
    wrong: float
    wrong_found: float


@torch.inference_mode()
def score_ensemble(
    networks: Sequence[UNet], batches: Sequence[ClassBatch], *, bfloat16: bool
) -> EnsembleScore:
    """Score the U-Nets of an ensemble and their mean.

    Parameters
    ----------
    networks : sequence of UNet
        In eval mode.
    batches : sequence of ClassBatch
        Validation crops.
    bfloat16 : bool
        Whether convolutions run in bfloat16.

    Returns
    -------
    EnsembleScore
        A class that is nowhere, in truth and prediction, has a Dice of 1.
    """
    n_classes = networks[0].config.n_classes
    tables = torch.zeros(len(networks) + 1, n_classes, n_classes, dtype=torch.int64)
    pixels = split = wrong = found = 0
    for batch in batches:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            soft = [torch.softmax(network(batch.image), dim=1) for network in networks]
        counts = batch.classes != IGNORED
        truth = batch.classes[counts]
        votes = torch.stack([p.argmax(dim=1)[counts] for p in soft])
        chosen = (sum(soft) / len(soft)).argmax(dim=1)[counts]  # type: ignore[union-attr]
        for table, answer in zip(tables, (*votes, chosen), strict=True):
            table += _confusion(truth, answer, n_classes)
        apart = (votes != votes[0]).any(dim=0)
        pixels += truth.numel()
        split += int(apart.sum())
        wrong += int((chosen != truth).sum())
        found += int(((chosen != truth) & apart).sum())
    dice = [_dice(table) for table in tables]
    return EnsembleScore(
        tuple(dice[:-1]), dice[-1], split / pixels, wrong / pixels, found / max(1, wrong)
    )


def _confusion(truth: Tensor, answer: Tensor, n_classes: int) -> Tensor:
    """Count pixels: (truth, answer)."""
    places = torch.bincount(truth * n_classes + answer, minlength=n_classes**2)
    return places.reshape(n_classes, n_classes)


def _dice(table: Tensor) -> tuple[float, ...]:
    both, sums = table.diagonal(), table.sum(dim=0) + table.sum(dim=1)
    return tuple(
        1.0 if total == 0 else 2 * int(right) / int(total)
        for right, total in zip(both.tolist(), sums.tolist(), strict=True)
    )
