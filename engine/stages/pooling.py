"""Average pooling on the device: sums over the tiles of one band, moved down the plane by rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from engine.stages.base import Raster
    from tiling import BlendPlan, Box, Placement, TileRow


def under_tiles(image: Raster, reach: Box, bounds: Box) -> tuple[np.ndarray, tuple[int, ...]]:
    """Image under all tiles, reflected beyond the far edge: (C, Y, X) and its first pixel."""
    inside = image.cut(reach.clip(bounds))
    missing = [n - have for n, have in zip(reach.shape, inside.shape[1:], strict=True)]
    if any(missing):
        inside = np.pad(inside, [(0, 0), *((0, n) for n in missing)], mode="reflect")
    return inside, reach.start


class BandSums:
    """Sums of what tiles say of the pixels of one band; added in lattice order, without atomics.

    Parameters
    ----------
    plan : BlendPlan
        Which piece of which tile counts where.
    channels : int
        Values of a pixel.
    device : torch.device
        Where the sums lie: (rows, columns, channels) float32.
    """

    def __init__(self, plan: BlendPlan, channels: int, device: torch.device) -> None:
        import torch  # not on the path of planning

        self._plan = plan
        self._top = 0
        tiling = plan.lattice.tiling
        shape = (tiling.tile // tiling.scale, plan.output.shape[1], channels)
        self._sums = torch.zeros(shape, device=device)

    def add(self, places: Sequence[Placement], values: torch.Tensor) -> None:
        """Add a launch, (N, y, x, channels), in lattice order."""
        for k, place in enumerate(places):
            source: tuple[Any, ...] = (k, *place.source.slices())
            target: tuple[Any, ...] = place.target.slices((self._top, 0))
            self._sums[target] += values[source]

    def mean(self, row: TileRow) -> np.ndarray:
        """Mean over the band that is final after `row`: (y, x, channels) float32."""
        sums = self._sums[: row.band.shape[0]].cpu().numpy()
        mean: np.ndarray = sums / self.weight(row)[..., None]
        return mean

    def weight(self, row: TileRow) -> np.ndarray:
        """Tiles that saw each pixel of the band: (y, x) float32."""
        return self._plan.weight[row.band.slices()]

    def mean_at(self, rows: np.ndarray, columns: np.ndarray) -> torch.Tensor:
        """Mean at pixels of the band: (n, channels) float32, where the sums lie."""
        import torch

        weight = self._plan.weight[rows + self._top, columns][:, None]
        sums = self._sums[tuple(torch.from_numpy(a).to(self._sums.device) for a in (rows, columns))]
        # Rounded as NumPy rounds it, on a GPU too.
        return sums / torch.from_numpy(weight).to(sums.device)

    def move_past(self, row: TileRow) -> None:
        """Forget the rows that are final and move the others up."""
        kept = self._sums[row.band.shape[0] :].clone()
        self._sums[: len(kept)] = kept
        self._sums[len(kept) :] = 0
        self._top += row.band.shape[0]
