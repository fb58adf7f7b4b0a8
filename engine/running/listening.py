"""Who is told how a run goes, and what became of it in the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from engine.ledger import Failure


class Listener(Protocol):
    """Who is told of progress."""

    def waiting(self, reason: str) -> None:
        """Note that the run waits before it can start."""

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Note that workers are there, and where Dask shows them."""

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Note that a pass starts, with what is done of it and the pixels that are left."""

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Note that some regions of a pass are done."""

    def region_failed(self, failure: Failure) -> None:
        """Note that a region of a pass is given up."""


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Parameters
    ----------
    complete : bool
        Whether nothing is missing.
    failures : tuple of Failure
        Regions that are missing, and why; the first `MOST_FAILURES` of them.
    missing : int
        Regions that are missing.
    report : dict
        What was measured; also in ``.tilewright/report.json``.
    """

    complete: bool
    failures: tuple[Failure, ...]
    missing: int = 0
    report: dict[str, Any] = field(default_factory=dict)


#: Failures that an outcome lists; all are in the records.
MOST_FAILURES = 1000
