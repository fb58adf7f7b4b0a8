"""How well a masked autoencoder fills what is masked, against the share that is masked."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional as F

from engine.networks.mae import MaskedAutoencoder
from engine.networks.mae_folder import MaeConfig
from engine.training.mae.batches import MaeBatch, mask_windows
from engine.training.mae.options import SCORED_RATIOS, MaeScores

#: Pixels farther from foreground, in pixels, are not scored, as in the source [004].
SCORED_DISTANCE = 10

# Windows that run at once.
_LAUNCH = 4


def scored_batches(
    windows: tuple[NDArray[np.uint8], NDArray[np.bool_]], config: MaeConfig, seed: int
) -> tuple[MaeBatch, ...]:
    """Mask windows at every ratio of `SCORED_RATIOS`, patch by patch at random.

    Parameters
    ----------
    windows : tuple of ndarray
        Labels (N, window, window) uint8 and which pixels count, bool of the same shape.
    config : MaeConfig
        Window, patch and reach.
    seed : int
        Decides the masks.

    Returns
    -------
    tuple of MaeBatch
        One for each ratio; pixels far from foreground do not count.
    """
    labels, counts = windows
    near = np.stack([distance_transform_edt(w == 0) <= SCORED_DISTANCE for w in labels])
    inside = np.ones((len(labels), config.side, config.side), np.bool_)
    single = np.zeros(len(labels), np.bool_)
    return tuple(
        mask_windows((labels, counts & near, inside), config, ratio, single,
                     np.random.default_rng((seed, int(1000 * ratio))))
        for ratio in SCORED_RATIOS
    )  # fmt: skip


def score_mae(
    network: MaskedAutoencoder, batches: Sequence[MaeBatch], weights: Tensor, *, half: bool
) -> MaeScores:
    """Score a network on windows that are masked at each ratio.

    Parameters
    ----------
    network : MaskedAutoencoder
        In eval mode.
    batches : sequence of MaeBatch
        As `scored_batches` makes them.
    weights : Tensor
        (C,) float32: of the classes in the loss.
    half : bool
        Whether the network computes in bfloat16.

    Returns
    -------
    MaeScores
        Of all windows' pixels together.
    """
    losses, dice, class_dice = [], [], []
    for batch in batches:
        confusion, loss = _score(network, batch, weights, half=half)
        right, sizes = confusion.diagonal(), confusion.sum(0) + confusion.sum(1)
        shown = sizes > 0
        losses.append(loss)
        dice.append(float(right.sum() / max(1, confusion.sum())))
        class_dice.append(float((2 * right[shown] / sizes[shown]).mean()))
    return MaeScores(sum(losses) / len(losses), tuple(dice), tuple(class_dice))


@torch.no_grad()
def _score(
    network: MaskedAutoencoder, batch: MaeBatch, weights: Tensor, *, half: bool
) -> tuple[NDArray[np.int64], float]:
    """Count pixels by (true class, found class), and the mean loss."""
    classes = len(network.config.classes)
    confusion = np.zeros((classes, classes), np.int64)
    loss = total = 0.0
    for at in range(0, len(batch.patches), _LAUNCH):
        some = slice(at, at + _LAUNCH)
        part = MaeBatch(
            batch.patches[some], batch.counts[some], batch.visible[some], batch.wanted[some]
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            found = network(part.patches, part.visible, part.wanted, part.lengths)
        rows, places = (found.valid & ~part.visible.gather(1, found.index)).nonzero(as_tuple=True)
        patch = found.index[rows, places]
        counts = part.counts[rows, patch].flatten()
        logits = found.logits[rows, places].float().flatten(0, 1)[counts]
        truth = part.patches[rows, patch].flatten().long()[counts]
        loss += float(F.cross_entropy(logits, truth, weights, reduction="sum"))
        total += float(weights[truth].sum())
        pairs = (truth * classes + logits.argmax(1)).numpy()
        confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return confusion, loss / max(total, 1e-9)
