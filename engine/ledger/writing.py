"""What workers write: records, in one object for some regions, and that they have begun."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import OutputError
from engine.ledger import effects
from engine.ledger.lines import pack
from engine.ledger.names import FOLDER, attempts_folder, loose_folder
from engine.ledger.records import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.ledger.records import Record
    from engine.store.location import Location

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordWriter:
    """Writes the records of an epoch, from anywhere; needs no lease.

    Parameters
    ----------
    out : Location
        Folder of the result.
    epoch : int
        Epoch of the driver that sent the task; what a lost one's workers write does not count.
    """

    out: Location
    epoch: int

    def write(self, records: Sequence[Record]) -> Bundle:
        """Say that regions are done. Called last, when their pixels stand.

        Doing it again replaces the object by an equal one.

        Parameters
        ----------
        records : sequence of Record
            At least one; all of one pass and digest.

        Returns
        -------
        Bundle
            For the journal of the driver.

        Raises
        ------
        ValueError
            If there is none, or they do not belong together.
        OutputError
            If it cannot be written.
        """
        if len({(record.pass_name, record.digest) for record in records}) != 1:
            msg = "records must be one or more, of one pass and digest"
            raise ValueError(msg)
        first = records[0]
        name = f"{first.region.key}-n{len(records)}.jsonl"
        place = loose_folder(self.out / FOLDER, self.epoch) / first.pass_name / name
        lines = tuple(record.to_line() for record in records)
        effects.write(place, pack(lines))
        return Bundle(first.pass_name, first.digest, name, lines)

    @contextmanager
    def attempt(self, unit_key: str) -> Iterator[None]:
        """Leave a note while a unit is being done: it stays where the worker dies.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        place = self._attempts(unit_key) / uuid.uuid4().hex
        effects.write(place, f"{socket.gethostname()}:{os.getpid()}\n".encode())
        try:
            yield
        finally:
            try:
                effects.delete([place])
            except OutputError:
                # What the unit did counts more; the note is then taken for a death.
                _LOG.exception("the note of an attempt stays")

    def attempts(self, unit_key: str) -> int:
        """Count the attempts at a unit in this epoch that have not ended: deaths, as a rule.

        Raises
        ------
        OutputError
            If they cannot be listed.
        """
        return len(effects.names(self._attempts(unit_key)))

    def _attempts(self, unit_key: str) -> Location:
        return attempts_folder(self.out / FOLDER, self.epoch) / unit_key
