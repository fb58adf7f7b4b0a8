"""Loss of masked autoencoders: cross-entropy of what is masked and counts."""

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.networks.mae import MaskedAutoencoder
from engine.training.mae.batches import MaeBatch


def mae_loss(network: MaskedAutoencoder, batch: MaeBatch, weights: Tensor, *, half: bool) -> Tensor:
    """Weighted cross-entropy of the pixels of masked patches that count.

    Parameters
    ----------
    network : MaskedAutoencoder
        What predicts.
    batch : MaeBatch
        Windows and masks.
    weights : Tensor
        (C,) float32, of the classes.
    half : bool
        Whether the network computes in bfloat16.

    Returns
    -------
    Tensor
        One number, float32.

    Notes
    -----
    The authors' code [004] counts all near patches, seen ones too; we count masked patches, the
    only ones that are replaced.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        found = network(batch.patches, batch.visible, batch.wanted, batch.lengths)
    hidden = found.valid & ~batch.visible.gather(1, found.index)
    rows, places = hidden.nonzero(as_tuple=True)
    at = found.index[rows, places]
    target, counts = batch.patches[rows, at].flatten().long(), batch.counts[rows, at].flatten()
    logits = found.logits[rows, places].float().flatten(0, 1)
    each = F.cross_entropy(logits, target, weights, reduction="none") * counts
    return each.sum() / (weights[target] * counts).sum().clamp_min(1e-9)
