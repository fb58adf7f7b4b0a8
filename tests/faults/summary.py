"""What many seeds gave: a table to read, a document to keep."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import psutil

from tests.faults.plan import KINDS, Kind

if TYPE_CHECKING:
    from tests.faults.attempt import Verdict

# Of a path that begins with a slash, not of an address such as s3://bucket/name.
_FOLDERS = re.compile(r"(?<![\w:/.-])/(?:[\w.+-]+/)+")

_PACKAGES = ("tilewright", "dask", "distributed", "zarr", "zarrs", "obstore", "torch", "numpy")


@dataclass(frozen=True)
class Row:
    """One kind of fault over all seeds.

    Parameters
    ----------
    kind : str
        The fault.
    tried : int
        Seeds that had it.
    struck : int
        Those in which it really struck: the run had not ended before, the process was there.
    passed : int
        Those in which it struck and the result was that of the uninterrupted run.
    failed : int
        Those that failed, whether it struck or not.
    seconds : float
        Mean time of a seed.
    """

    kind: Kind
    tried: int
    struck: int
    passed: int
    failed: int
    seconds: float


def rows(verdicts: Sequence[Verdict]) -> list[Row]:
    """Count by kind; a kind that nobody tried has no row."""
    found = []
    for kind in KINDS:
        mine = [
            (verdict, verdict.did_strike(kind))
            for verdict in verdicts
            if any(fault.kind == kind for fault in verdict.scenario.faults)
        ]
        if mine:
            found.append(
                Row(
                    kind,
                    len(mine),
                    sum(struck for _, struck in mine),
                    sum(struck and not verdict.error for verdict, struck in mine),
                    sum(bool(verdict.error) for verdict, _ in mine),
                    round(sum(verdict.seconds for verdict, _ in mine) / len(mine), 1),
                )
            )
    return found


def table(verdicts: Sequence[Verdict], without: Mapping[Kind, str]) -> str:
    """Lay the counts out for a terminal."""
    lines = [f"{'fault':<22}{'tried':>7}{'struck':>8}{'passed':>8}{'failed':>8}{'s/seed':>8}"]
    lines += [
        f"{r.kind:<22}{r.tried:>7}{r.struck:>8}{r.passed:>8}{r.failed:>8}{r.seconds:>8.1f}"
        for r in rows(verdicts)
    ]
    failed = [verdict for verdict in verdicts if verdict.error]
    whole = sum(not v.error and any(v.struck) for v in verdicts)
    missed = sum(not v.error and not any(v.struck) for v in verdicts)
    lines.append(
        f"{len(verdicts)} seeds: {whole} passed, {missed} in which no fault struck in time, "
        f"{len(failed)} failed"
    )
    lines += [f"not tried: {kind}, {reason}" for kind, reason in without.items()]
    return "\n".join(lines)


def document(
    verdicts: Sequence[Verdict], without: Mapping[Kind, str], **facts: object
) -> dict[str, Any]:
    """Everything that should be kept: machine, versions, counts, failures."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        },
        "versions": {"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        **facts,
        "seeds": len(verdicts),
        "passed": sum(not v.error and any(v.struck) for v in verdicts),
        "no_fault_struck": sorted(
            v.scenario.seed for v in verdicts if not v.error and not any(v.struck)
        ),
        "failed": {str(v.scenario.seed): _anywhere(v.error)[:2000] for v in verdicts if v.error},
        "seconds_per_seed": round(sum(v.seconds for v in verdicts) / max(1, len(verdicts)), 2),
        "longest_seconds": round(max((v.seconds for v in verdicts), default=0.0), 1),
        "faults": [asdict(row) for row in rows(verdicts)],
        "not_tried": dict(without),
    }


def _anywhere(text: str) -> str:
    """Text without the folders of this machine: of an absolute path its last name remains."""
    return _FOLDERS.sub("", text)
