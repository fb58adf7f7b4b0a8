"""Names of the ledger's objects.

::

    OUT.ome.zarr/.tilewright/
        run.json                        what decides pixels, digests, the input
        next.json                       the same of a run that is to replace it
        lease/000007.json               who holds epoch 7; made exclusively, never changed
        lease/000007.beat               its heartbeat
        lease/000007.end                it was given back
        epochs/000007.jsonl             what counts of the time before epoch 7
        records/000007/<pass>/*.jsonl   records as workers write them
        segments/<part>.jsonl           the same, many in one object, written by the driver
        marks/<part>.jsonl              what failed, is missing, damaged or changed
        attempts/000007/<unit>/*        a worker has begun a unit and not ended it

A part is named ``<epoch>-<writer>-<number>-<digest>-<pass>``: the epoch that its lines belong to,
the epoch of the driver that wrote it, and what it is about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.ledger import effects

if TYPE_CHECKING:
    from engine.store.location import Location

#: Folder of the ledger in OUT.
FOLDER = ".tilewright"

#: How many characters of a digest stand in a name.
SHORT = 16

_PART = re.compile(r"(\d{6,})-(\d{6,})-(\d{6,})-([^-/]{1,16})-([^/]+)\.jsonl")
_EPOCH = re.compile(r"(\d{6,})\.(?:json|jsonl)")


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """Name of an object with many lines of one epoch, pass and digest.

    Parameters
    ----------
    epoch : int
        Epoch that the lines belong to.
    writer : int
        Epoch of the driver that wrote the object.
    number : int
        Which of the objects of that driver.
    digest : str
        First characters of the pass's digest.
    pass_name : str
        The pass.

    Examples
    --------
    >>> part = Part(3, 4, 0, "9f86d081884c7d65", "regions")
    >>> str(part), Part.parse(str(part)) == part
    ('000003-000004-000000-9f86d081884c7d65-regions.jsonl', True)
    """

    epoch: int
    writer: int
    number: int
    digest: str
    pass_name: str

    def __str__(self) -> str:
        head = f"{self.epoch:06d}-{self.writer:06d}-{self.number:06d}"
        return f"{head}-{self.digest}-{self.pass_name}.jsonl"

    @classmethod
    def parse(cls, name: str) -> Part | None:
        """Read a name; None where it is none of a part."""
        found = _PART.fullmatch(name)
        if found is None:
            return None
        return cls(int(found[1]), int(found[2]), int(found[3]), found[4], found[5])

    def is_about(self, pass_name: str, digest: str) -> bool:
        """Whether lines of this pass and digest may be in it."""
        return self.pass_name == pass_name and self.digest == digest[:SHORT]


def parts_in(folder: Location) -> list[Part]:
    """Parts that lie in a folder, sorted."""
    return sorted(part for part in map(Part.parse, effects.names(folder)) if part is not None)


def numbered(folder: Location) -> list[int]:
    """Epochs for which there is a document in a folder, sorted."""
    found = (_EPOCH.fullmatch(name) for name in effects.names(folder))
    return sorted(int(match[1]) for match in found if match)


def epochs_in(folder: Location) -> list[int]:
    """Epochs for which there is a folder in a folder, sorted."""
    return sorted(int(name) for name in effects.folders(folder) if name.isdecimal())


def lease_place(root: Location, epoch: int, kind: str = "json") -> Location:
    """Place of the lease of an epoch; kind is json, beat or end."""
    return root / "lease" / f"{epoch:06d}.{kind}"


def epoch_place(root: Location, epoch: int) -> Location:
    """Place of the document that says what counts of the time before an epoch."""
    return root / "epochs" / f"{epoch:06d}.jsonl"


def loose_folder(root: Location, epoch: int) -> Location:
    """Folder of the records of an epoch as workers write them; a folder for each pass below."""
    return root / "records" / f"{epoch:06d}"


def attempts_folder(root: Location, epoch: int) -> Location:
    """Folder of what workers have begun in an epoch."""
    return root / "attempts" / f"{epoch:06d}"


def highest_epoch(root: Location) -> int:
    """Highest epoch of which there is any trace; 0 where there is none.

    Records tell it too: leases that somebody removed by hand must not make an epoch come twice.
    """
    parts = [*parts_in(root / "segments"), *parts_in(root / "marks")]
    return max(
        [
            *numbered(root / "lease"),
            *numbered(root / "epochs"),
            *epochs_in(root / "records"),
            *(max(part.epoch, part.writer) for part in parts),
        ],
        default=0,
    )
