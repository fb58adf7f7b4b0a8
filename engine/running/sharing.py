"""One cluster for several runs on several threads: started when the first task needs it."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from engine.cluster import open_cluster
from engine.errors import RefusedError
from engine.running.execution import SharedCluster

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from distributed import Client

    from engine.cluster import ClusterSpec

#: How often a run that waits for the cluster looks whether it is to stop.
_TICK_S = 0.2


class ClusterHost:
    """Opens a cluster for runs on other threads, and ends it with the block.

    Dask's clients belong to the thread that opens them, which must be the one that closes them.

    Parameters
    ----------
    spec : callable
        Says which cluster, once the first run asks for it.
    check : callable
        Raises KeyboardInterrupt where all runs are to stop.
    """

    def __init__(self, spec: Callable[[], ClusterSpec], check: Callable[[], None]) -> None:
        self._spec = spec
        self._check = check
        self._asked = threading.Event()
        self._settled = threading.Event()
        self._client: Client | None = None
        self._failure: RefusedError | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def shared(self) -> SharedCluster:
        """What the runs get."""
        return SharedCluster(self._await, self._check)

    def serve(self) -> None:
        """Open the cluster where a run waits for it; called now and then inside the block.

        Raises
        ------
        RefusedError
            If none can be had; the runs that wait get it too.
        """
        if not self._asked.is_set() or self._settled.is_set():
            return
        try:
            self._client = self._stack.enter_context(open_cluster(self._spec()))
        except RefusedError as err:
            self._failure = err
            raise
        finally:
            self._settled.set()

    def _await(self) -> Client:
        """Wait for the client."""
        self._asked.set()
        while self._client is None:
            if self._failure is not None:
                # Each run takes back what it has begun.
                raise self._failure
            self._check()
            self._settled.wait(_TICK_S)
        return self._client
