"""``python -m tests.faults``: try many seeds on this machine, and say what they gave."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING

from tests.faults.attempt import attempt
from tests.faults.plan import KINDS, Kind, Scenario, draw
from tests.faults.summary import document, table
from tests.faults.venue import Venue

if TYPE_CHECKING:
    from tests.faults.attempt import Verdict


def main() -> int:
    """Try the seeds; 0 where none failed."""
    options = _parser().parse_args()
    first, last = _range(options.seeds)
    work = Path(options.work or tempfile.mkdtemp(prefix="tilewright-faults-"))
    started = time.monotonic()
    venue = Venue(work, options.store, options.jobs)
    choice, without = venue.choice(_kinds(options.kinds))
    every = max(1, (last - first) // options.real) if options.real else 0
    scenarios = [
        draw(seed, choice, real=bool(every) and (seed - first) % every == 0)
        for seed in range(first, last)
    ]
    with venue:
        verdicts = _try_all(venue, scenarios, options.jobs)
    text = table(verdicts, without)
    sys.stdout.write(f"\n{text}\n")
    if options.save:
        facts = {
            "store": options.store or "a folder, and an S3 server on loopback",
            "jobs": options.jobs,
            "real": options.real,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        found = document(verdicts, without, **facts)
        Path(options.save).write_text(json.dumps(found, indent=1) + "\n")
    failed = any(verdict.error for verdict in verdicts)
    if failed:
        sys.stdout.write(f"logs are kept in {work}\n")
    elif options.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return int(failed)


def _try_all(venue: Venue, scenarios: list[Scenario], jobs: int) -> list[Verdict]:
    """Try scenarios, some at once; a line for each as it ends."""

    def one(scenario: Scenario) -> Verdict:
        with venue.seat(scenario) as (bench, shelf):
            return attempt(scenario, bench, venue.library, shelf)

    verdicts = []
    with ThreadPoolExecutor(jobs) as pool:
        for done in as_completed([pool.submit(one, scenario) for scenario in scenarios]):
            verdict = done.result()
            verdicts.append(verdict)
            sys.stdout.write(_line(verdict) + "\n")
            sys.stdout.flush()
    return sorted(verdicts, key=lambda verdict: verdict.scenario.seed)


def _line(verdict: Verdict) -> str:
    scenario = verdict.scenario
    faults = ", ".join(
        fault.kind if struck else f"({fault.kind})"
        for fault, struck in zip(scenario.faults, verdict.struck, strict=True)
    )
    state = "FAILED" if verdict.error else "passed" if any(verdict.struck) else "missed"
    text = (
        f"seed {scenario.seed:>4} {state} {verdict.seconds:5.1f} s  {scenario.work}, "
        f"{scenario.store}, {scenario.cluster} cluster: {faults}"
    )
    text = "; ".join([text, *verdict.notes])
    return f"{text}\n    {verdict.error}" if verdict.error else text


def _kinds(text: str | None) -> tuple[Kind, ...]:
    if text is None:
        return KINDS
    chosen = [word.strip() for word in text.split(",")]
    unknown = [word for word in chosen if word not in KINDS]
    if unknown:
        sys.exit(f"--kinds: expected some of {', '.join(KINDS)}, found {', '.join(unknown)}")
    return tuple(kind for kind in KINDS if kind in chosen)


def _range(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    try:
        found = (int(first), int(last)) if last else (int(first), int(first) + 1)
    except ValueError:
        sys.exit(f"--seeds: expected FIRST:LAST such as 0:200, or one seed, found {text}")
    if found[0] < 0 or found[0] >= found[1]:
        sys.exit(f"--seeds: expected FIRST before LAST, found {text}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", default="0:20", help="FIRST:LAST, or one seed")
    parser.add_argument("--real", type=int, default=0, help="how many with the bundled network")
    parser.add_argument("--store", help="a folder, or s3://bucket/prefix, for images and results")
    parser.add_argument("--jobs", type=int, default=2, help="seeds at once")
    parser.add_argument("--kinds", help=f"some of: {', '.join(KINDS)}")
    parser.add_argument("--work", help="folder for logs and scratch; kept")
    parser.add_argument("--save", help="JSON file for the counts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
