"""A cluster on this machine: worker processes that start and end with the run."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from distributed import Client, LocalCluster, Nanny

from engine.cluster import configuration
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cluster.spec import ClusterSpec

#: How often a local cluster is started of which a process dies before it is there.
STARTS = 3


class _GpuNanny(Nanny):
    """Nanny whose worker sees one GPU alone: that of its place among the workers."""

    # The arguments of a Nanny, of whatever type, go on to it.
    def __init__(self, *args: Any, name: int, gpus: tuple[str, ...], **options: Any) -> None:  # noqa: ANN401
        options |= {"name": name, "env": {"CUDA_VISIBLE_DEVICES": gpus[name % len(gpus)]}}
        super().__init__(*args, **options)


@contextmanager
def start(spec: ClusterSpec) -> Iterator[Client]:
    """Workers on this machine; what they log comes to the loggers of this process.

    Where the block is left by an error, such as a request to stop, workers are killed: Dask would
    wait for their threads. What they have not recorded is done again.
    """
    quiet_terminal()
    with (
        _cluster(spec) as cluster,
        Client(cluster, timeout=configuration.CONNECT_TIMEOUT_S) as client,
    ):
        client.forward_logging("engine")
        try:
            yield client
        except BaseException:
            _kill_workers(cluster)
            raise


def quiet_terminal() -> None:
    """Keep what Dask says off the terminal; for good: a scheduler's last words follow its end."""
    for handler in logging.getLogger("distributed").handlers:
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.CRITICAL)


def _cluster(spec: ClusterSpec) -> LocalCluster:
    """Scheduler in this process, with worker processes that all have started."""
    failure = None
    kind: dict[str, Any] = {"worker_class": Nanny}
    if spec.gpus:
        kind = {"worker_class": _GpuNanny, "gpus": spec.gpus}
    for _ in range(STARTS):
        try:
            return LocalCluster(
                n_workers=spec.workers,
                threads_per_worker=spec.threads,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                # It would take log files for the terminal, and let the terminal speak at the end.
                silence_logs=False,
                **kind,
            )
        except RuntimeError as err:  # of Dask, for a process that ended before it was there
            failure = err
    raise ResourceError(
        where="--cluster local",
        expected=f"{spec.workers} worker processes that start",
        found=f"one that ended at once, {STARTS} times over: {failure}",
        remedy="In a script, call the run below `if __name__ == '__main__':`, since each worker "
        "reads the script again. Else check how many processes and how much memory are left here.",
    ) from failure


def _kill_workers(cluster: LocalCluster) -> None:
    """End worker processes now, and have none started in their place."""
    for nanny in list(cluster.workers.values()):
        nanny.close_gracefully(reason="stopped")
        with suppress(ProcessLookupError):
            if nanny.pid is not None:
                os.kill(nanny.pid, signal.SIGKILL)
