"""A cluster that runs already, reached by the address of its scheduler."""

from __future__ import annotations

from distributed import Client

from engine.cluster import configuration
from engine.errors import ResourceError


def connect(address: str) -> Client:
    """Client of a scheduler that runs already."""
    if not address.startswith(("tcp://", "tls://")):
        raise ResourceError(
            where=f"--cluster {address}",
            expected="local, or the address of a scheduler such as tcp://host:8786",
            found=address,
            remedy="Start one with `dask scheduler`, or use --cluster local.",
        )
    try:
        client = Client(address, timeout=configuration.CONNECT_TIMEOUT_S)
    except (OSError, TimeoutError, ValueError) as err:
        raise ResourceError(
            where=f"--cluster {address}",
            expected=f"a Dask scheduler that answers within {configuration.CONNECT_TIMEOUT_S} s",
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
