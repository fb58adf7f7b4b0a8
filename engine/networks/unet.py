"""A U-Net of configurable widths and depth as a torch module, and its loading.

Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation"; padded
convolutions and normalisation instead of cropping are ours. Plain torch: importing monai's blocks
takes a worker more than two seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import InputError
from engine.networks.states import load_state, read_state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engine.networks.unet_config import UNetConfig

__all__ = ["ConvBlock", "UNet", "load_unet"]


class ConvBlock(nn.Module):
    """3 by 3 convolution, normalisation unless it is folded, ReLU; the size stays.

    Parameters
    ----------
    channels : tuple of int
        Channels in and out.
    config : UNetConfig
        Says which normalisation.
    folded : bool
        Whether batch normalisation is part of the convolution already.
    """

    def __init__(self, channels: tuple[int, int], config: UNetConfig, *, folded: bool) -> None:
        super().__init__()
        bare = folded and config.norm == "batch"
        self.conv = nn.Conv2d(*channels, 3, padding=1, bias=bare)
        self.norm: nn.Module
        if bare:
            self.norm = nn.Identity()
        elif config.norm == "batch":
            self.norm = nn.BatchNorm2d(channels[1])
        else:
            self.norm = nn.GroupNorm(config.groups, channels[1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        return F.relu(self.norm(self.conv(x)))

    @torch.no_grad()
    def folded(self) -> dict[str, Tensor]:
        """State of the block whose convolution holds the batch normalisation as well."""
        norm = self.norm
        if not isinstance(norm, nn.BatchNorm2d):
            return {name: value.clone() for name, value in self.state_dict().items()}
        mean, var = norm.running_mean, norm.running_var
        if mean is None or var is None:
            raise TypeError("batch normalisation without running statistics cannot be folded")
        scale = norm.weight / torch.sqrt(var + norm.eps)
        return {
            "conv.weight": self.conv.weight * scale[:, None, None, None],
            "conv.bias": norm.bias - mean * scale,
        }


class UNet(nn.Module):
    """Logits of classes at each pixel of an image.

    Parameters
    ----------
    config : UNetConfig
        Shape of the network.
    folded : bool
        Whether batch normalisation is folded into the convolutions: for inference, see `fuse`.

    Notes
    -----
    Down by max pooling of 2 by 2, up by nearest neighbour. The last convolution of a level has the
    width of the next finer one, so that skips and what comes from below meet with equal widths.
    The head is computed in float32 whatever the rest runs in.
    """

    def __init__(self, config: UNetConfig, *, folded: bool = False) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleDict(
            {
                name: ConvBlock(channels, config, folded=folded)
                for name, channels in _block_plan(config)
            }
        )
        self.head = nn.Conv2d(config.widths[0], config.n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Predict logits.

        Parameters
        ----------
        x : Tensor
            (B, C, H, W) float, normalised; H and W multiples of ``config.divisor``.

        Returns
        -------
        Tensor
            (B, n_classes, H, W) float32.

        Raises
        ------
        InputError
            If the channels or the size of `x` do not fit.
        """
        self._check(x)
        skips: list[Tensor] = []
        bottom = len(self.config.widths) - 1
        for level in range(bottom):
            x = self._level("down", level, x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self._level("bottom", bottom, x)
        for level in reversed(range(bottom)):
            x = torch.cat([F.interpolate(x, scale_factor=2.0, mode="nearest"), skips[level]], dim=1)
            x = self._level("up", level, x)
        return self._answer(x)

    def fuse(self) -> UNet:
        """Make the equal network for inference, batch normalisation folded in.

        Returns
        -------
        UNet
            A new network: eval mode, no gradients. Group normalisation stays.
        """
        fused = UNet(self.config, folded=True)
        state = {f"head.{key}": value for key, value in self.head.state_dict().items()}
        for name, block in self.blocks.items():
            if isinstance(block, ConvBlock):
                state |= {f"blocks.{name}.{key}": value for key, value in block.folded().items()}
        fused.load_state_dict(state)
        return fused.eval().requires_grad_(requires_grad=False)

    def _level(self, part: str, level: int, x: Tensor) -> Tensor:
        for i in range(self.config.convs):
            x = self.blocks[f"{part}_{level}_{i}"](x)
        return x

    def _answer(self, x: Tensor) -> Tensor:
        weight, bias = self.head.weight.flatten(1).float(), self.head.bias
        with torch.autocast(x.device.type, enabled=False):
            # A product over the channels: 1 by 1 convolutions are slow on one thread.
            logits = F.linear(x.float().permute(0, 2, 3, 1), weight, bias.float())  # type: ignore[union-attr]
        return logits.permute(0, 3, 1, 2)

    def _check(self, x: Tensor) -> None:
        by, channels = self.config.divisor, self.config.n_channel_in
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % by or x.shape[3] % by:
            raise InputError(
                where="input of the U-Net",
                expected=f"(B, {channels}, H, W) with H and W multiples of {by}",
                found=str(tuple(x.shape)),
                remedy="Select the channels and pad the image at its end.",
            )


def load_unet(config: UNetConfig, weights: Path) -> UNet:
    """Build the U-Net of a member, ready for inference.

    Parameters
    ----------
    config : UNetConfig
        Its shape.
    weights : Path
        Its file of weights, safetensors, float16 or float32.

    Returns
    -------
    UNet
        float32, eval mode, no gradients, batch normalisation folded in.

    Raises
    ------
    ModelError
        If the file is damaged, a layer is missing, is not in the config or has another shape, or
        a value is not finite.
    """
    state = read_state(weights, f"{weights}: file")
    network = UNet(config)
    load_state(network, state, str(weights))
    return network.eval().fuse()


def _block_plan(config: UNetConfig) -> Iterator[tuple[str, tuple[int, int]]]:
    """Names and channels in and out of the blocks, in the order in which an image passes them."""
    widths, bottom = config.widths, len(config.widths) - 1
    down = [("down", level) for level in range(bottom)]
    up = [("up", level) for level in reversed(range(bottom))]
    channels = config.n_channel_in
    for part, level in (*down, ("bottom", bottom), *up):
        if part == "up":  # what comes from below, and the skip
            channels = 2 * widths[level]
        for i in range(config.convs):
            last = part != "down" and i == config.convs - 1
            out = widths[max(0, level - 1)] if last else widths[level]
            yield f"{part}_{level}_{i}", (channels, out)
            channels = out
