"""Dask clusters: started here or reached by address, with the settings that workers need."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dask
from distributed import Client, LocalCluster

from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Environment of worker processes. One thread per library, since processes scale better; glibc
#: keeps large blocks instead of returning them to the system after every launch (1.5-1.9 times
#: faster on large batches), in one arena, since those of threads end at 64 MB whatever is set
#: (measured: 350 000 page faults a run without, 300 with, and 0.9 GB resident instead of 1.6).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**32),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",
}

#: What Dask and its libraries say in worker processes of our own, from their first line to their
#: last: of a process that dies, the others tell in tracebacks. What matters of it, the driver sees.
_SILENCE = {
    "DASK_LOGGING": str(
        {
            "asyncio": "critical",
            "distributed": "critical",
            "distributed.client": "critical",
            "distributed.gc": "critical",
            "tornado.application": "critical",
        }
    )
}

#: How long a scheduler at a given address may take to answer.
CONNECT_TIMEOUT_S = 10

#: How often a local cluster is started of which a process dies before it is there.
STARTS = 3


@dataclass(frozen=True)
class ClusterSpec:
    """Which cluster to use.

    Parameters
    ----------
    address : str
        "local", or the address of a scheduler such as ``tcp://10.0.0.1:8786``.
    workers : int
        Worker processes of a local cluster.
    threads : int
        Tasks that a worker of a local cluster works on at once.
    """

    address: str
    workers: int
    threads: int


@contextmanager
def open_cluster(spec: ClusterSpec) -> Iterator[Client]:
    """Connect to a cluster; one that was started here ends with the block.

    Raises
    ------
    ResourceError
        If the address is none, or nobody answers there.
    """
    settings = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT | _SILENCE,
        # Tasks hold arrays that Dask does not manage: it can neither spill nor judge them.
        "distributed.worker.memory.target": False,
        "distributed.worker.memory.spill": False,
        "distributed.worker.memory.pause": False,
        "distributed.scheduler.worker-ttl": "10 minutes",
        "distributed.scheduler.allowed-failures": 10,
        "distributed.comm.retry.count": 3,
        # Nannies start workers again. A cluster that looks, so long after a death, whether the
        # worker is back closes for good one that has just died again (2 workers became 1).
        "distributed.deploy.lost-worker-timeout": "1000 days",
    }
    with dask.config.set(settings):
        if spec.address == "local":
            with _start(spec) as client:
                yield client
        else:
            with _connect(spec.address) as client:
                yield client


@contextmanager
def _start(spec: ClusterSpec) -> Iterator[Client]:
    """Workers on this machine; what they log comes to the loggers of this process.

    Where the block is left by an error, such as a request to stop, workers are killed: Dask would
    wait for their threads. What they have not recorded is done again.
    """
    for handler in logging.getLogger("distributed").handlers:
        # Of Dask, on the terminal; for good, since the scheduler's last words come after its end.
        if type(handler) is logging.StreamHandler:
            handler.setLevel(logging.CRITICAL)
    with _local(spec) as cluster, Client(cluster, timeout=CONNECT_TIMEOUT_S) as client:
        client.forward_logging("engine")
        try:
            yield client
        except BaseException:
            _kill_workers(cluster)
            raise


def _local(spec: ClusterSpec) -> LocalCluster:
    """Scheduler in this process, with worker processes that all have started."""
    failure = None
    for _ in range(STARTS):
        try:
            return LocalCluster(
                n_workers=spec.workers,
                threads_per_worker=spec.threads,
                processes=True,
                memory_limit=0,
                dashboard_address="127.0.0.1:0",
                # It would take log files for the terminal, and let the terminal speak at the end.
                silence_logs=False,
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


def _connect(address: str) -> Client:
    """Client of a scheduler that runs already."""
    if not address.startswith(("tcp://", "tls://")):
        raise ResourceError(
            where=f"--cluster {address}",
            expected="local, or the address of a scheduler such as tcp://host:8786",
            found=address,
            remedy="Start one with `dask scheduler`, or use --cluster local.",
        )
    try:
        client = Client(address, timeout=CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as err:
        raise ResourceError(
            where=f"--cluster {address}",
            expected=f"a Dask scheduler that answers within {CONNECT_TIMEOUT_S} s",
            found=str(err) or type(err).__name__,
            remedy="Check that `dask scheduler` runs there and the port is open.",
        ) from err
    if not client.scheduler_info()["workers"]:
        client.close()
        raise ResourceError(
            where=f"--cluster {address}",
            expected="at least one worker",
            found="none",
            remedy=f"Start one with `dask worker {address} --nthreads 2`.",
        )
    return client
