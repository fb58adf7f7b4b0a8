"""The workers of a cluster: who is there, and whether the scheduler still answers."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import StoppedRunError

if TYPE_CHECKING:
    from collections.abc import Collection

    from distributed import Client

    from engine.store import Location

_LOG = logging.getLogger(__name__)

#: How often the workers are counted.
COUNT_EACH_S = 5.0

#: How long the scheduler may take for one answer, and how long it may give none.
ANSWER_S = 15.0
SILENCE_S = 45.0

#: How long a cluster may be without any worker before the run stops.
WORKERLESS_S = 300.0


@dataclass
class Crew:
    """The workers of a cluster, counted now and then; they may come and go.

    Parameters
    ----------
    client : Client
        The cluster.
    out : Location
        Folder of the result, for messages.
    """

    client: Client
    out: Location
    _threads: dict[str, int] = field(default_factory=dict)
    _asked: float = -COUNT_EACH_S
    _answered: float = field(default_factory=time.monotonic)
    _manned: float = field(default_factory=time.monotonic)

    @property
    def threads(self) -> int:
        """Threads of all workers; 0 where none is there, or the scheduler is not."""
        return sum(self._threads.values()) if self.client.status == "running" else 0

    def elsewhere(self, avoid: Collection[str]) -> list[str]:
        """Workers other than some; other than the last of them, where these are all; or none."""
        others = [address for address in self._threads if address not in avoid]
        return others or [address for address in self._threads if address not in [*avoid][-1:]]

    def others(self, chosen: Collection[str]) -> tuple[str, ...]:
        """Workers that are not among some."""
        return tuple(address for address in self._threads if address not in chosen)

    def look(self) -> None:
        """Count the workers, where that was not done lately.

        Raises
        ------
        StoppedRunError
            If the scheduler is gone or silent, or no worker was there for `WORKERLESS_S`.
        """
        now = time.monotonic()
        if self.client.status == "closed":
            raise self.gone("the scheduler is gone")
        if now - self._asked < COUNT_EACH_S:
            return
        self._asked = now
        # Dask's client connects again by itself, or closes: see `CONNECT_TIMEOUT_S`.
        if self.client.status == "running":
            self._ask()
        if time.monotonic() - self._answered > SILENCE_S:
            raise self.gone(f"no answer from the scheduler for {SILENCE_S:.0f} s")
        if time.monotonic() - self._manned > WORKERLESS_S:
            raise self.gone(f"no worker for {WORKERLESS_S:.0f} s")

    def gone(self, found: str) -> StoppedRunError:
        """Make the error for a cluster that is no more."""
        return StoppedRunError(
            where=f"OUT '{self.out}'",
            expected="workers",
            found=found,
            remedy="Start the cluster again and give the same command: what is done is kept.",
        )

    def _ask(self) -> None:
        try:
            self._threads = self.client.sync(_threads_of, self.client, callback_timeout=ANSWER_S)
        except OSError as err:
            _LOG.warning("no answer from the scheduler: %s", err)
            return
        self._answered = time.monotonic()
        if self._threads:
            self._manned = self._answered


async def _threads_of(client: Client) -> dict[str, int]:
    """Ask for the threads of each worker; as `Client.nthreads`, which waits for ever."""
    if client.scheduler is None:
        raise ConnectionError("not connected")
    found: dict[str, int] = await client.scheduler.ncores()
    return found
