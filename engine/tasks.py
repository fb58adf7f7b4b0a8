"""What a worker is asked to do: a few regions of one pass, their record last."""

from __future__ import annotations

import logging
import os
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition
from typing import TYPE_CHECKING

from engine.device import resident_peak
from engine.flags import flag_region
from engine.joining import join_region
from engine.labels import label_region
from engine.ledger import Record, RecordWriter
from engine.objects import object_region
from engine.pyramid import reduce_region
from engine.repairs import repair_region
from engine.seams import compare_region
from engine.statistics import statistics_region
from engine.store import is_damage, is_fatal
from engine.work import Done, copy_region, process_region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from engine.ledger import Bundle
    from engine.planning import Job, Pass
    from tiling import Region

    Doing = Callable[[Job, Pass, Region], Done]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Unit:
    """A few regions of one pass: what a task does, and what one record object is for.

    Parameters
    ----------
    step : Pass
        The pass.
    regions : tuple of Region
        At least one; several where they are small.
    """

    step: Pass
    regions: tuple[Region, ...]

    @property
    def key(self) -> str:
        """Name of the unit among those of its run."""
        return f"{self.step.name}-{self.regions[0].key}-n{len(self.regions)}"

    def single(self) -> list[Unit]:
        """One unit for each region."""
        return [Unit(self.step, (region,)) for region in self.regions]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a region could not be done.

    Parameters
    ----------
    region : Region
        The region.
    message : str
        The error, as the user reads it.
    fatal : bool
        Whether every other region will fail in the same way: a full disk, a lost permission.
    lasting : bool
        Whether another try will most likely read the same damaged input.
    """

    region: Region
    message: str
    fatal: bool
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task says of its unit; some hundred bytes for each region.

    Parameters
    ----------
    bundle : Bundle or None
        Records of the regions that are done, as written; None where there are none.
    regions, pixels : int
        What was done.
    troubles : tuple of Trouble
        What was not.
    deaths : int
        Earlier attempts that ended with the death of their worker; where there are some, a unit
        of several regions is not begun, so that each can be tried by itself.
    """

    bundle: Bundle | None = None
    regions: int = 0
    pixels: int = 0
    troubles: tuple[Trouble, ...] = ()
    deaths: int = 0


#: How long a unit waits for its turn.
PATIENCE_S = 60.0


class _Turns:
    """Whose turn it is in this process: any number of units, or a single suspect.

    A unit that was there when a worker died may be what killed it. It is tried again with nothing
    beside it, so that another death is its own and takes no other unit along. It waits for that
    for a while only: a unit beside it may hang in a store that does not answer.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._running = 0
        self._suspects = 0

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and keep it until the block ends."""
        with self._changed:
            self._suspects += alone
            if not self._changed.wait_for(
                lambda: self._running == 0 if alone else self._suspects == 0, PATIENCE_S
            ):
                _LOG.warning("units run beside one that was to run alone")
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._suspects -= alone
                self._changed.notify_all()


_TURNS = _Turns()


def perform(
    job: Job, unit: Unit, epoch: int, attempt: int, most_deaths: int, doing: Doing | None = None
) -> Receipt:
    """Do the regions of a unit: pixels first, record last; doing it twice changes nothing.

    Parameters
    ----------
    job : Job
        The run.
    unit : Unit
        What is done.
    epoch : int
        Under which the records count.
    attempt : int
        How often the driver has sent this unit, this time included.
    most_deaths : int
        Workers that a region may take down before it is given up.
    doing : callable or None
        What is done for a region; the pass's own where None.

    Returns
    -------
    Receipt
    """
    writer = RecordWriter(job.out, epoch)
    try:
        deaths = writer.attempts(unit.key)
        if deaths and (len(unit.regions) > 1 or deaths > most_deaths):
            return Receipt(deaths=deaths)
        with _TURNS.turn(alone=deaths > 0), writer.attempt(unit.key):
            done, troubles = _each(job, unit, attempt + deaths, doing or compute)
            bundle = writer.write(done) if done else None
    except Exception as err:
        # Whether it is fatal can be told here only: what caused it is lost on the way.
        _LOG.exception("records of %s", unit.key)
        return Receipt(troubles=tuple(_trouble(region, err) for region in unit.regions))
    pixels = sum(record.region.core.size for record in done)
    return Receipt(bundle, len(done), pixels, tuple(troubles), deaths)


def _each(job: Job, unit: Unit, attempt: int, doing: Doing) -> tuple[list[Record], list[Trouble]]:
    """Do one region after the other; one that fails does not stop the others."""
    finished: list[tuple[Region, float, Done]] = []
    troubles = []
    for region in unit.regions:
        start = time.perf_counter()
        try:
            done = doing(job, unit.step, region)
        except Exception as err:
            _LOG.exception("%s, %s", unit.step.name, region)
            troubles.append(_trouble(region, err))
            continue
        finished.append((region, time.perf_counter() - start, done))
    worker, peak = f"{socket.gethostname()}:{os.getpid()}", resident_peak()
    records = [
        Record(
            pass_name=unit.step.name,
            region=region,
            digest=unit.step.digest,
            seconds=seconds,
            peak_bytes=peak,
            worker=worker,
            attempt=attempt,
            notes=done.notes,
            sources=done.sources,
            pixels=done.pixels,
            stored=done.stored,
        )
        for region, seconds, done in finished
    ]
    return records, troubles


def compute(job: Job, step: Pass, region: Region) -> Done:
    """Do one region of a pass."""
    match step.kind:
        case "statistics":
            return statistics_region(job, step, region)
        case "regions":
            return process_region(job, region)
        case "flags":
            return flag_region(job, region)
        case "labels":
            return label_region(job, region)
        case "repair":
            return repair_region(job, region)
        case "join":
            return join_region(job, step, region)
        case "objects":
            return object_region(job, region)
        case "seams":
            return compare_region(job, region)
        case "copy":
            return copy_region(job, region)
        case "pyramid":
            return reduce_region(job, step, region)


def _trouble(region: Region, err: BaseException) -> Trouble:
    return Trouble(region, f"{type(err).__name__}: {err}", is_fatal(err), is_damage(err))
