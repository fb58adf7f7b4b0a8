"""Checkpoints of a training: written whole or not at all, read without running code."""

import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import InputError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that a training needs to continue as if it had never stopped.

    Parameters
    ----------
    deciding : dict
        Options that decide the result; a checkpoint continues under the same ones only.
    network, average, best : dict of str to Tensor
        Weights and statistics as trained, averaged, and averaged at the best validation loss.
    optimiser : dict
        State of the optimiser.
    epoch : int
        Epochs done.
    best_loss : float
        The best validation loss.
    stale : int
        Epochs since then.
    elapsed_s : float
        Seconds of training so far.
    """

    deciding: dict[str, str]
    network: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[str, Any]
    epoch: int
    best_loss: float
    stale: int
    elapsed_s: float


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint; an interruption leaves the former one.

    Parameters
    ----------
    checkpoint : Checkpoint
        What to keep.
    path : Path
        The file; its folder exists.
    """
    temporary = path.with_suffix(".partial")
    shallow = {name: getattr(checkpoint, name) for name in Checkpoint.__dataclass_fields__}
    with temporary.open("wb") as stream:
        torch.save(shallow, stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_checkpoint(path: Path, deciding: Mapping[str, str]) -> Checkpoint | None:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        The file.
    deciding : mapping
        The options of the training that wants to continue.

    Returns
    -------
    Checkpoint or None
        None where there is no file.

    Raises
    ------
    InputError
        If the file is damaged, or belongs to a training with other options.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        checkpoint = Checkpoint(**values)
    except FileNotFoundError:
        return None
    except (RuntimeError, OSError, TypeError, EOFError, pickle.UnpicklingError) as err:
        raise InputError(
            where=str(path), expected="a checkpoint of this version", found=repr(err),
            remedy="Remove it to start again.",
        ) from err  # fmt: skip
    for name in sorted(checkpoint.deciding.keys() | deciding.keys()):
        then, now = checkpoint.deciding.get(name), deciding.get(name)
        if then != now:
            raise InputError(
                where=f"{path}: option {name}", expected=f"{then}, as when this training began",
                found=str(now), remedy="Use the same options, or another --out.",
            )  # fmt: skip
    return checkpoint
