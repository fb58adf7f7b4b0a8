"""A run of regions that cost nothing, in a process of its own: what is left is the engine.

``python benchmarks/noop.py FOLDER --side 100`` makes an image of 100 x 100 shards of which none is
stored, and sweeps its first pass with the real window, ledger and cluster; a region only gives a
record of the usual length. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

import engine
from engine.api import Silent
from engine.cluster import ClusterSpec, open_cluster
from engine.ledger import Lease, Ledger, State, beating, take_over
from engine.running.documents import make_document
from engine.running.summary import summarise
from engine.running.sweeping import Sweeper, Tally
from engine.store import (
    ArraySpec,
    ImageMetadata,
    Level,
    StoredObject,
    create_array,
    make_axes,
    write_image_metadata,
)
from engine.work import Done

if TYPE_CHECKING:
    from engine.ledger import Bundle, Journal
    from engine.planning import Job, Pass, Plan
    from tiling import Region

#: Side of a shard, which is also a region here: bundles are as large as they get.
SHARD = 128

#: The settings of every run, as the command line takes them.
SETTINGS = (f"storage.chunk={SHARD}", f"storage.shard={SHARD}", f"resources.region={SHARD}")

_START = time.perf_counter()


def make_empty(path: Path, side: int) -> Path:
    """Make an OME-Zarr image of `side` x `side` shards, all of fill value: none is stored."""
    axes, shape = make_axes("yx", "micrometer"), (side * SHARD, side * SHARD)
    create_array(path, "0", ArraySpec(shape, "uint8", (SHARD, SHARD), (SHARD, SHARD), axes))
    level = Level("0", shape, (0.5, 0.5), (0.0, 0.0))
    write_image_metadata(path, ImageMetadata(path.name, axes, (level,), "uint8"))
    return path


def nothing(job: Job, step: Pass, region: Region) -> Done:
    """Do nothing for a region; its record is as long as that of a copied shard."""
    y, x = (a // SHARD for a in region.core.start)
    name = f"0/c/{y}/{x}"
    stored = StoredObject(name, "8d2f01aa", 9216, "1795250000000000000")
    return Done({}, (stored,), ((name, "1795250000000000000-9216"),), "1c6e77b0")


def status_bytes(name: str, pid: int | str = "self") -> int:
    """Read a size that the kernel keeps of a process: VmRSS, VmHWM (its largest so far)."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    if found is None:
        raise RuntimeError(f"no {name} of process {pid}")
    return 1024 * int(found[1])


def processor_seconds() -> float:
    """Sum what this process and those that it started have taken; what others do is not in it."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(t.user + t.system for t in times))


@dataclass
class Watch(Silent):
    """Follows a sweep: times and sizes at every tenth of it.

    Parameters
    ----------
    end : int
        Regions after which the process ends as if it were killed; 0 for never.
    scheduler : int or None
        Process whose size is told beside that of this one.
    """

    end: int = 0
    scheduler: int | None = None
    first: float = 0.0
    each: int = 0
    done: int = 0
    used: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Note what is left."""
        self.each = max(1, (regions - done) // 10)

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Note a receipt; the first one ends the start, whose memory is not counted."""
        if not self.done:
            self.first, self.used = time.perf_counter(), processor_seconds()
            self._forget_peaks()
        before, self.done = self.done, self.done + regions
        if self.done // self.each > before // self.each:
            self.rows.append(self._row())
        if self.end and self.done >= self.end:
            print(json.dumps({"regions": self.done}), flush=True)
            os._exit(0)

    def _row(self) -> dict[str, float]:
        row = {
            "regions": self.done,
            "seconds": round(time.perf_counter() - self.first, 2),
            "driver_bytes": status_bytes("VmRSS"),
        }
        if self.scheduler is not None:
            row["scheduler_bytes"] = status_bytes("VmRSS", self.scheduler)
        return row

    def _forget_peaks(self) -> None:
        for pid in ("self", self.scheduler):
            if pid is not None:
                Path(f"/proc/{pid}/clear_refs").write_text("5")

    def found(self) -> dict[str, Any]:
        """Sum up: how fast, and the largest sizes since the first receipt."""
        seconds = time.perf_counter() - self.first
        found = {
            "regions": self.done,
            "seconds": round(seconds, 2),
            "regions_per_second": round(self.done / seconds),
            "processor_us_per_region": round(
                1e6 * (processor_seconds() - self.used) / self.done, 1
            ),
            "driver_peak_bytes": status_bytes("VmHWM"),
        }
        if self.scheduler is not None:
            found["scheduler_peak_bytes"] = status_bytes("VmHWM", self.scheduler)
        return found


@dataclass
class Counted:
    """A journal that looks, for each receipt, whether its one object stands.

    Parameters
    ----------
    journal : Journal
        The real one.
    folder : Path
        Folder of the ledger.
    epoch : int
        Under which workers write.
    """

    journal: Journal
    folder: Path
    epoch: int
    bundles: int = 0
    missing: int = 0

    def add(self, bundle: Bundle) -> None:
        """Count, and pass on."""
        place = self.folder / "records" / f"{self.epoch:06d}" / bundle.pass_name / bundle.name
        self.bundles += 1
        self.missing += not place.is_file()
        self.journal.add(bundle)

    def flush(self) -> None:
        """Pass on."""
        self.journal.flush()

    def found(self) -> dict[str, int]:
        """Count what workers wrote, what is left of it, and the objects that hold all records."""
        return {
            "record_objects": self.bundles,
            "objects_after": count_files(self.folder / "records"),
            "segments": count_files(self.folder / "segments"),
        }


class Clock:
    """Seconds between the steps of a start."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        #: By step; the imports of this script came before.
        self.laps = {"import": round(self._last - _START, 2)}

    def lap(self, name: str) -> None:
        """End a step."""
        now = time.perf_counter()
        self.laps[name], self._last = round(now - self._last, 2), now


def count_files(folder: Path) -> int:
    """Count the files below a folder."""
    return sum(len(files) for _, _, files in os.walk(folder))


def report_time(plan: Plan, ledger: Ledger, step: Pass) -> dict[str, float]:
    """Time what reads all records at the end of a run."""
    start = time.perf_counter()
    found = summarise(plan, {step.name: ledger.records(step.name, step.digest, step.grid)})
    if found["regions"][step.name] != len(step.grid):
        raise RuntimeError(f"{found['regions']} regions with a record, of {len(step.grid)}")
    return {"report_s": round(time.perf_counter() - start, 2)}


def make_plan(folder: Path) -> Plan:
    """Plan the run of a folder, begun there or not."""
    settings = [*SETTINGS, "resources.workers=2", "resources.threads=2"]
    image, out = folder / "image.ome.zarr", folder / "out.ome.zarr"
    return engine.plan(image, out, "identity", overrides=settings)


def sweep(folder: Path, watch: Watch, cluster: str) -> dict[str, Any]:
    """Begin or continue a run in a folder, and say what it took."""
    clock = Clock()
    with ExitStack() as stack:
        plan = make_plan(folder)
        clock.lap("plan")
        ledger, step = Ledger(plan.job.out), plan.job.passes()[0]
        lease = Lease.acquire(ledger)
        stack.callback(lease.release)
        pulse = stack.enter_context(beating(lease))
        clock.lap("lease")
        counted = Counted(take_over(ledger, lease), ledger.folder.path, lease.epoch)
        if not ledger.exists:
            ledger.write_run(make_document(plan))
        clock.lap("take_over")
        states = ledger.states(step.name, step.digest, step.grid)
        before = int((states == State.DONE).sum())
        clock.lap("states")
        client = stack.enter_context(open_cluster(ClusterSpec(cluster, 2, 2)))
        clock.lap("cluster")
        # `Counted` stands for the journal.
        sweeper = Sweeper(
            plan, ledger, counted, lease.epoch, lambda: client, pulse.check, watch, Tally(),  # type: ignore[arg-type]
            nothing,
        )  # fmt: skip
        complete = sweeper.sweep(plan.job, [step], {step.name: states})
        found = watch.found()
        # As a run ends: what the workers of a killed driver wrote too late counts no more.
        counted.journal.forget({step.digest})
    if not complete or watch.done + before != len(step.grid) or counted.missing:
        raise RuntimeError(f"{watch.done} of {len(step.grid)} regions done, {counted}")
    return {
        "before": before,
        "first_receipt_s": round(watch.first - _START, 2),
        "took": clock.laps,
        **found,
        **counted.found(),
        **report_time(plan, ledger, step),
        "driver_peak_with_report_bytes": status_bytes("VmHWM"),
        "rows": watch.rows,
    }


def main() -> None:
    """Run once, or a part of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--side", type=int, required=True, help="shards on each side")
    parser.add_argument("--end", type=int, default=0, help="end as if killed after these regions")
    parser.add_argument("--cluster", default="local")
    parser.add_argument("--scheduler", type=int, help="process of the scheduler")
    options = parser.parse_args()
    if not (options.folder / "image.ome.zarr").exists():
        make_empty(options.folder / "image.ome.zarr", options.side)
    watch = Watch(options.end, options.scheduler)
    print(json.dumps(sweep(options.folder, watch, options.cluster)))


if __name__ == "__main__":
    # Workers find `nothing` in this module, not in a copy that travels with each task.
    import noop

    noop.main()
