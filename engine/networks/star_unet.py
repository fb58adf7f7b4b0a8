"""The StarDist 2-D U-Net as a torch module.

The architecture is that of the stardist package (Schmidt et al. 2018, "Cell detection with
star-convex polygons"; network of stardist 0.9 with the U-Net of csbdeep), so that its trained
folders give the same maps here.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.errors import InputError
from engine.networks.model_folder import Activation, StarDistConfig

# Keras' BatchNormalization; torch's own is 1e-5.
BATCH_NORM_EPS = 1e-3
# stardist clamps distances to this; a polygon never collapses to its centre.
LEAST_DISTANCE = 1e-3

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "linear": nn.Identity,
}


class ConvBlock(nn.Module):
    """Convolution, batch normalisation where asked for, activation; the size stays.

    Parameters
    ----------
    channels : tuple of int
        Channels in and out.
    kernel : tuple of int
        (y, x) size of the kernel. Even sizes are padded by one more at the end, as Keras does.
    activation : str
        Name of the activation.
    batch_norm : bool
        Whether to normalise between convolution and activation.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        kernel: tuple[int, int],
        activation: Activation,
        *,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        (ky, kx) = kernel
        self.conv = nn.Conv2d(*channels, kernel, padding=((ky - 1) // 2, (kx - 1) // 2))
        self.pad = ((kx - 1) // 2, kx // 2, (ky - 1) // 2, ky // 2)
        self.even = ky % 2 == 0 or kx % 2 == 0
        self.norm = nn.BatchNorm2d(channels[1], eps=BATCH_NORM_EPS) if batch_norm else None
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H, W)."""
        x = self._conv_even(x) if self.even else self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.activation(x)
        return out

    def _conv_even(self, x: Tensor) -> Tensor:
        """Convolve with an even kernel, for which torch cannot pad more at the end."""
        return F.conv2d(F.pad(x, self.pad), self.conv.weight, self.conv.bias)

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one convolution that equals this one and its normalisation."""
        weight, bias = self.conv.weight, self.conv.bias
        bias = torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias
        if self.norm is None:
            return weight.clone(), bias.clone()
        mean, var = self.norm.running_mean, self.norm.running_var
        if mean is None or var is None:
            raise TypeError("batch normalisation without running statistics cannot be folded")
        scale = self.norm.weight / torch.sqrt(var + self.norm.eps)
        return weight * scale[:, None, None, None], (bias - mean) * scale + self.norm.bias


class StarDistUNet(nn.Module):
    """Object probabilities and star-convex distances of an image.

    Parameters
    ----------
    config : StarDistConfig
        Shape of the network.

    Notes
    -----
    Blocks carry the layer names of stardist without `unet_prefix`; the convolutions before the
    U-Net, which are nameless there, are ``stem_<pooling step>_<i>``. The heads are computed in
    float32 whatever the rest runs in: a distance of 60 px would lose 0.2 px in bfloat16.
    """

    def __init__(self, config: StarDistConfig) -> None:
        super().__init__()
        self.config = config
        self.stem_pools = tuple(_stem_pools(config))
        self.blocks = nn.ModuleDict()
        channels = config.n_channel_in
        for name, filters, activation, norm, skip in _block_plan(config):
            self.blocks[name] = ConvBlock(
                (channels + skip, filters), config.unet_kernel_size, activation, batch_norm=norm
            )
            channels = filters
        self.prob = nn.Conv2d(channels, 1, 1)
        self.dist = nn.Conv2d(channels, config.n_rays, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict maps on the grid.

        Parameters
        ----------
        x : Tensor
            (B, C, H, W) float, normalised; H and W multiples of ``config.divisor``.

        Returns
        -------
        prob : Tensor
            (B, 1, H/gy, W/gx) float32 in [0, 1].
        dist : Tensor
            (B, R, H/gy, W/gx) float32, pixels of the input, at least 1e-3.

        Raises
        ------
        InputError
            If the channels or the size of `x` do not fit.
        """
        logits, dist = self.raw(x)
        return torch.sigmoid(logits), dist.clamp_min(LEAST_DISTANCE)

    def raw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predict logits of the probability and unclamped distances, for training.

        Parameters, shapes and errors are those of `forward`.
        """
        self._check(x)
        features = self._features(x)
        weight = torch.cat([self.prob.weight, self.dist.weight]).flatten(1).float()
        bias = torch.cat([_bias(self.prob), _bias(self.dist)]).float()
        with torch.autocast(features.device.type, enabled=False):
            # One product over the channels for both heads: 1x1 convolutions are slow on one thread.
            maps = F.linear(features.float().permute(0, 2, 3, 1), weight, bias)
        maps = maps.permute(0, 3, 1, 2)
        return maps[:, :1], maps[:, 1:]

    def fuse(self) -> "StarDistUNet":
        """Make the equal network without batch normalisation, for inference.

        Returns
        -------
        StarDistUNet
            A new network in eval mode, whose config says ``unet_batch_norm=False``.
        """
        fused = StarDistUNet(replace(self.config, unet_batch_norm=False))
        state: dict[str, Tensor] = {}
        for name, block in self.conv_blocks():
            weight, bias = block.folded()
            state[f"blocks.{name}.conv.weight"] = weight
            state[f"blocks.{name}.conv.bias"] = bias
        for name, head in (("prob", self.prob), ("dist", self.dist)):
            state |= {f"{name}.{key}": value for key, value in head.state_dict().items()}
        fused.load_state_dict(state)
        return fused.eval()

    def conv_blocks(self) -> Iterator[tuple[str, ConvBlock]]:
        """Names and blocks in the order in which an image passes them."""
        for name, block in self.blocks.items():
            if isinstance(block, ConvBlock):
                yield name, block

    def _features(self, x: Tensor) -> Tensor:
        config, convs = self.config, self.config.unet_n_conv_per_depth
        for step, pool in enumerate(self.stem_pools):
            for i in range(convs):
                x = self.blocks[f"stem_{step}_{i}"](x)
            x = F.max_pool2d(x, pool)
        skips: list[Tensor] = []
        for level in range(config.unet_n_depth):
            for i in range(convs):
                x = self.blocks[f"down_level_{level}_no_{i}"](x)
            skips.append(x)
            x = F.max_pool2d(x, config.unet_pool)
        for i in _skipping(convs):
            x = self.blocks[f"middle_{i}"](x)
        for level in reversed(range(config.unet_n_depth)):
            skip = skips[level]
            up = F.interpolate(x, size=skip.shape[-2:], mode="nearest")
            x = torch.cat([up, skip], dim=1)
            for i in _skipping(convs):
                x = self.blocks[f"up_level_{level}_no_{i}"](x)
        if config.net_conv_after_unet:
            x = self.blocks["features"](x)
        return x

    def _check(self, x: Tensor) -> None:
        (dy, dx), channels = self.config.divisor, self.config.n_channel_in
        if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % dy or x.shape[3] % dx:
            raise InputError(
                where="input of the StarDist network",
                expected=f"(B, {channels}, H, W) with H and W multiples of {dy} and {dx}",
                found=str(tuple(x.shape)),
                remedy="Select the channels and pad the image at its end.",
            )


def _bias(conv: nn.Conv2d) -> Tensor:
    return torch.zeros_like(conv.weight[:, 0, 0, 0]) if conv.bias is None else conv.bias


def _skipping(convs: int) -> Iterator[int]:
    """Numbers of the convolutions of a level on the way up: the last is n, and n-1 is left out."""
    yield from range(convs - 1)
    yield convs


def _stem_pools(config: StarDistConfig) -> Iterator[tuple[int, int]]:
    """(y, x) poolings that bring the image to the grid, halving each axis that still needs it."""
    y, x = 1, 1
    while (y, x) != config.grid:
        pool = (2 if config.grid[0] > y else 1, 2 if config.grid[1] > x else 1)
        y, x = y * pool[0], x * pool[1]
        yield pool


def _block_plan(config: StarDistConfig) -> Iterator[tuple[str, int, Activation, bool, int]]:
    """Name, filters, activation, normalisation and channels of the skip, in order of passing."""
    convs, depth, act = config.unet_n_conv_per_depth, config.unet_n_depth, config.unet_activation
    norm = config.unet_batch_norm
    for step in range(len(tuple(_stem_pools(config)))):
        for i in range(convs):
            yield f"stem_{step}_{i}", config.unet_n_filter_base, act, False, 0
    for level in range(depth):
        for i in range(convs):
            yield f"down_level_{level}_no_{i}", config.filters(level), act, norm, 0
    for i in range(convs - 1):
        yield f"middle_{i}", config.filters(depth), act, norm, 0
    yield f"middle_{convs}", config.filters(max(0, depth - 1)), act, norm, 0
    for level in reversed(range(depth)):
        last = act if level else config.unet_last_activation
        skip = config.filters(level)
        for i in range(convs - 1):
            yield f"up_level_{level}_no_{i}", config.filters(level), act, norm, skip
            skip = 0
        yield f"up_level_{level}_no_{convs}", config.filters(max(0, level - 1)), last, norm, skip
    if config.net_conv_after_unet:
        yield "features", config.net_conv_after_unet, act, False, 0
