"""The course of a training: nothing stands yet, continue where it stopped, go on to the end."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from engine.errors import OutputError
from engine.training.checkpoint import Origin, read_checkpoint, write_checkpoint
from engine.training.fitting import Fitting
from engine.training.goal import Scored
from engine.training.schedule import Schedule

logger = logging.getLogger(__name__)

CHECKPOINT_FILE = "checkpoint.pt"

NetworkT = TypeVar("NetworkT", bound=nn.Module)
BatchT = TypeVar("BatchT")
ScoreT = TypeVar("ScoreT", bound=Scored)


def begin(options: Schedule) -> None:
    """Refuse a place that is taken, and set the threads of torch.

    Parameters
    ----------
    options : Schedule
        Of the training.

    Raises
    ------
    OutputError
        If `options.out` exists.
    """
    if options.out.exists():
        raise OutputError(
            where=str(options.out), expected="no such folder yet", found="one",
            remedy="Choose another --out or remove it.",
        )  # fmt: skip
    if options.threads is not None:
        torch.set_num_threads(options.threads)


def follow(
    fitting: Fitting[NetworkT, BatchT, ScoreT],
    options: Schedule,
    origin: Origin,
    on_epoch: Callable[[float, ScoreT], None],
    file: str = CHECKPOINT_FILE,
) -> None:
    """Train to the end, from the checkpoint where there is one; one is written after each epoch.

    Parameters
    ----------
    fitting : Fitting
        As it was made; advanced.
    options : Schedule
        When to end, and where progress is kept.
    origin : Origin
        What a checkpoint must have in common with this training.
    on_epoch : callable
        Called after an epoch with the mean training loss and the score of the validation.
    file : str
        Name of the checkpoint.

    Raises
    ------
    InputError
        If the checkpoint is damaged or belongs to another training.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    place: Path = options.work / file
    checkpoint = read_checkpoint(place, origin)
    if checkpoint is not None:
        fitting.restore(checkpoint)
        logger.info("%s: continuing after epoch %d", place, fitting.epoch)
    while fitting.done < 1 and fitting.stale < options.patience:
        loss, score = fitting.run_epoch()
        write_checkpoint(fitting.checkpoint(origin), place)
        on_epoch(loss, score)
