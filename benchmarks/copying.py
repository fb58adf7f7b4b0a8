"""A copy by the identity recipe beside plain zarr: the same array, chunks, shards and codecs.

``python benchmarks/copying.py SOURCE TARGET`` does the plain copy and prints one line of JSON.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import child, make_image, median, wait_for_quiet

import engine
from engine.cluster import ClusterSpec, open_cluster
from engine.store import ArraySpec, create_array, inspect_image, open_array, use_fast_codecs
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS, SHARD = 2, 2048


def plain(source: Path, target: Path) -> dict[str, Any]:
    """Read and write with zarr alone, shard by shard, on all threads that it takes."""
    use_fast_codecs(threads=WORKERS)
    info = inspect_image(str(source))
    given = open_array(source / info.levels[0].path, "r")
    spec = ArraySpec(given.shape, str(given.dtype), (512, 512), (SHARD, SHARD), info.axes)
    create_array(target, "0", spec)
    taken = open_array(target / "0", "r+")
    start = time.perf_counter()
    for box in Box.of_shape(given.shape).split((SHARD,) * given.ndim):
        taken[box.slices()] = given[box.slices()]
    seconds = time.perf_counter() - start
    same = bool(np.array_equal(taken[-64:], given[-64:]))
    return {"seconds": seconds, "same": same}


def by_recipe(source: Path, target: Path) -> dict[str, Any]:
    """Time the identity recipe on a cluster that is up; also its report."""
    settings = [f"storage.shard={SHARD}"]
    threads = engine.plan(source, target, "identity", overrides=settings).resources.threads
    with open_cluster(ClusterSpec("local", WORKERS, threads)) as client:
        address = client.scheduler_info()["address"]
        small = make_image(source.parent, 1024)
        warm = target.with_name("warm-copy.ome.zarr")
        engine.run(small, warm, "identity", overrides=settings, cluster=address)
        shutil.rmtree(warm)
        start = time.perf_counter()
        outcome = engine.run(source, target, "identity", overrides=settings, cluster=address)
        seconds = time.perf_counter() - start
    if not outcome.complete:
        raise RuntimeError(f"the copy failed: {outcome.failures}")
    first = next(v for k, v in outcome.report["seconds"].items() if k.startswith("copy"))
    return {"seconds": seconds, "copy_pass": first, "passes": outcome.report["seconds"]}


def by_command(source: Path, target: Path) -> dict[str, Any]:
    """Time the command `tilewright run --recipe identity` from start to end."""
    command = [str(Path(sys.executable).parent / "tilewright"), "run", str(source), str(target)]
    chosen = ["--recipe", "identity", "--workers", str(WORKERS), "--set", f"storage.shard={SHARD}"]
    start = time.perf_counter()
    subprocess.run([*command, *chosen], check=True, capture_output=True)
    return {"seconds": time.perf_counter() - start}


def compare_copies(folder: Path, side: int, repeats: int, patience_s: float) -> dict[str, Any]:
    """Plain zarr and the recipe in turns; the image and the copies are removed at the end."""
    source = make_image(folder, side)
    turns = []
    for k in range(repeats):
        print(f"copy, turn {k + 1} of {repeats}", file=sys.stderr)
        targets = [folder / f"copy-{name}.ome.zarr" for name in ("plain", "warm", "cold")]
        tasks: dict[str, Callable[[], dict[str, Any]]] = {
            "plain": partial(child, "copying.py", str(source), str(targets[0]), threads=WORKERS),
            "warm": partial(by_recipe, source, targets[1]),
            "cold": partial(by_command, source, targets[2]),
        }
        turn = {}
        for title, task in tasks.items():
            busy = wait_for_quiet(patience_s)
            turn[title] = task() | {"busy_before": busy}
        turns.append(turn)
        for target in targets:
            shutil.rmtree(target)
    if side > 4096:
        shutil.rmtree(source)
    ways = {
        "the image alone, cluster up": ("warm", "copy_pass"),
        "with its pyramid, cluster up": ("warm", "seconds"),
        "the command, from start to end": ("cold", "seconds"),
    }
    ratios = {
        name: [turn["plain"]["seconds"] / turn[who][what] for turn in turns]
        for name, (who, what) in ways.items()
    }
    return {
        "side": side,
        "bytes": 2 * side**2,
        "plain_pixels_per_second": int(side**2 / median([t["plain"]["seconds"] for t in turns])),
        "ratios": {name: median(values) for name, values in ratios.items()},
        "turns": turns,
    }


if __name__ == "__main__":
    print(json.dumps(plain(Path(sys.argv[1]), Path(sys.argv[2]))))
