"""The lease of an OUT: one driver at a time, by epochs.

Who wants the lease creates ``lease/<highest epoch + 1>.json``; the store lets one succeed. The
holder writes its heartbeat every few seconds. Another driver may take over once it has seen the
same heartbeat for `EXPIRY_S` by its own monotonic clock; the holder stops when its last good
heartbeat began that long ago, by its own. Wall clocks are for people alone.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from engine.errors import LeaseLostError, OutputError
from engine.ledger import effects
from engine.ledger.holding import (
    EXPIRY_S,
    POLL_S,
    Timer,
    await_free,
    read_holder,
    read_or_none,
    refused,
)
from engine.ledger.identity import Identity
from engine.ledger.names import highest_epoch, lease_place, numbered
from engine.store.reach import check_exclusive_create

if TYPE_CHECKING:
    from engine.ledger.ledger import Ledger
    from engine.store.location import Location


class Lease:
    """The right to write to an OUT; made by `acquire`.

    Parameters
    ----------
    root : Location
        Folder of the ledger.
    epoch : int
        Epoch that is held.
    timer : Timer
        Clock of this driver.
    begun : float
        When the lease was asked for.
    """

    def __init__(self, root: Location, epoch: int, timer: Timer, begun: float) -> None:
        self.epoch = epoch
        self._root = root
        self._timer = timer
        self._good = begun
        self._beats = 0
        self._ended = ""
        self._beating = threading.Lock()

    @classmethod
    def acquire(
        cls,
        ledger: Ledger,
        tell: Callable[[str], None] | None = None,
        timer: Timer | None = None,
        identity: Identity | None = None,
    ) -> Lease:
        """Take the lease of an OUT; waits where the holder may be dead.

        Parameters
        ----------
        ledger : Ledger
            The ledger.
        tell : callable or None
            Is told, in a sentence, when it must wait.
        timer : Timer or None
            The clock; that of the system where None.
        identity : Identity or None
            Who asks; this process where None.

        Returns
        -------
        Lease

        Raises
        ------
        OutputError
            If another driver holds it, the place cannot be written, or its store lets two create
            the same object.
        """
        root, timer = ledger.folder, timer or Timer()
        held = highest_epoch(root)
        if held:
            await_free(root, held, tell or (lambda _: None), timer)
        check_exclusive_create(root / "lease")
        begun = timer.now()
        document = {
            **(identity or Identity.of_this_process()).to_json(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid.uuid4().hex,
        }
        data = (json.dumps(document, indent=2) + "\n").encode()
        try:
            effects.create(lease_place(root, held + 1), data)
        except FileExistsError as err:
            # A request that is repeated after a lost answer finds its own object.
            if read_or_none(lease_place(root, held + 1)) != data:
                raise refused(root, read_holder(root, held + 1)) from err
        return cls(root, held + 1, timer, begun)

    def beat(self) -> None:
        """Write the heartbeat, and see whether the lease is still held.

        Raises
        ------
        LeaseLostError
            If another driver took over, or the lease was released.
        OutputError
            If the store does not answer; `check` tells when that has lasted too long.
        """
        with self._beating:
            self._beat()

    def check(self) -> None:
        """Make sure, by the clock, that the lease is held; asks the store only where it is late.

        Raises
        ------
        LeaseLostError
            If another driver took over, or no heartbeat could be written for `EXPIRY_S`.
        """
        if self._ended:
            raise self.lost(self._ended)
        if self._timer.now() - self._good < EXPIRY_S:
            return
        if not self._beating.acquire(timeout=POLL_S):
            raise self.lost("a heartbeat that hangs")
        try:
            # This driver may just have been suspended, and nobody taken over.
            self._beat()
        except OutputError as err:
            raise self.lost(f"no heartbeat for {EXPIRY_S:.0f} s ({err.found})") from err
        finally:
            self._beating.release()

    def release(self) -> None:
        """Give the lease back; a lost one stays lost.

        Raises
        ------
        OutputError
            If that cannot be written; the lease then expires by itself.
        """
        if not self._ended:
            self._ended = "a lease that was given back"
            effects.write(lease_place(self._root, self.epoch, "end"), b"released\n")

    def lost(self, found: str) -> LeaseLostError:
        """Make the error of this lease being lost; from then on it is."""
        self._ended = self._ended or found
        return LeaseLostError(
            where=f"OUT '{self._root.parent}', epoch {self.epoch}",
            expected="to be the only driver",
            found=found,
            remedy="This run stops; what it did is kept. Look with `tilewright status OUT` who "
            "writes there, and give the command again when nobody does.",
        )

    def _beat(self) -> None:
        if self._ended:
            raise self.lost(self._ended)
        begun = self._timer.now()
        self._beats += 1
        effects.write(lease_place(self._root, self.epoch, "beat"), f"{self._beats}\n".encode())
        there = numbered(self._root / "lease")
        if not there or there[-1] != self.epoch:
            newer = there[-1] if there else self.epoch
            raise self.lost(f"another driver: {read_holder(self._root, newer)}")
        self._good = begun
