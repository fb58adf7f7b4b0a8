"""Networks at work: loaded once per process, run on launches of tiles."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.networks.stardist import load_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.device import Device, Launch, Precision
    from engine.networks.model_folder import ModelFolder
    from engine.networks.stardist import StarDistUNet
    from tiling import Placement

_LOADING = Lock()


class OpenNetwork:
    """A network on its device, ready for tiles.

    Parameters
    ----------
    module : StarDistUNet
        In evaluation mode.
    launch : Launch
        Device, precision and tiles per launch.
    """

    def __init__(self, module: StarDistUNet, launch: Launch) -> None:
        self.device = torch.device(launch.device)
        self._dtype = torch.bfloat16 if launch.precision == "bfloat16" else torch.float32
        self._module = module
        self._tiles = launch.tiles

    def launches(
        self, image: np.ndarray, origin: tuple[int, ...], tiles: Sequence[Placement]
    ) -> Iterator[tuple[Sequence[Placement], torch.Tensor, torch.Tensor]]:
        """Run the tiles of a row, in launches of nearly equal size.

        Parameters
        ----------
        image : ndarray of shape (C, Y, X), float32
            Normalised image under all tiles.
        origin : tuple of int
            Place of its first pixel in the padded plane.
        tiles : sequence of Placement
            In lattice order.

        Yields
        ------
        places : sequence of Placement
            The tiles of this launch.
        prob : Tensor of shape (N, y, x), float32
            Object probability in [0, 1].
        rays : Tensor of shape (N, y, x, R), float32
            Distances in pixels, >= 1e-3.
        """
        count = -(-len(tiles) // self._tiles)
        edges = [round(k * len(tiles) / count) for k in range(count + 1)]
        for a, b in pairwise(edges):
            stack = [image[(slice(None), *place.tile.slices(origin))] for place in tiles[a:b]]
            prob, rays = self.predict(np.stack(stack))
            yield tiles[a:b], prob, rays

    @torch.inference_mode()
    def predict(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Run one launch: (N, C, Y, X) float32 to prob (N, y, x) and rays (N, y, x, R) float32."""
        tensor = torch.from_numpy(batch).to(self.device, self._dtype)
        prob, rays = self._module(tensor.contiguous(memory_format=torch.channels_last))
        return prob[:, 0].float(), rays.permute(0, 2, 3, 1).float()


def open_network(model: ModelFolder, launch: Launch) -> OpenNetwork:
    """Load a network, or take the one that this process already holds.

    Raises
    ------
    ModelError
        If the weights do not fit the configuration.
    """
    with _LOADING:
        module = _load(model, launch.device, launch.precision)
    return OpenNetwork(module, launch)


@lru_cache(maxsize=4)
def _load(model: ModelFolder, device: Device, precision: Precision) -> StarDistUNet:
    """Load weights, fix what decides the last bits, and move to the device."""
    # One thread: the last bits of a convolution change with their number, and processes scale
    # better than threads (measured: 10.3 against 7.1 tiles/s on two cores).
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    module = load_network(model).to(torch.device(device), dtype)
    for weight in module.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return module
