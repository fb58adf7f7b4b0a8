"""What workers and Dask itself are told: environment of processes, settings of a run."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from engine.errors import ResourceError

if TYPE_CHECKING:
    from engine.recipe import ClusterSettings

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
SILENCE = {
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

#: Settings of Dask in the process that drives a run, and in clusters that it starts.
DASK_SETTINGS: dict[str, Any] = {
    "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT | SILENCE,
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

#: How long a scheduler at a given address may take to answer.
CONNECT_TIMEOUT_S = 10

#: How long the first worker of a cluster that is started may take to come.
WAIT_S = 300.0

#: The same settings of Dask for scheduler and workers that a server starts.
_SERVER_SETTINGS = (
    "distributed.worker.memory.target",
    "distributed.worker.memory.spill",
    "distributed.worker.memory.pause",
    "distributed.scheduler.worker-ttl",
    "distributed.scheduler.allowed-failures",
    "distributed.comm.retry.count",
)


def server_environment(settings: ClusterSettings) -> dict[str, str]:
    """Environment of scheduler and workers that a server starts: Dask's settings, and the user's.

    Raises
    ------
    ResourceError
        If a variable is to be passed on that this process does not have.
    """
    found = dict(WORKER_ENVIRONMENT)
    found |= {_variable(name): str(DASK_SETTINGS[name]) for name in _SERVER_SETTINGS}
    found[_variable("distributed.scheduler.idle-timeout")] = f"{settings.idle_timeout_s:g}s"
    return found | passed_environment(settings)


def passed_environment(settings: ClusterSettings) -> dict[str, str]:
    """Variables that the user wants scheduler and workers to have.

    Raises
    ------
    ResourceError
        If one is to be passed on that this process does not have.
    """
    found: dict[str, str] = {}
    for name in settings.pass_environment:
        known = [k for k in os.environ if fnmatchcase(k, name)]
        if not known:
            raise ResourceError(
                where=f"--cluster-set pass_environment={name}",
                expected="a variable of this process",
                found="none of that name",
                remedy="Set it, or leave it out.",
            )
        found |= {k: os.environ[k] for k in known}
    return found | settings.environment


def _variable(setting: str) -> str:
    """Variable of the environment from which Dask reads a setting."""
    return "DASK_" + setting.replace(".", "__").replace("-", "_").upper()
