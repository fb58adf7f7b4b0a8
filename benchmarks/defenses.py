"""Time of flagging: a naive loop, the stage exactly, the stage with early stop, and the network.

    python benchmarks/defenses.py [--bank nuclei-fluo] [--exact 6] [--area 1024,1536]
        [--early-defenses 100] [--min-votes 0.1] [--risk 0.005] [--repeats 1] [--out FILE]

The image is a mosaic of validation images of dsb2018/fluo, 3000 by 4000 pixels. Timed is a part of
it (`--area`), and for the first two a sample of the bank (`--exact`); seconds are scaled to all
pixels and all defenses, which they grow with in proportion. Each row is a process of its own, of
one thread; seconds are those of the processor, since the machine is shared, and ratios are between
rows of one call. Two such processes do not hinder each other, so wall time on two idle cores is
half of what is printed.

    naive      Algorithm 1 as a loop over tiles and defenses: perturb, network, stardist's own NMS
               and rendering, boxes and centroids of masks, the matrix of distances, a painted map
               of candidates. The same tiles, thresholds and fields as below; objects belong to the
               tile that counts where their centre lies (cut half-way, as there is no average)
    exact      the stage that a run uses, all defenses of the sample
    early      the same with early stop, all defenses, beside the exact flags of all defenses
    network    of the row "exact": what was spent inside the network, on the very same tiles
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from common import RESULTS, child, machine, median, save
from flag_case import SHAPE, TILE, Case
from naive_flags import Loop

from engine.methods.flag_votes import votes_needed
from engine.networks.defense_bank import open_bank
from engine.networks.runtime import OpenNetwork, open_network

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

T = TypeVar("T")

#: What the issue asks for on two cores.
ASKED = {
    "network / exact": 0.9, "naive / exact": 1.25, "naive / early": 5.0, "early, same flags": 0.99,
}  # fmt: skip

#: Printed beside them.
NOTED = ("naive, same flags", "suspects", "suspects, early", "suspects, both", "seen, early")


class Clock:
    """Processor seconds of the network in this process, by every call of `predict`."""

    def __init__(self) -> None:
        self.seconds = 0.0
        inner = OpenNetwork.predict

        def timed(network: OpenNetwork, batch: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
            start = time.process_time()
            answer = inner(network, batch)
            self.seconds += time.process_time() - start
            return answer

        # The stage calls it in the midst of its work.
        OpenNetwork.predict = timed  # type: ignore[method-assign, assignment]


def timed(case: Case, work: Callable[[], T]) -> tuple[T, dict[str, float]]:
    """Do the work with a warm network; seconds of the processor in all and in the network."""
    open_network(case.model, case.place.launch).predict(np.zeros((1, 1, TILE, TILE), np.float32))
    clock, start, wall = Clock(), time.process_time(), time.perf_counter()
    result = work()
    seconds = {
        "seconds": time.process_time() - start, "network": clock.seconds,
        "wall": time.perf_counter() - wall,
    }  # fmt: skip
    return result, seconds


def run_naive(case: Case, count: int) -> dict[str, Any]:
    """Algorithm 1, tile by tile and defense by defense."""
    loop = Loop(case.model, case.place.launch, case.tiling("crop"), case.settings)
    votes, seconds = timed(case, lambda: loop.run(case.image, case.first(count)))
    needed = votes_needed(count, case.settings.min_votes)
    return seconds | {"flags": {name: bool(v >= needed) for name, v in votes.items()}}


def run_stage(case: Case, count: int, stop: str) -> dict[str, Any]:
    """Run the stage; flags by the centres of objects, and the defenses that saw one."""
    (flagged, notes), seconds = timed(case, lambda: case.flag(case.first(count), stop))
    points = flagged.objects.points.tolist()
    flags = {f"{y},{x}": bool(s) for (y, x), s in zip(points, flagged.suspect, strict=True)}
    return seconds | {"flags": flags, "notes": notes, "seen": float(flagged.votes.seen.mean())}


ROLES: dict[str, Callable[[Case, int], dict[str, Any]]] = {
    "naive": run_naive, "exact": partial(run_stage, stop="never"),
    "early": partial(run_stage, stop="early"),
}  # fmt: skip


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All rows, each in a process of its own, in turns."""
    total = min(len(open_bank(options.bank)), options.early_defenses)
    words = [
        f"--{name.replace('_', '-')}={getattr(options, name)}"
        for name in ("bank", "model", "area", "min_votes", "risk", "strength", "tau")
    ]
    jobs = {
        "naive": ("naive", options.exact), "exact": ("exact", options.exact),
        "early": ("early", total), "exact, all": ("exact", total),
    }  # fmt: skip
    turns = []
    for k in range(options.repeats):
        turn = {}
        for title, (role, count) in jobs.items():
            if title == "exact, all" and k:
                continue
            turn[title] = child("defenses.py", *words, f"--role={role}", f"--count={count}")
            shown = {n: v for n, v in turn[title].items() if n != "flags"}
            print(f"  {title:12} {count:4} defenses  {shown}", file=sys.stderr, flush=True)
        turns.append(turn)
    return summary(turns, options, total)


def summary(turns: list[dict[str, Any]], options: argparse.Namespace, total: int) -> dict[str, Any]:
    """Scale to the whole image and the whole bank; ratios and agreement."""
    area = [int(n) for n in options.area.split(",")]
    pixels = SHAPE[0] * SHAPE[1] / (area[0] * area[1])
    sampled = pixels * total / options.exact

    def seconds(title: str, key: str = "seconds") -> float:
        return median([turn[title][key] for turn in turns])

    rows = {
        "naive": seconds("naive") * sampled,
        "exact": seconds("exact") * sampled,
        "early": seconds("early") * pixels,
        "network": seconds("exact", "network") * sampled,
    }
    first = turns[0]
    return {
        "defenses": total, "sampled": options.exact, "area": area,
        "processor_seconds": {name: round(value, 1) for name, value in rows.items()},
        "ratios": {
            "network / exact": round(rows["network"] / rows["exact"], 3),
            "naive / exact": round(rows["naive"] / rows["exact"], 3),
            "naive / early": round(rows["naive"] / rows["early"], 3),
            "early, same flags": agreement(first["early"]["flags"], first["exact, all"]["flags"]),
        },
        "naive, same flags": agreement(first["naive"]["flags"], first["exact"]["flags"]),
        "objects": len(first["exact"]["flags"]),
        "suspects": sum(first["exact, all"]["flags"].values()),
        "suspects, early": sum(first["early"]["flags"].values()),
        "suspects, both": sum(
            first["early"]["flags"][name] and suspect
            for name, suspect in first["exact, all"]["flags"].items()
        ),
        "seen, early": first["early"]["seen"],
        "turns": [
            {title: {k: v for k, v in row.items() if k != "flags"} for title, row in turn.items()}
            for turn in turns
        ],
    }  # fmt: skip


def agreement(one: dict[str, bool], other: dict[str, bool]) -> float:
    """Share of the objects that both have whose flags agree."""
    both = one.keys() & other.keys()
    return round(sum(one[k] == other[k] for k in both) / max(1, len(both)), 4)


def show(result: dict[str, Any]) -> str:
    """Lay out the table, what was asked beside it."""
    seconds = result["processor_seconds"]
    lines = [f"{name:10}{value:10.1f} s of one processor" for name, value in seconds.items()]
    lines += [
        f"{name:20}{value:8.3f}   (asked: at least {ASKED[name]:g})"
        for name, value in result["ratios"].items()
    ]
    for name in NOTED:
        lines.append(f"{name}: {result[name]:g}")
    return "\n".join(lines)


def main() -> None:
    """Measure, print and save; or be one of the processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bank", default="nuclei-fluo")
    parser.add_argument("--model", default="nuclei-fluo")
    parser.add_argument("--exact", type=int, default=6, help="defenses of naive and exact")
    parser.add_argument("--early-defenses", type=int, default=100, help="of early, at most")
    parser.add_argument("--area", default="1024,1536", help="height and width that are timed")
    parser.add_argument("--strength", type=float, default=0.7)
    parser.add_argument("--tau", type=float, default=15)
    parser.add_argument("--min-votes", type=float, default=0.1)
    parser.add_argument("--risk", type=float, default=0.005)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "defenses.json")
    parser.add_argument("--role", choices=sorted(ROLES), help="of a process that this starts")
    parser.add_argument("--count", type=int, help="defenses of that process")
    options = parser.parse_args()
    if options.role is not None:
        print(json.dumps(ROLES[options.role](Case(options), options.count)))
        return
    result = {
        "what": __doc__, "machine": machine(), "asked": ASKED,
        "bank": open_bank(options.bank).sha256,
        "settings": {n: getattr(options, n) for n in ("strength", "tau", "min_votes", "risk")},
    } | measure(options)  # fmt: skip
    print(show(result))
    print(save(options.out, result))


if __name__ == "__main__":
    main()
