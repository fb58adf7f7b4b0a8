"""Throughput of a whole run beside the bare network, the peers, and a plain copy.

    python benchmarks/throughput.py [--side 4096] [--repeats 3] [--copy-side 16384]
        [--cases bfloat16,float32,bfloat16:256:64] [--model NAME] [--out FILE]

All in one call, each in fresh processes on two threads in all, in turns, `--repeats` times; times
are medians and ratios are medians of the ratios within a turn. The image is a mosaic of real
nuclei, uint16. A case is precision, tile and overlap, the same for all; the recipe's tiles where
only the precision is given. stardist's blocks have sizes of their own. On a shared machine each
waits until the processors are idle, as long as `--patience` allows.

    network     the network alone, on exactly the launches of the run: two processes, data in memory
    run, warm   engine.run on a cluster that is up and has run a small image before: planning,
                statistics, reading, network, suppression, labels, tables, pyramids, records, report
    run, cold   the command `tilewright run`: all of that, and starting Python and the cluster,
                importing PyTorch in three processes, loading the network, stopping the cluster
    peers       from the normalised image in memory to labels in memory; network loaded and warm
    copy        the identity recipe (image and pyramid) beside plain zarr, shard by shard
"""

from __future__ import annotations

import argparse
import pickle
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import RESULTS, Case, child, machine, make_image, median, save, wait_for_quiet
from copying import compare_copies
from run_peer import PEERS

import engine
from engine.cluster import ClusterSpec, open_cluster
from engine.ledger import Ledger
from engine.methods.intensity import normalise
from engine.store import ImageReader, Location, read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.planning import Plan

WORKERS = 2

#: What the issue asks for.
ASKED = {"network / run": 0.85, "tiles computed twice": 0.15, "lead over a peer": 1.0}


def normalised(image: Path, plan: Plan, folder: Path) -> Path:
    """Save the image as the network sees it, by percentiles of the whole."""
    pixels = ImageReader(str(image), 0).read((), (0,), plan.job.frame.bounds)
    settings = plan.job.stardist.normalise
    levels = np.percentile(pixels, [settings.low, settings.high]).astype(np.float32)
    path = folder / f"{image.name.split('.')[0]}.npy"
    np.save(path, normalise(pixels, levels[:1], levels[1:])[0])
    return path


def run_warm(image: Path, small: Path, folder: Path, settings: list[str]) -> dict[str, Any]:
    """Time `engine.run` on a cluster that is warm; also its report."""
    out = folder / "warm.ome.zarr"
    plan = engine.plan(image, out, overrides=settings)
    threads = plan.resources.threads
    # Workers are there already; the regions are those of the others.
    there = [s for s in settings if "workers" not in s] + [f"resources.region={plan.region}"]
    with open_cluster(ClusterSpec("local", WORKERS, threads)) as client:
        address = client.scheduler_info()["address"]
        for k in range(2):
            engine.run(small, folder / f"small{k}.ome.zarr", overrides=there, cluster=address)
        start = time.perf_counter()
        outcome = engine.run(image, out, overrides=there, cluster=address)
        seconds = time.perf_counter() - start
    if not outcome.complete:
        raise RuntimeError(f"the run failed: {outcome.failures}")
    return facts(seconds, outcome.report)


def run_cold(image: Path, folder: Path, settings: list[str]) -> dict[str, Any]:
    """Time the command from its start to its end; also its report."""
    out = folder / "cold.ome.zarr"
    chosen = [word for value in settings for word in ("--set", value)]
    command = [str(Path(sys.executable).parent / "tilewright"), "run", str(image), str(out)]
    start = time.perf_counter()
    subprocess.run([*command, *chosen], check=True, capture_output=True)
    seconds = time.perf_counter() - start
    report = read_json(Ledger(Location.parse(out)).path("report.json"))
    return facts(seconds, report)


def facts(seconds: float, report: dict[str, Any]) -> dict[str, Any]:
    """Gather what is kept of a run."""
    return {
        "seconds": seconds,
        "objects": report["objects"],
        "peak_bytes": WORKERS * report["worker_bytes_peak"],
        # Without the places: they are those of one machine, and gone when this ends.
        "report": {k: v for k, v in report.items() if k not in ("out", "source")},
    }


def one_turn(
    image: Path, small: Path, case: Case, plan: Plan, settings: list[str], patience_s: float
) -> dict[str, dict[str, Any]]:
    """Everyone once, each when the machine is quiet."""
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        folder = Path(name)
        where = str(case.save(folder / "case.json"))
        (folder / "plan.pickle").write_bytes(pickle.dumps(plan))
        tasks: dict[str, Callable[[], dict[str, Any]]] = {
            "network": lambda: child("bare.py", where, str(folder / "plan.pickle")),
            "run, warm": lambda: run_warm(image, small, folder, settings),
            "run, cold": lambda: run_cold(image, folder, settings),
        }
        for peer in PEERS:
            arguments = ("run_peer.py", peer, where, str(WORKERS))
            tasks[peer] = partial(child, *arguments, threads=WORKERS)
        turn = {}
        for title, task in tasks.items():
            busy = wait_for_quiet(patience_s)
            turn[title] = task() | {"busy_before": busy}
            print(f"  {title:38}{turn[title]['seconds']:8.2f} s", file=sys.stderr)
    return turn


def compare(folder: Path, options: argparse.Namespace, asked: str) -> dict[str, Any]:
    """All turns of one case, and what comes of them."""
    precision, *tiles = asked.split(":")
    image, small = make_image(folder, options.side), make_image(folder, min(1024, options.side))
    settings = [
        f"segment.model={options.model}", f"segment.precision={precision}",
        f"resources.workers={WORKERS}",
        *(f"tiling.{name}={n}" for name, n in zip(("tile", "overlap"), tiles, strict=False)),
    ]  # fmt: skip
    plan = engine.plan(image, folder / "planned.ome.zarr", overrides=settings)
    case = Case.of_plan(plan, normalised(image, plan, folder))
    turns = []
    for k in range(options.repeats):
        print(f"{asked}, turn {k + 1} of {options.repeats}", file=sys.stderr)
        turns.append(one_turn(image, small, case, plan, settings, options.patience))
    return {
        "case": asdict(case) | {"image": image.name},
        "digest": plan.job.digest,
        "region": plan.region,
        "tiles": {"once": plan.tiles.once, "twice": round(plan.tiles.twice, 4)},
        "rows": {name: summary(turns, name, options.side**2) for name in turns[0]},
        "turns": turns,
    }


def summary(turns: list[dict[str, dict[str, Any]]], name: str, pixels: int) -> dict[str, Any]:
    """Medians of one row, and its ratios to the network and to the warm run in the same turn."""
    seconds = [turn[name]["seconds"] for turn in turns]
    last = turns[-1][name]
    return {
        "seconds": median(seconds),
        "pixels_per_second": int(pixels / float(np.median(seconds))),
        "network_over_this": median([t["network"]["seconds"] / t[name]["seconds"] for t in turns]),
        "this_over_run": median([t[name]["seconds"] / t["run, warm"]["seconds"] for t in turns]),
        "objects": last.get("objects"),
        "peak_bytes": last["peak_bytes"],
    }


def show(result: dict[str, Any]) -> str:
    """Lay out the tables, what was asked beside what was measured."""
    lines = []
    for part in result["segment"].values():
        case, twice = part["case"], part["tiles"]["twice"]
        size = f"tile {case['tile']}, overlap {case['overlap']}, {case['launch']} a launch"
        most = f"(asked: at most {ASKED['tiles computed twice']:.0%})"
        lines += [
            f"{result['side']}^2, {case['precision']}, {size}, regions of {part['region']}",
            f"tiles computed twice: {twice:.1%} {most}",
            f"{'':38}{'s':>8}{'Mpx/s':>8}{'net/this':>10}{'this/run':>10}{'objects':>9}{'GB':>7}",
        ]
        for name, row in part["rows"].items():
            objects = "" if row["objects"] is None else row["objects"]
            lines.append(
                f"{name:38}{row['seconds']:8.2f}{row['pixels_per_second'] / 1e6:8.2f}"
                f"{row['network_over_this']:10.2f}{row['this_over_run']:10.2f}{objects:>9}"
                f"{row['peak_bytes'] / 1e9:7.2f}"
            )
        ratio = part["rows"]["run, warm"]["network_over_this"]
        lines.append(f"network / run, warm: {ratio:.2f} (asked: {ASKED['network / run']})")
        ahead = min(part["rows"][peer]["this_over_run"] for peer in PEERS)
        lines += [
            f"slowest lead over a peer: {ahead:.2f} (asked: above {ASKED['lead over a peer']:g})",
            "",
        ]
    copy = result["copy"]
    lines.append(f"copy of {copy['side']}^2 uint16, plain zarr over the run (asked: at least 0.5)")
    lines += [f"  {name:36}{ratio:8.2f}" for name, ratio in copy["ratios"].items()]
    return "\n".join(lines)


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cases", default="bfloat16,float32,bfloat16:256:64")
    parser.add_argument("--copy-side", type=int, default=16384)
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for quiet")
    parser.add_argument("--folder", type=Path, help="for images and results; a temporary one else")
    parser.add_argument("--out", type=Path, default=RESULTS / "throughput.json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "what": __doc__, "machine": machine(), "side": options.side, "repeats": options.repeats,
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        result["copy"] = compare_copies(
            folder, options.copy_side, options.repeats, options.patience
        )
        result["segment"] = {
            asked: compare(folder, options, asked) for asked in options.cases.split(",")
        }
    print(show(result))
    print(save(options.out, result))


if __name__ == "__main__":
    main()
