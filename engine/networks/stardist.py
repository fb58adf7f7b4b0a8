"""StarDist networks out of and into model folders (weights: Keras' HDF5, safetensors)."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from engine.networks.model_folder import (
    CONFIG_FILE,
    THRESHOLDS_FILE,
    ModelFolder,
    StarDistConfig,
    Thresholds,
)
from engine.networks.star_unet import StarDistUNet
from engine.networks.states import load_state, mismatch, read_state, save_state
from engine.networks.weight_files import new_folder, write_json

__all__ = ["StarDistUNet", "load_network", "official_config", "save_folder"]

_BATCH_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_HEADS = ("prob", "dist")


def load_network(folder: ModelFolder) -> StarDistUNet:
    """Build the network of a model folder, ready for inference.

    Parameters
    ----------
    folder : ModelFolder
        As `engine.networks.model_folder.open_model` gives it.

    Returns
    -------
    StarDistUNet
        float32, eval mode, no gradients, batch normalisation folded into the convolutions.

    Raises
    ------
    ModelError
        If a layer is missing, is there but not in the config, or has another shape.
    """
    network = StarDistUNet(folder.config)
    read = _read_h5 if folder.weights.suffix == ".h5" else _read_safetensors
    load_state(network, read(folder.weights, network), str(folder.weights))
    return network.fuse().requires_grad_(requires_grad=False)


def save_folder(network: StarDistUNet, thresholds: Thresholds, card: str, path: Path) -> None:
    """Write a model folder; it appears complete or not at all.

    Parameters
    ----------
    network : StarDistUNet
        Saved with its batch normalisation folded in.
    thresholds : Thresholds
        For ``thresholds.json``.
    card : str
        Markdown for ``README.md``: what the model is, for whom, from which data, how good.
    path : Path
        The folder to make; its parent is made where missing.

    Raises
    ------
    ModelError
        If `path` exists.
    """
    fused = network.fuse()
    with new_folder(path) as folder:
        state = {k: v.float().contiguous() for k, v in fused.state_dict().items()}
        save_state(state, folder / "weights.safetensors")
        write_json(folder / CONFIG_FILE, official_config(fused.config))
        write_json(folder / THRESHOLDS_FILE, asdict(thresholds))
        (folder / "README.md").write_text(card, encoding="utf-8")


def official_config(config: StarDistConfig) -> dict[str, object]:
    """Make the keys and values of a ``config.json`` that the stardist package itself can read.

    Parameters
    ----------
    config : StarDistConfig
        Shape of the network.

    Returns
    -------
    dict
        The shape, and the keys that stardist derives from it.
    """
    channels = config.n_channel_in
    return {
        "n_dim": 2,
        "axes": "YX" if channels == 1 else "YXC",
        "n_channel_out": 1 + config.n_rays,
        "backbone": "unet",
        "n_classes": None,
        "unet_dropout": 0.0,
        "net_input_shape": [None, None, channels],
        "net_mask_shape": [None, None, 1],
        **asdict(config),
    }


def _read_safetensors(file: Path, _: StarDistUNet) -> dict[str, Tensor]:
    return read_state(file, f"{file}: file")


def _read_h5(file: Path, network: StarDistUNet) -> dict[str, Tensor]:
    try:
        with h5py.File(file, "r") as handle:
            layers = list(_layers(handle, str(file)))
    except OSError as err:
        raise mismatch(f"{file}: file", "readable HDF5", str(err)) from err
    prefix = network.config.unet_prefix
    named = {(n if n in (*_HEADS, "features") else prefix + n): n for n, _ in _named(network)}
    stems = (name for name, _ in network.conv_blocks() if name.startswith("stem_"))
    norms = (name for name, block in network.conv_blocks() if block.norm is not None)
    state: dict[str, Tensor] = {}
    for layer, weights in layers:
        if "moving_mean" in weights:
            target = next(norms, None)
            keys = {k: f"blocks.{target}.norm.{v}" for k, v in _BATCH_NORM.items()}
        else:  # nameless in stardist: the convolutions before the U-Net, in their order
            target = named[layer] if layer in named else next(stems, None)
            at = target if target in _HEADS else f"blocks.{target}.conv"
            keys = {"kernel": f"{at}.weight", "bias": f"{at}.bias"}
        if target is None or weights.keys() != keys.keys():
            raise mismatch(
                f"{file}: {layer}", f"a layer of the config, with {', '.join(keys)}",
                "one that the config does not have" if target is None else ", ".join(weights),
            )  # fmt: skip
        for key, array in weights.items():
            state[keys[key]] = _to_torch(array)
    return state


def _named(network: StarDistUNet) -> Iterator[tuple[str, object]]:
    yield from ((n, b) for n, b in network.conv_blocks() if not n.startswith("stem_"))
    yield from ((head, getattr(network, head)) for head in _HEADS)


def _layers(handle: h5py.File, where: str) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Layers that hold weights, in the order of `layer_names` (groups are sorted by name)."""
    if "layer_names" not in handle.attrs:
        raise mismatch(f"{where}: layer_names", "an attribute, as Keras 2 writes", "none")
    for layer in map(_text, handle.attrs["layer_names"]):
        if layer not in handle:
            raise mismatch(f"{where}: {layer}", "a group of that name", "none")
        paths = [_text(p) for p in handle[layer].attrs.get("weight_names", ())]
        weights = {p.rsplit("/", 1)[-1].split(":")[0]: handle[layer][p][()] for p in paths}
        if weights:
            yield layer, weights


def _to_torch(array: np.ndarray) -> Tensor:
    """Turn (ky, kx, in, out) of Keras into (out, in, ky, kx) of torch; vectors stay."""
    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
    return torch.from_numpy(np.ascontiguousarray(turned))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
