"""Time and memory of repairing a class map, and of the ensemble before it, beside bare networks.

    python benchmarks/inpaint.py [--side 4096] [--share 0.05] [--blob 8] [--mae DIR]
        [--ensemble DIR] [--image 2048] [--sample 64] [--launch 8] [--repeats 1] [--out FILE]

The class map is phantom truth, tiled; uncertain are `--share` of its patches of 4 by 4 pixels, in
blobs of `--blob` by `--blob` patches. Seconds are those of one processor, of one thread: the
machine is shared; ratios are between rows of one call, medians over turns. Time does not depend on
weights: where no model is named, they are random, of the shape of the bundled ones.

    anywhere       the stage; blobs lie anywhere
    aligned        the same; blobs lie on multiples of their side, so that each touches one window's
                   own part (64 by 64 pixels)
    all            the same as aligned, and one more uncertain patch in every window's own part:
                   all windows run
    nothing        nothing is uncertain: what it costs to look
    batched        windows of the row "aligned", as the stage runs them on a GPU: `--launch`
                   windows' worth of tokens at once, padded to the ladder
    one, ladder    the same windows one by one, padded to the ladder; on a CPU no pixel may differ
    one, whole     the same windows one by one, padded to all their tokens, as without a ladder
    ensemble       the stage that runs the members over tiles of an image of `--image` pixels
    bare           the members alone, on the very same launches, ready on the device

Memory is what a process of its own takes at its peak beyond what it held before (the kernel's
VmHWM), beside what the stage projects. A GPU is timed by `--device cuda --launch 256`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from common import RESULTS, child, machine, median, save
from inpaint_case import Case, write_random

from engine.device import Launch, resident_peak
from engine.networks.ensemble_runtime import open_member
from engine.networks.launching import in_launches, stack_tiles, to_device
from engine.networks.mae_runtime import Inpainter, open_inpainter
from engine.networks.mae_weights import load_mae
from engine.stages.pooling import under_tiles
from tiling import BlendPlan

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.networks.ensemble import Ensemble
    from engine.networks.mae_folder import MaeFolder
    from engine.stages.base import Raster

#: What the issue asks for; shares at the most, the others at the least.
ASKED = {
    "aligned / all": 0.20, "anywhere / all": 0.20, "one, whole / batched": 5.0,
    "one, ladder / batched": 5.0, "bare / ensemble": 0.85, "memory of inpaint": 1.0,
    "memory of ensemble": 1.0,
}  # fmt: skip
AT_MOST = {"aligned / all", "anywhere / all", "memory of inpaint", "memory of ensemble"}


def seconds(work: Callable[[], object], device: str) -> float:
    """Seconds of the processor that a piece of work takes; of the clock, on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def time_inpaint(case: Case) -> dict[str, Any]:
    """Time the stage on the four maps."""
    found: dict[str, Any] = {}
    for kind in ("nothing", "aligned", "anywhere", "all"):
        notes: dict[str, float] = {}
        work = partial(_inpaint, case, case.given(kind), notes)
        found[kind] = seconds(work, case.launch.device)
        found[f"share, {kind}"] = round(notes["windows_run"] / notes["windows"], 4)
        print(f"  {kind:10}{found[kind]:8.1f} s", file=sys.stderr, flush=True)
    return found


def _inpaint(case: Case, given: dict[str, Any], notes: dict[str, float]) -> None:
    notes.update(case.inpaint(given))


def time_ladder(case: Case) -> dict[str, float]:
    """Time windows batched, and one by one; count pixels that depend on the windows beside."""
    labels, masked = case.windows(case.given("aligned"))
    device = case.launch.device
    single = Launch(device, case.launch.precision, 1)
    batched = open_inpainter(case.mae, case.launch)
    alone = open_inpainter(case.mae, single)
    whole = Inpainter(alone._module, single)
    whole._rungs = np.array([case.mae.config.tokens])
    found, answers = {}, {}

    def one_by_one(inpainter: Inpainter) -> np.ndarray:
        pairs = zip(labels, masked, strict=True)
        return np.concatenate([inpainter.fill(a[None], m[None]) for a, m in pairs])

    ways: dict[str, Callable[[], np.ndarray]] = {
        "batched": lambda: batched.fill(labels, masked),
        "one, ladder": lambda: one_by_one(alone), "one, whole": lambda: one_by_one(whole),
    }  # fmt: skip
    for title, way in ways.items():
        way()

        def run(name: str = title, do: Callable[[], np.ndarray] = way) -> None:
            answers[name] = do()

        found[title] = seconds(run, device)
    differ = np.count_nonzero(answers["batched"] != answers["one, ladder"])
    found["pixels that differ alone"] = float(differ)
    return found


def time_ensemble(case: Case) -> dict[str, float]:
    """Time the stage that runs the members, and the members alone on the same launches."""
    stage, given = case.segment()
    box = stage.frame.bounds
    plan = BlendPlan(stage.lattice, box)
    image, origin = under_tiles(given["normalised"], stage.lattice.reach(box), box)
    batches = [
        to_device(stack_tiles(image, origin, places), case.launch)
        for row in plan.rows()
        for places in in_launches(row.tiles, case.launch.tiles)
    ]
    modules = [open_member(m, case.launch)._module for m in case.ensemble.members]

    @torch.inference_mode()
    def bare() -> None:
        for module in modules:
            for batch in batches:
                module(batch)

    def whole() -> None:
        stage.run(given, {"class_probability": box}, case.place)

    found = {}
    for title, work in (("bare", bare), ("ensemble", whole)):
        work()
        found[title] = seconds(work, case.launch.device)
    return found


def peak(work: Callable[[], object]) -> int:
    """Bytes that a piece of work takes at its peak, beyond what this process holds."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident_peak()
    work()
    return resident_peak() - before


def measure_memory(case: Case, role: str) -> dict[str, int]:
    """Peak of one stage and its projection; networks are loaded and have run before."""
    if role == "memory of inpaint":
        warm(case)
        given: dict[str, Raster] = case.given("aligned")
        wanted = {"classes": case.frame.bounds}
        found = peak(lambda: case.inpaint(given))
        return {"bytes": found, "projected": case.stage.memory(wanted)}
    stage, image = case.segment()
    box = {"class_probability": stage.frame.bounds}
    for member in case.ensemble.members:
        open_member(member, case.launch).predict(np.zeros((1, 1, 64, 64), np.float32))
    return {
        "bytes": peak(lambda: stage.run(image, box, case.place)), "projected": stage.memory(box),
    }  # fmt: skip


def warm(case: Case) -> None:
    """Load every network and let torch choose its ways."""
    open_inpainter(case.mae, case.launch)
    labels, masked = case.windows(case.given("aligned"))
    open_inpainter(case.mae, case.launch).fill(labels[:8], masked[:8])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rows in turns, memory once, in processes of their own."""
    case = Case(options)
    warm(case)
    turns = [
        time_inpaint(case) | time_ladder(case) | time_ensemble(case)
        for _ in range(options.repeats)
    ]  # fmt: skip
    rows = {name: median([turn[name] for turn in turns]) for name in turns[0]}
    words = [
        f"--{n}={getattr(options, n)}"
        for n in ("side", "share", "blob", "mae", "ensemble", "image", "launch", "device",
                  "precision")
    ]  # fmt: skip
    memory = {
        role: child("inpaint.py", *words, f"--role={role}")
        for role in ("memory of inpaint", "memory of ensemble")
    }
    return {"networks": facts(case.mae, case.ensemble), "rows": rows, "memory": memory,
            "ratios": ratios(rows, memory), "turns": turns}  # fmt: skip


def facts(mae: MaeFolder, ensemble: Ensemble) -> dict[str, Any]:
    """Say which networks ran."""
    weights = sum(p.numel() for p in load_mae(mae).parameters())
    return {
        "mae": {"name": mae.name, "sha256": mae.sha256, "weights": weights},
        "ensemble": {"name": ensemble.name, "sha256": ensemble.sha256,
                     "members": len(ensemble.members)},
    }  # fmt: skip


def ratios(rows: dict[str, float], memory: dict[str, dict[str, int]]) -> dict[str, float]:
    """Divide what was asked for."""
    found = {
        f"{a} / {b}": round(rows[a] / rows[b], 3)
        for a, b in (name.split(" / ") for name in ASKED if " / " in name)
    }
    return found | {n: round(v["bytes"] / v["projected"], 3) for n, v in memory.items()}


def show(result: dict[str, Any]) -> str:
    """Lay out the table, what was asked beside it."""
    lines = [
        f"{name:20}{value:9.2%} of the windows" if name.startswith("share")
        else f"{name:26}{value:g}" if name.startswith("pixels")
        else f"{name:20}{value:9.2f} s"
        for name, value in result["rows"].items()
    ]  # fmt: skip
    lines += [
        f"{n:20}{v['bytes'] / 2**20:9.0f} MiB, {v['projected'] / 2**20:.0f} projected"
        for n, v in result["memory"].items()
    ]
    lines += [
        f"{name:24}{value:8.3f}   (asked: at {'most' if name in AT_MOST else 'least'} "
        f"{ASKED[name]:g})"
        for name, value in result["ratios"].items()
    ]
    return "\n".join(lines)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=4096, help="of the class map, pixels")
    parser.add_argument("--share", type=float, default=0.05, help="of patches that are uncertain")
    parser.add_argument("--blob", type=int, default=8, help="patches")
    parser.add_argument("--mae", help="random weights where not named")
    parser.add_argument("--ensemble", help="random weights where not named")
    parser.add_argument("--image", type=int, default=2048, help="side of the ensemble's image")
    parser.add_argument("--sample", type=int, default=64, help="windows one by one")
    parser.add_argument("--launch", type=int, default=8, help="tiles or windows at once")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "inpaint.json")
    parser.add_argument("--role", help="of a process that this starts")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> None:
    """Measure, print and save; or be one of the processes."""
    options = arguments(words)
    if options.role is not None:
        print(json.dumps(measure_memory(Case(options), options.role)))
        return
    with TemporaryDirectory() as name:
        ensemble, mae = write_random(Path(name))
        options.ensemble, options.mae = options.ensemble or ensemble, options.mae or mae
        options.ensemble, options.mae = str(options.ensemble), str(options.mae)
        measured = measure(options)
    settings = {
        n: getattr(options, n)
        for n in ("side", "share", "blob", "image", "sample", "launch", "device", "precision",
                  "repeats")
    }  # fmt: skip
    result = {"what": __doc__, "machine": machine(), "asked": ASKED, "settings": settings}
    result |= measured
    print(show(result))
    print(save(options.out, result))


if __name__ == "__main__":
    main()
