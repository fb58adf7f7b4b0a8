"""The document of a run: what decides its pixels, what it writes, and where it comes from."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from engine.errors import OutputError
from engine.planning.editions import fingerprint
from engine.statistics import counts, sweeps

if TYPE_CHECKING:
    from engine.ledger import Ledger
    from engine.planning import Plan


def make_document(plan: Plan) -> dict[str, Any]:
    """Describe a run that starts."""
    job = plan.job
    counting = [job.statistics_pass(name) for name in sweeps(job)] if counts(job) else []
    return {
        "id": uuid4().hex,
        "digest": job.digest,
        "parts": plan.parts,
        "recipe": job.recipe.model_dump(mode="json"),
        "source": job.source.path,
        "level": job.source.level,
        "channels": list(job.source.channels),
        "area": str(job.area),
        "layers": [layer.name for layer in job.layers],
        "arrays": [
            f"{layer.group}/{level.path}".strip("/")
            for layer in job.layers
            for level in layer.levels
        ],
        "tables_at": dict(job.tables),
        "editions": dict(plan.choice.editions),
        "digests": dict(job.digests),
        "passes": [
            {
                "name": step.name,
                "digest": step.digest,
                "planes": list(step.grid.planes),
                "extent": list(step.grid.extent),
                "cell": list(step.grid.cell),
            }
            for step in (*counting, *job.passes())
        ],
        "probe": [list(pair) for pair in plan.probe],
        "wish": plan.wish,
        "publishing": False,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: version(name) for name in ("tilewright", "numpy", "torch", "zarr")},
    }


def check_unchanged(ledger: Ledger, seen: str) -> None:
    """Refuse a plan that was made before another driver changed OUT.

    Raises
    ------
    OutputError
        If the documents are others than the plan saw.
    """
    standing = ledger.read_run() if ledger.exists else None
    coming = ledger.read_next() if ledger.exists else None
    if fingerprint(standing, coming) != seen:
        raise OutputError(
            where=f"OUT '{ledger.out}'",
            expected="OUT as it was when this command looked at it",
            found="another run that was started or completed there meanwhile",
            remedy="Give the command again.",
        )
