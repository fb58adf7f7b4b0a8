"""What people look at: the state of a run."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from engine.checking import kept_passes
from engine.errors import OutputError
from engine.ledger import Ledger, State, holder
from engine.store import Location, read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console


#: What a state of a region means for one who waits for it.
REASONS = {
    State.NEW: "new",
    State.FAILED: "failed before",
    State.MISSING: "output missing",
    State.DAMAGED: "output damaged",
    State.CHANGED: "input changed",
}

# Regions of a pass that a status names.
_LISTED = 20


def show_status(console: Console, out: str) -> None:
    """Print how far a run is: regions by pass and reason, who works on it, the last report.

    Raises
    ------
    OutputError
        If no run was started there.
    """
    place = Location.parse(out, OutputError)
    ledger = Ledger(place)
    if not ledger.exists:
        raise OutputError(
            where=f"'{out}'",
            expected="a result of `tilewright run` or `tilewright ingest`",
            found="none" if place.exists() else "nothing there",
            remedy="Check the path.",
        )
    document, coming = ledger.read_run(), ledger.read_next()
    console.print(f"[bold]{escape(str(place))}[/bold]", highlight=False)
    _show_run(console, ledger, document)
    if coming is not None:
        console.print(f"  beside it, to replace it when complete ({coming['wish'] or 'input'}):")
        _show_run(console, ledger, coming)
    worker = holder(ledger)
    if worker is not None and (worker.who is None or worker.who.is_alive() is not False):
        console.print(f"  in work: {escape(str(worker))}", highlight=False)
    path = ledger.path("report.json")
    report = read_json(path, OutputError) if path.is_file() else {}
    for name, value in _facts(report):
        console.print(f"  {name:<24}{value}", highlight=False)
    complete = report.get("complete") is True and coming is None
    console.print("  complete" if complete else "  not complete: give the command again")


def _show_run(console: Console, ledger: Ledger, document: Mapping[str, Any]) -> None:
    """Print how far one run is."""
    console.print(
        f"  source {document['source']}, started {document['created']}",
        highlight=False,
        markup=False,
    )
    for kept in kept_passes(document):
        states = ledger.states(kept.name, kept.digest, kept.grid)
        counts = np.bincount(states.ravel(), minlength=len(State))
        words = ", ".join(f"{counts[s]} {REASONS[s]}" for s in State if counts[s] and s in REASONS)
        console.print(
            f"  {kept.name:<24}{counts[State.DONE]:>7} of {states.size} shards done"
            f"{f', {words}' if words else ''}",
            highlight=False,
        )
        for failure in islice(ledger.failures(kept.name, kept.digest, kept.grid), _LISTED):
            console.print(
                f"  [red]missing[/red] {failure.pass_name}, "
                f"{escape(f'{failure.region}: {failure.message}')}",
                highlight=False,
            )


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines of a report that a status shows."""
    names = ("objects", "longest_ray", "halo", "seconds_total", "finished")
    return [(name, str(report[name])) for name in names if name in report]
