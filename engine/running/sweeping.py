"""One wave of passes on the cluster: what is left goes out, receipts come back to the journal."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING

from engine.ledger import Failure, Mark, State
from engine.planning.pending import (
    bundle_size,
    count_regions,
    pending_pixels,
    pending_regions,
)
from engine.running.listening import MOST_FAILURES
from engine.running.window import Given, Window
from engine.tasks import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from distributed import Client

    from engine.ledger import Journal, Ledger
    from engine.planning import Job, Pass, Plan
    from engine.running.listening import Listener
    from engine.tasks import Doing, Receipt


@dataclass
class Tally:
    """What one call of a run did, over all its waves.

    Attributes
    ----------
    seconds : dict of str to float
        Time of each wave.
    reasons : Counter of State
        Regions that were computed, by the reason.
    pixels : Counter of str
        Pixels that were computed, by pass.
    failures : list of Failure
        The first that were given up.
    missing : Counter of str
        Regions that were given up, by pass.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    reasons: Counter[State] = field(default_factory=Counter)
    pixels: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    missing: Counter[str] = field(default_factory=Counter)

    @property
    def regions(self) -> int:
        """Regions that were computed."""
        return self.reasons.total()


@dataclass(frozen=True)
class Sweeper:
    """What a wave needs beside its passes.

    Parameters
    ----------
    plan : Plan
        The plan; its job may lack what earlier waves found.
    ledger : Ledger
        Records of OUT.
    journal : Journal
        Takes receipts and failures.
    epoch : int
        Under which records count.
    client : callable
        Gives the cluster, started when the first task needs it.
    check : callable
        Raises where the run must stop.
    listener : Listener
        Is told of progress.
    tally : Tally
        What was done.
    doing : callable or None
        What is done for a region; the pass's own where None.
    """

    plan: Plan
    ledger: Ledger
    journal: Journal
    epoch: int
    client: Callable[[], Client]
    check: Callable[[], None]
    listener: Listener
    tally: Tally
    doing: Doing | None = None

    def sweep(self, job: Job, wave: Sequence[Pass], states: Mapping[str, np.ndarray]) -> bool:
        """Do what is left of passes that do not need each other.

        Parameters
        ----------
        job : Job
            What the tasks get.
        wave : sequence of Pass
            The passes.
        states : mapping of str to ndarray
            `State` of every cell, by pass.

        Returns
        -------
        bool
            Whether nothing is missing.
        """
        start = time.perf_counter()
        left = [step for step in wave if self._announce(job, step, states[step.name])]
        if not left:
            return True
        units = chain.from_iterable(self._units(job, step, states[step.name]) for step in left)
        retries = self.plan.resources.retries
        window = Window(self.client(), job, self.epoch, retries, self.check, self.doing)
        try:
            for found in window.run(units):
                if isinstance(found, Given):
                    self._fail(found)
                else:
                    self._take(*found)
        finally:
            self.journal.flush()
        self.tally.seconds[" + ".join(step.name for step in wave)] = time.perf_counter() - start
        return not any(self.tally.missing[step.name] for step in wave)

    def _announce(self, job: Job, step: Pass, states: np.ndarray) -> bool:
        """Tell what is left of a pass; False where that is nothing."""
        count = count_regions(step, states, self.plan.region, job.area)
        if count.pending == 0:
            return False
        self.tally.reasons.update(count.reasons)
        self.ledger.path("report.json").delete()
        self.client()
        pixels = pending_pixels(step, states, job.area)
        self.listener.pass_started(
            step.name, max(count.regions, count.pending), count.regions - count.pending, pixels
        )
        return True

    def _units(self, job: Job, step: Pass, states: np.ndarray) -> Iterator[Unit]:
        """Units of what is left, made while they are sent."""
        count = count_regions(step, states, self.plan.region, job.area)
        threads = self.plan.workers * self.plan.resources.threads
        size = bundle_size(step, self.plan.region, count.pending, threads)
        regions = (r for r, _ in pending_regions(step, states, self.plan.region, job.area))
        while some := tuple(islice(regions, size)):
            yield Unit(step, some)

    def _take(self, unit: Unit, receipt: Receipt) -> None:
        if receipt.bundle is not None:
            self.journal.add(receipt.bundle)
        self.tally.pixels[unit.step.name] += receipt.pixels
        self.listener.regions_done(unit.step.name, receipt.regions, receipt.pixels)

    def _fail(self, given: Given) -> None:
        step, region = given.unit.step, given.unit.regions[0]
        mark = Mark(step.name, region, step.digest, State.FAILED, given.message, given.attempts)
        self.journal.fail(mark)
        failure = Failure(step.name, region, given.message, given.attempts)
        self.tally.missing[step.name] += 1
        if len(self.tally.failures) < MOST_FAILURES:
            self.tally.failures.append(failure)
        self.listener.region_failed(failure)
