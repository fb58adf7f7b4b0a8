"""What counts: the parts that the newest epoch has accepted, and everything of that epoch itself.

A driver that takes over lists once, in ``epochs/<its epoch>.jsonl``, what it found of the time
before. What a lost driver or its workers write later is in no list and never counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import OutputError
from engine.ledger import effects
from engine.ledger.lines import damaged, pack, salvage, seal, unpack
from engine.ledger.names import Part, epoch_place, epochs_in, loose_folder, numbered, parts_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from engine.store.location import Location


class MovedError(Exception):
    """An object that was listed is not there any more: a driver works on the ledger.

    Parameters
    ----------
    place : Location
        The object.
    """

    def __init__(self, place: Location) -> None:
        super().__init__(str(place))
        self.place = place


@dataclass(frozen=True)
class Chain:
    """Names of all objects that count.

    Parameters
    ----------
    epoch : int
        Newest epoch that has begun; 0 where none has.
    segments : tuple of Part
        Objects of records.
    marks : tuple of Part
        Objects of marks.
    loose : tuple of (str, str)
        Pass and name of the objects that workers of this epoch wrote and that no segment replaced.
    """

    epoch: int
    segments: tuple[Part, ...] = ()
    marks: tuple[Part, ...] = ()
    loose: tuple[tuple[str, str], ...] = ()

    def is_own(self, part: Part) -> bool:
        """Whether a part counts because it belongs to the newest epoch, listed or not."""
        return part.epoch == self.epoch


def newest_epoch(root: Location) -> int:
    """Newest epoch that has begun; 0 where none has."""
    return max(numbered(root / "epochs"), default=0)


def read_chain(root: Location, *, repair: bool = False) -> Chain:
    """Find out what counts now.

    Parameters
    ----------
    root : Location
        Folder of the ledger.
    repair : bool
        Take what is whole of a damaged list. All marks count then, and those of epochs whose list
        is missing: they only ever make regions run again.

    Raises
    ------
    OutputError
        If the list of an epoch is damaged or missing.
    """
    before = -1
    while True:
        epoch = newest_epoch(root)
        try:
            listed, whole = _read_list(root, epoch, repair=repair)
        except MovedError:
            continue
        # In this order: a driver writes a segment first and removes what it replaces afterwards.
        loose = tuple(_loose(root, epoch))
        segments = parts_in(root / "segments")
        marks = parts_in(root / "marks")
        later = [part for part in (*segments, *marks) if part.epoch > epoch]
        if later or any(e > epoch for e in epochs_in(root / "records")):
            # An epoch begins with its list: another has begun just now, or a list is lost.
            if before != epoch:
                before = epoch
                continue
            if not repair:
                raise _lost_list(root, epoch)
        own = [part for part in segments if part.epoch == epoch]
        told = [part for part in marks if part.epoch >= epoch or not whole]
        return Chain(
            epoch,
            tuple(sorted({*listed["segment"], *own})),
            tuple(sorted({*listed["mark"], *told})),
            loose,
        )


def write_chain(root: Location, chain: Chain) -> None:
    """Begin an epoch: list what counts of the time before."""
    lines = [seal({"segment": str(part)}) for part in chain.segments if not chain.is_own(part)]
    lines += [seal({"mark": str(part)}) for part in chain.marks if not chain.is_own(part)]
    effects.write(epoch_place(root, chain.epoch), pack(lines))


def fetch(place: Location) -> bytes:
    """Read an object that was listed.

    Raises
    ------
    MovedError
        If it is not there any more.
    OutputError
        If it cannot be read.
    """
    try:
        return effects.read(place)
    except FileNotFoundError as err:
        raise MovedError(place) from err


def unmoved(err: MovedError, last: Location | None) -> Location:
    """Say which object moved, for the next try.

    Raises
    ------
    OutputError
        If it is missing a second time although it is listed: it is lost.
    """
    if err.place == last:
        raise damaged(err.place, "nothing there, although it is listed") from err
    return err.place


def loose_place(root: Location, epoch: int, name: tuple[str, str]) -> Location:
    """Place of an object that a worker wrote."""
    return loose_folder(root, epoch) / name[0] / name[1]


def _read_list(root: Location, epoch: int, *, repair: bool) -> tuple[dict[str, list[Part]], bool]:
    """Parts that an epoch has accepted, and whether the list is whole."""
    listed: dict[str, list[Part]] = {"segment": [], "mark": []}
    if epoch == 0:
        return listed, True
    place = epoch_place(root, epoch)
    data, whole = fetch(place), True
    entries: Iterable[tuple[bytes, dict[str, Any]]]
    if repair:
        entries, whole = salvage(data)
    else:
        entries = unpack(data, place)
    for _, fields in entries:
        kind, part = _entry(fields)
        if part is None:
            raise damaged(place, f"the entry {fields}")
        listed[kind].append(part)
    return listed, whole


def _entry(fields: dict[str, Any]) -> tuple[str, Part | None]:
    kind = "segment" if "segment" in fields else "mark"
    return kind, Part.parse(str(fields.get(kind)))


def _loose(root: Location, epoch: int) -> Iterator[tuple[str, str]]:
    """Objects that workers of an epoch wrote."""
    if epoch == 0:
        return
    folder = loose_folder(root, epoch)
    for pass_name in effects.folders(folder):
        for name in effects.names(folder / pass_name):
            yield pass_name, name


def _lost_list(root: Location, epoch: int) -> OutputError:
    return OutputError(
        where=str(root / "epochs"),
        expected="a list for every epoch that has records",
        found=f"none after epoch {epoch}, although there are later records",
        remedy="Copy the folder again from its source, or run `tilewright verify OUT --repair`: "
        "what the later records tell is then computed again.",
    )
