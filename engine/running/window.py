"""A bounded window of tasks: as many as keep the workers busy, and no more in the scheduler."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING
from uuid import uuid4

from distributed import as_completed

from engine.ledger import Failure, Ledger
from engine.tasks import perform

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from distributed import Client, Future

    from engine.ledger import Record
    from engine.planning import Job, Pass
    from tiling import Region

_LOG = logging.getLogger(__name__)

#: Tasks in flight per thread of the cluster: one runs, one waits at the worker.
PER_THREAD = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """One region of one pass: what a task does.

    Parameters
    ----------
    step : Pass
        The pass.
    region : Region
        The region.
    """

    step: Pass
    region: Region


@dataclass(frozen=True)
class Window:
    """A window of tasks on a cluster.

    Parameters
    ----------
    client : Client
        The cluster.
    job : Job
        The run.
    retries : int
        How often a region that failed is tried again.
    """

    client: Client
    job: Job
    retries: int

    def run(self, units: Iterable[Unit]) -> Iterator[Record | Failure]:
        """Do units that do not need each other; yield what became of each as it is known.

        Tasks return their records, some hundred bytes; results are let go at once. A region that
        fails is tried again; when its tries are used up its failure is recorded, and the others
        go on.
        """
        waiting = iter(units)
        threads = sum(self.client.nthreads().values())
        tries: dict[Unit, int] = {}
        places: dict[object, Unit] = {}
        flying = as_completed(with_results=False, raise_errors=False)
        try:
            for unit in islice(waiting, PER_THREAD * max(1, threads)):
                self._submit(unit, tries, places, flying)
            for future in flying:
                unit = places.pop(future.key)
                outcome = self._settle(future, unit, tries)
                if outcome is None:
                    self._submit(unit, tries, places, flying)
                    continue
                yield outcome
                for following in islice(waiting, 1):
                    self._submit(following, tries, places, flying)
        finally:
            self.client.cancel(list(flying.futures), force=True)

    def _submit(
        self,
        unit: Unit,
        tries: dict[Unit, int],
        places: dict[object, Unit],
        flying: as_completed,
    ) -> None:
        tries[unit] = tries.get(unit, 0) + 1
        # A scheduler that serves several runs must not take one's task for another's.
        key = f"{unit.step.name}-{unit.region.key}-{uuid4().hex}"
        future = self.client.submit(perform, self.job, unit.step, unit.region, key=key, pure=False)
        places[future.key] = unit
        flying.add(future)

    def _settle(
        self, future: Future[Record], unit: Unit, tries: dict[Unit, int]
    ) -> Record | Failure | None:
        """Say what became of a unit; None where it is to be tried again."""
        error = future.exception()
        if error is None:
            record: Record = future.result()
            future.release()
            tries.pop(unit)
            return record
        future.release()
        step, region = unit.step, unit.region
        _LOG.warning("%s, %s, try %d: %s", step.name, region, tries[unit], error)
        if tries[unit] <= self.retries:
            return None
        failure = Failure(step.name, region, f"{type(error).__name__}: {error}", tries.pop(unit))
        Ledger(self.job.out).write_failure(failure)
        return failure
