"""The first step of a driver that holds a lease: accept what was done before, and begin.

::

    list what counts ──► loose records into segments ──► still the newest? ──► epochs/<n>.jsonl
         ▲                                                     │ no                  │
         └─────────────────────────────────────────────────────┘      remove what was replaced

A driver that was overtaken may do its own first step late: it removes objects only after its own
list stands, so whoever finds the list that it began with unchanged has seen everything.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from engine.ledger import effects
from engine.ledger.chain import (
    MovedError,
    fetch,
    loose_place,
    newest_epoch,
    read_chain,
    unmoved,
    write_chain,
)
from engine.ledger.journal import Journal
from engine.ledger.lines import salvage, unpack
from engine.ledger.scribe import Scribe, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.ledger.chain import Chain
    from engine.ledger.lease import Lease
    from engine.ledger.ledger import Ledger
    from engine.ledger.names import Part
    from engine.ledger.scribe import About
    from engine.store.location import Location

    Kind = Literal["segments", "marks"]

_LOG = logging.getLogger(__name__)


def take_over(ledger: Ledger, lease: Lease, *, repair: bool = False) -> Journal:
    """Accept what was done before and begin the epoch of a lease; once for each lease.

    Parameters
    ----------
    ledger : Ledger
        The ledger.
    lease : Lease
        Just acquired. Its heart must be beating: this may take longer than the lease lasts.
    repair : bool
        Leave out damaged lines and objects, and say so in the log; their regions are new again.
        What they took back is forgotten: every record must be checked afterwards.

    Returns
    -------
    Journal

    Raises
    ------
    LeaseLostError
        If another driver took over meanwhile.
    OutputError
        If something is damaged (without `repair`), or cannot be read or written.
    """
    root, last = ledger.folder, None
    scribe = Scribe(root, lease.epoch)
    while True:
        try:
            chain = read_chain(root, repair=repair)
            accepted, replaced = _Acceptance(scribe, chain, repair=repair).run()
        except MovedError as err:
            last = unmoved(err, last)
            continue
        if chain.epoch >= lease.epoch:
            raise lease.lost(f"epoch {chain.epoch} has begun")
        if newest_epoch(root) == chain.epoch:
            break
    write_chain(root, replace(accepted, epoch=lease.epoch))
    effects.delete(replaced)
    lease.beat()
    return Journal(root, lease, scribe)


@dataclass(slots=True)
class _Acceptance:
    """What a driver accepts of a chain, and what it has written anew."""

    scribe: Scribe
    chain: Chain
    repair: bool
    segments: list[Part] = field(default_factory=list)
    marks: list[Part] = field(default_factory=list)
    replaced: list[Location] = field(default_factory=list)

    def run(self) -> tuple[Chain, list[Location]]:
        """Write what is loose into parts; return what counts then, and what it replaced."""
        root, chain = self.scribe.root, self.chain
        loose = [loose_place(root, chain.epoch, name) for name in chain.loose]
        self._join("segments", loose)
        self._join("marks", [root / "marks" / str(p) for p in chain.marks if chain.is_own(p)])
        self._keep("segments", chain.segments)
        self._keep("marks", [p for p in chain.marks if not chain.is_own(p)])
        return replace(chain, segments=tuple(self.segments), marks=tuple(self.marks)), self.replaced

    def _join(self, kind: Kind, places: list[Location]) -> None:
        """Write the lines of some objects into few."""
        joined: dict[About, Waiting] = {}
        for place in places:
            for line, fields in self._lines(place):
                about = (fields["pass"], fields["digest"])
                joined.setdefault(about, Waiting()).add([line.decode()])
                if joined[about].full:
                    self._write(kind, self.chain.epoch, about, joined.pop(about).lines)
        for about, waiting in joined.items():
            self._write(kind, self.chain.epoch, about, waiting.lines)
        self.replaced += places

    def _keep(self, kind: Kind, parts: Iterable[Part]) -> None:
        """Keep parts as they are; to repair, write those anew that are damaged."""
        for part in parts:
            place = self.scribe.root / kind / str(part)
            if not self.repair or (lines := self._whole_lines(place)) is None:
                getattr(self, kind).append(part)
                continue
            self.replaced.append(place)
            if lines:
                about = (part.pass_name, part.digest)
                self._write(kind, part.epoch, about, lines)

    def _write(self, kind: Kind, epoch: int, about: About, lines: list[str]) -> None:
        part = self.scribe.name(epoch, about)
        self.scribe.write(kind, part, lines)
        (self.segments if kind == "segments" else self.marks).append(part)

    def _lines(self, place: Location) -> Iterator[tuple[bytes, dict[str, Any]]]:
        """Lines of an object, whole ones only."""
        data = fetch(place)
        if not self.repair:
            yield from unpack(data, place)
            return
        lines, whole = salvage(data)
        if not whole:
            _LOG.warning("damaged: %s; %d lines of it are kept", place, len(lines))
        yield from lines

    def _whole_lines(self, place: Location) -> list[str] | None:
        """Whole lines of a damaged object; None where all is well."""
        try:
            lines, whole = salvage(effects.read(place))
        except FileNotFoundError:
            _LOG.warning("missing: %s", place)
            return []
        if whole:
            return None
        _LOG.warning("damaged: %s; %d lines of it are kept", place, len(lines))
        return [line.decode() for line, _ in lines]
