"""Calibration of defenses on a cluster: pieces through a bounded window, their parts back.

Dask sends the piece of a worker that dies to another one; what fails otherwise is tried again here,
elsewhere. A piece that is given up stops only itself: the others are finished first.
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

from engine.cluster import ClusterSpec, open_cluster
from engine.device import choose_device, cores
from engine.errors import InputError, InterruptedRunError, RefusedError, StoppedRunError
from engine.running.crew import ANSWER_S, Crew
from engine.running.window import PAUSE_S, TICK_S
from engine.store import Location
from engine.training.defenses import make_bank

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from distributed import Client, Future

    from engine.training.defense_options import DefenseOptions, DefenseProgress
    from engine.training.defense_parts import Part
    from engine.training.defense_work import PieceWork

_LOG = logging.getLogger(__name__)

#: How often a piece that failed is tried again.
RETRIES = 2


def calibrate_on(
    cluster: str,
    workers: int | None,
    options: DefenseOptions,
    on_progress: Callable[[DefenseProgress], None],
) -> Path:
    """Make a bank of defenses, with the pieces on a cluster.

    Parameters
    ----------
    cluster : str
        "local", or the address of a scheduler; its workers need the model, not the images.
    workers : int or None
        Worker processes of a local cluster, at most one for each piece; where None, as many as
        there are processors, or one for a GPU.
    options : DefenseOptions
        For which model, from which images, how, and where to write.
    on_progress : callable
        Called after every piece.

    Returns
    -------
    Path
        The bank, as `engine.training.defenses.make_bank` makes it: the same on any cluster.

    Raises
    ------
    InputError, ModelError, OutputError
        As `make_bank`; or if `workers` is below 1.
    ResourceError
        If no cluster can be had.
    StoppedRunError
        If the scheduler or all workers are gone, or pieces failed `RETRIES` times more; all
        others are kept.
    InterruptedRunError
        If the user or the system stops it; finished pieces are kept.
    """
    if workers is not None and workers < 1:
        raise InputError(
            where="--workers", expected=">= 1", found=str(workers), remedy="Correct the option."
        )
    alone = 1 if choose_device("auto") == "cuda" else cores()
    spec = ClusterSpec(cluster, workers or alone, threads=1)

    def doing(
        units: Iterator[PieceWork], total: int
    ) -> Generator[tuple[PieceWork, Part], None, None]:
        if total == 0:
            return
        with open_cluster(replace(spec, workers=min(spec.workers, total))) as client:
            yield from _Flight(client, Location.parse(options.out), units).run()

    try:
        return make_bank(options, on_progress, doing)
    except KeyboardInterrupt as err:
        raise InterruptedRunError(
            where=str(options.out),
            expected="to finish",
            found="a request to stop",
            remedy="Finished pieces are kept: give the same command again to continue.",
        ) from err


@dataclass(frozen=True, slots=True)
class _Try:
    """A piece on its way; workers where it failed before."""

    work: PieceWork
    avoid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a worker says of a piece: its part, or why there is none."""

    worker: str
    part: Part | None
    trouble: str = ""


@dataclass
class _Flight:
    """The pieces in flight, one for each thread of the cluster, and those that wait for a try."""

    client: Client
    out: Location
    units: Iterator[PieceWork]
    flying: dict[str, tuple[_Try, Future[_Answer]]] = field(default_factory=dict)
    waiting: list[tuple[float, int, _Try]] = field(default_factory=list)
    landed: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    numbers: Iterator[int] = field(default_factory=count)
    given_up: list[str] = field(default_factory=list)
    exhausted: bool = False

    def run(self) -> Iterator[tuple[PieceWork, Part]]:
        """Do all pieces, each where there is room; yield them with their parts."""
        crew = Crew(self.client, self.out)
        try:
            while self._fill(crew):
                yield from self._land()
        finally:
            if self.flying and self.client.status == "running":
                futures = [future for _, future in self.flying.values()]
                self.client.cancel(futures, force=True, reason="stopped")
        if self.given_up:
            raise StoppedRunError(
                where=f"{len(self.given_up)} piece(s) of the calibration",
                expected="a part of each",
                found="; ".join(self.given_up[:3]),
                remedy="All others are kept. Give the same command again, or leave out the image.",
            )

    def _fill(self, crew: Crew) -> bool:
        """Send what there is room for; False where nothing is left to do."""
        crew.look()
        # No piece waits at a worker: it would begin after the time is over.
        while len(self.flying) < crew.threads:
            if self.waiting and self.waiting[0][0] <= time.monotonic():
                self._send(heapq.heappop(self.waiting)[2], crew)
                continue
            work = next(self.units, None)
            if work is None:
                self.exhausted = True
                break
            self._send(_Try(work), crew)
        return bool(self.flying or self.waiting or not self.exhausted)

    def _send(self, tried: _Try, crew: Crew) -> None:
        elsewhere = crew.elsewhere(tried.avoid) if tried.avoid else []
        key = f"calibrate-{uuid4().hex}"
        try:
            future = self.client.submit(
                do_work, tried.work, key=key, pure=False,
                workers=elsewhere or None, allow_other_workers=bool(elsewhere),
            )  # fmt: skip
        except ClosedClientError as err:
            raise crew.gone("the scheduler is gone") from err
        self.flying[key] = tried, future
        future.add_done_callback(lambda f: self.landed.put(f.key))

    def _land(self) -> Iterator[tuple[PieceWork, Part]]:
        """Wait a little; yield what came back."""
        try:
            key = self.landed.get(timeout=TICK_S)
        except queue.Empty:
            return
        tried, future = self.flying.pop(key)
        answer = _came(future)
        future.release()
        if answer is None:
            self._wait(tried)
        elif answer.part is not None:
            yield tried.work, answer.part
        elif len(tried.avoid) < RETRIES and answer.worker:
            _LOG.warning("%s: %s", tried.work.name, answer.trouble)
            self._wait(replace(tried, avoid=(*tried.avoid, answer.worker)))
        else:
            _LOG.error("%s is given up: %s", tried.work.name, answer.trouble)
            self.given_up.append(f"{tried.work.name}: {answer.trouble}")

    def _wait(self, tried: _Try) -> None:
        due = time.monotonic() + PAUSE_S * 2 ** len(tried.avoid)
        heapq.heappush(self.waiting, (due, next(self.numbers), tried))


def do_work(work: PieceWork) -> _Answer:
    """Do a piece on a worker; a refusal, which another try would meet again, is raised."""
    worker = get_worker().address
    try:
        return _Answer(worker, work.do())
    except RefusedError:
        raise
    except Exception as err:
        _LOG.exception("%s", work.name)
        return _Answer(worker, None, f"{type(err).__name__}: {err}")


def _came(future: Future[_Answer]) -> _Answer | None:
    """Answer of a worker; None where Dask lost it."""
    if future.status == "cancelled":
        return None
    if future.status == "error":
        error = future.exception()
        if isinstance(error, RefusedError):
            raise error
        # Dask gave up: each worker that took the piece died, or it could not be sent.
        return _Answer("", None, f"{type(error).__name__}: {error}")
    try:
        answer: _Answer = future.result(timeout=ANSWER_S)
    except (TimeoutError, CancelledError) as err:
        _LOG.warning("the answer of %s is lost: %s", future.key, err)
        return None
    return answer
