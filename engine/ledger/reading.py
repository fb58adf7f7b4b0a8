"""Reading what counts of a pass: states of cells, records, failures; all without a lease.

Memory does not grow with the number of records: objects are read one by one, and what is
remembered is a few bytes for each cell of the pass.

Epochs are the order of truth. In one epoch marks that take back come before its records, since
they are written before its tasks are sent; marks of failures never take back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.ledger.cells import Places
from engine.ledger.chain import MovedError, fetch, loose_place, read_chain, unmoved
from engine.ledger.lines import damaged
from engine.ledger.records import Failure, Mark, Record, State
from engine.ledger.sheets import read_sheets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.ledger.chain import Chain
    from engine.ledger.sheets import Sheet
    from engine.store.location import Location
    from tiling import Grid


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
        self._about = (pass_name, digest)
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
                for place, epoch, sheet in self._sheets(chain):
                    rows = self._fresh(place, sheet, marks, epoch, seen)
                    for row in rows:
                        yield _record(place, sheet, row)
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
        for place, epoch, sheet in self._sheets(chain):
            for _, cells in self._cells(place, sheet):
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
        for place, epoch, sheet in self._mark_sheets(chain):
            codes = np.array([_mark(place, sheet, k).state for k in range(len(sheet.lines))])
            gone = codes != State.FAILED
            if gone.any() and revoked is None:
                revoked = np.zeros(len(self._grid), np.int32)
            if not gone.all() and failed is None:
                failed = np.zeros(len(self._grid), np.int32)
            for rows, cells in self._cells(place, sheet):
                if revoked is not None:
                    revoked[cells[gone[rows]]] = epoch
                    kinds[cells[gone[rows]]] = codes[rows][gone[rows], None]
                if failed is not None:
                    failed[cells[~gone[rows]]] = epoch
        return Marks(revoked, kinds, failed)

    def _fresh(
        self, place: Location, sheet: Sheet, marks: Marks, epoch: int, seen: np.ndarray
    ) -> list[int]:
        """Rows of a sheet that stand and were not seen; from now on they are."""
        fresh: list[int] = []
        for rows, cells in self._cells(place, sheet):
            # A task that ran twice gives two lines of one region.
            once = np.unique(cells[:, 0], return_index=True)[1]
            before = seen[cells[once]]
            some = once[marks.stands(cells[once], epoch) & ~before.all(axis=1)]
            if seen[cells[some]].any():
                raise damaged(place, "a region that overlaps another one")
            seen[cells[some]] = True
            fresh += rows[some].tolist()
        return fresh

    def _given_up(self, chain: Chain, told: np.ndarray) -> Iterator[Failure]:
        """Failures of cells that were not told of yet; newest first."""
        for place, _, sheet in reversed(list(self._mark_sheets(chain))):
            for rows, cells in self._cells(place, sheet):
                for row, where in zip(rows[::-1].tolist(), cells[::-1], strict=True):
                    mark = _mark(place, sheet, row)
                    if mark.state is State.FAILED and not told[where].all():
                        told[where] = True
                        yield Failure(mark.pass_name, mark.region, mark.message, mark.attempts)

    def _sheets(self, chain: Chain) -> Iterator[tuple[Location, int, Sheet]]:
        """Read the records of the pass; those first that a driver may be removing."""
        for name in chain.loose:
            if name[0] == self._about[0]:
                place = loose_place(self._root, chain.epoch, name)
                yield from self._sheet(place, chain.epoch)
        for part in chain.segments:
            if part.is_about(*self._about):
                yield from self._sheet(self._root / "segments" / str(part), part.epoch)

    def _mark_sheets(self, chain: Chain) -> Iterator[tuple[Location, int, Sheet]]:
        """Read the marks of the pass, oldest first."""
        for part in chain.marks:
            if part.is_about(*self._about):
                yield from self._sheet(self._root / "marks" / str(part), part.epoch)

    def _sheet(self, place: Location, epoch: int) -> Iterator[tuple[Location, int, Sheet]]:
        """Read what an object says of the pass, if anything."""
        sheet = read_sheets(fetch(place), place).get(self._about)
        if sheet is not None:
            yield place, epoch, sheet

    def _cells(self, place: Location, sheet: Sheet) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of a sheet and their cells, in groups."""
        try:
            places = Places(self._grid, sheet.planes, sheet.boxes)
        except ValueError as err:
            raise damaged(place, str(err)) from err
        return places.cells()


def _record(place: Location, sheet: Sheet, row: int) -> Record:
    try:
        return Record.from_fields(sheet.fields(row))
    except (KeyError, TypeError, ValueError) as err:
        raise damaged(place, f"a line that is no record ({err!r})") from err


def _mark(place: Location, sheet: Sheet, row: int) -> Mark:
    try:
        return Mark.from_fields(sheet.fields(row))
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise damaged(place, f"a line that is no mark ({err!r})") from err
