"""The stages of star-convex instances: tiled network to candidates, candidates to objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.methods.starconvex import BORDER, StarObjects, suppress
from engine.stages.base import Made, Place, Raster, Stage
from tiling import BlendPlan, Box, Lattice, Tiling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch

    from engine.networks.model_folder import ModelFolder
    from engine.stages.base import Frame
    from tiling import Placement, TileRow

#: Bytes of activations per pixel of a tile in one launch, float32, for the default U-Net
#: (measured: 0.9 to 1.1 kB); halved for bfloat16.
ACTIVATION_BYTES = 1200


@dataclass(frozen=True)
class Candidates(Stage):
    """Average-pool the network's answers over tiles; keep the pixels that may be objects.

    Parameters
    ----------
    frame : Frame
        The image.
    model : ModelFolder
        The network.
    tiling : Tiling
        The lattice, with the network's phase and scale.
    threshold : float
        A pixel is a candidate where its probability is above this.
    launch_tiles : int
        Tiles per launch, for the projection of memory.

    Notes
    -----
    Sums are float32, in lattice order; distances are held for one band of tile rows at a time,
    and only those of candidates are kept. No candidate lies within `BORDER` output pixels of the
    image's true edge, as in StarDist's dense prediction.
    """

    frame: Frame
    model: ModelFolder
    tiling: Tiling
    threshold: float
    launch_tiles: int
    name = "network"
    version = 1

    @property
    def lattice(self) -> Lattice:
        """Tiles of a plane."""
        return Lattice(self.frame.extent, self.tiling)

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for all pixels of all tiles that count somewhere in what is wanted."""
        return {"normalised": self.lattice.reach(self._box(wanted)).clip(self.frame.bounds)}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of one band, one launch, the probability map and a generous share of candidates."""
        box, rays = self._box(wanted), self.model.config.n_rays
        pixels = box.size // self.tiling.scale**2
        padded = self.lattice.reach(box).size * self.frame.channels * 4
        candidates = pixels // 4 * (rays + 4) * 4 * 2
        return self.device_memory(wanted) + 4 * pixels + candidates + padded

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of one band, and of the activations of one launch."""
        width = self._box(wanted).shape[1] // self.tiling.scale
        band = self.tiling.tile // self.tiling.scale * width * (self.model.config.n_rays + 2) * 4
        return 2 * band + self.launch_tiles * self.tiling.tile**2 * ACTIVATION_BYTES

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Run the network over all tiles that count in what is wanted."""
        from engine.networks.runtime import open_network

        box = self._box(wanted)
        plan = BlendPlan(self.lattice, box)
        image, origin = self._padded(given["normalised"], self.lattice.reach(box))
        network = open_network(self.model, place.launch)
        pool = _Pool(plan, self.model.config.n_rays, self.tiling, network.device)
        first = box.coarsen(self.tiling.scale).start
        prob = np.empty(plan.output.shape, np.float32)
        found: list[StarObjects] = []
        spread = Spread()
        core = wanted["probability"].coarsen(self.tiling.scale) if "probability" in wanted else None
        for row in plan.rows():
            for places, answer, rays in network.launches(image, origin, row.tiles):
                pool.add(places, answer, rays)
            prob[row.band.slices()] = mean = pool.mean(row)
            found.append(self._candidates(mean, pool, row.band.shift(first)))
            if core is not None:
                spread = spread.plus(pool.deviation(row, mean), row.band.shift(first), core)
            pool.move_past(row)
        objects = StarObjects.concatenate(found, self.model.config.n_rays)
        notes = {
            "tiles": plan.tiles,
            "candidates": len(objects),
            "longest_ray": objects.reach,
            "overlap_pixels": spread.pixels,
            "overlap_deviation": spread.total,
            "overlap_deviation_largest": spread.largest,
        }
        rasters = {"probability": Raster(box, prob[None], self.tiling.scale)}
        return Made({"candidates": objects, **rasters}, notes)

    def _box(self, wanted: Mapping[str, Box]) -> Box:
        """Box to compute: what anyone wants, on whole output pixels of the padded plane."""
        boxes = [wanted[name] for name in ("candidates", "probability") if name in wanted]
        start = tuple(min(b.start[k] for b in boxes) for k in range(2))
        stop = tuple(max(b.stop[k] for b in boxes) for k in range(2))
        return Box(start, stop).clip(self.frame.bounds).snap(self.tiling.scale)

    def _padded(self, given: Raster, reach: Box) -> tuple[np.ndarray, tuple[int, ...]]:
        """Image under all tiles, reflected beyond the far edge: (C, Y, X) and its first pixel."""
        inside = given.cut(reach.clip(self.frame.bounds))
        missing = [n - have for n, have in zip(reach.shape, inside.shape[1:], strict=True)]
        if any(missing):
            widths = [(0, 0), *((0, n) for n in missing)]
            inside = np.pad(inside, widths, mode="reflect")
        return inside, reach.start

    def _candidates(self, prob: np.ndarray, pool: _Pool, band: Box) -> StarObjects:
        """Pixels of a band, a box of the output plane, that may be objects."""
        rows, columns = np.nonzero(prob > self.threshold)
        y, x = rows + band.start[0], columns + band.start[1]
        height, width = (-(-n // self.tiling.scale) for n in self.frame.extent)
        inner = (y >= BORDER) & (y < height - BORDER) & (x >= BORDER) & (x < width - BORDER)
        rows, columns, y, x = rows[inner], columns[inner], y[inner], x[inner]
        points = np.stack([y, x], axis=1).astype(np.int64) * self.tiling.scale
        return StarObjects(points, prob[rows, columns], pool.rays(rows, columns))


@dataclass(frozen=True)
class Spread:
    """How far overlapping tiles disagree on the probability, inside their margins.

    Parameters
    ----------
    pixels : int
        Output pixels that more than one tile saw.
    total : int
        Sum of the standard deviations there, in units of 2^-16: integers, so that sums over
        regions do not depend on their order.
    largest : float
        Largest standard deviation.
    """

    pixels: int = 0
    total: int = 0
    largest: float = 0.0

    def plus(self, deviation: np.ndarray, band: Box, core: Box) -> Spread:
        """Count a band of (y, x) deviations, NaN where one tile saw the pixel, inside `core`."""
        part = deviation[band.clip(core).slices(band.start)]
        part = part[~np.isnan(part)]
        if part.size == 0:
            return self
        units = np.rint(part.astype(np.float64) * 2**16).astype(np.int64)
        largest = max(self.largest, float(part.max()))
        return Spread(self.pixels + part.size, self.total + int(units.sum()), largest)


class _Pool:
    """Sums over the tiles of one band, moved down the plane row by row.

    Holds (rows, columns, 1 + R) float32 on the device: probability and rays, and beside them the
    sum of squares of the probability.
    """

    def __init__(self, plan: BlendPlan, rays: int, tiling: Tiling, device: torch.device) -> None:
        import torch  # not on the path of planning

        self._plan = plan
        self._top = 0
        height, width = tiling.tile // tiling.scale, plan.output.shape[1]
        self._sums = torch.zeros((height, width, 1 + rays), device=device)
        self._squares = torch.zeros((height, width), device=device)

    def add(self, places: Sequence[Placement], prob: torch.Tensor, rays: torch.Tensor) -> None:
        """Add a launch: prob (N, y, x), rays (N, y, x, R), in lattice order."""
        for k, place in enumerate(places):
            source: tuple[Any, ...] = (k, *place.source.slices())
            target: tuple[Any, ...] = place.target.slices((self._top, 0))
            self._sums[target][..., 0] += prob[source]
            self._sums[target][..., 1:] += rays[source]
            self._squares[target] += prob[source] ** 2

    def mean(self, row: TileRow) -> np.ndarray:
        """Probability of the band that is final after `row`: (y, x) float32."""
        mean = self._sums[: row.band.shape[0], :, 0].cpu().numpy() / self._weight(row)
        result: np.ndarray = mean
        return result

    def deviation(self, row: TileRow, mean: np.ndarray) -> np.ndarray:
        """Measure the deviation between the tiles that saw a pixel; NaN where only one did."""
        weight = self._weight(row)
        square = self._squares[: row.band.shape[0]].cpu().numpy() / weight
        variance = np.maximum(square - mean**2, 0)
        return np.where(weight > 1, np.sqrt(variance), np.float32(np.nan))

    def rays(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Mean distances at pixels of the band: (n, R) float32."""
        sums = np.asarray(self._sums[rows, columns, 1:].cpu().numpy())
        mean: np.ndarray = sums / self._plan.weight[rows + self._top, columns][:, None]
        return mean

    def move_past(self, row: TileRow) -> None:
        """Forget the rows that are final and move the others up."""
        count = row.band.shape[0]
        for buffer in (self._sums, self._squares):
            kept = buffer[count:].clone()
            buffer[: len(kept)] = kept
            buffer[len(kept) :] = 0
        self._top += count

    def _weight(self, row: TileRow) -> np.ndarray:
        return self._plan.weight[row.band.slices()]


@dataclass(frozen=True)
class Instances(Stage):
    """Non-maximum suppression of the candidates in a region and its halo.

    Parameters
    ----------
    frame : Frame
        The image.
    threshold : float
        Largest overlap that two objects may have.
    halo : int
        Pixels around the core in which candidates are looked for.

    Notes
    -----
    An object belongs to the region whose core holds its anchor. The others in the halo are kept
    as what this side of the seam saw of its neighbours.
    """

    frame: Frame
    threshold: float
    halo: int
    name = "instances"
    version = 1

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for candidates in the core and the halo around it."""
        return {"candidates": wanted["objects"].grow(self.halo).clip(self.frame.bounds)}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the sorted candidates and of the polygons that suppression makes of them."""
        return wanted["objects"].grow(self.halo).size // 16 * 32 * 4 * 3

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Suppress; what survives is split into own and foreign by the caller."""
        candidates: StarObjects = given["candidates"]
        near = wanted["objects"].grow(self.halo).clip(self.frame.bounds)
        objects = suppress(candidates.take(candidates.inside(near)), self.threshold)
        own = int(objects.inside(wanted["objects"]).sum())
        return Made({"objects": objects}, {"objects": own})
