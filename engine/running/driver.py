"""The driver of a run: passes in order, each from its records, each resumable."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.borders import class_makers
from engine.cluster import inspect_cluster
from engine.errors import OutputError
from engine.index import make_index, save_index
from engine.joining import count_objects
from engine.ledger import Ledger, State
from engine.pixels import levels_place, save_levels
from engine.planning.pending import waves
from engine.running.documents import make_document
from engine.running.listening import Outcome
from engine.running.outputs import create_arrays, write_metadata
from engine.running.publishing import publish, remove_unused
from engine.running.summary import summarise
from engine.running.sweeping import Sweeper, Tally
from engine.seams import save_makers
from engine.statistics import (
    check_finite,
    check_frozen,
    counts,
    freeze,
    parts_folder,
    parts_that_stand,
    save_bins,
    sweeps,
)
from engine.store import read_json, remove_partial, write_json
from engine.tables import keep_parts, part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from distributed import Client

    from engine.ledger import Journal
    from engine.planning import Job, Pass, Plan
    from engine.running.listening import Listener


@dataclass(frozen=True)
class Held:
    """What comes with the lease of OUT.

    Parameters
    ----------
    journal : Journal
        Takes records and marks.
    epoch : int
        Under which records count.
    check : callable
        Raises where the lease is lost.
    """

    journal: Journal
    epoch: int
    check: Callable[[], None]


class Driver:
    """One call of `execute`: the state that its passes share."""

    def __init__(
        self, plan: Plan, client: Callable[[], Client], listener: Listener, held: Held
    ) -> None:
        self._plan = plan
        self._ledger = Ledger(plan.job.out)
        self._journal = held.journal
        self._open = client
        self._listener = listener
        self._client: Client | None = None
        self._started = time.perf_counter()
        self._tally = Tally()
        if plan.marks:
            # Before the document that follows from them: a crash between leaves them to be seen.
            held.journal.revoke(plan.marks)
        self._document = self._open_document()
        self._job: Job = replace(plan.job, token=self._document["id"])
        self._sweeper = Sweeper(
            plan, self._ledger, held.journal, held.epoch, self._cluster, held.check, listener,
            self._tally,
        )  # fmt: skip
        #: Whether anything was made in OUT beside the records.
        self.made = plan.choice.started

    def run(self) -> Outcome:
        """All waves in order; a later one waits while an earlier one has regions missing."""
        if not self._count():
            return self._incomplete()
        if self._plan.pending:
            self._cluster()
        self.made = True
        create_arrays(self._job)
        if not self._plan.choice.beside:
            write_metadata(self._job)
        for wave in waves(self._job.passes()):
            if not self._sweep(wave):
                return self._incomplete()
        if self._plan.choice.beside:
            steps = [(step, self._parts(step)) for step in self._job.passes() if step.tables]
            parts = {name: known for step, known in steps for name in step.tables}
            self._job = publish(self._job, self._ledger, self._document, parts)
        remove_unused(self._job, self._ledger.read_run(), self._journal)
        report = self._report(complete=True)
        self._clean()
        return Outcome(complete=True, failures=(), report=report)

    def _incomplete(self) -> Outcome:
        tally = self._tally
        return Outcome(
            complete=False,
            failures=tuple(tally.failures),
            missing=tally.missing.total(),
            report=self._report() if self.made else {},
        )

    def _open_document(self) -> dict[str, Any]:
        """Document of the run, written where it starts."""
        plan, ledger = self._plan, self._ledger
        if not plan.choice.started:
            document = make_document(plan)
            write = ledger.write_next if plan.choice.beside else ledger.write_run
            write(document)
            return document
        found = ledger.read_next() if plan.choice.beside else None
        document = dict(ledger.read_run() if found is None else found)
        probe = [list(pair) for pair in plan.probe]
        if document["probe"] != probe:
            # What changed was found by a check of all objects, and is computed again.
            document["probe"] = probe
            (ledger.write_next if plan.choice.beside else ledger.write_run)(document)
        return document

    def _states(self, step: Pass) -> np.ndarray:
        """State of every cell of a pass, from the records."""
        return self._ledger.states(step.name, step.digest, step.grid)

    def _count(self) -> bool:
        """Pass 0, where the recipe has one and it is not done; before anything is made in OUT."""
        job = self._job
        if not counts(job):
            return True
        frozen = levels_place(job.out, job.digests["statistics"]).is_file()
        first = job.statistics_pass(sweeps(job)[0])
        if frozen and not (self._states(first) == State.CHANGED).any():
            return True
        for name in sweeps(job):
            step = job.statistics_pass(name)
            states = parts_that_stand(job, name, step, self._states(step))
            if not self._sweeper.sweep(job, [step], {name: states}):
                return False
            records = self._ledger.records(name, step.digest, step.grid)
            if name == first.name:
                check_finite(job, records)
            if name == "coarse":
                save_bins(job, list(step.grid))
        levels = freeze(job, list(first.grid))
        if frozen:
            check_frozen(job, levels)
        else:
            save_levels(job, levels)
        return True

    def _sweep(self, wave: Sequence[Pass]) -> bool:
        """Do what is left of passes that do not need each other."""
        states = {step.name: self._states(step) for step in wave}
        for step in wave:
            left = (states[step.name] != State.DONE).any()
            if left and step.kind in ("flags", "labels"):
                self._index()
            if left and step.kind == "objects":
                self._count_objects()
            if left and step.kind == "seams":
                self._list_makers()
        complete = self._sweeper.sweep(self._job, wave, states)
        for step in wave:
            known = self._parts(step) if complete and step.tables else set()
            for name in step.tables if complete else ():
                keep_parts(self._job.out, self._job.tables[name], known)
        return complete

    def _parts(self, step: Pass) -> set[str]:
        """Names of the parts of the tables of a pass, by the records."""
        records = self._ledger.records(step.name, step.digest, step.grid)
        return {part_name(record.region) for record in records}

    def _index(self) -> None:
        """Sum the counts of all regions into ids, for the passes that need all objects."""
        if self._job.index:
            return
        regions = next(s for s in self._job.passes() if s.kind == "regions")
        records = self._ledger.records(regions.name, regions.digest, regions.grid)
        index = make_index(self._job, records)
        self._job = replace(self._job, index=save_index(self._job, index))

    def _count_objects(self) -> None:
        """Sum the objects of the class map into ids, when all blocks are joined."""
        if self._job.joined:
            return
        passes = {step.name: step for step in self._job.passes()}
        joins = [step for step in passes.values() if step.kind == "join"]
        records = {
            step.name: self._ledger.records(step.name, step.digest, step.grid)
            for step in (passes[joins[0].after], *joins)
        }
        self._job = replace(self._job, joined=count_objects(self._job, records))

    def _list_makers(self) -> None:
        """List the regions that made class maps, for the pass that compares what they saw."""
        if self._job.makers:
            return
        steps = [step for step in self._job.passes() if step.name in class_makers(self._job)]
        records = {s.name: self._ledger.records(s.name, s.digest, s.grid) for s in steps}
        self._job = replace(self._job, makers=save_makers(self._job, records))

    def _cluster(self) -> Client:
        """Cluster of this run, started when the first task needs it."""
        if self._client is None:
            self._client = self._open()
            inspect_cluster(self._client, "--cluster", self._job)
            workers = len(self._client.nthreads())
            self._listener.cluster_started(self._client.dashboard_link, workers)
        return self._client

    def _report(self, *, complete: bool = False) -> dict[str, Any]:
        """Gather what was measured, and keep it; a call that had nothing to do keeps the last."""
        tally, path = self._tally, self._ledger.path("report.json")
        if tally.regions == 0 and path.is_file():
            return read_json(path, OutputError)
        records = {
            step.name: self._ledger.records(step.name, step.digest, step.grid)
            for step in self._job.passes()
        }
        report = summarise(self._plan, records)
        report |= {
            "seconds": {k: round(v, 3) for k, v in tally.seconds.items()},
            "seconds_total": round(time.perf_counter() - self._started, 3),
            "reasons": {state.name.lower(): n for state, n in tally.reasons.items()},
            "regions_computed_now": tally.regions - tally.missing.total(),
            "regions_missing": dict(tally.missing),
            "pixels_computed_now": max(
                (tally.pixels[name] for name in ("regions", "copy")), default=0
            ),
            "complete": complete,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_json(path, report)
        return report

    def _clean(self) -> None:
        """Remove scratch; last, when nothing needs it any more."""
        self._ledger.path("work").remove()
        parts_folder(self._job.out).remove()
        for layer in self._job.layers:
            for level in layer.levels:
                remove_partial(self._job.out / layer.group / level.path)
