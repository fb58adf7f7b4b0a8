"""Checkpoints of a training: written whole or not at all, read without running code."""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.errors import InputError


@dataclass(frozen=True, slots=True)
class Origin:
    """What a training began with: a checkpoint continues with the same only.

    Parameters
    ----------
    options : dict
        Those that decide the result, as text.
    data : dict
        Digests of what was read, by names such as "image s0".
    """

    options: dict[str, str]
    data: dict[str, str]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that a training needs to continue as if it had never stopped.

    Parameters
    ----------
    options, data : dict of str to str
        Of its `Origin`.
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

    options: dict[str, str]
    data: dict[str, str]
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


def read_checkpoint(path: Path, origin: Origin) -> Checkpoint | None:
    """Read a checkpoint.

    Parameters
    ----------
    path : Path
        The file.
    origin : Origin
        Of the training that wants to continue.

    Returns
    -------
    Checkpoint or None
        None where there is no file.

    Raises
    ------
    InputError
        If the file is damaged, or belongs to a training with other options or on other data.
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
    _check_options(checkpoint.options, origin.options, path)
    _check_data(checkpoint.data, origin.data, path)
    return checkpoint


def _check_options(before: dict[str, str], now: dict[str, str], path: Path) -> None:
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise InputError(
                where=f"{path}: option {name}",
                expected=f"{before.get(name)}, as when this training began",
                found=str(now.get(name)), remedy="Use the same options, or another --out.",
            )  # fmt: skip


def _check_data(before: dict[str, str], now: dict[str, str], path: Path) -> None:
    names = [name for name in sorted(before.keys() | now.keys())
             if before.get(name) != now.get(name)]  # fmt: skip
    if not names:
        return
    name, more = names[0], f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    if name not in before:
        expected, found = "none, as when this training began", "a new one"
    else:
        expected = "what it was when this training began"
        found = "other contents under its name" if name in now else "none"
    raise InputError(
        where=f"{path}: {name}{more}",
        expected=expected,
        found=found,
        remedy="Bring back what it began with, or train anew into another --out.",
    )
