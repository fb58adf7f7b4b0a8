"""Batches of crops with classes, and the loss of a U-Net: weighted cross-entropy and Dice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from engine.training.augment import Crop
from engine.training.batches import draw_crops
from engine.training.data import Sample
from engine.training.unet.options import UNetOptions

# Label of pixels that do not count: those that a crop has beyond its image.
IGNORED = -1
# Of Dice: a class that is nowhere, in truth and prediction, is right.
_SMOOTH = 1.0


@dataclass(frozen=True, slots=True)
class ClassBatch:
    """Images and their classes.

    Parameters
    ----------
    image : Tensor
        (B, C, S, S) float32, channels last.
    classes : Tensor
        (B, S, S) int64, `IGNORED` where a pixel does not count.
    """

    image: Tensor
    classes: Tensor


@dataclass(frozen=True, slots=True)
class ClassBatches:
    """Endless training batches of a member.

    Parameters
    ----------
    samples : sequence of Sample
        What the member sees.
    options : UNetOptions
        Size and number of crops, their changes, seed.
    member : int
        With the seed and the number of the batch it decides everything.
    """

    samples: Sequence[Sample]
    options: UNetOptions
    member: int

    def make(self, number: int) -> ClassBatch:
        """Make batch `number`; the same number gives the same batch in any process."""
        options = self.options
        rng = np.random.default_rng((options.seed, self.member, number))
        count_size = options.batch, options.size
        return collate_classes(draw_crops(self.samples, count_size, options.augmentation, rng))


def collate_classes(crops: Sequence[Crop]) -> ClassBatch:
    """Stack crops.

    Parameters
    ----------
    crops : sequence of Crop
        All of one size; labels are classes.

    Returns
    -------
    ClassBatch
        In their order.
    """
    classes = np.stack([np.where(crop.valid, crop.labels, IGNORED) for crop in crops])
    images = torch.from_numpy(np.stack([crop.image for crop in crops]))
    return ClassBatch(
        images.contiguous(memory_format=torch.channels_last),
        torch.from_numpy(classes.astype(np.int64)),
    )


def class_weights(samples: Sequence[Sample], n_classes: int) -> NDArray[np.float32]:
    """Weigh classes by one over the root of their share, so that rare ones are not drowned.

    Parameters
    ----------
    samples : sequence of Sample
        What a member sees.
    n_classes : int
        Classes in all.

    Returns
    -------
    ndarray
        (n_classes,) float32, with a mean of 1 over the pixels; a class that is nowhere counts as
        one pixel.
    """
    counts = sum(np.bincount(s.labels.ravel(), minlength=n_classes) for s in samples)
    shares = np.maximum(counts, 1) / np.sum(counts)
    weights = 1 / np.sqrt(shares)
    result: NDArray[np.float32] = (weights / np.sum(weights * shares)).astype(np.float32)
    return result


def class_loss(logits: Tensor, batch: ClassBatch, weights: Tensor) -> Tensor:
    """Weighted cross-entropy plus one minus the mean Dice of the classes.

    Parameters
    ----------
    logits : Tensor
        (B, C, S, S) float32.
    batch : ClassBatch
        Truth.
    weights : Tensor
        (C,) float32, of the cross-entropy.

    Returns
    -------
    Tensor
        Scalar; pixels that do not count have no part in it.

    Notes
    -----
    Dice of a class is (2Σpg + 1) / (Σp + Σg + 1), p being the softmax, over the whole batch
    (Milletari et al. 2016 with sums instead of sums of squares).
    """
    log_p = F.log_softmax(logits, dim=1)
    counts = (batch.classes != IGNORED)[:, None]
    cross = F.nll_loss(log_p, batch.classes, weights, ignore_index=IGNORED)
    truth = torch.zeros_like(log_p).scatter_(1, batch.classes.clamp_min(0)[:, None], 1.0) * counts
    p = log_p.exp() * counts
    both, either = (p * truth).sum(dim=(0, 2, 3)), (p + truth).sum(dim=(0, 2, 3))
    dice = (2 * both + _SMOOTH) / (either + _SMOOTH)
    return cross + 1 - dice.mean()
