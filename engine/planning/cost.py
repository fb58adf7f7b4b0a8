"""What a run costs: tiles, tiles computed twice, memory of a worker, the size of regions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from engine.device import PROCESS_BYTES, cores, free_memory, visible_gpus
from engine.errors import RecipeError, ResourceError
from engine.planning.elements import BAND, CLASSES, INITIAL, LARGEST_DRAWN
from engine.planning.passes import FAN
from engine.planning.pending import region_side
from engine.recipe import IdentityRecipe
from tiling import Box, Grid, Lattice

if TYPE_CHECKING:
    from engine.planning.job import Job
    from engine.recipe import Resources

#: Largest region that is chosen by itself, in pixels: larger ones save few tiles.
LARGEST_REGION = 8192

#: Pixels of a launch where memory does not matter: on a CPU more bring nothing (36 ms for each
#: 256 x 256, from four on), a GPU needs more to be busy.
LARGEST_LAUNCH = {"cpu": 8 * 256**2, "cuda": 64 * 256**2}

#: Halo, in halos of the recipe, for which memory is projected. A region may widen its halo further
#: (`engine.work.WIDEST_HALO`); that objects are so large is rare.
PROJECTED_HALO = 2

#: Bytes per pixel of the labels pass: canvas, ids, sums of places and their temporaries.
LABEL_BYTES = 28

#: Bytes per pixel of a cell, all of it foreground, while its parts are measured.
PART_BYTES = 80


#: Bytes per pixel of the sides of a block, as stored, read and renumbered.
SIDE_BYTES = 16


@dataclass(frozen=True)
class Tiles:
    """Tiles of all regions.

    Parameters
    ----------
    once : int
        Tiles of the lattice.
    computed : int
        Tiles that are computed, those at region borders by each region that they touch.
    """

    once: int
    computed: int

    @property
    def twice(self) -> float:
        """Share that is computed more than once, of the tiles of the lattice."""
        return (self.computed - self.once) / self.once if self.once else 0.0


def count_tiles(job: Job, region: int) -> Tiles:
    """Count tiles for regions of a size; arithmetic on the two axes, whatever the image's size."""
    counts = [
        _count(job, Lattice(job.frame.extent, tiling), region, halo, border)
        for tiling, halo, border in job.tilings()
    ]
    return Tiles(sum(c.once for c in counts), sum(c.computed for c in counts))


def _count(job: Job, lattice: Lattice, region: int, halo: int, border: int) -> Tiles:
    """Count the tiles of one lattice, for regions with a halo and a border."""
    once = computed = int(np.prod(job.frame.planes, dtype=np.int64))
    for k, axis in enumerate(lattice.axes):
        low, high = job.area.start[k], job.area.stop[k]
        once *= len(axis.touching(low, high))
        cuts = range(low // region * region, high, region)
        wanted = [(max(a, low) - halo, min(a + region + border, high) + halo) for a in cuts]
        computed *= sum(len(axis.touching(max(a, 0), min(b, axis.length))) for a, b in wanted)
    return Tiles(once, computed)


def worker_bytes(job: Job, region: int, threads: int) -> int:
    """Bytes that a worker process takes at its peak, projected.

    The process itself, the weights, the largest stage on the device once (a lock lets one task
    compute at a time), and what every thread holds while it reads or writes. Stages are projected
    for `PROJECTED_HALO` times the recipe's halo, since objects may turn out larger than expected.
    """
    core = Box((0, 0), (min(region, job.frame.extent[0]), min(region, job.frame.extent[1])))
    item = np.dtype(job.frame.dtype).itemsize * job.frame.channels
    # Neither copy nor labels take less than a shard at once.
    drawn = max(job.shard, min(region, LARGEST_DRAWN))
    copying = 3 * min(core.size, drawn**2) * _item_copied(job)
    copying = max(copying, _pyramid_bytes(job))
    if isinstance(job.recipe, IdentityRecipe):
        return PROCESS_BYTES + threads * copying
    pipeline = job.pipeline(halo=PROJECTED_HALO * job.halo)
    wanted = job.wanted(core)
    # In the middle of an image a region reaches out on all sides.
    inner = _middle(core, job)
    boxes = pipeline.fold(job.wanted(inner))
    reading = boxes["image"].size * item
    computing = max(pipeline.memory(wanted), pipeline.memory(job.wanted(inner)))
    labelling = Box((0, 0), (drawn, drawn)).grow(2 * job.halo).size * LABEL_BYTES
    statistics = 4096 * 4096 * (item + 8 * job.frame.channels)
    if job.bank:
        # Minutes are lost with a region that looks through all defenses, so these are not large.
        flagging = job.flag_pipeline()
        step = next(step for step in job.passes() if step.kind == "flags")
        side = max(job.shard, region_side(step, region))
        part = Box((0, 0), (side, side)).clip(job.frame.bounds)
        for box in (part, _middle(part, job)):
            reading = max(reading, flagging.fold({"flags": box})["image"].size * item)
            computing = max(computing, flagging.memory({"flags": box}))
    if job.mae is not None:
        repairing = job.repair_pipeline()
        part = _middle(Box((0, 0), (min(drawn, core.shape[0]), min(drawn, core.shape[1]))), job)
        computing = max(computing, repairing.memory({CLASSES: job.with_border(part)}))
        reading = max(reading, 2 * repairing.fold({CLASSES: job.with_border(part)})[INITIAL].size)
    if job.classes is not None and job.classes.objects:
        drawing = drawn**2 * LABEL_BYTES // 2 + job.shard**2 * PART_BYTES
        labelling = max(labelling, drawing, _joining_bytes(job))
    weights = _weight_bytes(job)
    writing = core.size
    if job.classes is not None and job.ensemble is not None:
        kept = 4 * len(job.ensemble.classes) if job.classes.keep else 0
        parts = job.shard**2 * PART_BYTES if job.classes.objects else 0
        writing += core.size * (2 + kept) + parts
    each = max(reading + writing, statistics, labelling, copying)
    return PROCESS_BYTES + weights + computing + threads * each


def _joining_bytes(job: Job) -> int:
    """Bytes of the sides of all children of the largest block whose objects are joined."""
    found = [0]
    for step in job.passes():
        if step.kind == "join":
            rows, columns = (
                min(n, cell) for n, cell in zip(step.grid.extent, step.grid.cell, strict=True)
            )
            found.append(2 * FAN * (rows + columns) * SIDE_BYTES)
    return max(found)


def _weight_bytes(job: Job) -> int:
    """Bytes of all networks that a worker holds at once, with what loading takes for a while."""
    model = 4 * (job.model.weights.stat().st_size if job.model else 0)
    mae = 4 * (job.mae.weights.stat().st_size if job.mae else 0)
    sizes = [m.weights.stat().st_size for m in job.ensemble.members] if job.ensemble else [0]
    return model + mae + 4 * (max(sizes) if job.in_turn else sum(sizes))


def _item_copied(job: Job) -> int:
    """Bytes of a pixel with all channels that are copied."""
    copied = [n.channels * np.dtype(n.dtype).itemsize for n in job.layers if n.name == "image"]
    return max([job.frame.channels * np.dtype(job.frame.dtype).itemsize, *copied])


def _pyramid_bytes(job: Job) -> int:
    """Bytes of a task of the pyramid pass: four shards that it reads, one that it writes.

    Beside the pixels their encoded form, at most as large, and the temporaries of one band.
    """
    found = [0]
    for layer in job.layers:
        if len(layer.levels) < 2:
            continue
        item = np.dtype(layer.dtype).itemsize
        height, width = (min(2 * layer.shard, n) for n in layer.levels[0].shape[-2:])
        read = height * width * item
        band = 2 * BAND * width * max(8, item)
        found.append(2 * read + (layer.channels + 2) * read // 4 + 2 * band)
    return max(found)


def device_bytes(job: Job, region: int) -> int:
    """Project the bytes that a worker takes on its device; part of its memory on a CPU."""
    if isinstance(job.recipe, IdentityRecipe):
        return 0
    core = Box((0, 0), (min(region, job.frame.extent[0]), min(region, job.frame.extent[1])))
    inner = _middle(core, job)
    most = job.pipeline().device_memory(job.wanted(inner))
    if job.mae is not None:
        most = max(most, job.repair_pipeline().device_memory({CLASSES: inner}))
    return _weight_bytes(job) // 2 + most


def choose_region(job: Job, resources: Resources, workers: int) -> int:
    """Side of a region in pixels.

    The largest up to `LARGEST_REGION` that fits the memory and leaves two regions per worker.

    Raises
    ------
    RecipeError
        If the side that was asked for is no whole number of shards.
    ResourceError
        If not even a region of one shard fits.
    """
    shard = job.shard
    if resources.region is not None:
        if resources.region % shard:
            raise RecipeError(
                where="--region",
                expected=f"a multiple of the shard, {shard}",
                found=str(resources.region),
                remedy=f"Use {max(1, round(resources.region / shard)) * shard}.",
            )
        _check_memory(job, resources, resources.region, workers)
        return resources.region
    side = max(1, LARGEST_REGION // shard) * shard
    limit = memory_limit(resources)
    while side > shard and (
        worker_bytes(job, side, resources.threads) * workers > limit
        or _regions(job, side) < 2 * workers
    ):
        side -= shard
    _check_memory(job, resources, side, workers)
    return side


def choose_launch(job: Job, resources: Resources) -> Job:
    """Job with the tiles of a launch: what was asked for, else as many as one worker can hold."""
    if job.launch is None:
        return job
    side = job.network.tiling.tile
    tiles = resources.launch or max(1, LARGEST_LAUNCH[job.launch.device] // side**2)
    fitted = replace(job, launch=replace(job.launch, tiles=tiles))
    while resources.launch is None and tiles > 1 and not _fits(fitted, resources):
        tiles //= 2
        fitted = replace(job, launch=replace(job.launch, tiles=tiles))
    # Members of an ensemble take turns where they do not fit together: slower, same pixels.
    return fitted if _fits(fitted, resources) else replace(fitted, in_turn=True)


def _fits(job: Job, resources: Resources) -> bool:
    """Whether one worker fits the memory, with the smallest regions."""
    return worker_bytes(job, job.shard, resources.threads) <= memory_limit(resources)


def choose_workers(job: Job, resources: Resources) -> int:
    """Worker processes: what was asked for, else one per core, or GPU, as far as memory allows.

    Raises
    ------
    ResourceError
        If memory does not suffice for what was asked, or for one.
    """
    smallest = resources.region or job.shard
    if resources.workers is not None:
        _check_memory(job, resources, smallest, resources.workers)
        return resources.workers
    fit = memory_limit(resources) // worker_bytes(job, smallest, resources.threads)
    on_gpus = job.launch is not None and job.launch.device == "cuda"
    most = len(visible_gpus()) if on_gpus else cores()
    return int(max(1, min(most, fit, _regions(job, smallest))))


def memory_limit(resources: Resources) -> int:
    """Bytes that all workers together may take."""
    if resources.memory_gib is not None:
        return int(resources.memory_gib * 2**30)
    return int(0.8 * free_memory())


def _check_memory(job: Job, resources: Resources, region: int, workers: int) -> None:
    """Refuse what cannot fit."""
    each, limit = worker_bytes(job, region, resources.threads), memory_limit(resources)
    if each * workers > limit:
        raise ResourceError(
            where=f"memory for --workers {workers} with regions of {region}",
            expected=f"at most {limit / 2**30:.1f} GiB in all",
            found=f"{each * workers / 2**30:.1f} GiB projected ({each / 2**30:.1f} GiB each)",
            remedy="Lower --workers, --region, storage.shard or resources.launch, or raise "
            "resources.memory_gib.",
        )


def _regions(job: Job, side: int) -> int:
    """Regions of a side that the area is cut into, over all planes."""
    return len(Grid(job.frame.planes, job.area.shape[-2:], (side, side)))  # type: ignore[arg-type]


def _middle(core: Box, job: Job) -> Box:
    """Place a core of this size as far from the image's edges as it can lie, on the shard grid."""
    start = tuple(
        max(0, (n - c) // 2) // job.shard * job.shard
        for n, c in zip(job.frame.extent, core.shape, strict=True)
    )
    return core.shift(start).clip(job.frame.bounds)
