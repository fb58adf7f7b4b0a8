"""The plan: from a job to the run that is meant, its pending regions and its cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from engine.ledger import FOLDER, Ledger, State
from engine.planning.cost import (
    Tiles,
    choose_launch,
    choose_region,
    choose_workers,
    count_tiles,
    device_bytes,
    worker_bytes,
)
from engine.planning.editions import (
    Choice,
    Wish,
    choose,
    downstream,
    fingerprint,
    renewed,
    with_editions,
)
from engine.planning.elements import shown_table
from engine.planning.identity import pass_digests, run_parts
from engine.planning.layers import disk_bytes, layer_bytes
from engine.planning.pending import StepCount, count_regions
from engine.planning.places import check_disk
from engine.recipe import IdentityRecipe, digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from engine.ledger import Mark
    from engine.planning.job import Job
    from engine.recipe import Resources


@dataclass(frozen=True)
class Plan:
    """What a run would do, and what it would cost.

    Parameters
    ----------
    job : Job
        What tasks need.
    parts : dict of str to str
        Everything that decides pixels, by name; their digest is the job's.
    resources : Resources
        What the machine gives.
    region : int
        Side of a region in pixels.
    workers : int
        Worker processes.
    worker_bytes : int
        Projected peak of each.
    device_bytes : int
        Projected peak of each on its device; part of `worker_bytes` on a CPU.
    tiles : Tiles
        Tiles that are computed, and how many of them twice.
    read_bytes, write_bytes, disk_bytes : int
        Decoded bytes read and written, and bytes set aside on disk.
    steps : tuple of StepCount
        What is left of every pass, and why.
    choice : Choice
        Which run is meant: the one that stands, or one beside it.
    seen : str
        Names the state of OUT for which the plan is good.
    wish : str
        "", "restart", or the stage that is computed anew.
    probe : tuple of (str, str)
        Names and tags of a few objects of the input, to know it again.
    marks : tuple of Mark
        Regions that a check found missing, damaged or changed: revoked when the run starts.
    """

    job: Job
    parts: dict[str, str]
    resources: Resources
    region: int
    workers: int
    worker_bytes: int
    device_bytes: int
    tiles: Tiles
    read_bytes: int
    write_bytes: int
    disk_bytes: int
    steps: tuple[StepCount, ...]
    choice: Choice
    seen: str
    wish: str
    probe: tuple[tuple[str, str], ...] = ()
    marks: tuple[Mark, ...] = field(default=(), repr=False)

    @property
    def regions(self) -> int:
        """Regions of the first pass, in all."""
        return self.steps[0].regions

    @property
    def pending(self) -> int:
        """Those of them that are not done."""
        return self.steps[0].pending

    def document(self) -> Mapping[str, Any]:
        """Read the document of the run that is meant, where it was started."""
        ledger = Ledger(self.job.out)
        coming = ledger.read_next() if self.choice.beside else None
        return ledger.read_run() if coming is None else coming


def with_marks(plan: Plan, marks: Sequence[Mark]) -> Plan:
    """Plan that computes again what a check found, and what depends on changed input.

    Parameters
    ----------
    plan : Plan
        As planned from the records.
    marks : sequence of Mark
        What `engine.checking` found; revoked when the run starts.
    """
    plan = replace(plan, marks=tuple(marks))
    states = _states(plan.job)
    steps = {step.name: step for step in plan.job.passes()}
    for mark in marks:
        if mark.pass_name in steps and mark.digest == steps[mark.pass_name].digest:
            step = steps[mark.pass_name]
            states[step.name][step.grid.cells(mark.region)] = mark.state
    return _follow_input(plan, states)


def finish(job: Job, extra: dict[str, str], resources: Resources, wish: Wish) -> Plan:
    """Digest a job, find out which run is meant, and count what is left of it.

    Parameters
    ----------
    job : Job
        With nothing left to choose but launch and editions.
    extra : dict of str to str
        What decides pixels beside the recipe.
    resources : Resources
        What the machine gives.
    wish : Wish
        What to do where a run of other settings stands in OUT.

    Raises
    ------
    RefusedError
        If OUT holds another run, or memory or disk do not suffice.
    """
    parts = run_parts(job, extra)
    job = replace(job, digest=digest(parts))
    ledger = Ledger(job.out)
    standing = ledger.read_run() if ledger.exists else None
    coming = ledger.read_next() if ledger.exists else None
    choice = choose(job, parts, standing, coming, wish)
    job = choose_launch(_in_editions(job, parts, choice, standing), resources)
    workers = choose_workers(job, resources)
    region = choose_region(job, resources, workers)
    tiles = Tiles(0, 0) if isinstance(job.recipe, IdentityRecipe) else count_tiles(job, region)
    share = job.area.size / job.frame.bounds.size
    planes = int(np.prod(job.frame.planes, dtype=np.int64))
    pixels = planes * job.area.size * job.frame.channels * np.dtype(job.frame.dtype).itemsize
    plan = Plan(
        job, parts, resources, region, workers,
        worker_bytes(job, region, resources.threads), device_bytes(job, region), tiles,
        read_bytes=int(pixels * (1 + (tiles.once > 0) + (job.defenses > 0))),
        write_bytes=int(sum(map(layer_bytes, job.layers)) * share),
        disk_bytes=int(disk_bytes(job.layers) * share), steps=(), choice=choice,
        seen=fingerprint(standing, coming),
        wish=wish.recompute or ("restart" if wish.restart else ""),
    )  # fmt: skip
    plan = _follow_input(plan, _states(job))
    if plan.pending == plan.regions:
        check_disk(job.out, plan.disk_bytes)
    return plan


def _states(job: Job) -> dict[str, np.ndarray]:
    """States of the cells of all passes, from the records."""
    ledger = Ledger(job.out)
    return {step.name: ledger.states(step.name, step.digest, step.grid) for step in job.passes()}


def _follow_input(plan: Plan, states: dict[str, np.ndarray]) -> Plan:
    """Count what is left; where input changed, what depends on all regions is made anew beside."""
    job, choice = plan.job, plan.choice
    first = [s for s in job.passes() if s.kind in ("regions", "copy")]
    changed = {s.name for s in first if (states[s.name] == State.CHANGED).any()}
    if changed and choice.started and (plan.marks or not choice.beside):
        ledger = Ledger(job.out)
        standing, coming = ledger.read_run(), ledger.read_next()
        anew = downstream(job, changed) - {s.written for s in first}
        choice = renewed(choice.editions, anew, standing, coming)
        job = _in_editions(job, plan.parts, choice, standing)
        kept = {s.name for s in plan.job.passes() if s.digest in job.digests.values()}
        fresh = _states(job)
        states = {name: states[name] if name in kept else fresh[name] for name in fresh}
    steps = tuple(
        count_regions(step, states[step.name], plan.region, job.area) for step in job.passes()
    )
    return replace(plan, job=job, choice=choice, steps=steps)


def _in_editions(
    job: Job, parts: Mapping[str, str], choice: Choice, standing: Mapping[str, Any] | None
) -> Job:
    """Job that writes the editions that were chosen."""
    return replace(
        job,
        layers=tuple(with_editions(layer, choice.editions) for layer in job.layers),
        digests=pass_digests(job, parts, choice.editions),
        tables=_tables(job, choice, standing),
    )


def _tables(job: Job, choice: Choice, standing: Mapping[str, Any] | None) -> dict[str, str]:
    """Folder of each table: where users look, or beside until it is published."""
    found: dict[str, str] = {}
    for step in job.passes():
        edition = choice.editions[step.written]
        shown = standing is None or standing["editions"].get(step.written) == edition
        beside = f"{FOLDER}/tables/e{edition}"
        found |= {
            name: shown_table(name) if shown else f"{beside}/{name}.parquet" for name in step.tables
        }
    return found
