"""Who holds an OUT, and whether somebody else may take it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
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


def holder(ledger: Ledger) -> Holder | None:
    """Say who holds the lease of an OUT, for those who only look.

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
    found = read_holder(root, there[-1])
    return None if found.who and found.who.is_alive() is False else found


def await_free(root: Location, epoch: int, tell: Callable[[str], None], timer: Timer) -> None:
    """Return once the holder of an epoch gave it back or is dead.

    Raises
    ------
    OutputError
        If it lives, or somebody else takes the lease meanwhile.
    """
    if read_or_none(lease_place(root, epoch)) is None or is_over(root, epoch):
        return
    found = read_holder(root, epoch)
    alive = found.who.is_alive() if found.who else None
    if alive is not None:
        if alive:
            raise refused(root, found)
        return
    first = read_or_none(lease_place(root, epoch, "beat"))
    start = timer.now()
    tell(f"OUT is held by {found}; waiting up to {EXPIRY_S:.0f} s to see whether it still runs")
    while True:
        timer.sleep(POLL_S)
        now = timer.now()
        newest = highest_epoch(root)
        if newest != epoch:
            raise refused(root, read_holder(root, newest))
        if is_over(root, epoch):
            return
        if read_or_none(lease_place(root, epoch, "beat")) != first:
            raise refused(root, found)
        if now - start >= EXPIRY_S:
            return


def is_over(root: Location, epoch: int) -> bool:
    """Whether the holder of an epoch gave it back.

    Raises
    ------
    OutputError
        If the store does not say.
    """
    return effects.is_there(lease_place(root, epoch, "end"))


def read_or_none(place: Location) -> bytes | None:
    """Read an object; None where there is none.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    try:
        return effects.read(place)
    except FileNotFoundError:
        return None


def read_holder(root: Location, epoch: int) -> Holder:
    """Read who holds an epoch; unknown where the document is damaged or just being made.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    try:
        document: dict[str, Any] = json.loads(read_or_none(lease_place(root, epoch)) or b"")
        return Holder(epoch, Identity.from_json(document), str(document["since"]))
    except (KeyError, TypeError, ValueError):
        return Holder(epoch, None, "")


def refused(root: Location, found: Holder) -> OutputError:
    """Make the error of an OUT that another driver holds."""
    return OutputError(
        where=f"OUT '{root.parent}'",
        expected="that no other run writes there",
        found=f"one by {found}",
        remedy="Wait until it ends, or stop it, or choose another OUT.",
    )
