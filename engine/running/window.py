"""A bounded window of tasks: as many as keep the workers busy, and no more in the scheduler.

::

    units ──► in flight ──► receipt: records to the journal
                 │  ▲
                 │  └── tried again after a pause, elsewhere, each region by itself
                 └──► quarantine, when its tries are used up

What waits, flies and comes back is decided here, on one thread; Dask's callbacks only put futures
into a queue. Nothing is kept of a unit that is done.
"""

from __future__ import annotations

import heapq
import logging
import queue
import time
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING
from uuid import uuid4

from distributed import CancelledError, get_worker
from distributed.client import ClosedClientError

from engine.cluster import Expected, complaints
from engine.errors import StoppedRunError
from engine.running.crew import ANSWER_S, Crew
from engine.tasks import Receipt, Trouble, Unit, perform

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from distributed import Client, Future

    from engine.planning import Job
    from engine.tasks import Doing

_LOG = logging.getLogger(__name__)

#: Tasks in flight per thread of the cluster: one runs, one waits at the worker.
PER_THREAD = 2

#: Pause before the second try of a region; each further one is twice as long, up to the longest.
PAUSE_S = 0.5
LONGEST_PAUSE_S = 15.0

#: How often the driver looks whether it should stop, or whether the workers are gone.
TICK_S = 0.5


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
        flight = _Flight(self, iter(units), Crew(self.client, self.job.out), terms)
        try:
            while flight.fill():
                self.check()
                yield from flight.land()
        finally:
            flight.abandon()


@dataclass(frozen=True, slots=True)
class _Try:
    """A unit on its way; workers where it failed before."""

    unit: Unit
    attempt: int = 1
    avoid: tuple[str, ...] = ()


@dataclass
class _Flight:
    """What a window has in flight, and what waits to be tried again."""

    window: Window
    units: Iterator[Unit]
    crew: Crew
    terms: Terms
    flying: dict[str, tuple[_Try, Future[tuple[str, Receipt]]]] = field(default_factory=dict)
    waiting: list[tuple[float, int, _Try]] = field(default_factory=list)
    landed: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    numbers: Iterator[int] = field(default_factory=count)
    exhausted: bool = False

    def fill(self) -> bool:
        """Send what there is room for; False where nothing is left to do."""
        self.crew.look()
        room = PER_THREAD * self.crew.threads
        while len(self.flying) < room:
            if self.waiting and self.waiting[0][0] <= time.monotonic():
                self._send(heapq.heappop(self.waiting)[2])
                continue
            unit = next(self.units, None)
            if unit is None:
                self.exhausted = True
                break
            self._send(_Try(unit))
        return bool(self.flying or self.waiting or not self.exhausted)

    def land(self) -> Iterator[tuple[Unit, Receipt] | Given]:
        """Wait a little; yield what became of what came back."""
        try:
            keys = [self.landed.get(timeout=self._patience())]
        except queue.Empty:
            return
        while not self.landed.empty():
            keys.append(self.landed.get())
        for key in keys:
            tried, future = self.flying.pop(key)
            yield from self._settle(tried, future)

    def abandon(self) -> None:
        """Let go of everything that is in flight."""
        futures = [future for _, future in self.flying.values()]
        if futures and self.window.client.status == "running":
            self.window.client.cancel(futures, force=True, reason="stopped")

    def _patience(self) -> float:
        due = self.waiting[0][0] - time.monotonic() if self.waiting else TICK_S
        return max(0.01, min(TICK_S, due))

    def _send(self, tried: _Try) -> None:
        window = self.window
        # A scheduler that serves several runs must not take one's task for another's.
        key = f"{tried.unit.key}-{uuid4().hex}"
        elsewhere = self.crew.elsewhere(tried.avoid) if tried.avoid else []
        try:
            future = window.client.submit(
                run_unit, window.job, tried.unit, self.terms, tried.attempt, key=key, pure=False,
                workers=elsewhere or None, allow_other_workers=bool(elsewhere),
            )  # fmt: skip
        except ClosedClientError as err:
            raise self.crew.gone("the scheduler is gone") from err
        self.flying[key] = tried, future
        future.add_done_callback(lambda f: self.landed.put(f.key))

    def _settle(
        self, tried: _Try, future: Future[tuple[str, Receipt]]
    ) -> Iterator[tuple[Unit, Receipt] | Given]:
        """Take a receipt; what is not done is tried again by itself, or given up."""
        came = _came(tried.unit, future)
        future.release()
        if came is None:
            # The connection broke, or a worker took its receipt along: the unit had no say in it.
            self._wait(tried, PAUSE_S)
            return
        worker, receipt = came
        if receipt.bundle is not None:
            yield tried.unit, receipt
        for trouble in receipt.troubles:
            if trouble.fatal:
                raise _stop(self.window.job, trouble)
            alone = replace(tried, unit=Unit(tried.unit.step, (trouble.region,)))
            yield from self._again(alone, trouble.message, worker)
        if receipt.deaths and not receipt.regions and not receipt.troubles:
            yield from self._after_death(tried, receipt.deaths)

    def _after_death(self, tried: _Try, deaths: int) -> Iterator[Given]:
        """Try regions one by one where a bundle took down its worker; give up one that does."""
        if len(tried.unit.regions) > 1:
            _LOG.warning("%s ended with its worker; its regions follow singly", tried.unit.key)
            for unit in tried.unit.single():
                self._wait(_Try(unit), 0)
            return
        message = (
            f"its worker died {deaths} times while it computed this region (killed for memory, or "
            "a crash in a library)"
        )
        yield Given(tried.unit, message, deaths)

    def _again(self, tried: _Try, message: str, worker: str) -> Iterator[Given]:
        """Try a region again after a pause, on another worker; or give it up."""
        region = tried.unit.regions[0]
        _LOG.warning("%s, %s, try %d: %s", tried.unit.step.name, region, tried.attempt, message)
        if tried.attempt > self.window.retries:
            yield Given(tried.unit, message, tried.attempt)
            return
        pause = min(LONGEST_PAUSE_S, PAUSE_S * 2 ** (tried.attempt - 1))
        self._wait(_Try(tried.unit, tried.attempt + 1, (*tried.avoid, worker)), pause)

    def _wait(self, tried: _Try, pause_s: float) -> None:
        heapq.heappush(self.waiting, (time.monotonic() + pause_s, next(self.numbers), tried))


def _came(unit: Unit, future: Future[tuple[str, Receipt]]) -> tuple[str, Receipt] | None:
    """Worker and receipt of a unit; None where Dask lost them."""
    if future.status == "error":
        # The task itself raises nothing: Dask gave up on it, or could not send it.
        error = future.exception()
        message = f"{type(error).__name__}: {error}"
        troubles = tuple(Trouble(region, message, fatal=False) for region in unit.regions)
        return "", Receipt(troubles=troubles)
    if future.status == "cancelled":
        return None
    try:
        came: tuple[str, Receipt] = future.result(timeout=ANSWER_S)
    except (TimeoutError, CancelledError) as err:
        _LOG.warning("the receipt of %s is lost: %s", unit.key, err)
        return None
    return came


def run_unit(job: Job, unit: Unit, terms: Terms, attempt: int) -> tuple[str, Receipt]:
    """Do a unit on a worker; its address comes back with the receipt.

    A worker that came later than the others may be another one: it does nothing then.
    """
    address = get_worker().address
    if wrong := complaints(terms.expected):
        message = f"worker {address}: {'; '.join(wrong)}"
        troubles = tuple(Trouble(region, message, fatal=False) for region in unit.regions)
        return address, Receipt(troubles=troubles)
    return address, perform(job, unit, terms.epoch, attempt, terms.most_deaths, terms.doing)


def _stop(job: Job, trouble: Trouble) -> StoppedRunError:
    return StoppedRunError(
        where=f"OUT '{job.out}', {trouble.region}",
        expected="a place that takes the result",
        found=trouble.message,
        remedy="Make space, or mend permissions or credentials, and give the same command again: "
        "what is done is kept.",
    )
