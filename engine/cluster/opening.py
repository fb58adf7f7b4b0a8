"""The door to all clusters."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import dask

from engine.cluster.address import connect
from engine.cluster.configuration import DASK_SETTINGS
from engine.cluster.local import start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

    from engine.cluster.spec import ClusterSpec


@contextmanager
def open_cluster(spec: ClusterSpec) -> Iterator[Client]:
    """Connect to a cluster; one that was started here ends with the block.

    Raises
    ------
    ResourceError
        If the address is none, or nobody answers there.
    """
    with dask.config.set(DASK_SETTINGS):
        if spec.address == "local":
            with start(spec) as client:
                yield client
        else:
            with connect(spec.address) as client:
                yield client
