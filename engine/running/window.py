"""A bounded window of tasks: as many as keep the workers busy, and no more in the scheduler.

::

    units ──► in flight ──► receipt: records to the journal
                 │  ▲
                 │  └── tried again after a pause, elsewhere, each region by itself
                 └──► quarantine, when its tries are used up

Nothing is kept of a unit that is done. How tasks wait, fly and come back: `engine.running.flight`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from distributed import get_worker

from engine.cluster import Expected, complaints
from engine.errors import StoppedRunError
from engine.running.crew import Crew
from engine.running.flight import Call, Flight
from engine.tasks import Receipt, Trouble, Unit, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client

    from engine.planning import Job
    from engine.tasks import Doing

_LOG = logging.getLogger(__name__)

#: Tasks in flight per thread of the cluster: one runs, one waits at the worker.
PER_THREAD = 2

#: Pause before the second try of a region; each further one is twice as long, up to the longest.
PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0

#: Tries again of a region whose input is damaged: one, for the memory or cache of a worker may be.
DAMAGED_AGAIN = 1


@dataclass(frozen=True, slots=True)
class Given:
    """A region that is given up.

    Parameters
    ----------
    unit : Unit
        The region, by itself.
    message : str
        Why, as the user reads it.
    attempts : int
        How often it was tried.
    """

    unit: Unit
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What all tasks of a window share beside the job.

    Parameters
    ----------
    epoch : int
        Under which records count.
    most_deaths : int
        Workers that a region may take down before it is given up.
    doing : callable or None
        What is done for a region; the pass's own where None.
    expected : Expected
        What a worker must have.
    """

    epoch: int
    most_deaths: int
    doing: Doing | None
    expected: Expected


@dataclass(frozen=True)
class Window:
    """A window of tasks on a cluster.

    Parameters
    ----------
    client : Client
        The cluster.
    job : Job
        The run.
    epoch : int
        Under which records count.
    retries : int
        How often a region that failed is tried again.
    check : callable
        Raises where the run must stop: the lease is lost.
    doing : callable or None
        What is done for a region; the pass's own where None.
    """

    client: Client
    job: Job
    epoch: int
    retries: int
    check: Callable[[], None]
    doing: Doing | None = None

    def run(self, units: Iterable[Unit]) -> Iterator[tuple[Unit, Receipt] | Given]:
        """Do units that do not need each other; yield what became of each as it is known.

        Raises
        ------
        StoppedRunError
            If every further region would fail too: a full disk, a lost permission; or if the
            scheduler or all workers are gone.
        """
        terms = Terms(self.epoch, self.retries, self.doing, Expected.of(self.job))

        def call(tried: _Try) -> Call[tuple[str, Receipt]]:
            words = self.job, tried.unit, terms, tried.attempt
            return Call(tried.unit.key, run_unit, words, tried.avoid)

        crew = Crew(self.client, self.job.out)
        flight = Flight(crew, map(_Try, units), call, PER_THREAD)
        settling = _Settling(self, flight)
        try:
            while flight.fill():
                self.check()
                for tried, answer in flight.land():
                    yield from settling.settle(tried, answer)
        finally:
            flight.abandon()


@dataclass(frozen=True, slots=True)
class _Try:
    """A unit on its way; workers where it failed before."""

    unit: Unit
    attempt: int = 1
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Settling:
    """What becomes of units that come back."""

    window: Window
    flight: Flight[_Try, tuple[str, Receipt]]

    def settle(
        self, tried: _Try, answer: tuple[str, Receipt] | BaseException | None
    ) -> Iterator[tuple[Unit, Receipt] | Given]:
        """Take a receipt; what is not done is tried again by itself, or given up."""
        if answer is None:
            # The connection broke, or a worker took its receipt along: the unit had no say in it.
            self.flight.wait(tried, PAUSE_S)
            return
        if isinstance(answer, BaseException):
            # The task itself raises nothing: Dask gave up on it, or could not send it.
            worker, receipt = "", _all_in_trouble(tried.unit, f"{type(answer).__name__}: {answer}")
        else:
            worker, receipt = answer
        if receipt.bundle is not None:
            yield tried.unit, receipt
        for trouble in receipt.troubles:
            if trouble.fatal:
                raise _stop(self.window.job, trouble)
            alone = replace(tried, unit=Unit(tried.unit.step, (trouble.region,)))
            yield from self._again(alone, trouble, worker)
        if receipt.deaths and not receipt.regions and not receipt.troubles:
            yield from self._after_death(tried, receipt.deaths)

    def _after_death(self, tried: _Try, deaths: int) -> Iterator[Given]:
        """Try regions one by one where a bundle took down its worker; give up one that does."""
        if len(tried.unit.regions) > 1:
            _LOG.warning("%s ended with its worker; its regions follow singly", tried.unit.key)
            for unit in tried.unit.single():
                self.flight.wait(_Try(unit), 0)
            return
        message = (
            f"its worker died {deaths} times while it computed this region (killed for memory, or "
            "a crash in a library)"
        )
        yield Given(tried.unit, message, deaths)

    def _again(self, tried: _Try, trouble: Trouble, worker: str) -> Iterator[Given]:
        """Try a region again after a pause, on another worker; or give it up."""
        name, message = tried.unit.step.name, trouble.message
        _LOG.warning("%s, %s, try %d: %s", name, trouble.region, tried.attempt, message)
        retries = self.window.retries
        if tried.attempt > (min(retries, DAMAGED_AGAIN) if trouble.lasting else retries):
            yield Given(tried.unit, message, tried.attempt)
            return
        pause = min(LONGEST_PAUSE_S, PAUSE_S * 2 ** (tried.attempt - 1))
        self.flight.wait(_Try(tried.unit, tried.attempt + 1, (*tried.avoid, worker)), pause)


def _all_in_trouble(unit: Unit, message: str) -> Receipt:
    """Receipt of a unit of which no region was done."""
    return Receipt(troubles=tuple(Trouble(region, message, fatal=False) for region in unit.regions))


def run_unit(job: Job, unit: Unit, terms: Terms, attempt: int) -> tuple[str, Receipt]:
    """Do a unit on a worker; its address comes back with the receipt.

    A worker that came later than the others may be another one: it does nothing then.
    """
    address = get_worker().address
    if wrong := complaints(terms.expected):
        return address, _all_in_trouble(unit, f"worker {address}: {'; '.join(wrong)}")
    return address, perform(job, unit, terms.epoch, attempt, terms.most_deaths, terms.doing)


def _stop(job: Job, trouble: Trouble) -> StoppedRunError:
    return StoppedRunError(
        where=f"OUT '{job.out}', {trouble.region}",
        expected="a place that takes the result",
        found=trouble.message,
        remedy="Make space, or mend permissions or credentials, and give the same command again: "
        "what is done is kept.",
    )
