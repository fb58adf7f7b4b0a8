"""Whether what the records say still stands: outputs in their place, inputs as they were read.

Three depths: ``records`` trusts them (nothing to do here); ``listing`` asks the store for every
object, its size and its tag; ``bytes`` decodes every chunk and reads the input again.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Literal

from engine.device import cores
from engine.errors import InputError, OutputError
from engine.ledger import Ledger, Mark, State
from engine.planning.elements import SHOWN_TABLES
from engine.store import (
    Checker,
    ImageReader,
    Location,
    checksum,
    open_target,
    use_fast_codecs,
)
from tiling import Box, Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

    from engine.ledger import Record
    from engine.planning import Job
    from engine.store import StoredObject

    Depth = Literal["listing", "bytes"]

#: Records that are checked at once where the store is far away.
_REQUESTS = 32


@dataclass(frozen=True)
class Kept:
    """A pass whose records are checked.

    Parameters
    ----------
    name, digest : str
        Of the pass.
    grid : Grid
        Its cells.
    """

    name: str
    digest: str
    grid: Grid


@dataclass(frozen=True)
class Findings:
    """What a check found.

    Parameters
    ----------
    regions, objects : int
        What was looked at.
    marks : tuple of Mark
        What is missing, damaged or computed from other input.
    """

    regions: int
    objects: int
    marks: tuple[Mark, ...]


def kept_passes(document: Mapping[str, Any]) -> list[Kept]:
    """List the passes of a run, by its document."""
    return [
        Kept(
            p["name"],
            p["digest"],
            Grid(tuple(p["planes"]), tuple(p["extent"]), tuple(p["cell"])),
        )
        for p in document["passes"]
    ]


def check_outputs(
    out: Location,
    passes: Sequence[Kept],
    depth: Depth,
    tables: Mapping[str, str],
    tell: Callable[[str, int], None] = lambda _name, _done: None,
) -> Findings:
    """Look for every object that the records name.

    Parameters
    ----------
    out : Location
        The result.
    passes : sequence of Kept
        What is looked at.
    depth : {'listing', 'bytes'}
        How closely.
    tables : mapping of str to str
        Folder, below OUT, where the parts of each table lie now.
    tell : callable
        Is told the pass and the regions that were looked at since it was last told.

    Raises
    ------
    OutputError
        If the store does not answer, or the document of an array is gone.
    """
    use_fast_codecs(threads=1)
    checker = Checker(out)

    def look(record: Record) -> Mark | None:
        found = {checker.check(_moved(stored, tables), depth) for stored in record.stored}
        state = _worst(found)
        if state is None:
            return None
        return Mark(record.pass_name, record.region, record.digest, state)

    return _each(Ledger(out), passes, look, _requests(out), tell)


def check_inputs(
    job: Job,
    passes: Sequence[Kept],
    depth: Depth,
    tell: Callable[[str, int], None] = lambda _name, _done: None,
) -> Findings:
    """Compare what every region read with what lies there now.

    Parameters
    ----------
    job : Job
        The run; of a foreign source the plan knows all files, and nothing is done here.
    passes, depth, tell
        As in `check_outputs`. At depth ``listing`` tags of objects are compared; at ``bytes`` the
        pixels, so that a copy of the image serves as well.

    Raises
    ------
    InputError
        If the image cannot be read.
    """
    if job.source.foreign:
        return Findings(0, 0, ())
    use_fast_codecs(threads=1)
    reader = ImageReader(job.source.path, job.source.level)
    everything = tuple(range(reader.info.n_channels))

    def look(record: Record) -> Mark | None:
        if not record.sources:
            return None
        channels = everything if record.pass_name == "copy" else job.source.channels
        a, b, c, d = record.notes["read"]
        box, plane = Box((a, b), (c, d)), record.region.plane
        if depth == "listing":
            same = reader.sources(plane, channels, box) == record.sources
        else:
            same = _same_pixels(reader, plane, channels, box, record.pixels)
        if same:
            return None
        return Mark(record.pass_name, record.region, record.digest, State.CHANGED)

    place = Location.parse(job.source.path)
    return _each(Ledger(job.out), passes, look, _requests(place), tell)


def check_documents(out: Location, document: Mapping[str, Any]) -> list[str]:
    """Say which arrays of a run have no readable document.

    Returns
    -------
    list of str
        One message for each; a run that is given again writes missing ones anew.
    """
    found = []
    for name in document["arrays"]:
        try:
            open_target(out, name)
        except OutputError as err:
            found.append(str(err))
    return found


def joined(*findings: Findings) -> Findings:
    """Several findings as one; of a region that several name, the last word counts."""
    marks = {(m.pass_name, m.digest, m.region): m for found in findings for m in found.marks}
    regions = sum(found.regions for found in findings)
    return Findings(regions, sum(found.objects for found in findings), tuple(marks.values()))


def _each(
    ledger: Ledger,
    passes: Sequence[Kept],
    look: Callable[[Record], Mark | None],
    threads: int,
    tell: Callable[[str, int], None],
) -> Findings:
    """Look at all records of some passes, a few hundred at a time."""
    regions = objects = 0
    marks: list[Mark] = []
    with ThreadPoolExecutor(threads) as pool:
        for kept in passes:
            records = ledger.records(kept.name, kept.digest, kept.grid)
            for some in _batches(records, 16 * threads):
                marks += [mark for mark in pool.map(look, some) if mark is not None]
                regions += len(some)
                objects += sum(len(record.stored) for record in some)
                tell(kept.name, len(some))
    return Findings(regions, objects, tuple(marks))


def _batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    left = iter(records)
    while some := list(islice(left, size)):
        yield some


def _same_pixels(
    reader: ImageReader, plane: tuple[int, ...], channels: Sequence[int], box: Box, known: str
) -> bool:
    """Whether a box still holds the pixels that were read; what cannot be read does not."""
    try:
        return checksum(reader.read(plane, channels, box)) == known
    except InputError:
        return False


def _worst(found: set[Literal["missing", "damaged"] | None]) -> State | None:
    if "damaged" in found:
        return State.DAMAGED
    return State.MISSING if "missing" in found else None


def _requests(place: Location) -> int:
    return cores() if place.is_local else _REQUESTS


def _moved(stored: StoredObject, tables: Mapping[str, str]) -> StoredObject:
    """Part of a table as it lies now: beside, until its run is published."""
    folder, _, part = stored.name.rpartition("/")
    above, _, name = folder.rpartition("/")
    if above != SHOWN_TABLES:
        return stored
    return replace(stored, name=f"{tables.get(name.removesuffix('.parquet'), folder)}/{part}")
