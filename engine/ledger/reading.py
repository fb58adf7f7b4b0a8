"""Reading what counts of a pass: states of cells, records, failures; all without a lease.

Memory does not grow with the number of records: objects are read one by one, and what is
remembered is a few bytes for each cell of the pass.

Epochs are the order of truth. In one epoch marks that take back come before its records, since
they are written before its tasks are sent; marks of failures never take back.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.ledger.cells import Places
from engine.ledger.chain import MovedError, fetch, loose_place, read_chain, unmoved
from engine.ledger.lines import damaged, unpack
from engine.ledger.records import REVOKED, Failure, Mark, Record, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.ledger.chain import Chain
    from engine.store.location import Location
    from tiling import Grid

#: Lines that are held as objects at once.
_BATCH = 1024


@dataclass(frozen=True)
class Marks:
    """What marks say of every cell of a pass, in C order.

    Parameters
    ----------
    revoked : ndarray of int32 or None
        Epoch that last took back that the cell is done, 0 for none; None where there is no mark.
    kinds : ndarray of uint8
        State that it gave the cell.
    failed : ndarray of int32 or None
        Epoch that last gave the cell up, 0 for none; None where there is no mark.
    """

    revoked: np.ndarray | None
    kinds: np.ndarray
    failed: np.ndarray | None

    def stands(self, cells: np.ndarray, epoch: int) -> np.ndarray:
        """Which records of an epoch still stand, by the cells of each."""
        if self.revoked is None:
            return np.ones(len(cells), bool)
        stands: np.ndarray = (self.revoked[cells] <= epoch).all(axis=1)
        return stands


class Reader:
    """What counts of one pass.

    Parameters
    ----------
    root : Location
        Folder of the ledger.
    pass_name : str
        The pass.
    digest : str
        Its digest; lines of another one do not count.
    grid : Grid
        Its grid; regions are unions of its cells.
    """

    def __init__(self, root: Location, pass_name: str, digest: str, grid: Grid) -> None:
        self._root = root
        self._pass_name = pass_name
        self._digest = digest
        self._grid = grid

    def states(self) -> np.ndarray:
        """State of every cell: ndarray of the grid's shape, uint8, codes of `State`."""
        last = None
        while True:
            try:
                return self._states(read_chain(self._root)).reshape(self._grid.shape)
            except MovedError as err:
                last = unmoved(err, last)

    def records(self) -> Iterator[Record]:
        """Go through the records that count, each region once, in no order."""
        seen = np.zeros(len(self._grid), bool)
        last = None
        while True:
            try:
                chain = read_chain(self._root)
                marks = self._marks(chain)
                for place, epoch, data in self._objects(chain):
                    for lines in self._batches(data, place):
                        yield from self._fresh(lines, place, epoch, marks, seen)
            except MovedError as err:
                last = unmoved(err, last)
            else:
                return

    def failures(self) -> Iterator[Failure]:
        """Go through the regions that are given up and not done since, the newest word of each."""
        last = None
        told = np.zeros(len(self._grid), bool)
        while True:
            try:
                chain = read_chain(self._root)
                told |= self._states(chain).ravel() != State.FAILED
                yield from self._given_up(chain, told)
            except MovedError as err:
                last = unmoved(err, last)
            else:
                return

    def _states(self, chain: Chain) -> np.ndarray:
        marks = self._marks(chain)
        done = np.zeros(len(self._grid), bool)
        for place, epoch, data in self._objects(chain):
            for lines in self._batches(data, place):
                for _, cells in self._places(lines, place).cells():
                    done[cells[marks.stands(cells, epoch)]] = True
        states = marks.kinds
        if marks.failed is not None:
            newest = marks.failed > 0
            if marks.revoked is not None:
                newest &= marks.failed >= marks.revoked
            states[newest] = State.FAILED
        states[done] = State.DONE
        return states

    def _marks(self, chain: Chain) -> Marks:
        """Gather the marks of the pass, oldest first."""
        revoked = failed = None
        kinds = np.zeros(len(self._grid), np.uint8)
        for place, epoch, data in self._mark_objects(chain):
            for lines in self._batches(data, place):
                try:
                    codes = np.array([State[line["state"].upper()] for line in lines], np.uint8)
                except (KeyError, AttributeError) as err:
                    raise damaged(place, "a line that is no mark") from err
                gone = np.isin(codes, REVOKED)
                if gone.any() and revoked is None:
                    revoked = np.zeros(len(self._grid), np.int32)
                if not gone.all() and failed is None:
                    failed = np.zeros(len(self._grid), np.int32)
                for rows, cells in self._places(lines, place).cells():
                    if revoked is not None:
                        revoked[cells[gone[rows]]] = epoch
                        kinds[cells[gone[rows]]] = codes[rows][gone[rows], None]
                    if failed is not None:
                        failed[cells[~gone[rows]]] = epoch
        return Marks(revoked, kinds, failed)

    def _fresh(
        self,
        lines: list[dict[str, Any]],
        place: Location,
        epoch: int,
        marks: Marks,
        seen: np.ndarray,
    ) -> Iterator[Record]:
        """Make records of the lines that stand and were not seen."""
        for rows, cells in self._places(lines, place).cells():
            for row, where, stands in zip(rows, cells, marks.stands(cells, epoch), strict=True):
                before = seen[where]
                if not stands or before.all():
                    continue
                if before.any():
                    raise damaged(place, "a region that overlaps another one")
                seen[where] = True
                try:
                    yield Record.from_fields(lines[row])
                except (KeyError, TypeError, ValueError) as err:
                    raise damaged(place, f"a line that is no record ({err!r})") from err

    def _given_up(self, chain: Chain, told: np.ndarray) -> Iterator[Failure]:
        """Failures of cells that were not told of yet; newest first."""
        for place, _, data in reversed(list(self._mark_objects(chain))):
            for lines in self._batches(data, place):
                for rows, cells in self._places(lines, place).cells():
                    for row, where in zip(rows, cells, strict=True):
                        mark = Mark.from_fields(lines[row])
                        if mark.state is State.FAILED and not told[where].all():
                            told[where] = True
                            yield Failure(mark.pass_name, mark.region, mark.message, mark.attempts)

    def _objects(self, chain: Chain) -> Iterator[tuple[Location, int, bytes]]:
        """Objects with records of the pass; those first that a driver may be removing."""
        for name in chain.loose:
            if name[0] == self._pass_name:
                place = loose_place(self._root, chain.epoch, name)
                yield place, chain.epoch, fetch(place)
        for part in chain.segments:
            if part.is_about(self._pass_name, self._digest):
                place = self._root / "segments" / str(part)
                yield place, part.epoch, fetch(place)

    def _mark_objects(self, chain: Chain) -> Iterator[tuple[Location, int, bytes]]:
        """Objects with marks of the pass, oldest first."""
        for part in chain.marks:
            if part.is_about(self._pass_name, self._digest):
                place = self._root / "marks" / str(part)
                yield place, part.epoch, fetch(place)

    def _batches(self, data: bytes, place: Location) -> Iterator[list[dict[str, Any]]]:
        """Fields of the lines of the pass, some at a time."""
        mine = (
            fields
            for _, fields in unpack(data, place)
            if fields.get("pass") == self._pass_name and fields.get("digest") == self._digest
        )
        while lines := list(islice(mine, _BATCH)):
            yield lines

    def _places(self, lines: list[dict[str, Any]], place: Location) -> Places:
        try:
            return Places(self._grid, lines)
        except (KeyError, TypeError, ValueError, OverflowError) as err:
            raise damaged(place, f"a line without a region of this image ({err})") from err
