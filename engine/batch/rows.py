"""Rows of a batch from what a plan and a report say."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from engine.ledger import Ledger
from engine.store import read_json

if TYPE_CHECKING:
    from engine.batch.document import Row
    from engine.planning import Plan
    from engine.running import Outcome
    from engine.store import Location


def report_of(plan: Plan) -> dict[str, Any] | None:
    """Report of a plan that leaves nothing to do; None where there is something."""
    if not plan.choice.started or plan.choice.beside or any(step.pending for step in plan.steps):
        return None
    return report_there(plan.job.out)


def report_there(out: Location) -> dict[str, Any] | None:
    """Report of a result that is complete; None of others."""
    place = Ledger(out).path("report.json")
    if not place.is_file():
        return None
    report = read_json(place, OutputError)
    return report if report.get("complete") is True else None


def done_row(row: Row, plan: Plan, report: dict[str, Any], tag: str) -> Row:
    """Row of an image that is complete."""
    return replace(
        _counted(row, plan, report),
        state="done",
        reason="",
        objects=report.get("objects", report.get("components", {}).get("objects")),
        tag=tag,
    )


def missing_row(row: Row, plan: Plan, outcome: Outcome) -> Row:
    """Row of an image of which regions are missing, with the reason of the first of them."""
    first = outcome.failures[0]
    what = "ingest: " if plan.job.source.foreign else ""
    reason = (
        f"{what}{outcome.missing} regions are missing, the first {first.pass_name}, "
        f"{first.region}: {first.message}"
    )
    return replace(_counted(row, plan, outcome.report), state="incomplete", reason=reason)


def _counted(row: Row, plan: Plan, report: dict[str, Any]) -> Row:
    """Row with what there is of an image, and what is done of it."""
    return replace(
        row,
        regions=sum(step.regions for step in plan.steps),
        regions_done=sum(report.get("regions", {}).values()),
        pixels=prod(plan.job.frame.planes) * plan.job.area.size,
    )
