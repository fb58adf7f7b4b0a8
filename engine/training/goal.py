"""What a network is fitted to: batches, their loss, and the score by which weights are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from torch import Tensor, nn


class Imaged(Protocol):
    """A batch of crops: how many there are says how much its loss weighs."""

    @property
    def image(self) -> Tensor:
        """(B, C, S, S) float32."""


class Scored(Protocol):
    """What a validation tells: at least the loss that decides which weights are the best."""

    @property
    def loss(self) -> float:
        """Lower is better."""


NetworkT = TypeVar("NetworkT", bound=nn.Module)
BatchT = TypeVar("BatchT")
CropsT = TypeVar("CropsT", bound=Imaged)
ScoreT = TypeVar("ScoreT", bound=Scored)


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """A validation that measures the loss alone.

    Parameters
    ----------
    loss : float
        Mean over all crops.
    """

    loss: float


@dataclass(frozen=True, slots=True)
class Goal(Generic[NetworkT, BatchT, ScoreT]):
    """What a network is fitted to.

    Parameters
    ----------
    make : callable
        Training batch by its number and the share of the schedule that is used up.
    loss : callable
        Loss of a network on a batch, a scalar.
    validate : callable
        Score of a network in eval mode; called without gradients.
    """

    make: Callable[[int, float], BatchT]
    loss: Callable[[NetworkT, BatchT], Tensor]
    validate: Callable[[NetworkT], ScoreT]


def mean_loss(
    loss: Callable[[NetworkT, CropsT], Tensor], batches: Sequence[CropsT]
) -> Callable[[NetworkT], MeanLoss]:
    """Make the validation of a loss that is a mean over the crops of a batch.

    Parameters
    ----------
    loss : callable
        Loss of a network on a batch, a scalar.
    batches : sequence
        Validation batches; one of fewer crops weighs less.

    Returns
    -------
    callable
        As `Goal.validate`.
    """

    def validate(network: NetworkT) -> MeanLoss:
        losses = [float(loss(network, b)) for b in batches]
        weights = [b.image.shape[0] for b in batches]
        return MeanLoss(sum(v * w for v, w in zip(losses, weights, strict=True)) / sum(weights))

    return validate
