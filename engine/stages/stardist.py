"""The stages of star-convex instances: tiled network to candidates, candidates to objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.methods.starconvex import BORDER, StarObjects, suppress
from engine.stages.base import Made, Place, Raster, Stage
from engine.stages.pooling import BandSums, under_tiles
from tiling import BlendPlan, Box, Lattice, Tiling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.device import Device
    from engine.methods.star_device import DeviceObjects
    from engine.networks.model_folder import ModelFolder
    from engine.stages.base import Frame
    from tiling import TileRow

#: Bytes of activations per pixel of a tile in one launch, float32, for the default U-Net
#: (measured: 0.9 to 1.1 kB); halved for bfloat16.
ACTIVATION_BYTES = 1200

#: Bytes that suppression takes on a GPU: for its blocks of pairs, whatever there is, and for each
#: candidate (measured on an H100: about 0.6 GB, and 1.0 to 1.5 kB).
BLOCK_BYTES = 600 * 10**6
CANDIDATE_BYTES = 1500


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
    device : {"cpu", "cuda"}
        Where it will run, for the same.

    Notes
    -----
    Sums are float32, in lattice order; distances are held for one band of tile rows at a time,
    and only those of candidates are kept: `DeviceObjects` on a GPU, which they do not leave. No
    candidate lies within `BORDER` output pixels of the image's true edge, as in StarDist's dense
    prediction.
    """

    frame: Frame
    model: ModelFolder
    tiling: Tiling
    threshold: float
    launch_tiles: int
    device: Device = "cpu"
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

    def kept(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the probability map, and of candidates in a quarter of its pixels."""
        pixels = self._box(wanted).size // self.tiling.scale**2
        return 4 * pixels + pixels // 4 * (self.model.config.n_rays + 4) * 4

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of one band, of the activations of one launch, and on a GPU of candidates."""
        box, rays = self._box(wanted), self.model.config.n_rays
        width = box.shape[1] // self.tiling.scale
        band = self.tiling.tile // self.tiling.scale * width * (rays + 2) * 4
        launch = self.launch_tiles * self.tiling.tile**2 * ACTIVATION_BYTES
        pixels = box.size // self.tiling.scale**2 if self.device == "cuda" else 0
        return 2 * band + launch + pixels // 4 * (rays + 5) * 4 * 2

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Run the network over all tiles that count in what is wanted."""
        from engine.methods.star_device import DeviceObjects
        from engine.networks.runtime import open_network

        box = self._box(wanted)
        plan = BlendPlan(self.lattice, box)
        image, origin = under_tiles(given["normalised"], self.lattice.reach(box), self.frame.bounds)
        network = open_network(self.model, place.launch)
        probs, squares = (BandSums(plan, 1, network.device) for _ in range(2))
        pool = BandSums(plan, self.model.config.n_rays, network.device)
        first = box.coarsen(self.tiling.scale).start
        prob = np.empty(plan.output.shape, np.float32)
        found: list[DeviceObjects] = []
        spread = Spread()
        core = wanted["probability"].coarsen(self.tiling.scale) if "probability" in wanted else None
        for row in plan.rows():
            for places, answer, rays in network.launches(image, origin, row.tiles):
                answer = answer[..., None]
                probs.add(places, answer)
                squares.add(places, answer**2)
                pool.add(places, rays)
            prob[row.band.slices()] = mean = probs.mean(row)[..., 0]
            found.append(self._candidates(mean, pool, row.band.shift(first)))
            if core is not None:
                spread = spread.plus(_deviation(squares, row, mean), row.band.shift(first), core)
            for sums in (probs, squares, pool):
                sums.move_past(row)
        objects = DeviceObjects.concatenate(found)
        notes = {
            "tiles": plan.tiles,
            "candidates": len(objects),
            "longest_ray": objects.reach,
            "overlap_pixels": spread.pixels,
            "overlap_deviation": spread.total,
            "overlap_deviation_largest": spread.largest,
        }
        rasters = {"probability": Raster(box, prob[None], self.tiling.scale)}
        candidates = objects.on_host() if network.device.type == "cpu" else objects
        return Made({"candidates": candidates, **rasters}, notes)

    def _box(self, wanted: Mapping[str, Box]) -> Box:
        """Box to compute: what anyone wants, on whole output pixels of the padded plane."""
        boxes = [wanted[name] for name in ("candidates", "probability") if name in wanted]
        start = tuple(min(b.start[k] for b in boxes) for k in range(2))
        stop = tuple(max(b.stop[k] for b in boxes) for k in range(2))
        return Box(start, stop).clip(self.frame.bounds).snap(self.tiling.scale)

    def _candidates(self, prob: np.ndarray, pool: BandSums, band: Box) -> DeviceObjects:
        """Pixels of a band, a box of the output plane, that may be objects."""
        import torch

        from engine.methods.star_device import DeviceObjects

        rows, columns = np.nonzero(prob > self.threshold)
        y, x = rows + band.start[0], columns + band.start[1]
        height, width = (-(-n // self.tiling.scale) for n in self.frame.extent)
        inner = (y >= BORDER) & (y < height - BORDER) & (x >= BORDER) & (x < width - BORDER)
        rows, columns, y, x = rows[inner], columns[inner], y[inner], x[inner]
        points = np.stack([y, x], axis=1).astype(np.int64) * self.tiling.scale
        rays = pool.mean_at(rows, columns)
        scores = torch.from_numpy(prob[rows, columns]).to(rays.device)
        return DeviceObjects(torch.from_numpy(points).to(rays.device), scores, rays)


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


def _deviation(squares: BandSums, row: TileRow, mean: np.ndarray) -> np.ndarray:
    """Deviation between the tiles that saw a pixel of a band; NaN where only one did."""
    variance = np.maximum(squares.mean(row)[..., 0] - mean**2, 0)
    return np.where(squares.weight(row) > 1, np.sqrt(variance), np.float32(np.nan))


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
    device : {"cpu", "cuda"}
        Where it will run, for the projection of memory.

    Notes
    -----
    An object belongs to the region whose core holds its anchor. The others in the halo are kept
    as what this side of the seam saw of its neighbours.
    """

    frame: Frame
    threshold: float
    halo: int
    device: Device = "cpu"
    name = "instances"
    version = 1

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for candidates in the core and the halo around it."""
        return {"candidates": wanted["objects"].grow(self.halo).clip(self.frame.bounds)}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the sorted candidates and of the polygons that suppression makes of them."""
        return self._most(wanted) * 32 * 4 * 3

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the candidates on a GPU, and of what suppression makes of them there."""
        if self.device == "cpu":
            return 0
        # A candidate is 32 rays, a place of two int64 and a score; once as given, once sorted.
        return BLOCK_BYTES + self._most(wanted) * (CANDIDATE_BYTES + 2 * (32 + 5) * 4)

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Suppress where the candidates lie; what survives is split into own and foreign later."""
        candidates: StarObjects | DeviceObjects = given["candidates"]
        near = wanted["objects"].grow(self.halo).clip(self.frame.bounds)
        if isinstance(candidates, StarObjects):
            candidates = candidates.take(candidates.inside(near))
            objects = suppress(candidates, self.threshold, place.launch.device)
        else:
            from engine.methods import star_device

            candidates = candidates.take(candidates.inside(near))
            objects = star_device.suppress(candidates, self.threshold).on_host()
        own = int(objects.inside(wanted["objects"]).sum())
        return Made({"objects": objects}, {"objects": own})

    def _most(self, wanted: Mapping[str, Box]) -> int:
        """Candidates at most, by a generous share of the pixels."""
        return wanted["objects"].grow(self.halo).size // 16
