"""StarDist networks at work: loaded once per process, run on launches of tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from engine.networks.launching import (
    in_launches,
    shared_module,
    stack_tiles,
    to_device,
    with_company,
)
from engine.networks.stardist import load_network

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from engine.device import Launch
    from engine.networks.model_folder import ModelFolder
    from engine.networks.stardist import StarDistUNet
    from tiling import Placement


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
        self._module = module
        self._launch = launch

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
        for places in in_launches(tiles, self._launch.tiles):
            prob, rays = self.predict(stack_tiles(image, origin, places))
            yield places, prob, rays

    @torch.inference_mode()
    def predict(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Run one launch: (N, C, Y, X) float32 to prob (N, y, x) and rays (N, y, x, R) float32."""
        given = with_company(batch, self._module, self._launch)
        prob, rays = (
            answer[: len(batch)] for answer in self._module(to_device(given, self._launch))
        )
        return prob[:, 0].float(), rays.permute(0, 2, 3, 1).float()


def open_network(model: ModelFolder, launch: Launch) -> OpenNetwork:
    """Load a network, or take the one that this process already holds.

    Raises
    ------
    ModelError
        If the weights do not fit the configuration.
    """
    return OpenNetwork(shared_module(model, launch, lambda: load_network(model)), launch)
