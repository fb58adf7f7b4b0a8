"""Fitting a masked autoencoder: steps, averaged weights, schedule; everything that resumes."""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from engine.networks.mae import MaskedAutoencoder
from engine.training.checkpoint import Checkpoint
from engine.training.mae_batches import MaeBatch, MaeBatches
from engine.training.mae_options import MaeScores, MaeTrainOptions
from engine.training.mae_scoring import score_mae

WARM_UP_STEPS = 50
# The paper's.
WEIGHT_DECAY = 1e-5

# Weights are averaged over about 1 / (1 - decay) steps, over fewer at the start.
AVERAGE_DECAY = 0.995


class MaeFitting:
    """The state of a training between two epochs, and how it advances.

    Parameters
    ----------
    network : MaskedAutoencoder
        The network to train; changed in place.
    batches : MaeBatches
        Training batches.
    validation : sequence of MaeBatch
        One for each of `SCORED_RATIOS`.
    weights : tuple of float
        Of the classes in the loss.
    options : MaeTrainOptions
        What decides the training.

    Attributes
    ----------
    epoch, stale : int
        Epochs done; epochs since the best validation loss.
    best_loss : float
        The best validation loss.
    elapsed_s : float
        Seconds of training so far, over all resumptions.
    """

    def __init__(
        self,
        network: MaskedAutoencoder,
        batches: MaeBatches,
        validation: Sequence[MaeBatch],
        weights: tuple[float, ...],
        options: MaeTrainOptions,
    ) -> None:
        self.network, self.options, self.weights = network, options, torch.tensor(weights)
        self.epoch, self.stale, self.best_loss, self.elapsed_s = 0, 0, math.inf, 0.0
        self._batches, self._validation = batches, validation
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY,
            betas=(0.9, 0.95), fused=True,
        )  # fmt: skip
        self._average = _copy(network.state_dict())
        self._best = _copy(self._average)
        self._mirror = MaskedAutoencoder(network.config).eval()

    @property
    def done(self) -> float:
        """Share of the schedule that is used up: of its epochs, or of the time if that is more."""
        return min(1.0, max(self.epoch / self.options.epochs, self._time_share(self.elapsed_s)))

    @property
    def half(self) -> bool:
        """Whether the network computes in bfloat16."""
        return self.options.precision == "bfloat16"

    def run_epoch(self) -> tuple[float, MaeScores]:
        """Train one epoch and score the averaged weights.

        Returns
        -------
        loss : float
            Mean training loss.
        scores : MaeScores
            On validation windows.
        """
        begin, base, steps = time.monotonic(), self.elapsed_s, self.options.steps
        total, ran = 0.0, 0
        for i in range(steps):
            step = self.epoch * steps + i
            used = self._time_share(base + time.monotonic() - begin)
            if used >= 1:
                break
            total += self._step(step, max(step / (self.options.epochs * steps), used))
            ran += 1
        scores = score_mae(self.averaged(), self._validation, self.weights, half=self.half)
        self.epoch += 1
        self.stale += 1
        if scores.loss < self.best_loss:
            self.best_loss, self.stale, self._best = scores.loss, 0, _copy(self._average)
        self.elapsed_s = base + time.monotonic() - begin
        return total / max(1, ran), scores

    def averaged(self) -> MaskedAutoencoder:
        """Copy the averaged weights into a network for inference."""
        self._mirror.load_state_dict(self._average)
        return self._mirror

    def best(self) -> MaskedAutoencoder:
        """Copy the averaged weights of the best validation loss into a network for inference."""
        self._mirror.load_state_dict(self._best)
        return self._mirror

    def checkpoint(self) -> Checkpoint:
        """Take all state; the tensors are shared until the next step."""
        return Checkpoint(
            deciding=self.options.deciding(),
            network=self.network.state_dict(),
            average=self._average,
            best=self._best,
            optimiser=self._optimiser.state_dict(),
            epoch=self.epoch,
            best_loss=self.best_loss,
            stale=self.stale,
            elapsed_s=self.elapsed_s,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of the same training."""
        self.network.load_state_dict(checkpoint.network)
        self._optimiser.load_state_dict(checkpoint.optimiser)
        self._average, self._best = _copy(checkpoint.average), _copy(checkpoint.best)
        self.epoch, self.stale = checkpoint.epoch, checkpoint.stale
        self.best_loss, self.elapsed_s = checkpoint.best_loss, checkpoint.elapsed_s

    def _step(self, number: int, done: float) -> float:
        rate = min(1.0, (number + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * done))
        for group in self._optimiser.param_groups:
            group["lr"] = self.options.learning_rate * rate
        pieces = self.options.piece > 0 and done < self.options.piece_share
        batch = self._batches.make(number, pieces=pieces)
        self.network.train()
        self._optimiser.zero_grad(set_to_none=True)
        loss = mae_loss(self.network, batch, self.weights, half=self.half)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self._optimiser.step()
        self._accumulate(number)
        return float(loss.detach())

    @torch.no_grad()
    def _accumulate(self, number: int) -> None:
        decay = min(AVERAGE_DECAY, (1 + number) / (10 + number))
        for name, value in self.network.state_dict().items():
            self._average[name].lerp_(value, 1 - decay)

    def _time_share(self, elapsed_s: float) -> float:
        minutes = self.options.budget_minutes
        return 0.0 if minutes is None else elapsed_s / (60 * minutes)


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


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
