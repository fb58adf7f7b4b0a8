"""Calibration of defenses on a cluster: pieces through a bounded window, their parts back.

Dask sends the piece of a worker that dies to another one; what fails otherwise is tried again here,
elsewhere. A piece that is given up stops only itself: the others are finished first.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from distributed import get_worker

from engine.cluster import ClusterSpec, open_cluster
from engine.device import choose_device, cores
from engine.errors import InputError, RefusedError, StoppedRunError
from engine.running.crew import Crew
from engine.running.flight import Call, Flight
from engine.running.interrupting import interruptible
from engine.running.window import PAUSE_S
from engine.store import Location
from engine.training.defenses.making import make_bank

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path

    from distributed import Client

    from engine.training.defenses.options import DefenseOptions, DefenseProgress
    from engine.training.defenses.parts import Part
    from engine.training.defenses.work import PieceWork

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
        The bank, as `engine.training.defenses.making.make_bank` makes it: the same on any cluster.

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
            yield from _Calibration(client, Location.parse(options.out), units).run()

    with interruptible(str(options.out), "Finished pieces are kept"):
        return make_bank(options, on_progress, doing)


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
class _Calibration:
    """All pieces of a bank on a cluster, one for each of its threads."""

    client: Client
    out: Location
    units: Iterator[PieceWork]
    given_up: list[str] = field(default_factory=list)

    def run(self) -> Iterator[tuple[PieceWork, Part]]:
        """Do all pieces, each where there is room; yield them with their parts."""
        # No piece waits at a worker: it would begin after the time is over.
        crew = Crew(self.client, self.out)
        flight = Flight(crew, map(_Try, self.units), _call, per_thread=1)
        try:
            while flight.fill():
                for tried, answer in flight.land():
                    yield from self._settle(tried, answer, flight)
        finally:
            flight.abandon()
        if self.given_up:
            raise StoppedRunError(
                where=f"{len(self.given_up)} piece(s) of the calibration",
                expected="a part of each",
                found="; ".join(self.given_up[:3]),
                remedy="All others are kept. Give the same command again, or leave out the image.",
            )

    def _settle(
        self, tried: _Try, answer: _Answer | BaseException | None, flight: Flight[_Try, _Answer]
    ) -> Iterator[tuple[PieceWork, Part]]:
        """Take a part; a piece without one is tried again, or given up."""
        pause = PAUSE_S * 2 ** len(tried.avoid)
        if answer is None:
            flight.wait(tried, pause)
            return
        if isinstance(answer, RefusedError):
            raise answer
        if isinstance(answer, BaseException):
            # Dask gave up: each worker that took the piece died, or it could not be sent.
            answer = _Answer("", None, f"{type(answer).__name__}: {answer}")
        if answer.part is not None:
            yield tried.work, answer.part
        elif len(tried.avoid) < RETRIES and answer.worker:
            _LOG.warning("%s: %s", tried.work.name, answer.trouble)
            again = replace(tried, avoid=(*tried.avoid, answer.worker))
            flight.wait(again, PAUSE_S * 2 ** len(again.avoid))
        else:
            _LOG.error("%s is given up: %s", tried.work.name, answer.trouble)
            self.given_up.append(f"{tried.work.name}: {answer.trouble}")


def _call(tried: _Try) -> Call[_Answer]:
    """Say what a worker does for a piece."""
    return Call("calibrate", do_work, (tried.work,), tried.avoid)


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
