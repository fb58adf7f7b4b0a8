"""The plan: from image, OUT and settings to a job, its pending regions and its cost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import RecipeError
from engine.ledger import Ledger
from engine.planning.changes import compare_parts
from engine.planning.cost import (
    Tiles,
    choose_launch,
    choose_region,
    choose_workers,
    count_tiles,
    device_bytes,
    worker_bytes,
)
from engine.planning.job import LARGEST_DRAWN, Pass
from engine.planning.jobs import (
    check_extent,
    copy_job,
    ingest_job,
    input_identity,
    keep_precision,
    stardist_job,
)
from engine.planning.layers import disk_bytes, layer_bytes
from engine.planning.places import check_disk, check_out, check_replaceable
from engine.recipe import StarDistRecipe, digest, digest_parts
from engine.store import inspect_image, local_path
from tiling import Box, Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from engine.planning.job import Job
    from engine.recipe import Resources, Settings, Storage


@dataclass(frozen=True)
class Plan:
    """What a run would do, and what it would cost.

    Parameters
    ----------
    job : Job
        What tasks need.
    parts : dict of str to str
        Everything that decides pixels, by name; their digest is the job's.
    resources : Resources
        What the machine gives.
    region : int
        Side of a region in pixels.
    workers : int
        Worker processes.
    worker_bytes : int
        Projected peak of each.
    device_bytes : int
        Projected peak of each on its device; part of `worker_bytes` on a CPU.
    tiles : Tiles
        Tiles that are computed, and how many of them twice.
    read_bytes, write_bytes, disk_bytes : int
        Decoded bytes read and written, and bytes set aside on disk.
    regions, pending : int
        Regions in all, and those that are not done.
    notes : tuple of str
        What the user should know and can be done all the same.
    """

    job: Job
    parts: dict[str, str]
    resources: Resources
    region: int
    workers: int
    worker_bytes: int
    device_bytes: int
    tiles: Tiles
    read_bytes: int
    write_bytes: int
    disk_bytes: int
    regions: int
    pending: int
    notes: tuple[str, ...] = ()


def make_plan(image: str, out: str | Path, settings: Settings, within: Box | None = None) -> Plan:
    """Plan a run of a recipe.

    Parameters
    ----------
    image : str
        Path of an OME-Zarr image.
    out : str or Path
        Path of the result; a run that stands there is continued.
    settings : Settings
        Recipe, storage and resources.
    within : Box or None
        Part of every plane, in pixels of the level that is read; widened to whole shards.

    Returns
    -------
    Plan

    Raises
    ------
    RefusedError
        If anything is wrong with the image, the recipe, the model, the place or the machine.
    """
    place = check_out(out, image)
    info = inspect_image(image)
    # Workers may stand elsewhere, and a preview may be asked for from another folder.
    info = replace(info, path=str(Path(info.path).resolve()))
    recipe = settings.recipe
    level = recipe.input.level
    if level >= len(info.levels):
        raise RecipeError(
            where="input.level",
            expected=f"0 to {len(info.levels) - 1}, the levels of '{image}'",
            found=str(level),
            remedy="Choose one of the levels that the image has.",
        )
    extent = info.levels[level].shape[-2:]
    check_extent(image, extent)
    area = _area(within, extent, settings.storage.shard)
    if isinstance(recipe, StarDistRecipe):
        recipe = keep_precision(recipe, Ledger(place))
        job, extra = stardist_job(info, recipe, settings)
    else:
        job, extra = copy_job(info, recipe, settings.storage)
    extra |= {
        **input_identity(info, level),
        "area": str(area),
        "storage.chunk": str(settings.storage.chunk),
        "storage.shard": str(settings.storage.shard),
    }
    return _finish(replace(job, out=place, area=area), extra, settings.resources)


def make_ingest_plan(
    source: str,
    dest: str | Path,
    storage: Storage,
    resources: Resources,
    pixel_size_um: float | None = None,
    *,
    overwrite: bool = False,
) -> Plan:
    """Plan an ingest: a copy of a foreign file, folder or glob into OME-Zarr.

    Parameters
    ----------
    source : str
        File, folder or glob.
    dest : str or Path
        Path of the OME-Zarr image to make.
    storage : Storage
        Chunk and shard.
    resources : Resources
        What the machine gives.
    pixel_size_um : float or None
        Side of a pixel in micrometres, in place of what the source says.
    overwrite : bool
        Plan as if what an earlier ingest made there were gone.

    Returns
    -------
    Plan

    Raises
    ------
    RefusedError
        If the source cannot be taken or the place not be used.
    """
    place = check_out(dest, source)
    if overwrite:
        check_replaceable(place)
    job, extra = ingest_job(str(local_path(source).absolute()), storage, pixel_size_um)
    job = replace(job, out=place)
    return _finish(job, extra, resources, fresh=overwrite)


def pending_regions(step: Pass, done: Iterable[Region], region: int, area: Box) -> Iterator[Region]:
    """Regions of a pass that are still to be done.

    Parameters
    ----------
    step : Pass
        The pass.
    done : iterable of Region
        Its regions that stand, of any size.
    region : int
        Side of a region in pixels of the level that is read; pyramids take single shards.
    area : Box
        Part of every plane that is done, in pixels of the level that is read.
    """
    cell = step.grid.cell
    side = region if step.kind == "regions" else min(region, LARGEST_DRAWN)
    times = 1 if step.kind in ("pyramid", "range", "statistics") else max(1, side // cell[0])
    bounds = Box.of_shape(step.grid.extent)
    within = bounds
    if step.kind not in ("range", "statistics"):
        within = area.coarsen(step.shrink).snap(cell).clip(bounds)
    for left in step.grid.missing(done, (cell[0] * times, cell[1] * times)):
        core = left.core.clip(within)
        if not core.empty:
            yield Region(left.plane, core)


def waves(passes: Sequence[Pass]) -> list[list[Pass]]:
    """Group passes so that each needs only passes of earlier groups.

    Examples
    --------
    >>> from tiling import Grid
    >>> grid = Grid((), (1, 1), (1, 1))
    >>> first, beside = Pass("a", "regions", grid), Pass("b", "copy", grid)
    >>> [[p.name for p in w] for w in waves([first, Pass("c", "labels", grid, after="a"), beside])]
    [['a', 'b'], ['c']]
    """
    depth: dict[str, int] = {}
    groups: list[list[Pass]] = []
    for step in passes:
        depth[step.name] = depth[step.after] + 1 if step.after else 0
        if depth[step.name] == len(groups):
            groups.append([])
        groups[depth[step.name]].append(step)
    return groups


def _finish(job: Job, extra: dict[str, str], resources: Resources, *, fresh: bool = False) -> Plan:
    """Digest, compare with what stands in OUT unless the run starts afresh, and count."""
    parts = digest_parts(job.recipe, extra)
    job = replace(job, digest=digest(parts))
    ledger = Ledger(job.out)
    if ledger.exists and not fresh:
        compare_parts(ledger.read_run().get("parts", {}), parts, job.out)
    job = choose_launch(job, resources)
    workers = choose_workers(job, resources)
    region = choose_region(job, resources, workers)
    total = pending = 0
    for step in job.passes()[:1]:
        records = [] if fresh else ledger.records(step.name, job.digest)
        done = [record.region for record in records]
        total = len(list(pending_regions(step, [], region, job.area)))
        pending = len(list(pending_regions(step, done, region, job.area)))
    tiles = count_tiles(job, region) if isinstance(job.recipe, StarDistRecipe) else Tiles(0, 0)
    share = job.area.size / job.frame.bounds.size
    disk = int(disk_bytes(job.layers) * share)
    if pending == total:
        check_disk(job.out, disk)
    planes = int(np.prod(job.frame.planes, dtype=np.int64))
    pixels = planes * job.area.size * job.frame.channels * np.dtype(job.frame.dtype).itemsize
    return Plan(
        job, parts, resources, region, workers,
        worker_bytes(job, region, resources.threads), device_bytes(job, region), tiles,
        read_bytes=int(pixels * (2 if tiles.once else 1)),
        write_bytes=int(sum(map(layer_bytes, job.layers)) * share),
        disk_bytes=disk, regions=total, pending=pending,
    )  # fmt: skip


def _area(within: Box | None, extent: Sequence[int], shard: int) -> Box:
    """Part of every plane that is done: what was asked for, widened to whole shards."""
    bounds = Box.of_shape(extent)
    if within is None:
        return bounds
    if within.empty or not bounds.contains(within):
        raise RecipeError(
            where=f"--within {within}",
            expected=f"a box y0:y1,x0:x1 inside the image, {bounds}",
            found=str(within),
            remedy="Choose a part of the image.",
        )
    return within.snap(shard).clip(bounds)
