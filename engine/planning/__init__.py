"""Decisions before a run: what would be done, at what cost, and what is refused."""

from engine.planning.job import Job, Layer, Pass, SourceRef
from engine.planning.plan import Plan, make_ingest_plan, make_plan

__all__ = ["Job", "Layer", "Pass", "Plan", "SourceRef", "make_ingest_plan", "make_plan"]
