"""A bounded window of tasks: as many as keep the workers busy, and no more in the scheduler."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distributed import as_completed

from engine.errors import InputError
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


@dataclass(frozen=True)
class Sweep:
    """One pass on a cluster.

    Parameters
    ----------
    client : Client
        The cluster.
    job : Job
        The run.
    step : Pass
        The pass.
    retries : int
        How often a region that failed is tried again.
    """

    client: Client
    job: Job
    step: Pass
    retries: int

    def run(self, regions: Iterable[Region]) -> Iterator[Record | Failure]:
        """Do regions; yield what became of each as it is known.

        Tasks return their records, some hundred bytes; results are let go at once. A region that
        fails is tried again; when its tries are used up its failure is recorded, and the others
        go on.

        Raises
        ------
        InputError
            If a region of pass 0 finds that the image cannot be taken.
        """
        waiting = iter(regions)
        threads = sum(self.client.nthreads().values())
        tries: dict[Region, int] = {}
        places: dict[object, Region] = {}
        flying = as_completed(with_results=False, raise_errors=False)
        try:
            for region in _first(waiting, PER_THREAD * max(1, threads)):
                self._submit(region, tries, places, flying)
            for future in flying:
                region = places.pop(future.key)
                outcome = self._settle(future, region, tries)
                if outcome is None:
                    self._submit(region, tries, places, flying)
                    continue
                yield outcome
                for following in _first(waiting, 1):
                    self._submit(following, tries, places, flying)
        finally:
            self.client.cancel(list(flying.futures), force=True)

    def _submit(
        self,
        region: Region,
        tries: dict[Region, int],
        places: dict[object, Region],
        flying: as_completed,
    ) -> None:
        tries[region] = tries.get(region, 0) + 1
        key = f"{self.step.name}-{region.key}-{tries[region]}-{self.job.digest[:8]}"
        future = self.client.submit(perform, self.job, self.step, region, key=key, pure=False)
        places[future.key] = region
        flying.add(future)

    def _settle(
        self, future: Future[Record], region: Region, tries: dict[Region, int]
    ) -> Record | Failure | None:
        """Say what became of a region; None where it is to be tried again."""
        error = future.exception()
        if error is None:
            record: Record = future.result()
            future.release()
            tries.pop(region)
            return record
        future.release()
        if self.step.kind == "range" and isinstance(error, InputError):
            raise error
        _LOG.warning("%s, %s, try %d: %s", self.step.name, region, tries[region], error)
        if tries[region] <= self.retries:
            return None
        failure = Failure(
            self.step.name, region, f"{type(error).__name__}: {error}", tries.pop(region)
        )
        Ledger(self.job.out).write_failure(failure)
        return failure


def _first(regions: Iterator[Region], count: int) -> Iterator[Region]:
    """Next `count` regions, or what is left."""
    for _, region in zip(range(count), regions, strict=False):
        yield region
