"""The report of a run: its records summed, one at a time, whatever their number."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.stages.base import SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.ledger import Record
    from engine.planning import Plan

_SEAMS = ("crossing", "ghosts", "missed")
_SUSPECTS = ("false_positives", "false_negatives")


@dataclass
class _Sums:
    """Sums and largest values of the notes of a pass."""

    regions: int = 0
    again: int = 0
    seconds: float = 0.0
    peak: int = 0
    total: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    largest: dict[str, float] = field(default_factory=dict)
    smaller_launches: list[str] = field(default_factory=list)

    def add(self, record: Record) -> None:
        """Take a record in."""
        self.regions += 1
        self.again += record.attempt > 1
        self.seconds += record.seconds
        self.peak = max(self.peak, record.peak_bytes)
        for name, value in record.notes.items():
            if isinstance(value, int | float):
                self.total[name] += value
                self.largest[name] = max(value, self.largest.get(name, value))
        less = [f"{record.notes['launch']} tiles"] if "launch" in record.notes else []
        less += ["members in turn"] if "in_turn" in record.notes else []
        if less and len(self.smaller_launches) < _LISTED:
            self.smaller_launches.append(f"{record.region}: {', '.join(less)}")


# Regions that a report names before it only counts them.
_LISTED = 100


def summarise(plan: Plan, records: Mapping[str, Iterable[Record]]) -> dict[str, Any]:
    """Sum the notes of all records to the numbers of the report.

    Parameters
    ----------
    plan : Plan
        What was planned.
    records : mapping of str to iterable of Record
        Those that count, by pass; each is read once.
    """
    sums = {name: _Sums() for name in records}
    for name, found in records.items():
        for record in found:
            sums[name].add(record)
    job = plan.job
    report: dict[str, Any] = {
        "out": str(job.out),
        "source": job.source.path,
        "digest": job.digest,
        "planes": list(job.frame.planes),
        "extent": list(job.frame.extent),
        "regions": {name: s.regions for name, s in sums.items()},
        "regions_tried_again": sum(s.again for s in sums.values()),
        "task_seconds": {name: round(s.seconds, 3) for name, s in sums.items()},
        "stage_seconds": _stages(sums.values()),
        "worker_bytes_projected": plan.worker_bytes,
        "worker_bytes_peak": max((s.peak for s in sums.values()), default=0),
    }
    if "regions" in sums and sums["regions"].regions:
        report |= _network(sums["regions"]) | {"smaller_launches": _smaller(sums)}
        report |= _stars(sums["regions"]) if plan.job.model else {}
    if "repair" in sums and sums["repair"].regions:
        report["repairs"] = _repairs(sums["repair"])
    if "seams" in sums and sums["seams"].regions:
        seen = sums["seams"]
        report["class_seams"] = {n: int(seen.total[n]) for n in ("pixels", "differing")}
    if "objects" in sums and sums["objects"].regions:
        done = sums["objects"]
        report["components"] = {n: int(done.total[n]) for n in ("objects", "crossing")}
    if "labels" in sums and sums["labels"].regions:
        report |= _objects(sums["labels"])
    return report


def _stages(sums: Iterable[_Sums]) -> dict[str, float]:
    """Sum what each stage took, over all regions: seconds of workers, which wait for each other."""
    found: dict[str, float] = {}
    for done in sums:
        for name, value in done.total.items():
            stage, _, what = name.partition(".")
            if what == SECONDS:
                found[stage] = round(found.get(stage, 0.0) + value, 3)
    return found


def _network(done: _Sums) -> dict[str, Any]:
    """Sum what all networks did."""
    return {
        "tiles": int(done.total["network.tiles"] + done.total["ensemble.tiles"]),
    }


def _repairs(done: _Sums) -> dict[str, int]:
    """Sum what was filled in."""
    named = {"repairs": "repairs", "pixels": "inpaint.repaired_pixels", "left": "inpaint.left"}
    named |= {name: f"inpaint.{name}" for name in ("windows", "windows_run")}
    return {name: int(done.total[note]) for name, note in named.items()}


def _stars(done: _Sums) -> dict[str, Any]:
    """Sum what tiles and halos say of star-convex objects."""
    pixels = done.total["network.overlap_pixels"]
    total = done.total["network.overlap_deviation"] / 2**16
    return {
        "longest_ray": done.largest["network.longest_ray"],
        "halo": done.largest["halo"],
        "tile_overlap_deviation_mean": total / pixels if pixels else 0.0,
        "tile_overlap_deviation_largest": done.largest["network.overlap_deviation_largest"],
    }


def _smaller(sums: Mapping[str, _Sums]) -> list[str]:
    """Name the regions that took smaller launches, with the pass where it is a later one."""
    return [
        place if name == "regions" else f"{name}, {place}"
        for name, done in sums.items()
        for place in done.smaller_launches
    ]


def _objects(drawn: _Sums) -> dict[str, Any]:
    """Objects, and what the two sides of the seams say of each other."""
    report: dict[str, Any] = {
        "objects": int(drawn.total["objects"]),
        "objects_without_pixels": int(drawn.total["hidden"]),
        "seams": {name: int(drawn.total[name]) for name in _SEAMS},
    }
    if "false_positives" in drawn.total:
        report["suspects"] = {name: int(drawn.total[name]) for name in _SUSPECTS}
    return report
