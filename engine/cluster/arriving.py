"""Workers that come: waited for, and looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cluster.inspection import inspect_cluster
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client


def meet_workers(
    client: Client, where: str, wait_s: float, remedy: str, why: Callable[[], str] = str
) -> None:
    """Wait for the first worker, and compare all that are there with this process.

    Parameters
    ----------
    client : Client
        Of the cluster.
    where : str
        Option that named it.
    wait_s : float
        How long.
    remedy : str
        What to do where none comes.
    why : callable
        Says what keeps workers from coming; "" where that is not known.

    Raises
    ------
    ResourceError
        If none comes in time, or versions differ.
    """
    try:
        client.wait_for_workers(1, timeout=wait_s)
    except TimeoutError as err:
        raise ResourceError(
            where=where,
            expected=f"at least one worker within {wait_s:.3g} s",
            found=why() or "none",
            remedy=remedy,
        ) from err
    inspect_cluster(client, where)
