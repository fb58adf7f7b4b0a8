"""The public functions: ingest, plan, run and evaluate, as the command line calls them."""

from engine.api.admission import check_networks, check_workers
from engine.api.clusters import on_cluster
from engine.api.looking import checked, verify
from engine.api.planning import plan, plan_ingest
from engine.api.running import ingest, run, run_plan
from engine.api.scoring import evaluate
from engine.api.silent import Silent

__all__ = [
    "Silent",
    "check_networks",
    "check_workers",
    "checked",
    "evaluate",
    "ingest",
    "on_cluster",
    "plan",
    "plan_ingest",
    "run",
    "run_plan",
    "verify",
]
