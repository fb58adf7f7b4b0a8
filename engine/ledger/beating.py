"""A thread that keeps a lease alive."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.errors import LeaseLostError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.ledger.lease import Lease

_LOG = logging.getLogger(__name__)

#: Seconds between two heartbeats.
INTERVAL_S = 5.0


class Pulse:
    """What is known of a lease that a thread keeps alive.

    Parameters
    ----------
    lease : Lease
        The lease.
    """

    def __init__(self, lease: Lease) -> None:
        self._lease = lease
        self._stop = threading.Event()
        self.lost = threading.Event()

    def check(self) -> None:
        """Make sure that the lease is held; called before tasks are sent.

        Raises
        ------
        LeaseLostError
            If it is lost.
        """
        try:
            self._lease.check()
        except LeaseLostError:
            self.lost.set()
            raise

    def beat(self, interval_s: float) -> None:
        """Write heartbeats until the lease is lost or `stop` is called."""
        while not self._stop.wait(interval_s):
            try:
                try:
                    self._lease.beat()
                except OutputError as err:
                    _LOG.warning("heartbeat: %s", err)
                    self._lease.check()
            except LeaseLostError as err:
                _LOG.error("%s", err)
                self.lost.set()
                return

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()


@contextmanager
def beating(lease: Lease, interval_s: float = INTERVAL_S) -> Iterator[Pulse]:
    """Keep a lease alive while the body runs.

    Parameters
    ----------
    lease : Lease
        The lease.
    interval_s : float
        Seconds between two heartbeats.

    Yields
    ------
    Pulse
        `lost` is set when the lease is lost; `check` raises then.
    """
    pulse = Pulse(lease)
    thread = threading.Thread(
        target=pulse.beat, args=(interval_s,), name="tilewright-heartbeat", daemon=True
    )
    thread.start()
    try:
        yield pulse
    finally:
        pulse.stop()
        thread.join(timeout=interval_s)
