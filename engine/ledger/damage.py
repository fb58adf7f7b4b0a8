"""Finding what is damaged among the records themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.errors import OutputError
from engine.ledger.chain import MovedError, fetch, loose_place, read_chain
from engine.ledger.records import Mark, Record
from engine.ledger.sheets import read_sheets

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.ledger.chain import Chain
    from engine.store.location import Location


def find_damage(root: Location) -> Iterator[tuple[str, str]]:
    """Read every object that counts; yield the place of each that is damaged, and what was found.

    Raises
    ------
    OutputError
        If the store does not answer.
    """
    try:
        chain = read_chain(root)
    except OutputError as err:
        if isinstance(err.__cause__, OSError):
            raise
        yield err.where.partition(", line ")[0], err.found
        chain = read_chain(root, repair=True)
    moved = []
    for place, kind in _objects(root, chain):
        try:
            found = _look(place, kind)
        except MovedError:
            moved.append(place)
            continue
        if found:
            yield str(place), found
    if moved:
        listed = {place for place, _ in _objects(root, read_chain(root, repair=True))}
        yield from ((str(place), "nothing there") for place in moved if place in listed)


def _look(place: Location, kind: type[Record | Mark]) -> str:
    """Say what is wrong with an object; empty where nothing is."""
    data = fetch(place)
    try:
        for sheet in read_sheets(data, place).values():
            for row in range(len(sheet.lines)):
                kind.from_fields(sheet.fields(row))
    except OutputError as err:
        return err.found
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        return f"a line that is none ({err!r})"
    return ""


def _objects(root: Location, chain: Chain) -> Iterator[tuple[Location, type[Record | Mark]]]:
    for name in chain.loose:
        yield loose_place(root, chain.epoch, name), Record
    for part in chain.segments:
        yield root / "segments" / str(part), Record
    for part in chain.marks:
        yield root / "marks" / str(part), Mark
