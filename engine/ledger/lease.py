"""The lease of an OUT: one driver at a time, by epochs.

Who wants the lease creates ``lease/<highest epoch + 1>.json``; the store lets one succeed. The
holder writes its heartbeat every few seconds. Another driver may take over once it has seen the
same heartbeat for `EXPIRY_S` by its own monotonic clock; the holder stops when its last good
heartbeat began that long ago, by its own. Wall clocks are for people alone.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from engine.errors import LeaseLostError, OutputError
from engine.ledger import effects
from engine.ledger.identity import Identity
from engine.ledger.names import highest_epoch, lease_place, numbered

if TYPE_CHECKING:
    from engine.ledger.ledger import Ledger
    from engine.store.location import Location

#: A heartbeat that did not change for so long is that of a dead driver.
EXPIRY_S = 30.0

#: How often an observer looks.
POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Timer:
    """A clock that only goes forward, and how to wait by it.

    Parameters
    ----------
    now : callable
        Seconds.
    sleep : callable
        Waits for some seconds.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds, or held, an epoch.

    Parameters
    ----------
    epoch : int
        The epoch.
    who : Identity or None
        The driver; None where its document is damaged.
    since : str
        When it took the lease, by its wall clock.
    """

    epoch: int
    who: Identity | None
    since: str

    def __str__(self) -> str:
        return f"{self.who or 'an unknown driver'}, since {self.since or 'an unknown time'}"


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
            If another driver holds it, or the place cannot be written.
        """
        root, timer = ledger.folder, timer or Timer()
        held = highest_epoch(root)
        if held:
            _await_free(root, held, tell or (lambda _: None), timer)
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
            if _read(lease_place(root, held + 1)) != data:
                raise _refused(root, _holder(root, held + 1)) from err
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
            raise self.lost(f"another driver: {_holder(self._root, newer)}")
        self._good = begun


def holder(ledger: Ledger) -> Holder | None:
    """Who holds the lease of an OUT, for those who only look.

    Returns
    -------
    Holder or None
        None where nobody does, as far as this machine can know without waiting.

    Raises
    ------
    OutputError
        If the store does not say.
    """
    root = ledger.folder
    there = numbered(root / "lease")
    if not there or effects.is_there(lease_place(root, there[-1], "end")):
        return None
    found = _holder(root, there[-1])
    return None if found.who and found.who.is_alive() is False else found


def _await_free(root: Location, epoch: int, tell: Callable[[str], None], timer: Timer) -> None:
    """Return once the holder of an epoch gave it back or is dead.

    Raises
    ------
    OutputError
        If it lives, or somebody else takes the lease meanwhile.
    """
    if _read(lease_place(root, epoch)) is None or _ended(root, epoch):
        return
    found = _holder(root, epoch)
    alive = found.who.is_alive() if found.who else None
    if alive is not None:
        if alive:
            raise _refused(root, found)
        return
    first = _read(lease_place(root, epoch, "beat"))
    start = timer.now()
    tell(f"OUT is held by {found}; waiting up to {EXPIRY_S:.0f} s to see whether it still runs")
    while True:
        timer.sleep(POLL_S)
        now = timer.now()
        newest = highest_epoch(root)
        if newest != epoch:
            raise _refused(root, _holder(root, newest))
        if _ended(root, epoch):
            return
        if _read(lease_place(root, epoch, "beat")) != first:
            raise _refused(root, found)
        if now - start >= EXPIRY_S:
            return


def _ended(root: Location, epoch: int) -> bool:
    return effects.is_there(lease_place(root, epoch, "end"))


def _read(place: Location) -> bytes | None:
    try:
        return effects.read(place)
    except FileNotFoundError:
        return None


def _holder(root: Location, epoch: int) -> Holder:
    """Read who holds an epoch; unknown where the document is damaged or just being made."""
    try:
        document: dict[str, Any] = json.loads(_read(lease_place(root, epoch)) or b"")
        return Holder(epoch, Identity.from_json(document), str(document["since"]))
    except (KeyError, TypeError, ValueError):
        return Holder(epoch, None, "")


def _refused(root: Location, found: Holder) -> OutputError:
    return OutputError(
        where=f"OUT '{root.parent}'",
        expected="that no other run writes there",
        found=f"one by {found}",
        remedy="Wait until it ends, or stop it, or choose another OUT.",
    )
