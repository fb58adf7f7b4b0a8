"""The door to all clusters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dask

from engine.cluster import gateway, kubernetes, slurm
from engine.cluster.address import connect
from engine.cluster.configuration import DASK_SETTINGS
from engine.cluster.inspection import inspect_cluster
from engine.cluster.local import start
from engine.recipe import backend_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from distributed import Client

    from engine.cluster.spec import ClusterSpec
    from engine.planning import Job
    from engine.recipe.clusters import Backend

_OPEN: dict[Backend, Callable[[ClusterSpec], AbstractContextManager[Client]]] = {
    "local": start,
    "address": connect,
    "gateway": gateway.start,
    "kubernetes": kubernetes.start,
    "slurm": slurm.start,
}

_CHECK: dict[Backend, Callable[[ClusterSpec], None]] = {
    "gateway": gateway.check,
    "kubernetes": kubernetes.check,
    "slurm": slurm.check,
}


@contextmanager
def open_cluster(spec: ClusterSpec) -> Iterator[Client]:
    """Connect to a cluster; one that was started here ends with the block.

    Raises
    ------
    RecipeError
        If the address is none.
    ResourceError
        If nobody answers there, a limit is exceeded, no worker comes in time, or versions of
        client, scheduler and workers differ.
    """
    opened = _OPEN[backend_of(spec.address)]
    with dask.config.set(DASK_SETTINGS), opened(spec) as client:
        yield client


def check_cluster(spec: ClusterSpec, job: Job | None = None) -> None:
    """Refuse what can be known to fail before anything is started.

    Parameters
    ----------
    spec : ClusterSpec
        Which cluster.
    job : Job or None
        Whose networks workers that are there already must have.

    Raises
    ------
    RecipeError, ResourceError, ModelError
        As `open_cluster`; or if networks are missing.
    """
    backend = backend_of(spec.address)
    if backend in _CHECK:
        with dask.config.set(DASK_SETTINGS):
            _CHECK[backend](spec)
    elif backend == "address":
        with open_cluster(spec) as client:
            inspect_cluster(client, f"--cluster {spec.address}", job)
