"""What every training tells after an epoch."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochProgress:
    """How far a training is, at the end of an epoch.

    Parameters
    ----------
    epoch : int
        Epochs done.
    done : float
        Share of the schedule that is used up, in [0, 1].
    loss, val_loss, best_val_loss : float
        Mean of the epoch, of the averaged weights on validation crops or windows, the best so far.
    elapsed_s : float
        Seconds of training so far, over all resumptions.
    """

    epoch: int
    done: float
    loss: float
    val_loss: float
    best_val_loss: float
    elapsed_s: float
