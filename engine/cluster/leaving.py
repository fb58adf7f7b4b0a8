"""Clusters that a server started: ended with the run, when idle, or left, as was asked."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client, Scheduler

    from engine.recipe import ClusterSettings

_LOG = logging.getLogger(__name__)


@contextmanager
def ended(name: str, settings: ClusterSettings, stop: Callable[[], None]) -> Iterator[None]:
    """End a cluster when the block ends, unless it is to be left.

    One that this run started is ended by an error in any case.

    Parameters
    ----------
    name : str
        Its name.
    settings : ClusterSettings
        Whether it was there before, and whether it is to be left.
    stop : callable
        Has the server end it.
    """
    try:
        yield
    except BaseException:
        if settings.name is None or not settings.leave:
            end(name, stop)
        raise
    if settings.leave:
        _LOG.warning("cluster %s is left; it ends after %g s", name, settings.idle_timeout_s)
    else:
        end(name, stop)


def end(name: str, stop: Callable[[], None]) -> None:
    """Have the server end a cluster; only log where it cannot."""
    try:
        stop()
    except Exception:
        # Whatever it is: it must not hide why the run ends, and the idle timeout is set.
        _LOG.exception("cluster %s could not be stopped", name)


def end_when_idle(client: Client, idle_timeout_s: float) -> None:
    """Have a scheduler end by itself, also one whose server was told nothing of that."""
    client.run_on_scheduler(_set_idle_timeout, idle_timeout_s)


def _set_idle_timeout(idle_timeout_s: float, *, dask_scheduler: Scheduler) -> None:
    """Set it on the scheduler itself, which looks at it four times a second."""
    dask_scheduler.idle_timeout = idle_timeout_s
