"""The driver of a run: passes in order, each from its records, each resumable."""

from __future__ import annotations

import shutil
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

from engine.cluster import ClusterSpec, open_cluster
from engine.errors import InputError, InterruptedRunError, OutputError, ResourceError
from engine.labels import make_index, save_index
from engine.ledger import Failure, Ledger, Record
from engine.planning.plan import pending_regions, waves
from engine.recipe import StarDistRecipe
from engine.running.logs import log_to_folder
from engine.running.outputs import create_outputs
from engine.running.window import Unit, Window
from engine.statistics import check_finite, freeze, part_path, save_bins, sweeps
from engine.store import read_json, remove_partial, write_json
from engine.tables import keep_parts
from engine.work import has_levels, objects_path, save_levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed import Client

    from engine.planning import Job, Pass, Plan
    from tiling import Region


class Listener(Protocol):
    """Who is told of progress."""

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Note that workers are there, and where Dask shows them."""

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Note that a pass starts, with what is done of it and the pixels that are left."""

    def region_done(self, name: str, pixels: int) -> None:
        """Note that a region of a pass is done."""

    def region_failed(self, failure: Failure) -> None:
        """Note that a region of a pass is given up."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Parameters
    ----------
    complete : bool
        Whether nothing is missing.
    failures : tuple of Failure
        Regions that are missing, and why.
    report : dict
        What was measured; also in ``.tilewright/report.json``.
    """

    complete: bool
    failures: tuple[Failure, ...]
    report: dict[str, Any] = field(default_factory=dict)


def execute(plan: Plan, cluster: str, listener: Listener) -> Outcome:
    """Run a plan to its end, or as far as it goes.

    Parameters
    ----------
    plan : Plan
        What to do; a run that stands in OUT is continued from its records.
    cluster : str
        "local", or the address of a scheduler.
    listener : Listener
        Is told of progress.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If the image or the cluster turn out not to serve; what this call made is removed.
    InterruptedRunError
        If the user or the system stops the run; what is done stays done.
    """
    ledger = Ledger(plan.job.out)
    fresh = not ledger.exists
    if fresh:
        ledger.write_run(_run_document(plan))
    made = False
    try:
        with ExitStack() as stack:
            stack.enter_context(log_to_folder(ledger.path("logs")))
            driver = _Driver(plan, cluster, listener, stack)
            failures = driver.count()
            if failures:
                return Outcome(complete=False, failures=tuple(failures))
            made = True
            return driver.run()
    except (InputError, ResourceError):
        if fresh and not made:
            # Pass 0 found that the image cannot be taken, or no worker could be had: no pixel was
            # written, leave no trace.
            shutil.rmtree(ledger.folder)
            if not any(plan.job.out.iterdir()):
                plan.job.out.rmdir()
        raise
    except KeyboardInterrupt as err:
        raise InterruptedRunError(
            where=f"OUT '{plan.job.out}'",
            expected="to finish",
            found="a request to stop",
            remedy="What is done is kept: give the same command again to continue.",
        ) from err


class _Driver:
    """One call of `execute`: the state that its passes share."""

    def __init__(self, plan: Plan, cluster: str, listener: Listener, stack: ExitStack) -> None:
        self._plan = plan
        self._job: Job = plan.job
        self._ledger = Ledger(plan.job.out)
        self._spec = ClusterSpec(cluster, plan.workers, plan.resources.threads)
        self._listener = listener
        self._stack = stack
        self._client: Client | None = None
        self._started = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._computed = 0
        self._pixels: dict[str, int] = {}

    def run(self) -> Outcome:
        """All waves in order; a later one waits while an earlier one has regions missing."""
        create_outputs(self._job)
        for wave in waves(self._job.passes()):
            failures = self._sweep(wave)
            if failures:
                return Outcome(complete=False, failures=tuple(failures), report=self._report())
            for step in wave:
                if step.kind == "labels":
                    drawn = self._ledger.records(step.name, self._job.digest)
                    keep_parts(self._job.out, step.layer, (record.region for record in drawn))
        report = self._report(complete=True)
        self._clean()
        return Outcome(complete=True, failures=(), report=report)

    def count(self) -> list[Failure]:
        """Pass 0, where the recipe has one and it is not done; before anything is made in OUT."""
        job = self._job
        if not isinstance(job.recipe, StarDistRecipe) or has_levels(job.out, job.digest):
            return []
        return self._statistics()

    def _statistics(self) -> list[Failure]:
        """Pass 0: count the values, in two sweeps where there are many, and freeze the result."""
        job = self._job
        names = sweeps(job)
        for name in names:
            failures = self._sweep([job.statistics_pass(name)])
            if failures:
                return failures
            records = list(self._ledger.records(name, job.digest))
            if name == names[0]:
                check_finite(job, records)
            if name == "coarse":
                save_bins(job, [record.region for record in records])
        save_levels(job.out, job.digest, freeze(job, [record.region for record in records]))
        return []

    def _sweep(self, wave: Sequence[Pass]) -> list[Failure]:
        """Do what is left of passes that do not need each other."""
        start = time.perf_counter()
        units = [unit for step in wave for unit in self._start(step)]
        if not units:
            return []
        failures = []
        window = Window(self._cluster(), self._job, self._plan.resources.retries)
        for outcome in window.run(units):
            if isinstance(outcome, Failure):
                failures.append(outcome)
                self._listener.region_failed(outcome)
            else:
                self._computed += 1
                if outcome.pass_name in ("regions", "copy"):
                    self._pixels[outcome.pass_name] = (
                        self._pixels.get(outcome.pass_name, 0) + outcome.region.core.size
                    )
                self._listener.region_done(outcome.pass_name, outcome.region.core.size)
        self._seconds[" + ".join(step.name for step in wave)] = time.perf_counter() - start
        for step in wave:
            if not any(failure.pass_name == step.name for failure in failures):
                # Also those of regions of another size, from an earlier call.
                self._ledger.forget_failures(step.name)
        return failures

    def _start(self, step: Pass) -> list[Unit]:
        """Prepare a pass; return what is left of it."""
        job = self._job
        left = self._left(step)
        if not left:
            return []
        self._ledger.path("report.json").unlink(missing_ok=True)
        if step.kind == "labels":
            save_index(job, make_index(job, self._ledger.records("regions", job.digest)))
        self._cluster()
        done = sum(1 for _ in self._ledger.records(step.name, job.digest))
        pixels = sum(region.core.size for region in left)
        self._listener.pass_started(step.name, done + len(left), done, pixels)
        return [Unit(step, region) for region in left]

    def _left(self, step: Pass) -> list[Region]:
        """Regions of a pass that are not done, or whose objects are gone."""
        job = self._job
        done = [record.region for record in self._ledger.records(step.name, job.digest)]
        if step.kind == "regions":
            done = [region for region in done if objects_path(job.out, region).is_file()]
        if step.kind == "statistics":
            done = [region for region in done if part_path(job.out, step.name, region).is_file()]
        return list(pending_regions(step, done, self._plan.region, job.area))

    def _cluster(self) -> Client:
        """Cluster of this run, started when the first task needs it."""
        if self._client is None:
            self._client = self._stack.enter_context(open_cluster(self._spec))
            workers = len(self._client.scheduler_info()["workers"])
            self._listener.cluster_started(self._client.dashboard_link, workers)
        return self._client

    def _report(self, *, complete: bool = False) -> dict[str, Any]:
        """Gather what was measured, and keep it; a call that had nothing to do keeps the last."""
        job = self._job
        path = self._ledger.path("report.json")
        if self._computed == 0 and path.is_file():
            return read_json(path, OutputError)
        steps = {step.name: step for step in job.passes()}
        notes: dict[str, list[Record]] = {
            name: list(self._ledger.records(name, job.digest)) for name in steps
        }
        report = summarise(self._plan, notes)
        report["seconds"] = {k: round(v, 3) for k, v in self._seconds.items()}
        report["seconds_total"] = round(time.perf_counter() - self._started, 3)
        report["regions_computed_now"] = self._computed
        report["pixels_computed_now"] = max(self._pixels.values(), default=0)
        report["complete"] = complete
        report["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(path, report)
        return report

    def _clean(self) -> None:
        """Remove scratch; last, when nothing needs it any more."""
        shutil.rmtree(self._ledger.path("work"), ignore_errors=True)
        shutil.rmtree(self._ledger.path("statistics", "parts"), ignore_errors=True)
        for layer in self._job.layers:
            for level in layer.levels:
                remove_partial(self._job.out / layer.group / level.path)


def summarise(plan: Plan, records: dict[str, list[Record]]) -> dict[str, Any]:
    """Sum the notes of all records to the numbers of the report."""
    job = plan.job
    report: dict[str, Any] = {
        "out": str(job.out),
        "source": job.source.path,
        "digest": job.digest,
        "planes": list(job.frame.planes),
        "extent": list(job.frame.extent),
        "regions": {name: len(found) for name, found in records.items()},
        "worker_bytes_projected": plan.worker_bytes,
        "worker_bytes_peak": max((r.peak_bytes for v in records.values() for r in v), default=0),
    }
    done = [r.notes for r in records.get("regions", [])]
    drawn = [r.notes for r in records.get("labels", [])]
    if done:
        pixels = sum(n["network.overlap_pixels"] for n in done)
        total = sum(n["network.overlap_deviation"] for n in done) / 2**16
        report |= {
            "tiles": sum(n["network.tiles"] for n in done),
            "longest_ray": max(n["network.longest_ray"] for n in done),
            "halo": max(n["halo"] for n in done),
            "tile_overlap_deviation_mean": total / pixels if pixels else 0.0,
            "tile_overlap_deviation_largest": max(
                n["network.overlap_deviation_largest"] for n in done
            ),
        }
    if drawn:
        names = ("objects", "hidden", "crossing", "ghosts", "missed")
        sums = {name: int(sum(n[name] for n in drawn)) for name in names}
        report |= {"objects": sums["objects"], "objects_without_pixels": sums["hidden"]}
        report["seams"] = {k: sums[k] for k in ("crossing", "ghosts", "missed")}
    return report


def _run_document(plan: Plan) -> dict[str, Any]:
    """Describe a run that starts: what decides its pixels, and where it comes from."""
    job = plan.job
    return {
        "digest": job.digest,
        "parts": plan.parts,
        "recipe": job.recipe.model_dump(mode="json"),
        "source": job.source.path,
        "level": job.source.level,
        "channels": list(job.source.channels),
        "area": str(job.area),
        "layers": [layer.name for layer in job.layers],
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("tilewright", "numpy", "torch", "zarr")},
    }
