"""Small ensembles and autoencoders with random weights: no use, but they disagree a lot."""

from collections.abc import Sequence
from pathlib import Path

import torch

from engine.networks.ensemble_writing import write_ensemble, write_member, write_stardist_member
from engine.networks.mae import MaskedAutoencoder
from engine.networks.mae_folder import MaeConfig
from engine.networks.mae_weights import initialise_mae, save_mae
from engine.networks.states import stored_state
from engine.networks.unet import UNet
from engine.networks.unet_config import UNetConfig


def make_ensemble(
    path: Path, classes: Sequence[str], count: int, stardist: str | None = None
) -> Path:
    """Members of different depth; with a StarDist model as a last member where one is named."""
    members = []
    for k in range(count):
        config = UNetConfig(1, len(classes), (4, 8, 8)[: 2 + k % 2], groups=2)
        torch.manual_seed(k)
        network = UNet(config).eval()
        _spread(network)
        state = {name: value.numpy() for name, value in stored_state(network).items()}
        write_member(path.parent / f"{path.name}-{k}", config, state)
        members.append(path.parent / f"{path.name}-{k}")
    if stardist is not None:
        write_stardist_member(path.parent / f"{path.name}-star", stardist)
        members.append(path.parent / f"{path.name}-star")
    write_ensemble(path, tuple(classes), 1, members, "# random\n")
    return path


def _spread(network: UNet) -> None:
    """Let logits vary over an image, by 3, and say background where it is dark."""
    head = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)][-1]
    assert head.bias is not None
    with torch.no_grad():
        coarse = torch.rand(1, 1, 16, 16)
        logits = network(torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bilinear"))
        scale = 3 / logits.std(dim=(0, 2, 3))
        dark = network(torch.zeros(1, 1, 128, 128)).mean(dim=(0, 2, 3))
        head.weight.mul_(scale[:, None, None, None])
        head.bias.sub_(dark).mul_(scale)
        head.bias[0] += 4


def make_mae(path: Path, classes: Sequence[str]) -> Path:
    """An autoencoder whose answers vary."""
    config = MaeConfig(
        tuple(classes), encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=16,
        decoder_depth=1, decoder_heads=2, class_input="onehot", near_patches=4,
    )  # fmt: skip
    network = MaskedAutoencoder(config)
    initialise_mae(network, 3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(2)
    save_mae(network, "# random\n", path, half=True)
    return path
