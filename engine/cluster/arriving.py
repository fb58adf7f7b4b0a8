"""Workers that come: waited for, looked at, and let go in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.cluster.inspection import inspect_cluster
from engine.errors import ResourceError

if TYPE_CHECKING:
    from distributed import Client, Scheduler


def meet_workers(client: Client, where: str, wait_s: float, remedy: str) -> None:
    """Wait for the first worker, and compare all that are there with this process.

    Raises
    ------
    ResourceError
        If none comes in time, or versions differ.
    """
    wait_for_worker(client, where, wait_s, remedy)
    inspect_cluster(client, where)


def wait_for_worker(client: Client, where: str, wait_s: float, remedy: str) -> None:
    """Wait for the first worker.

    Raises
    ------
    ResourceError
        If none comes in time.
    """
    try:
        client.wait_for_workers(1, timeout=wait_s)
    except TimeoutError as err:
        raise ResourceError(
            where=where,
            expected=f"at least one worker within {wait_s:g} s",
            found="none",
            remedy=remedy,
        ) from err


def end_when_idle(client: Client, idle_timeout_s: float) -> None:
    """Have a scheduler end by itself, also one whose server was told nothing of that."""
    client.run_on_scheduler(_set_idle_timeout, idle_timeout_s)


def _set_idle_timeout(idle_timeout_s: float, *, dask_scheduler: Scheduler) -> None:
    """Set it on the scheduler itself, which looks at it four times a second."""
    dask_scheduler.idle_timeout = idle_timeout_s
