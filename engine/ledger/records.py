"""What a run keeps of each region: a record once it is done, a mark where it is not any more."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from engine.ledger.lines import seal, unseal
from engine.store.checksums import StoredObject
from tiling import Box, Region

if TYPE_CHECKING:
    from collections.abc import Mapping


class State(IntEnum):
    """What is known of a region: the reason why it is to be done, or that it is done.

    Examples
    --------
    >>> State.CHANGED.name.lower(), int(State.NEW)
    ('changed', 0)
    """

    NEW = 0
    DONE = 1
    FAILED = 2
    MISSING = 3
    DAMAGED = 4
    CHANGED = 5


#: States that take back that a region is done.
REVOKED = (State.MISSING, State.DAMAGED, State.CHANGED)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one region of one pass that is done.

    Parameters
    ----------
    pass_name : str
        The pass.
    region : Region
        Plane and core, in pixels of the array that the pass writes.
    digest : str
        Digest of everything that decided the pixels of this pass.
    seconds : float
        Time the region took.
    peak_bytes : int
        Largest resident size of the worker process when the task ended.
    worker : str
        Who did it.
    attempt : int
        Which try it was, from 1.
    notes : mapping of str to number or list of numbers
        Counts and measures.
    sources : tuple of (str, str)
        Name and tag of each input object that was read.
    pixels : str
        Checksum of the pixels that were read; empty where there are none.
    stored : tuple of StoredObject
        What was written, and what is absent on purpose.

    Examples
    --------
    >>> record = Record("copy", Region((), Box((0, 0), (64, 64))), "d1", 0.5, 2**20, "host:1")
    >>> Record.from_line(record.to_line()) == record
    True
    """

    pass_name: str
    region: Region
    digest: str
    seconds: float
    peak_bytes: int
    worker: str
    attempt: int = 1
    notes: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[tuple[str, str], ...] = ()
    pixels: str = ""
    stored: tuple[StoredObject, ...] = ()

    def to_line(self) -> str:
        """Return the record as one line."""
        return seal(
            {
                **_place(self.pass_name, self.region, self.digest),
                "seconds": round(self.seconds, 4),
                "peak_bytes": self.peak_bytes,
                "worker": self.worker,
                "attempt": self.attempt,
                "notes": dict(self.notes),
                "sources": self.sources,
                "pixels": self.pixels,
                "stored": [stored.to_json() for stored in self.stored],
            }
        )

    @classmethod
    def from_line(cls, line: str | bytes) -> Record:
        """Read a line.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is damaged or no record.
        """
        return cls.from_fields(unseal(line if isinstance(line, bytes) else line.encode()))

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Record:
        """Make a record from the fields of a line.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are none.
        """
        return cls(
            _text(fields["pass"]),
            region_of(fields),
            _text(fields["digest"]),
            float(fields["seconds"]),
            int(fields["peak_bytes"]),
            _text(fields["worker"]),
            int(fields["attempt"]),
            dict(fields["notes"]),
            tuple((_text(name), _text(tag)) for name, tag in fields["sources"]),
            _text(fields["pixels"]),
            tuple(map(StoredObject.from_json, fields["stored"])),
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """Why a region is not done, or not any more.

    Parameters
    ----------
    pass_name : str
        The pass.
    region : Region
        Plane and core; of a record that is taken back, exactly that of the record.
    digest : str
        Digest of the pass.
    state : State
        FAILED, MISSING, DAMAGED or CHANGED.
    message : str
        What was found, as the user reads it.
    attempts : int
        How often it was tried.

    Raises
    ------
    ValueError
        If the state is no reason.
    """

    pass_name: str
    region: Region
    digest: str
    state: State
    message: str = ""
    attempts: int = 0

    def __post_init__(self) -> None:
        if self.state is not State.FAILED and self.state not in REVOKED:
            msg = f"state must be FAILED, MISSING, DAMAGED or CHANGED, got {self.state!r}"
            raise ValueError(msg)

    def to_line(self) -> str:
        """Return the mark as one line."""
        return seal(
            {
                **_place(self.pass_name, self.region, self.digest),
                "state": self.state.name.lower(),
                "message": self.message,
                "attempts": self.attempts,
            }
        )

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Mark:
        """Make a mark from the fields of a line.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are none.
        """
        return cls(
            _text(fields["pass"]),
            region_of(fields),
            _text(fields["digest"]),
            State[fields["state"].upper()],
            _text(fields["message"]),
            int(fields["attempts"]),
        )


@dataclass(frozen=True, slots=True)
class Bundle:
    """Records of some regions as a worker wrote them; the receipt that goes to the driver.

    Parameters
    ----------
    pass_name : str
        The pass.
    digest : str
        Its digest.
    name : str
        Object that holds them.
    lines : tuple of str
        The records, a line each.
    """

    pass_name: str
    digest: str
    name: str
    lines: tuple[str, ...]

    def records(self) -> tuple[Record, ...]:
        """Read the lines."""
        return tuple(map(Record.from_line, self.lines))


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a region of a pass is given up.

    Parameters
    ----------
    pass_name : str
        The pass.
    region : Region
        Plane and core.
    message : str
        The error, as the user reads it.
    attempts : int
        How often it was tried.
    """

    pass_name: str
    region: Region
    message: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a pass is done.

    Parameters
    ----------
    regions : int
        Regions with a record that counts.
    pixels : int
        Pixels of their cores.
    """

    regions: int
    pixels: int


def region_of(fields: Mapping[str, Any]) -> Region:
    """Take the region out of the fields of a line.

    Raises
    ------
    KeyError, TypeError, ValueError
        If there is none.
    """
    y0, x0, y1, x1 = map(int, fields["box"])
    return Region(tuple(map(int, fields["plane"])), Box((y0, x0), (y1, x1)))


def _place(pass_name: str, region: Region, digest: str) -> dict[str, Any]:
    return {
        "pass": pass_name,
        "plane": region.plane,
        "box": (*region.core.start, *region.core.stop),
        "digest": digest,
    }


def _text(value: object) -> str:
    if not isinstance(value, str):
        msg = f"expected text, found {value!r}"
        raise TypeError(msg)
    return value
