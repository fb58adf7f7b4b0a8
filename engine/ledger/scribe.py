"""Objects of many lines, each written once under a name that nothing had before."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Literal

from engine.ledger import effects
from engine.ledger.lines import pack
from engine.ledger.names import SHORT, Part

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from engine.store.location import Location

    #: Pass and digest.
    About = tuple[str, str]

#: An object is written when so much has come together.
MOST_LINES = 4096
MOST_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Scribe:
    """Writes the parts of one driver.

    Parameters
    ----------
    root : Location
        Folder of the ledger.
    epoch : int
        Epoch of the driver; no other one writes under it.
    numbers : iterator of int
        What tells its parts apart.
    """

    root: Location
    epoch: int
    numbers: Iterator[int] = field(default_factory=count)

    def name(self, epoch: int, about: About) -> Part:
        """Name a part for lines of an epoch, pass and digest."""
        return Part(epoch, self.epoch, next(self.numbers), about[1][:SHORT], about[0])

    def write(self, kind: Literal["segments", "marks"], part: Part, lines: Sequence[str]) -> None:
        """Write a part.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        effects.write(self.root / kind / str(part), pack(lines))


@dataclass(slots=True)
class Waiting:
    """Lines of one pass and digest that wait for their object, and what it will replace.

    Parameters
    ----------
    lines : list of str
        The lines.
    size : int
        Their bytes.
    loose : list of Location
        Objects to remove afterwards.
    """

    lines: list[str] = field(default_factory=list)
    size: int = 0
    loose: list[Location] = field(default_factory=list)

    def add(self, lines: Sequence[str]) -> None:
        """Add lines."""
        self.lines += lines
        self.size += sum(map(len, lines))

    @property
    def full(self) -> bool:
        """Whether it is enough for an object."""
        return len(self.lines) >= MOST_LINES or self.size >= MOST_BYTES
