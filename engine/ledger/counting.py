"""How much of every pass is done, without a plan: for those who only look at a result."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.ledger.chain import MovedError, fetch, loose_place, read_chain, unmoved
from engine.ledger.lines import damaged, unpack
from engine.ledger.records import Count, Mark, State, region_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.ledger.chain import Chain
    from engine.store.location import Location


@dataclass(slots=True)
class _Words:
    """What was said of the regions of a pass, 24 bytes each: who, when and of how many pixels."""

    regions: array[int] = field(default_factory=lambda: array("q"))
    orders: array[int] = field(default_factory=lambda: array("q"))
    pixels: array[int] = field(default_factory=lambda: array("q"))

    def count(self) -> Count:
        """Count the regions whose last word is a record: orders that are odd."""
        regions, orders, pixels = (
            np.frombuffer(column, np.int64) for column in (self.regions, self.orders, self.pixels)
        )
        by = np.lexsort((orders, regions))
        newest = np.append(regions[by][1:] != regions[by][:-1], np.ones(min(len(by), 1), bool))
        live = by[newest]
        live = live[orders[live] % 2 == 1]
        return Count(len(live), int(pixels[live].sum()))


def count_all(root: Location) -> dict[tuple[str, str], Count]:
    """Count what is done of every pass, for each digest by itself.

    Raises
    ------
    OutputError
        If a record is damaged.
    """
    last = None
    while True:
        try:
            words = _gather(root, read_chain(root))
        except MovedError as err:
            last = unmoved(err, last)
        else:
            return {about: found.count() for about, found in sorted(words.items())}


def _gather(root: Location, chain: Chain) -> dict[tuple[str, str], _Words]:
    words: dict[tuple[str, str], _Words] = {}
    for place, epoch, odd in _objects(root, chain):
        for _, fields in unpack(fetch(place), place):
            try:
                region = region_of(fields)
                about = (fields["pass"], fields["digest"])
                if not odd and Mark.from_fields(fields).state is State.FAILED:
                    continue
            except (KeyError, TypeError, ValueError) as err:
                raise damaged(place, f"a line that is no record ({err!r})") from err
            found = words.setdefault(about, _Words())
            found.regions.append(hash(region))
            found.orders.append(2 * epoch + odd)
            found.pixels.append(region.core.size)
    return words


def _objects(root: Location, chain: Chain) -> Iterator[tuple[Location, int, bool]]:
    """Place and epoch of everything that counts, and whether it holds records."""
    for name in chain.loose:
        yield loose_place(root, chain.epoch, name), chain.epoch, True
    for part in chain.segments:
        yield root / "segments" / str(part), part.epoch, True
    for part in chain.marks:
        yield root / "marks" / str(part), part.epoch, False
