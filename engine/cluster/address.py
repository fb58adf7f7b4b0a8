"""A cluster that runs already, reached by the address of its scheduler."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from distributed import Client

from engine.cluster import configuration
from engine.cluster.arriving import meet_workers
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cluster.spec import ClusterSpec


@contextmanager
def connect(spec: ClusterSpec) -> Iterator[Client]:
    """Client of a scheduler that runs already, and goes on when the block ends.

    Raises
    ------
    ResourceError
        If nobody answers there, no worker comes in time, or versions differ.
    """
    address, where = spec.address, f"--cluster {spec.address}"
    try:
        client = Client(address, timeout=configuration.CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as err:
        raise ResourceError(
            where=where,
            expected=f"a Dask scheduler that answers within {configuration.CONNECT_TIMEOUT_S} s",
            found=str(err) or type(err).__name__,
            remedy="Check that `dask scheduler` runs there and the port is open.",
        ) from err
    with client:
        wait_s = spec.settings.wait_s or configuration.CONNECT_TIMEOUT_S
        remedy = f"Start one with `dask worker {address} --nthreads 2`."
        meet_workers(client, where, wait_s, remedy)
        yield client
