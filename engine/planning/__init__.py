"""Decisions before a run: what would be done, at what cost, and what is refused."""

from engine.planning.editions import STAGES, Wish
from engine.planning.elements import Layer, Pass, SourceRef
from engine.planning.job import Job
from engine.planning.making import make_ingest_plan, make_plan
from engine.planning.pending import StepCount
from engine.planning.plan import Plan, with_marks

__all__ = [
    "STAGES",
    "Job",
    "Layer",
    "Pass",
    "Plan",
    "SourceRef",
    "StepCount",
    "Wish",
    "make_ingest_plan",
    "make_plan",
    "with_marks",
]
