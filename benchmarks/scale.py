"""A million regions that cost nothing: what the engine itself takes, and whether that grows.

``python benchmarks/scale.py [--sides 100,316,1000] [--parts sweep,apart,resume,plan]`` makes images
of side x side shards, none of them stored, and for each part runs fresh processes:

- sweep: all regions, the scheduler inside the driver as with ``--cluster local``;
- apart: the same with a scheduler that is a process of its own;
- resume: the largest, ended half way as if killed, then continued;
- plan: the command ``tilewright plan`` on the largest, without and with the half-done result.

Parts that are not asked for keep the numbers that are saved already.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import HERE, RESULTS, machine, median, save, wait_for_quiet
from noop import SETTINGS, make_empty

from engine.cluster import WORKER_ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

#: What the issue asks for.
ASKED = {
    "regions_per_second": 3000,
    "memory_growth": 0.10,
    "resume_s": 30,
    "plan_s": 2,
}
TURNS = 5
BIN = Path(sys.executable).parent
WORKERS, THREADS = 2, 2


def run(folder: Path, side: int, *options: str) -> dict[str, Any]:
    """Run `noop.py` in a process of its own; what it says."""
    done = subprocess.run(
        [sys.executable, str(HERE / "noop.py"), str(folder), "--side", str(side), *options],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"noop.py failed:\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def scheduler(folder: Path) -> Iterator[tuple[str, int]]:
    """Start a scheduler and its workers as a user does; its address and process."""
    file = folder / "scheduler.json"
    environment = {**WORKER_ENVIRONMENT, "PYTHONPATH": str(HERE), "PATH": "/usr/bin:/bin"}
    serve = [str(BIN / "dask"), "scheduler", "--port", "0", "--no-dashboard"]
    work = [str(BIN / "dask"), "worker", "--nworkers", str(WORKERS), "--nthreads", str(THREADS)]
    commands = [
        [*serve, "--scheduler-file", str(file)],
        [*work, "--no-dashboard", "--memory-limit", "0", "--scheduler-file", str(file)],
    ]
    started = [
        subprocess.Popen(
            command, env=environment, cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]  # fmt: skip
    try:
        while not file.exists():
            time.sleep(0.1)
        time.sleep(5)
        yield json.loads(file.read_text())["address"], started[0].pid
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(30)


def sweep(folder: Path, side: int, patience_s: float) -> dict[str, Any]:
    """Do all regions of an image, from nothing."""
    busy = wait_for_quiet(patience_s)
    return {"busy_before": busy, **run(folder, side)}


def sweep_apart(folder: Path, side: int, patience_s: float) -> dict[str, Any]:
    """Do them on a scheduler of its own."""
    busy = wait_for_quiet(patience_s)
    with scheduler(folder) as (address, process):
        found = run(folder, side, "--cluster", address, "--scheduler", str(process))
    return {"busy_before": busy, **found}


def resume(folder: Path, side: int, patience_s: float) -> dict[str, Any]:
    """Do half of the regions, die, and do the other half."""
    run(folder, side, "--end", str(side * side // 2))
    busy = wait_for_quiet(patience_s)
    return {"busy_before": busy, "plan": plan(folder, side), **run(folder, side)}


def plan(folder: Path, side: int, recipe: str = "identity") -> dict[str, Any]:
    """Time ``tilewright plan`` from start to end, imports and all; the median of some turns."""
    image, out = folder / "image.ome.zarr", folder / "out.ome.zarr"
    if not image.exists():
        make_empty(image, side)
    command = [str(BIN / "tilewright"), "plan", str(image), str(out), "--recipe", recipe]
    for setting in (*SETTINGS, f"resources.workers={WORKERS}"):
        command += ["--set", setting]
    seconds, processor = [], []
    for _ in range(TURNS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    said = "\n".join(line.rstrip() for line in said.replace(f"{folder}/", "").splitlines())
    return {"seconds": median(seconds), "processor_seconds": median(processor), "said": said}


def growth(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """Growth of a peak from the image before the last to the last."""
    if len(rows) < 2 or name not in rows[-1]:
        return None
    return float(round(rows[-1][name] / rows[-2][name] - 1, 4))


def measure(part: str, sides: Sequence[int], folder: Path, patience_s: float) -> dict[str, Any]:
    """Do one part; every run in a folder of its own, which is removed."""

    def fresh(name: str) -> Path:
        place = folder / name
        place.mkdir()
        return place

    rows: list[dict[str, Any]] = []
    if part in ("sweep", "apart"):
        for side in sides:
            place = fresh(f"{part}-{side}")
            rows.append((sweep if part == "sweep" else sweep_apart)(place, side, patience_s))
            shutil.rmtree(place)
        peaks = ("driver_peak_bytes", "scheduler_peak_bytes")
        return {"rows": rows, "growth": {name: growth(rows, name) for name in peaks}}
    place = fresh(part)
    if part == "resume":
        return resume(place, max(sides), patience_s)
    wait_for_quiet(patience_s)
    return {name: plan(place, max(sides), name) for name in ("identity", "nuclei")}


def show(part: str, found: dict[str, Any]) -> None:
    """Print what a part gave, beside what is asked."""
    if part in ("sweep", "apart"):
        for row in found["rows"]:
            print(
                f"{part}: {row['regions']:8} regions, {row['regions_per_second']:6}/s (asked: "
                f"{ASKED['regions_per_second']}), {row['processor_us_per_region']} us of processor "
                f"each, {row['record_objects']} record objects, "
                f"{row['segments']} segments remain, {row['driver_peak_bytes'] / 2**20:.0f} MiB"
            )
        for name, value in found["growth"].items():
            if value is not None:
                print(f"{part}: {name} {value:+.1%} (asked: {ASKED['memory_growth']:+.0%})")
    elif part == "resume":
        print(
            f"resume: {found['before']} of {found['before'] + found['regions']} done, first "
            f"receipt after {found['first_receipt_s']} s (asked: {ASKED['resume_s']}); "
            f"plan alone {found['plan']['seconds']} s"
        )
    else:
        for name, row in found.items():
            print(f"plan, {name}: {row['seconds']} s (asked: {ASKED['plan_s']})")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sides", default="100,316,1000", help="shards on each side")
    parser.add_argument("--parts", default="sweep,apart,resume,plan")
    parser.add_argument("--folder", type=Path, help="for images and results; a temporary one else")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for quiet")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    options = parser.parse_args()
    sides = sorted(int(n) for n in options.sides.split(","))
    result: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    result |= {"what": __doc__, "asked": ASKED}
    for part in options.parts.split(","):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            facts = machine()
            found = measure(part, sides, Path(name), options.patience)
        show(part, found)
        result[part] = {"machine": facts, **found}
        save(options.out, result)
    print(options.out)


if __name__ == "__main__":
    main()
