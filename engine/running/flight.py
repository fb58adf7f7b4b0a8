"""Tasks in flight on a cluster: sent where there is room, sent again after a pause.

::

    tries ──► in flight ──► answer, error, or nothing
                  ▲              │
                  └── waiting ◄──┘  where its owner wants another try

What waits, flies and comes back is decided on one thread; Dask's callbacks only put names into a
queue. Nothing is kept of a task that came back.
"""

from __future__ import annotations

import heapq
import logging
import queue
import time
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import uuid4

from distributed import CancelledError, get_worker
from distributed.client import ClosedClientError

from engine.running.crew import ANSWER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Future

    from engine.running.crew import Crew

_LOG = logging.getLogger(__name__)

TryT = TypeVar("TryT")
AnswerT = TypeVar("AnswerT")

#: How often the driver looks whether it should stop, or whether the workers are gone.
TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Call(Generic[AnswerT]):
    """What a worker is to do.

    Parameters
    ----------
    name : str
        What the scheduler calls it, up to a suffix of our own.
    function : callable
        Done on a worker.
    arguments : tuple
        Of the function.
    avoid : tuple of str
        Workers where it failed before.
    """

    name: str
    function: Callable[..., AnswerT]
    arguments: tuple[Any, ...]
    avoid: tuple[str, ...] = ()


@dataclass
class Flight(Generic[TryT, AnswerT]):
    """Tasks in flight, and what waits to be tried again.

    Parameters
    ----------
    crew : Crew
        The workers.
    tries : iterator
        What is to be done; taken as there is room.
    call : callable
        Says what a worker is to do for a try.
    per_thread : int
        Tasks in flight for each thread of the cluster.
    """

    crew: Crew
    tries: Iterator[TryT]
    call: Callable[[TryT], Call[AnswerT]]
    per_thread: int
    _flying: dict[str, tuple[TryT, Future[AnswerT | _Elsewhere]]] = field(default_factory=dict)
    _waiting: list[tuple[float, int, TryT]] = field(default_factory=list)
    _landed: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    _numbers: Iterator[int] = field(default_factory=count)
    _exhausted: bool = False

    def fill(self) -> bool:
        """Send what there is room for; False where nothing is left to do.

        Raises
        ------
        StoppedRunError
            If the scheduler or all workers are gone.
        """
        self.crew.look()
        room = self.per_thread * self.crew.threads
        while len(self._flying) < room:
            if self._waiting and self._waiting[0][0] <= time.monotonic():
                self._send(heapq.heappop(self._waiting)[2])
                continue
            tried = next(self.tries, None)
            if tried is None:
                self._exhausted = True
                break
            self._send(tried)
        return bool(self._flying or self._waiting or not self._exhausted)

    def land(self) -> Iterator[tuple[TryT, AnswerT | BaseException | None]]:
        """Wait a little; yield what came back.

        Yields
        ------
        try
            As it was sent.
        answer
            Of the worker; the error with which Dask gave up, or that the function raised; None
            where the connection broke, or a worker took its answer along.
        """
        try:
            keys = [self._landed.get(timeout=self._patience())]
        except queue.Empty:
            return
        while not self._landed.empty():
            keys.append(self._landed.get())
        for key in keys:
            tried, future = self._flying.pop(key)
            answer = _came(future)
            future.release()
            if isinstance(answer, _Elsewhere):
                self.wait(tried, TICK_S)
            else:
                yield tried, answer

    def wait(self, tried: TryT, pause_s: float) -> None:
        """Have something sent again, after a pause."""
        heapq.heappush(self._waiting, (time.monotonic() + pause_s, next(self._numbers), tried))

    def abandon(self) -> None:
        """Let go of everything that is in flight."""
        futures = [future for _, future in self._flying.values()]
        if futures and self.crew.client.status == "running":
            self.crew.client.cancel(futures, force=True, reason="stopped")

    def _patience(self) -> float:
        due = self._waiting[0][0] - time.monotonic() if self._waiting else TICK_S
        return max(0.01, min(TICK_S, due))

    def _send(self, tried: TryT) -> None:
        call = self.call(tried)
        # A scheduler that serves several runs must not take one's task for another's.
        key = f"{call.name}-{uuid4().hex}"
        elsewhere = self.crew.elsewhere(call.avoid) if call.avoid else []
        shunned = self.crew.others(elsewhere) if elsewhere else ()
        try:
            future = self.crew.client.submit(
                _do, call.function, call.arguments, shunned, key=key, pure=False,
                workers=elsewhere or None, allow_other_workers=bool(elsewhere),
            )  # fmt: skip
        except ClosedClientError as err:
            raise self.crew.gone("the scheduler is gone") from err
        self._flying[key] = tried, future
        future.add_done_callback(lambda f: self._landed.put(f.key))


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Answer of a worker that a task was not meant for."""


def _do(
    function: Callable[..., AnswerT], arguments: tuple[Any, ...], shunned: tuple[str, ...]
) -> AnswerT | _Elsewhere:
    """Do a call on a worker, but not on one where it failed before.

    Dask lets an idle worker take tasks that wait at a busy one: the worker that fails is idle.
    """
    if shunned and get_worker().address in shunned:
        return _Elsewhere()
    return function(*arguments)


def _came(future: Future[AnswerT | _Elsewhere]) -> AnswerT | _Elsewhere | BaseException | None:
    """Answer of a worker, or the error in its place; None where Dask lost it."""
    if future.status == "error":
        error: BaseException = future.exception()
        return error
    if future.status == "cancelled":
        return None
    try:
        answer: AnswerT | _Elsewhere = future.result(timeout=ANSWER_S)
    except (TimeoutError, CancelledError) as err:
        _LOG.warning("the answer of %s is lost: %s", future.key, err)
        return None
    return answer
