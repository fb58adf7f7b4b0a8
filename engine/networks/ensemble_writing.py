"""Ensembles onto the disk: members first, then the folder that holds them, whole or not at all."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from engine.networks.ensemble import (
    CARD_FILE,
    ENSEMBLE_FILE,
    VERSION,
    WEIGHTS_FILE,
    Ensemble,
    open_ensemble,
)
from engine.networks.model_folder import CONFIG_FILE
from engine.networks.unet_config import UNetConfig
from engine.networks.weight_files import new_folder, refuse_existing, write_json


def write_member(path: Path, config: UNetConfig, state: Mapping[str, np.ndarray]) -> None:
    """Write the folder of a U-Net.

    Parameters
    ----------
    path : Path
        The folder to make.
    config : UNetConfig
        Shape of the network.
    state : mapping of str to ndarray
        Parameters and statistics by the network's own names, float16 or float32.

    Raises
    ------
    ModelError
        If `path` exists.
    """
    refuse_existing(path)
    path.mkdir(parents=True)
    write_json(path / CONFIG_FILE, {"architecture": "unet", **asdict(config)})
    arrays = {name: np.ascontiguousarray(array) for name, array in state.items()}
    (path / WEIGHTS_FILE).write_bytes(save(arrays))


def write_stardist_member(path: Path, model: str, scale: float = 1.0, shift: float = 0.0) -> None:
    """Write the folder of a member that is a StarDist model's object probability.

    Parameters
    ----------
    path : Path
        The folder to make.
    model : str
        Name of a bundled model, or a path relative to `path`.

    scale, shift : float
        Of its logit; see `engine.training.unet.stardist_member`.

    Raises
    ------
    ModelError
        If `path` exists.
    """
    refuse_existing(path)
    path.mkdir(parents=True)
    facts = {"architecture": "stardist", "model": model, "scale": scale, "shift": shift}
    write_json(path / CONFIG_FILE, facts)


def write_ensemble(
    path: Path, classes: Sequence[str], channels: int, members: Sequence[Path], card: str
) -> Ensemble:
    """Make an ensemble of members; the folder appears complete and sound, or not at all.

    Parameters
    ----------
    path : Path
        The folder to make; its parent is made where missing.
    classes : sequence of str
        Names of the classes, background first.
    channels : int
        Channels of the input image.
    members : sequence of Path
        Folders that are copied into it, in this order.
    card : str
        Markdown for ``README.md``: what it is, from which data, how good.

    Returns
    -------
    Ensemble
        As `open_ensemble` reads it.

    Raises
    ------
    ModelError
        If `path` exists, or the members do not go together.
    """
    with new_folder(path) as temporary:
        for member in members:
            shutil.copytree(member, temporary / member.name)
        facts = {
            "version": VERSION, "classes": list(classes), "channels": channels,
            "members": [member.name for member in members],
        }  # fmt: skip
        write_json(temporary / ENSEMBLE_FILE, facts)
        (temporary / CARD_FILE).write_text(card, encoding="utf-8")
        open_ensemble(str(temporary))
    return open_ensemble(str(path.absolute()))
