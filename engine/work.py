"""The journey of one region: read its outer box, run the stages, write whole shards, record last.

::

    level ──read outer box──► stages, on the device ──cut to core──► whole shards ──► record
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field, replace
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.device import is_out_of_memory, release_memory
from engine.errors import RegionError
from engine.ledger import FOLDER, Ledger
from engine.methods.starconvex import StarObjects, keys
from engine.stages.base import Place, Raster
from engine.stages.normalise import Levels
from engine.store import (
    ImageReader,
    Location,
    StoredObject,
    Target,
    checksum,
    open_target,
    use_fast_codecs,
    write_atomic,
    write_box,
    write_file,
)
from engine.store.sources import open_source
from tiling import Box, Grid, Region

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.device import Launch
    from engine.planning import Job
    from engine.stages.base import Made

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
    """Segment one region: its probability map, and the objects that it owns or saw.

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
    halo = job.stardist.instances.halo
    while True:
        pipeline = job.pipeline(open_levels(job), halo)
        outer = pipeline.fold(job.wanted(region.core))["image"]
        sources = read_sources(job, region.plane, outer)
        pixels = read_pixels(job, region.plane, outer)
        made = _segment(job, region, Raster(outer, pixels), halo)
        needed = wider_halo(made.products["candidates"].reach, halo, job)
        if needed == halo:
            break
        _LOG.info("%s: halo %d for rays longer than %d serves", region, needed, halo)
        halo = needed
        # The second round takes the memory of the first.
        del made, pixels
    probability: Raster = made.products["probability"]
    stored = write_layer(job, "probability", region, quantise(probability.cut(region.core)))
    objects: StarObjects = made.products["objects"]
    kept, counts = save_objects(job, region, objects)
    notes = {**made.notes, "halo": halo, "reach": objects.reach, "counts": counts}
    notes["read"] = [*outer.start, *outer.stop]
    return Done(notes, (*stored, kept), sources, checksum(pixels))


def _segment(job: Job, region: Region, raster: Raster, halo: int) -> Made:
    """Run the stages that segment a region."""
    wanted, levels = job.wanted(region.core), open_levels(job)

    def run(launch: Launch) -> Made:
        pipeline = job.with_launch(launch).pipeline(levels, halo)
        return pipeline.run(raster, wanted, Place(region.plane, launch))

    return compute_on_device(job, region, run)


def compute_on_device(job: Job, region: Region, run: Callable[[Launch], Made]) -> Made:
    """Run stages on the device; with smaller launches where it has no memory.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        For messages.
    run : callable
        Runs the stages with a launch.

    Returns
    -------
    Made
        What the stages made; its notes name the tiles of a launch where it took a smaller one.

    Raises
    ------
    RegionError
        If the device has no memory for a single tile.

    Notes
    -----
    The first failure may be another process's fault: the region is tried once more alone, after
    the memory that is cached was given back, before launches are halved. A tile's output does not
    depend on the others of its launch (bits on a CPU; the stated tolerance on a GPU).
    """
    if job.launch is None:
        msg = "a job that segments has a launch"
        raise TypeError(msg)
    sizes = [job.launch.tiles] + [job.launch.tiles >> k for k in range(20) if job.launch.tiles >> k]
    with DEVICE_LOCK:
        for tiles, following in zip(sizes, [*sizes[1:], 0], strict=True):
            launch = replace(job.launch, tiles=tiles)
            try:
                made = run(launch)
                if tiles == job.launch.tiles:
                    return made
                return replace(made, notes={**made.notes, "launch": tiles})
            except Exception as err:
                if not is_out_of_memory(err):
                    raise
                if not following:
                    raise RegionError(
                        where=str(region),
                        expected=f"memory on the device for a launch of {tiles} tile",
                        found=f"{type(err).__name__}: {err}",
                        remedy="Lower resources.region, or end what else uses the device.",
                    ) from err
                _LOG.warning("%s: no memory for %d tiles, next %d", region, tiles, following)
            # Outside of the handler, which would keep the arrays of its traceback alive.
            release_memory(launch.device)
    msg = "a launch has at least one tile"
    raise ValueError(msg)


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


def read_pixels(
    job: Job, plane: tuple[int, ...], box: Box, channels: Sequence[int] | None = None
) -> np.ndarray:
    """Read a box of one plane: (C, Y, X) in the source's dtype; the job's channels, or others."""
    source = job.source
    wanted = source.channels if channels is None else channels
    if source.foreign:
        reader = open_foreign(source.path, job.token)
        names = [name for name in reader.info.axes if name not in "cyx"]
        pixels = reader.read(dict(zip(names, plane, strict=True)), box)
        return np.ascontiguousarray(np.asarray(pixels)[list(wanted)])
    return open_image(source.path, source.level, job.token).read(plane, wanted, box)


def read_sources(
    job: Job, plane: tuple[int, ...], box: Box, channels: Sequence[int] | None = None
) -> tuple[tuple[str, str], ...]:
    """Name and tag of each input object that holds part of a box.

    None of a foreign source, whose files the plan knows.
    """
    source = job.source
    if source.foreign:
        return ()
    wanted = source.channels if channels is None else channels
    return open_image(source.path, source.level, job.token).sources(plane, wanted, box)


def write_layer(
    job: Job, name: str, region: Region, pixels: np.ndarray, level: int = 0
) -> tuple[StoredObject, ...]:
    """Write a region, in pixels of the level that is read, to a level of a layer.

    Parameters
    ----------
    job : Job
        The run.
    name : str
        The layer.
    region : Region
        For level 0: in pixels of the level that is read; above: in pixels of that level.
    pixels : ndarray of shape (C, Y, X)
        In the layer's dtype.
    level : int
        Level of the layer.

    Returns
    -------
    tuple of StoredObject
        What the record keeps of what was written.
    """
    layer = job.layer(name)
    target = open_layer(job, name, level)
    box = region.core.coarsen(layer.scale) if level == 0 else region.core
    stored: list[StoredObject] = []
    for channel, values in enumerate(pixels):
        leading = layer.leading(region.plane, channel)
        stored += write_box(target, leading, box, np.ascontiguousarray(values))
    return tuple(stored)


def quantise(probability: np.ndarray) -> np.ndarray:
    """Store probabilities in [0, 1] as uint8: 255 is 1; nothing is ever computed from these."""
    levels: np.ndarray = np.rint(np.clip(probability, 0, 1) * 255)
    return levels.astype(np.uint8)


def save_objects(job: Job, region: Region, objects: StarObjects) -> tuple[StoredObject, list[int]]:
    """Keep the objects that a region owns, and the keys of the foreign ones that it saw.

    Returns
    -------
    stored : StoredObject
        The file.
    counts : list of int
        Objects owned in each chunk of the label image, in C order inside the core.
    """
    number = plane_number(job, region.plane)
    own = objects.inside(region.core)
    mine = objects.take(own)
    foreign = objects.take(~own)
    foreign = foreign.take(foreign.meeting(region.core))
    with io.BytesIO() as buffer:
        np.savez(
            buffer,
            points=mine.points,
            scores=mine.scores,
            rays=mine.rays,
            seen=np.sort(keys(foreign.points, number, job.frame.extent)),
        )
        stored = write_file(job.out, objects_name(job, region), buffer.getvalue())
    chunk = job.layer(job.stardist.instances.name).chunk
    cells = Grid((), region.core.shape, (chunk, chunk))  # type: ignore[arg-type]
    local = (mine.points - np.array(region.core.start)) // chunk
    index = local[:, 0] * cells.shape[1] + local[:, 1]
    return stored, [int(n) for n in np.bincount(index, minlength=len(cells))]


def load_objects(job: Job, region: Region) -> tuple[StarObjects, np.ndarray]:
    """Objects that a region owns, and the keys of the foreign ones that it saw."""
    data = (job.out / objects_name(job, region)).read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        objects = StarObjects(
            found["points"], found["scores"], found["rays"].reshape(-1, job.n_rays)
        )
        return objects, found["seen"]


def objects_name(job: Job, region: Region) -> str:
    """File, below OUT, of the polygons that a region owns; kept, some 150 bytes each."""
    return f"{FOLDER}/objects/{job.digests['regions'][:16]}/{region.key}.npz"


def plane_number(job: Job, plane: tuple[int, ...]) -> int:
    """Place of a plane in C order."""
    return int(np.ravel_multi_index(plane, job.frame.planes)) if plane else 0


def save_levels(job: Job, levels: Levels) -> None:
    """Freeze the statistics of pass 0."""
    with io.BytesIO() as buffer:
        np.savez(buffer, low=levels.low, high=levels.high, cell=np.int64(levels.cell))
        write_atomic(levels_place(job.out, job.digests["statistics"]), buffer.getvalue())


def levels_place(out: Location, digest: str) -> Location:
    """File of the statistics of pass 0."""
    return Ledger(out).path("statistics", f"levels-{digest[:16]}.npz")


def open_levels(job: Job) -> Levels:
    """Statistics of pass 0: frozen, so read once per process and run."""
    return _read_levels(job.out, job.digests["statistics"], job.token)


@lru_cache(maxsize=8)
def _read_levels(out: Location, digest: str, _token: str) -> Levels:
    data = levels_place(out, digest).read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        return Levels(found["low"], found["high"], int(found["cell"]))


@lru_cache(maxsize=8)
def open_image(path: str, level: int, _token: str) -> ImageReader:
    """Image of this process, opened anew for another run."""
    use_fast_codecs(threads=1)
    return ImageReader(path, level)


@lru_cache(maxsize=4)
def open_foreign(path: str, _token: str) -> Any:  # noqa: ANN401 - a protocol class of the sources
    """Foreign source of this process; the driver has checked its files."""
    return open_source(path, verify=False)


def open_layer(job: Job, name: str, level: int) -> Target:
    """Array of OUT that this process writes or reads."""
    layer = job.layer(name)
    below = "/".join(part for part in (layer.group, layer.levels[level].path) if part)
    return _open_target(job.out, below, job.token)


@lru_cache(maxsize=64)
def _open_target(out: Location, name: str, _token: str) -> Target:
    """Array of OUT, opened anew for another run."""
    use_fast_codecs(threads=1)
    return open_target(out, name)
