"""Fitting a StarDist network: steps, averaged weights, schedule; everything that resumes."""

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.networks.star_unet import StarDistUNet
from engine.training.batches import Batch, Batches
from engine.training.checkpoint import Checkpoint
from engine.training.options import TrainOptions
from engine.training.star_loss import StarLoss, star_loss

WARM_UP_STEPS = 200
WEIGHT_DECAY = 1e-4

# Weights are averaged over about 1 / (1 - decay) steps, over fewer at the start.
AVERAGE_DECAY = 0.998


class Fitting:
    """The state of a training between two epochs, and how it advances.

    Parameters
    ----------
    network : StarDistUNet
        The network to train; changed in place.
    batches : Batches
        Training batches.
    validation : sequence of Batch
        Validation batches.
    options : TrainOptions
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
        network: StarDistUNet,
        batches: Batches,
        validation: Sequence[Batch],
        options: TrainOptions,
    ) -> None:
        self.network = channels_last(network)
        self.options = options
        self.epoch, self.stale, self.best_loss, self.elapsed_s = 0, 0, math.inf, 0.0
        self._batches, self._validation = batches, validation
        self._optimiser = torch.optim.AdamW(
            network.parameters(), lr=options.learning_rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._average = _copy(network.state_dict())
        self._best = _copy(self._average)
        self._mirror = channels_last(StarDistUNet(network.config)).eval()

    @property
    def done(self) -> float:
        """Share of the schedule that is used up: of its epochs, or of the time if that is more."""
        share = self.epoch / self.options.epochs
        return min(1.0, max(share, self._time_share(self.elapsed_s)))

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return float(self._optimiser.param_groups[0]["lr"])

    def run_epoch(self) -> tuple[float, float]:
        """Train one epoch and validate the averaged weights.

        Returns
        -------
        tuple of float
            Mean training loss and validation loss.
        """
        begin, base, steps = time.monotonic(), self.elapsed_s, self.options.steps
        total = 0.0
        for i in range(steps):
            step = self.epoch * steps + i
            used = self._time_share(base + time.monotonic() - begin)
            total += self._step(step, min(1.0, max(step / (self.options.epochs * steps), used)))
        val_loss = self._validate()
        self.epoch += 1
        self.stale += 1
        if val_loss < self.best_loss:
            self.best_loss, self.stale, self._best = val_loss, 0, _copy(self._average)
        self.elapsed_s = base + time.monotonic() - begin
        return total / steps, val_loss

    def averaged(self) -> StarDistUNet:
        """Copy the averaged weights into a network for inference."""
        return self._inference(self._average)

    def best(self) -> StarDistUNet:
        """Copy the averaged weights of the best validation loss into a network for inference."""
        return self._inference(self._best)

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
        rate = self.options.learning_rate * _schedule(number, done)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        self._optimiser.zero_grad(set_to_none=True)
        loss = self._loss(self.network, self._batches.make(number))
        loss.total.backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        self._accumulate(number)
        return float(loss.total.detach())

    def _loss(self, network: StarDistUNet, batch: Batch) -> StarLoss:
        half = self.options.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits, dist = network.raw(batch.image)
        return star_loss(logits, dist, batch)

    @torch.no_grad()
    def _accumulate(self, number: int) -> None:
        decay = min(AVERAGE_DECAY, (1 + number) / (10 + number))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self._average[name].lerp_(value, 1 - decay)
            else:
                self._average[name].copy_(value)

    @torch.no_grad()
    def _validate(self) -> float:
        self._mirror.load_state_dict(self._average)
        losses = [float(self._loss(self._mirror, b).total) for b in self._validation]
        weights = [b.image.shape[0] for b in self._validation]
        return sum(v * w for v, w in zip(losses, weights, strict=True)) / sum(weights)

    def _inference(self, state: dict[str, Tensor]) -> StarDistUNet:
        self._mirror.load_state_dict(state)
        return channels_last(self._mirror.fuse().requires_grad_(requires_grad=False))

    def _time_share(self, elapsed_s: float) -> float:
        minutes = self.options.budget_minutes
        return 0.0 if minutes is None else elapsed_s / (60 * minutes)


@torch.no_grad()
def initialise(network: StarDistUNet, seed: int) -> None:
    """Draw initial weights, uniform after Glorot as stardist does; biases are 0.

    Parameters
    ----------
    network : StarDistUNet
        Changed in place.
    seed : int
        Decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight, generator=generator)
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)


def channels_last(network: StarDistUNet) -> StarDistUNet:
    """Lay out a network's weights channels last, in place: twice as fast on CPUs.

    Parameters
    ----------
    network : StarDistUNet
        Changed in place.

    Returns
    -------
    StarDistUNet
        The same network.
    """
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


def _schedule(number: int, done: float) -> float:
    """Share of the highest rate: a linear warm-up, and a cosine from 1 to 0."""
    return min(1.0, (number + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * done))


def _copy(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in state.items()}
