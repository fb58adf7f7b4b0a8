"""The journey of one region: read its outer box, run the stages, write whole shards, record last.

::

    level ──read outer box──► stages, on the device ──cut to core──► whole shards ──► record
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.class_maps import save_classes
from engine.device import is_out_of_memory, release_memory
from engine.errors import RegionError
from engine.outlines import save_stars
from engine.pixels import open_levels, read_pixels, read_sources, write_layer
from engine.stages.base import Place, Raster
from engine.store import StoredObject, checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from engine.planning import Job
    from engine.stages.base import Made
    from tiling import Region

_LOG = logging.getLogger(__name__)

#: Widest halo of a region, in halos of the recipe.
WIDEST_HALO = 4

#: One task computes at a time in a process; the others read and write meanwhile.
DEVICE_LOCK = Lock()


@dataclass(frozen=True)
class Done:
    """What a task did for one region: what its record keeps beside the region itself.

    Parameters
    ----------
    notes : mapping of str to number or list of numbers
        Counts and measures.
    stored : tuple of StoredObject
        What it wrote.
    sources : tuple of (str, str)
        Names and tags of the input objects that it read, taken before it read them.
    pixels : str
        Checksum of the pixels that it read; "" where it read no input.
    """

    notes: Mapping[str, Any] = field(default_factory=dict)
    stored: tuple[StoredObject, ...] = ()
    sources: tuple[tuple[str, str], ...] = ()
    pixels: str = ""


def process_region(job: Job, region: Region) -> Done:
    """Run the networks over one region, and keep the maps and the objects that they make.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Plane and core in pixels of the level that is read.

    Returns
    -------
    Done
        Its notes name the box that was read, and the tiles of a launch where the device had no
        memory for as many as planned.
    """
    halo = job.halo
    while True:
        pipeline = job.pipeline(open_levels(job), halo)
        outer = pipeline.fold(job.wanted(region.core))["image"]
        sources = read_sources(job, region.plane, outer)
        pixels = read_pixels(job, region.plane, outer)
        made = _segment(job, region, Raster(outer, pixels), halo)
        needed = wider_halo(made.products["candidates"].reach, halo, job) if halo else 0
        if needed == halo:
            break
        _LOG.info("%s: halo %d for rays longer than %d serves", region, needed, halo)
        halo = needed
        # The second round takes the memory of the first.
        del made, pixels
    stored: list[StoredObject] = []
    notes: dict[str, Any] = {**made.notes, "read": [*outer.start, *outer.stop]}
    if halo:
        notes["halo"] = halo
    for save in (save_stars, save_classes):
        kept, more = save(job, region, made)
        stored += kept
        notes |= more
    return Done(notes, tuple(stored), sources, checksum(pixels))


def _segment(job: Job, region: Region, raster: Raster, halo: int) -> Made:
    """Run the stages that segment a region."""
    wanted, levels = job.wanted(region.core), open_levels(job)

    def run(trial: Job) -> Made:
        pipeline = trial.pipeline(levels, halo)
        return pipeline.run(raster, wanted, Place(region.plane, trial.running_launch))

    several = job.ensemble is not None and len(job.ensemble.members) > 1
    return compute_on_device(job, region, run, turns=several)


def compute_on_device(
    job: Job, region: Region, run: Callable[[Job], Made], *, turns: bool = False
) -> Made:
    """Run stages on the device; with less of it at once where it has no memory.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        For messages.
    run : callable
        Runs the stages of a job with its launch.
    turns : bool
        Whether they run members of an ensemble, which can be on the device one after the other.

    Returns
    -------
    Made
        What the stages made; its notes name the tiles of a launch where it took a smaller one, and
        ``in_turn`` where members took turns that were not planned to.

    Raises
    ------
    RegionError
        If the device has no memory for a single tile.

    Notes
    -----
    The first failure may be another process's fault: the region is tried once more alone, after
    the memory that is cached was given back, before launches are halved; members take turns last.
    A tile's output does not depend on the others of its launch (bits on a CPU; the stated
    tolerance on a GPU).
    """
    planned = job.running_launch
    most = planned.tiles
    trials = [job.with_launch(replace(planned, tiles=n)) for n in (most, *_halves(most))]
    if turns and not job.in_turn:
        trials.append(replace(trials[-1], in_turn=True))
    with DEVICE_LOCK:
        for k, trial in enumerate(trials):
            tiles = trial.running_launch.tiles
            try:
                made = run(trial)
                notes = {"launch": tiles} if tiles < most else {}
                notes |= {"in_turn": 1} if trial.in_turn and not job.in_turn else {}
                return replace(made, notes={**made.notes, **notes}) if notes else made
            except Exception as err:
                if not is_out_of_memory(err):
                    raise
                if k + 1 == len(trials):
                    raise RegionError(
                        where=str(region),
                        expected="memory on the device for a launch of 1 tile",
                        found=f"{type(err).__name__}: {err}",
                        remedy="Lower resources.region, or end what else uses the device.",
                    ) from err
                _LOG.warning("%s: no memory for %d tiles, next less", region, tiles)
            # Outside of the handler, which would keep the arrays of its traceback alive.
            release_memory(planned.device)
    msg = "there is a first trial"
    raise ValueError(msg)


def _halves(tiles: int) -> list[int]:
    """As many tiles once more, then half of them, down to one."""
    return [tiles >> k for k in range(tiles.bit_length())]


def copy_region(job: Job, region: Region) -> Done:
    """Copy one region of the source, all channels, into the image at the root of OUT."""
    channels = range(job.layer("image").channels)
    sources = read_sources(job, region.plane, region.core, channels)
    pixels = read_pixels(job, region.plane, region.core, channels)
    stored = write_layer(job, "image", region, pixels)
    notes = {"read": [*region.core.start, *region.core.stop]}
    return Done(notes, stored, sources, checksum(pixels))


def wider_halo(reach: float, halo: int, job: Job) -> int:
    """Halo that suffices for the longest ray of any candidate; the same where it does already.

    Notes
    -----
    Stitched equals whole once the halo reaches 0.54 to 1.08 times the longest ray (measured on
    mosaics of nuclei); `instances.halo_rays` is the margin above that. No wider than `WIDEST_HALO`
    times the recipe's: memory is projected for twice, and a ray that long is rarely an object; the
    seam check counts what is left. The record of the region notes the halo.
    """
    recipe = job.stardist.instances
    needed = min(recipe.halo_rays * reach, float(WIDEST_HALO * recipe.halo))
    return halo if needed <= halo else -(-int(np.ceil(needed)) // 64) * 64
