"""One region computed for its time, so that a plan can say how long the run will take.

It goes through the passes of the run into a folder of its own, which is removed; intensities are
normalised by the region's own percentiles, since pass 0 has not been.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from uuid import uuid4

import numpy as np

from engine.index import make_index, save_index
from engine.ledger import Ledger, Record
from engine.pixels import read_pixels, save_levels
from engine.planning.pending import pending_pixels
from engine.recipe import IdentityRecipe
from engine.running.outputs import create_arrays
from engine.stages.normalise import Levels
from engine.store import Location
from engine.tasks import compute
from tiling import Box, Region

if TYPE_CHECKING:
    from engine.planning import Job, Pass, Plan

#: Longest side of the sample: more says no more about the time of a pixel.
SIDE = 2048


@dataclass(frozen=True)
class Sample:
    """What a sample took, and what that means for the run.

    Parameters
    ----------
    region : Region
        What was computed.
    seconds : float
        Time of one worker for it.
    total_s : float
        Estimate for what is left of the run, on all workers of the plan.
    """

    region: Region
    seconds: float
    total_s: float


def measure(plan: Plan) -> Sample:
    """Compute one region twice, the first time to warm up, and estimate the run's time.

    Parameters
    ----------
    plan : Plan
        The plan; nothing is written to its OUT.

    Returns
    -------
    Sample
        Of the passes that compute or copy regions. Statistics and pyramids come on top, and a
        cluster that starts.
    """
    first = plan.job.passes()[0]
    region = _middle(plan.job, first)
    seconds = 0.0
    for _ in range(2):
        with TemporaryDirectory() as folder:
            out = Location(folder) / "sample.ome.zarr"
            trial = replace(plan.job, out=out, area=region.core, token=uuid4().hex)
            seconds = _time(trial, first, region)
    states = Ledger(plan.job.out).states(first.name, first.digest, first.grid)
    left = pending_pixels(first, states, plan.job.area)
    return Sample(region, seconds, seconds * left / region.core.size / plan.workers)


def _time(job: Job, first: Pass, region: Region) -> float:
    """Seconds of one region, through the passes that compute it."""
    create_arrays(job)
    segments = not isinstance(job.recipe, IdentityRecipe)
    if segments:
        save_levels(job, _own_levels(job, region))
    start = time.perf_counter()
    done = compute(job, first, region)
    if segments:
        record = Record(first.name, region, first.digest, 0.0, 0, "", notes=done.notes)
        if job.model is not None:
            job = replace(job, index=save_index(job, make_index(job, [record])))
        for step in job.passes():
            if step.kind in ("flags", "labels", "repair"):
                compute(job, step, region)
    return time.perf_counter() - start


def _own_levels(job: Job, region: Region) -> Levels:
    """Percentiles of the region itself, for all planes."""
    settings = job.network.normalise
    pixels = read_pixels(job, region.plane, region.core).astype(np.float32)
    low, high = np.nanpercentile(pixels, [settings.low, settings.high], axis=(1, 2))
    return Levels(low.astype(np.float32), np.maximum(high, low + 1e-6).astype(np.float32))


def _middle(job: Job, step: Pass) -> Region:
    """Region in the middle of the part that is done, of the middle plane."""
    cell = step.grid.cell
    side = [max(1, SIDE // c) * c for c in cell]
    start = [
        (low + (high - low) // 2) // c * c
        for low, high, c in zip(job.area.start, job.area.stop, cell, strict=True)
    ]
    stop = [min(a + s, n) for a, s, n in zip(start, side, job.area.stop, strict=True)]
    plane = tuple(n // 2 for n in job.frame.planes)
    return Region(plane, Box((start[0], start[1]), (stop[0], stop[1])))
