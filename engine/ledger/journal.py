"""What the driver writes: records in large objects, marks, and what counts from its epoch on.

Every object is written under a name of its own, and nothing is removed before what replaces it
stands; so a driver may die, or be overtaken, between any two steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import effects
from engine.ledger.chain import Chain, loose_place, read_chain, write_chain
from engine.ledger.names import (
    SHORT,
    attempts_folder,
    epoch_place,
    epochs_in,
    loose_folder,
    numbered,
    parts_in,
)
from engine.ledger.records import State
from engine.ledger.scribe import MOST_LINES, Waiting

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from engine.ledger.lease import Lease
    from engine.ledger.names import Part
    from engine.ledger.records import Bundle, Mark
    from engine.ledger.scribe import About, Scribe
    from engine.store.location import Location

#: Failures in one object, which is written again with each.
FAILURES = 256


class Journal:
    """Records and marks of the epoch that a driver holds; made by `take_over`.

    Parameters
    ----------
    root : Location
        Folder of the ledger.
    lease : Lease
        The driver's.
    scribe : Scribe
        Writes its objects.
    """

    def __init__(self, root: Location, lease: Lease, scribe: Scribe) -> None:
        self._root = root
        self._lease = lease
        self._epoch = lease.epoch
        self._scribe = scribe
        self._waiting: dict[About, Waiting] = {}
        self._failing: dict[About, tuple[Part, list[str]]] = {}
        self._added: set[str] = set()

    def add(self, bundle: Bundle) -> None:
        """Take the records of a unit; a segment replaces the object that its worker wrote.

        Raises
        ------
        OutputError
            If a segment cannot be written; what was added is kept and tried again.
        """
        about = (bundle.pass_name, bundle.digest)
        self._added.add(bundle.pass_name)
        waiting = self._waiting.setdefault(about, Waiting())
        waiting.add(bundle.lines)
        name = (bundle.pass_name, bundle.name)
        waiting.loose.append(loose_place(self._root, self._epoch, name))
        if waiting.full:
            self._write_segment(about)

    def flush(self) -> None:
        """Write everything that waits.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        for about in list(self._waiting):
            self._write_segment(about)

    def revoke(self, marks: Iterable[Mark]) -> None:
        """Take back that regions are done, before any task of their passes is sent.

        Parameters
        ----------
        marks : iterable of Mark
            MISSING, DAMAGED or CHANGED; each for the region of one record, exactly.

        Raises
        ------
        ValueError
            If a mark is a failure, or records of its pass were added in this epoch: marks count
            before these.
        OutputError
            If they cannot be written.
        """
        lines: dict[About, list[str]] = {}
        for mark in marks:
            if mark.state is State.FAILED or mark.pass_name in self._added:
                msg = f"too late to take back, or a failure: {mark}"
                raise ValueError(msg)
            about = (mark.pass_name, mark.digest)
            lines.setdefault(about, []).append(mark.to_line())
            if len(lines[about]) == MOST_LINES:
                self._scribe.write("marks", self._name(about), lines.pop(about))
        for about, some in lines.items():
            self._scribe.write("marks", self._name(about), some)

    def fail(self, mark: Mark) -> None:
        """Keep why a region is given up, until it is done.

        Raises
        ------
        ValueError
            If the mark is no failure.
        OutputError
            If it cannot be written.
        """
        if mark.state is not State.FAILED:
            msg = f"expected a failure: {mark}"
            raise ValueError(msg)
        about = (mark.pass_name, mark.digest)
        part, lines = self._failing.setdefault(about, (self._name(about), []))
        lines.append(mark.to_line())
        self._scribe.write("marks", part, lines)
        if len(lines) == FAILURES:
            del self._failing[about]

    def forget(self, digests: Collection[str]) -> None:
        """Remove what counts no more: other digests, what lost drivers left, old leases.

        Called when a run is complete. The shorter list is written first and the lease looked at
        once more before anything is removed: whoever takes over later reads the shorter list.

        Parameters
        ----------
        digests : collection of str
            Digests whose records and marks are kept.

        Raises
        ------
        LeaseLostError
            If another driver took over; nothing that it may need was removed.
        OutputError
            If something cannot be written or removed.
        """
        self.flush()
        short = {digest[:SHORT] for digest in digests}
        chain = read_chain(self._root)
        kept = Chain(
            self._epoch,
            tuple(part for part in chain.segments if part.digest in short),
            tuple(part for part in chain.marks if part.digest in short),
        )
        self._lease.beat()
        write_chain(self._root, kept)
        self._lease.beat()
        for folder, some in (("segments", kept.segments), ("marks", kept.marks)):
            place = self._root / folder
            found = [part for part in parts_in(place) if part.writer <= self._epoch]
            effects.delete(place / str(part) for part in set(found) - set(some))
        self._clear_old()

    def _clear_old(self) -> None:
        """Remove what older epochs left beside their segments."""
        root, epoch = self._root, self._epoch
        for old in epochs_in(root / "records"):
            if old < epoch:
                effects.clear(loose_folder(root, old))
        for old in epochs_in(root / "attempts"):
            if old <= epoch:
                effects.clear(attempts_folder(root, old))
        effects.delete(epoch_place(root, k) for k in numbered(root / "epochs") if k < epoch)
        # By name, not by epoch: a lost driver may have written a heartbeat since.
        folder = root / "lease"
        effects.delete(
            folder / name
            for name in effects.names(folder)
            if (number := name.partition(".")[0]).isdecimal() and int(number) < epoch
        )

    def _name(self, about: About) -> Part:
        return self._scribe.name(self._epoch, about)

    def _write_segment(self, about: About) -> None:
        waiting = self._waiting[about]
        self._scribe.write("segments", self._name(about), waiting.lines)
        del self._waiting[about]
        effects.delete(waiting.loose)
