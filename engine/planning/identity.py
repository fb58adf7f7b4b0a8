"""What decides each pass: a digest of the settings and facts that its pixels depend on.

A pass depends on some parts of the run and on the passes that it reads. Where a part changes, the
digests of the passes that it reaches change, and theirs alone: the others keep their records.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.recipe import digest, digest_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.planning.job import Job

#: Versions of what the passes themselves do, beside the stages that they run. Raised with every
#: change of what is written; `tests/engine/test_golden.py` fails where that was forgotten.
VERSIONS = {
    "statistics": 1,
    "regions": 1,
    "flags": 1,
    "labels": 1,
    "repair": 1,
    "join": 1,
    "objects": 1,
    "seams": 1,
    "copy": 1,
    "pyramid": 1,
}

# Parts by what they begin with, for each kind of pass; upstream parts come with upstream digests.
_READ = ("input.", "image.", "source.", "ingest", "pixel size")
_STORED = ("storage.chunk", "storage.shard")
_PARTS = {
    "statistics": (*_READ, "normalise."),
    "regions": (
        *(*_READ, *_STORED, "method", "normalise.", "tiling.", "segment.", "instances.halo"),
        *("weights", "device", "stage.", "members"),
        *("classes.entropy", "classes.keep", "classes.precision"),
    ),
    "flags": ("flags.",),
    "labels": ("instances.name", "area"),
    "repair": ("classes.repair.", "mae.", "area"),
    "join": ("area",),
    "objects": ("classes.objects.", "area"),
    "seams": ("area",),
    "copy": (*_READ, *_STORED),
    "pyramid": (),
}


#: Settings by which the pass that makes the final class map counts and measures parts of objects.
_COUNTED = ("classes.objects.classes", "classes.objects.connectivity", "classes.objects.min_area")


#: Settings that say where a thing lies. What lies there decides, as a fact of its own: a model may
#: be moved, or named otherwise, without a pixel changing.
PLACES = frozenset({"segment.model", "flags.bank", "classes.ensemble", "classes.repair.model"})


def run_parts(job: Job, facts: Mapping[str, str]) -> dict[str, str]:
    """Everything that decides what a job writes, by name.

    Parameters
    ----------
    job : Job
        With nothing left to choose that decides pixels.
    facts : mapping of str to str
        What decides beside the recipe: digests of weights and input, versions of stages.
    """
    parts = digest_parts(job.recipe, {**facts, **version_parts(job)})
    return {name: value for name, value in parts.items() if name not in PLACES}


def version_parts(job: Job) -> dict[str, str]:
    """Versions of the kinds of passes that a job has, as parts of its digest."""
    kinds = sorted({step.kind for step in job.passes()})
    if any(step.kind == "regions" for step in job.passes()):
        kinds.append("statistics")
    return {f"pass.{kind}": str(VERSIONS[kind]) for kind in kinds}


def pass_digests(job: Job, parts: Mapping[str, str], editions: Mapping[str, int]) -> dict[str, str]:
    """Digest of every pass of a job, by name; "statistics" is that of all sweeps of pass 0.

    Parameters
    ----------
    job : Job
        The job; its own digests do not matter.
    parts : mapping of str to str
        Everything that decides pixels, by name.
    editions : mapping of str to int
        Which edition of each array is written, see `engine.planning.editions`: an edition anew
        has records of its own.
    """
    found: dict[str, str] = {}
    if any(step.kind == "regions" for step in job.passes()):
        facts = {"edition": str(editions.get("statistics", 1))}
        found["statistics"] = digest(_chosen(parts, "statistics") | facts)
    for step in job.passes():
        facts = _chosen(parts, step.kind) | {"upstream": found.get(step.after, "")}
        if step.kind == "regions":
            facts |= {"upstream": found["statistics"]}
        facts |= {"pass": step.name, "edition": str(editions.get(step.written, 1))}
        found[step.name] = digest(facts)
    return found


def outputs(job: Job) -> list[str]:
    """Names, among editions, of all that a job writes, frozen statistics included."""
    names = [step.written for step in job.passes()]
    return ["statistics", *names] if "regions" in {s.kind for s in job.passes()} else names


def _chosen(parts: Mapping[str, str], kind: str) -> dict[str, str]:
    """Parts that a kind of pass depends on, its version included."""
    maker = "repair" if "mae.weights" in parts else "regions"
    wanted = (*_PARTS[kind], *(_COUNTED if kind == maker else ()))
    return {
        name: value
        for name, value in parts.items()
        if name.startswith(wanted) or name == f"pass.{kind}"
    }
