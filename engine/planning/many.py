"""How many workers a cluster may have that works on many images of one recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.device import cores, visible_gpus
from engine.errors import RefusedError
from engine.planning.cost import choose_launch, memory_limit, worker_bytes
from engine.planning.jobs import copy_job
from engine.planning.network_jobs import network_job
from engine.recipe import IdentityRecipe
from engine.store import Channel, ImageInfo
from tiling import Box

if TYPE_CHECKING:
    from engine.planning.job import Job
    from engine.recipe import Resources, Settings

#: Shards along a side of an image of which a region may have neighbours on all sides.
_SIDE = 5


def settle_resources(settings: Settings, like: Job) -> Resources:
    """Resources for every image of a batch: workers and memory, settled once.

    What is free is not asked again while workers hold it.

    Parameters
    ----------
    settings : Settings
        Recipe, storage and resources of all images.
    like : Job
        Of one of them: of a run, or of the ingest before it. The others may be larger, but have
        its channels and dtype, as a rule; one that takes more memory is refused by its own plan.

    Returns
    -------
    Resources
        With `workers` and `memory_gib` set.
    """
    resources = settings.resources
    limit = memory_limit(resources)
    workers = resources.workers
    if workers is None:
        run = _run_of(settings, like)
        need = max(_need(job, resources) for job in (like, run))
        on_gpus = run.launch is not None and run.launch.device == "cuda"
        workers = max(1, min(len(visible_gpus()) if on_gpus else cores(), limit // need))
    return resources.model_copy(update={"workers": workers, "memory_gib": limit / 2**30})


def _run_of(settings: Settings, like: Job) -> Job:
    """Job of the run that follows an ingest; of a run itself, where it is one."""
    if not like.source.foreign:
        return like
    layer = like.layers[0]
    channels = tuple(Channel(f"channel {k}") for k in range(layer.channels))
    chunks = (layer.chunk,) * len(layer.axes)
    info = ImageInfo(
        "/", "0.5", "", layer.axes, layer.levels, layer.dtype, chunks, None, channels, False
    )
    try:
        if isinstance(settings.recipe, IdentityRecipe):
            return copy_job(info, settings.recipe, settings.storage)[0]
        return network_job(info, settings.recipe, settings)[0]
    except RefusedError:
        # Names of channels are not known yet; what is wrong with them, the image's own plan says.
        return like


def _need(job: Job, resources: Resources) -> int:
    """Bytes of a worker for the smallest regions, in an image where they have neighbours."""
    height, width = (max(n, _SIDE * job.shard) for n in job.frame.extent)
    frame = replace(job.frame, extent=(height, width))
    large = choose_launch(replace(job, frame=frame, area=Box((0, 0), (height, width))), resources)
    return worker_bytes(large, resources.region or job.shard, resources.threads)
