"""The network alone, on exactly the launches that a run makes: two processes, data in memory.

``python benchmarks/bare.py CASE.json PLAN.pickle`` prints one line of JSON.
"""

from __future__ import annotations

import json
import multiprocessing
import pickle
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import Case

from engine.device import resident_peak
from engine.networks import runtime
from engine.planning.pending import pending_regions
from engine.stages.base import Place, Raster
from engine.stages.stardist import Candidates

if TYPE_CHECKING:
    from multiprocessing.queues import Queue
    from multiprocessing.synchronize import Barrier

    from engine.device import Launch
    from engine.planning import Plan

PROCESSES = 2


class Recorder(runtime.OpenNetwork):
    """A network that keeps its batches instead of looking at them."""

    def __init__(self, rays: int, scale: int, launch: Launch) -> None:
        # No network: `predict` is ours.
        super().__init__(torch.nn.Identity(), launch)  # type: ignore[arg-type]
        self.batches: list[np.ndarray] = []
        self._rays, self._scale = rays, scale

    def predict(self, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep a batch; find nothing in it."""
        self.batches.append(batch)
        shape = (len(batch), *(n // self._scale for n in batch.shape[2:]))
        return torch.zeros(shape), torch.zeros((*shape, self._rays))


def record(plan: Plan, image: np.ndarray, number: int) -> list[np.ndarray]:
    """Batches of every `PROCESSES`-th region, by the very stage that makes them in a run."""
    job = plan.job
    if job.launch is None or job.model is None:
        raise TypeError("a plan that segments has a launch and a model")
    recorder = Recorder(job.model.config.n_rays, job.model.config.grid[0], job.launch)
    pipeline = job.pipeline()
    stage = next(s for s in pipeline.stages if isinstance(s, Candidates))
    step = next(p for p in job.passes() if p.kind == "regions")
    nothing = np.zeros(step.grid.shape, np.uint8)
    regions = [r for r, _ in pending_regions(step, nothing, plan.region, job.area)]
    original, runtime.open_network = runtime.open_network, lambda *_: recorder
    try:
        for region in regions[number::PROCESSES]:
            boxes = pipeline.fold(job.wanted(region.core))
            box = boxes["normalised"]
            pixels = np.ascontiguousarray(image[box.slices()])[None]
            given = {"normalised": Raster(box, pixels)}
            stage.run(given, boxes, Place(region.plane, job.launch))
    finally:
        runtime.open_network = original
    return recorder.batches


def work(case: Case, plan: Plan, number: int, barrier: Barrier, answers: Queue[Any]) -> None:
    """Be one of the processes: batches in memory, network warm, then all together."""
    image = np.load(case.image, mmap_mode="r")
    batches = record(plan, image, number)
    network = case.network()
    for batch in batches[:2]:
        network.predict(batch)
    barrier.wait()
    start = time.perf_counter()
    for batch in batches:
        network.predict(batch)
    end = time.perf_counter()
    tiles = sum(len(batch) for batch in batches)
    answers.put((start, end, tiles, len(batches), resident_peak()))


def measure(case: Case, plan: Plan) -> dict[str, Any]:
    """Seconds from the common start to the last end, and what was computed."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(PROCESSES), context.Queue()
    processes = [
        context.Process(target=work, args=(case, plan, k, barrier, answers))
        for k in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    starts, ends, tiles, launches, peaks = zip(*(answers.get() for _ in processes), strict=True)
    for process in processes:
        process.join()
    return {
        "seconds": max(ends) - min(starts),
        "tiles": sum(tiles),
        "launches": sum(launches),
        "peak_bytes": sum(peaks),
    }


if __name__ == "__main__":
    with Path(sys.argv[2]).open("rb") as file:
        the_plan = pickle.load(file)  # written by throughput.py just before
    print(json.dumps(measure(Case.load(Path(sys.argv[1])), the_plan)))
