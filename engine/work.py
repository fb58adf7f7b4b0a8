"""The journey of one region: read its outer box, run the stages, write whole shards, record last.

::

    level ──read outer box──► stages, on the device ──cut to core──► whole shards ──► record
"""

from __future__ import annotations

import io
import logging
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.ledger import Ledger
from engine.methods.starconvex import StarObjects, keys
from engine.stages.base import Place, Raster
from engine.stages.normalise import Levels
from engine.store import ImageReader, open_array, use_fast_codecs, write_atomic, write_box
from engine.store.sources import open_source
from tiling import Box, Grid, Region

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zarr

    from engine.planning import Job

_LOG = logging.getLogger(__name__)

#: Widest halo of a region, in halos of the recipe.
WIDEST_HALO = 4

#: One task computes at a time in a process; the others read and write meanwhile.
DEVICE_LOCK = Lock()


def process_region(job: Job, region: Region) -> dict[str, Any]:
    """Segment one region: its probability map, and the objects that it owns or saw.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Plane and core in pixels of the level that is read.

    Returns
    -------
    dict
        Notes for the record.
    """
    halo = job.stardist.instances.halo
    while True:
        pipeline = job.pipeline(open_levels(job.out, job.digest), halo)
        wanted = job.wanted(region.core)
        outer = pipeline.fold(wanted)["image"]
        pixels = read_pixels(job, region.plane, outer)
        if job.launch is None:
            msg = "a job that segments has a launch"
            raise TypeError(msg)
        with DEVICE_LOCK:
            made = pipeline.run(Raster(outer, pixels), wanted, Place(region.plane, job.launch))
        needed = wider_halo(made.products["candidates"].reach, halo, job)
        if needed == halo:
            break
        _LOG.info("%s: halo %d for rays longer than %d serves", region, needed, halo)
        halo = needed
        # The second round takes the memory of the first.
        del made, pixels
    probability: Raster = made.products["probability"]
    write_layer(job, "probability", region, quantise(probability.cut(region.core)))
    counts = save_objects(job, region, made.products["objects"])
    reach = made.products["objects"].reach
    return {**made.notes, "halo": halo, "reach": reach, "counts": counts}


def copy_region(job: Job, region: Region) -> dict[str, Any]:
    """Copy one region of the source, all channels, into the image at the root of OUT."""
    channels = range(job.layer("image").channels)
    pixels = read_pixels(job, region.plane, region.core, channels)
    write_layer(job, "image", region, pixels)
    return {}


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
        reader = open_foreign(source.path, job.digest)
        names = [name for name in reader.info.axes if name not in "cyx"]
        pixels = reader.read(dict(zip(names, plane, strict=True)), box)
        return np.ascontiguousarray(np.asarray(pixels)[list(wanted)])
    return open_image(source.path, source.level, job.digest).read(plane, wanted, box)


def write_layer(job: Job, name: str, region: Region, pixels: np.ndarray, level: int = 0) -> None:
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
    """
    layer = job.layer(name)
    array = open_target(job.out / layer.group / layer.levels[level].path, job.digest)
    box = region.core.coarsen(layer.scale) if level == 0 else region.core
    for channel, values in enumerate(pixels):
        write_box(array, layer.leading(region.plane, channel), box, np.ascontiguousarray(values))


def quantise(probability: np.ndarray) -> np.ndarray:
    """Store probabilities in [0, 1] as uint8: 255 is 1; nothing is ever computed from these."""
    levels: np.ndarray = np.rint(np.clip(probability, 0, 1) * 255)
    return levels.astype(np.uint8)


def save_objects(job: Job, region: Region, objects: StarObjects) -> list[int]:
    """Keep the objects that a region owns, and the keys of the foreign ones that it saw.

    Returns
    -------
    list of int
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
        write_atomic(objects_path(job.out, region), buffer.getvalue())
    chunk = job.layer(job.stardist.instances.name).chunk
    cells = Grid((), region.core.shape, (chunk, chunk))  # type: ignore[arg-type]
    local = (mine.points - np.array(region.core.start)) // chunk
    index = local[:, 0] * cells.shape[1] + local[:, 1]
    return [int(n) for n in np.bincount(index, minlength=len(cells))]


def load_objects(out: Path, region: Region, n_rays: int) -> tuple[StarObjects, np.ndarray]:
    """Objects that a region owns, and the keys of the foreign ones that it saw."""
    with np.load(objects_path(out, region), allow_pickle=False) as data:
        objects = StarObjects(data["points"], data["scores"], data["rays"].reshape(-1, n_rays))
        return objects, data["seen"]


def objects_path(out: Path, region: Region) -> Path:
    """File of the polygons that a region owns; kept with the result, some 150 bytes each."""
    return Ledger(out).path("objects", f"{region.key}.npz")


def plane_number(job: Job, plane: tuple[int, ...]) -> int:
    """Place of a plane in C order."""
    return int(np.ravel_multi_index(plane, job.frame.planes)) if plane else 0


def save_levels(out: Path, digest: str, levels: Levels) -> None:
    """Freeze the statistics of pass 0."""
    with io.BytesIO() as buffer:
        np.savez(buffer, low=levels.low, high=levels.high, cell=np.int64(levels.cell))
        path = Ledger(out).path("statistics", f"levels-{digest[:16]}.npz")
        write_atomic(path, buffer.getvalue())


def has_levels(out: Path, digest: str) -> bool:
    """Whether the statistics of pass 0 are frozen."""
    return Ledger(out).path("statistics", f"levels-{digest[:16]}.npz").is_file()


def open_levels(out: Path, digest: str) -> Levels:
    """Statistics of pass 0; read once per process, and again where the file is another."""
    path = Ledger(out).path("statistics", f"levels-{digest[:16]}.npz")
    return _read_levels(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _read_levels(path: Path, _mtime_ns: int) -> Levels:
    with np.load(path, allow_pickle=False) as data:
        return Levels(data["low"], data["high"], int(data["cell"]))


@lru_cache(maxsize=8)
def open_image(path: str, level: int, _digest: str) -> ImageReader:
    """Image of this process, opened anew for another run."""
    use_fast_codecs(threads=1)
    return ImageReader(path, level)


@lru_cache(maxsize=4)
def open_foreign(path: str, _digest: str) -> Any:  # noqa: ANN401 - a protocol class of the sources
    """Foreign source of this process; the driver has checked its files."""
    return open_source(path, verify=False)


@lru_cache(maxsize=64)
def open_target(path: Path, _digest: str) -> zarr.Array[Any]:
    """Array of OUT that this process writes or reads, opened anew for another run."""
    use_fast_codecs(threads=1)
    return open_array(path, "r+")
