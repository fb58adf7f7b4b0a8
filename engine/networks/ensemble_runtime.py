"""Members of an ensemble at work: logits of all classes at full resolution, whatever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine.networks.launching import (
    in_launches,
    release_module,
    shared_module,
    stack_tiles,
    to_device,
    with_company,
)
from engine.networks.model_folder import ModelFolder
from engine.networks.stardist import load_network
from engine.networks.unet import UNet, load_unet

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from engine.device import Launch
    from engine.networks.ensemble import Member
    from engine.networks.stardist import StarDistUNet
    from tiling import Placement


class OpenMember:
    """A member on its device, ready for tiles.

    Parameters
    ----------
    module : UNet or StarDistUNet
        In evaluation mode.
    launch : Launch
        Device, precision and tiles per launch.
    scale, shift : float
        Of a StarDist model's logit.
    """

    def __init__(
        self, module: UNet | StarDistUNet, launch: Launch, scale: float = 1.0, shift: float = 0.0
    ) -> None:
        self.device = torch.device(launch.device)
        self._scaling = scale, shift
        self._module = module
        self._launch = launch

    def launches(
        self, image: np.ndarray, origin: tuple[int, ...], tiles: Sequence[Placement]
    ) -> Iterator[tuple[Sequence[Placement], Tensor]]:
        """Run the tiles of a row, in launches of nearly equal size.

        Parameters
        ----------
        image : ndarray of shape (C, Y, X), float32
            Normalised image under all tiles.
        origin : tuple of int
            Place of its first pixel in the padded plane.
        tiles : sequence of Placement
            In lattice order; their sizes are multiples of the member's divisor.

        Yields
        ------
        places : sequence of Placement
            The tiles of this launch.
        logits : Tensor of shape (N, n_classes, y, x), float32
            On the device, at full resolution.
        """
        for places in in_launches(tiles, self._launch.tiles):
            yield places, self.predict(stack_tiles(image, origin, places))

    @torch.inference_mode()
    def predict(self, batch: np.ndarray) -> Tensor:
        """Run one launch: (N, C, y, x) float32 to logits (N, n_classes, y, x) float32.

        Notes
        -----
        StarDist answers [0, scale logit p + shift], so that a softmax gives background and object;
        its own p is the distance to the border, see `engine.training.unet.stardist_member`. Its
        answer at a place of the grid is for the first pixel of the cell (the targets are taken
        there); in between we interpolate linearly, and after the last one it stays.
        """
        given = with_company(batch, self._module, self._launch)
        return self._logits(to_device(given, self._launch))[: len(batch)]

    def _logits(self, tensor: Tensor) -> Tensor:
        if isinstance(self._module, UNet):
            logits: Tensor = self._module(tensor)
            return logits
        logits, _ = self._module.raw(tensor)
        logits = logits.float()
        for axis, step in enumerate(self._module.config.grid, start=2):
            logits = _spread(logits, axis, step)
        scale, shift = self._scaling
        return torch.cat([torch.zeros_like(logits), scale * logits + shift], dim=1)


def open_member(member: Member, launch: Launch) -> OpenMember:
    """Load a member, or take the one that this process already holds.

    Parameters
    ----------
    member : Member
        Of an ensemble.
    launch : Launch
        Device, precision and tiles per launch.

    Returns
    -------
    OpenMember
        Ready for tiles. A StarDist member shares its network with `runtime.open_network`.

    Raises
    ------
    ModelError
        If the weights do not fit the configuration.
    """
    network = member.network
    if isinstance(network, ModelFolder):
        star = shared_module(network, launch, lambda: load_network(network))
        return OpenMember(star, launch, member.scale, member.shift)
    module = shared_module(member, launch, lambda: load_unet(network, member.weights))
    return OpenMember(module, launch)


def release_member(member: Member) -> None:
    """Let go of a member's network, where members take turns on a device with little memory.

    Parameters
    ----------
    member : Member
        Loaded again by the next `open_member`. Its memory is free once no `OpenMember` is left;
        `engine.device.release_memory` then gives it back to the device.
    """
    release_module(member.network if isinstance(member.network, ModelFolder) else member)


def _spread(values: Tensor, axis: int, step: int) -> Tensor:
    """Interpolate linearly between samples that lie `step` pixels apart, the first at pixel 0."""
    if step == 1:
        return values
    count = values.shape[axis]
    pixels = torch.arange(count * step, device=values.device)
    left = pixels // step
    share = ((pixels % step) / step).reshape([-1 if k == axis else 1 for k in range(values.ndim)])
    right = (left + 1).clamp_max(count - 1)
    return torch.lerp(values.index_select(axis, left), values.index_select(axis, right), share)
