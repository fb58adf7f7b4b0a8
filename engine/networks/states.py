"""Weights of networks, from files into modules and back: compared name by name, shape by shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from engine.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn


def stored_state(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and statistics that a file of weights holds; a counter of batches is not one."""
    state = network.state_dict()
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def read_state(file: Path, where: str) -> dict[str, Tensor]:
    """Read a file of weights.

    Parameters
    ----------
    file : Path
        Safetensors.
    where : str
        What messages call it.

    Returns
    -------
    dict
        Tensors by name.

    Raises
    ------
    ModelError
        If it is damaged.
    """
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as err:
        raise mismatch(where, "readable safetensors", str(err)) from err


def load_state(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a network after comparing names, shapes and finiteness.

    Parameters
    ----------
    network : Module
        Changed in place.
    state : mapping of str to Tensor
        All parameters and statistics, by the network's own names; cast to float32.
    where : str
        The file, for messages.

    Raises
    ------
    ModelError
        If the names or a shape differ from the network's, or a value is not finite.
    """
    own = stored_state(network)
    for name in sorted(own.keys() ^ state.keys()):
        found = "no such layer" if name in own else "a layer that the config does not have"
        raise mismatch(f"{where}: {name}", "the layers that config.json describes", found)
    for name, tensor in own.items():
        shape, given = tuple(tensor.shape), tuple(state[name].shape)
        if given != shape:
            raise mismatch(f"{where}: {name}", str(shape), str(given))
        if not bool(torch.isfinite(state[name]).all()):
            raise mismatch(f"{where}: {name}", "finite values", "NaN or infinity")
    network.load_state_dict({k: v.float() for k, v in state.items()}, strict=False)


def save_state(state: Mapping[str, Tensor], file: Path) -> None:
    """Write a file of weights that others may read.

    Parameters
    ----------
    state : mapping of str to Tensor
        Contiguous.
    file : Path
        Safetensors.
    """
    save_file(dict(state), file)
    file.chmod(0o644)  # save_file makes it readable by its owner alone


def mismatch(where: str, expected: str, found: str) -> ModelError:
    """Say that weights are not those of a network."""
    return ModelError(
        where=where, expected=expected, found=found,
        remedy="The weights do not belong to this config.json, or the file is damaged.",
    )  # fmt: skip
