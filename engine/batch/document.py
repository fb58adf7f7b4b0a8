"""The document of a batch: one row for each image, and the settings that hold for all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from engine.errors import OutputError
from engine.store import read_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store import Location

#: Version of the document.
FORMAT = 1

#: Name of the document in the folder of a batch.
DOCUMENT = "batch.json"

State = Literal["waiting", "done", "incomplete", "quarantined"]


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of one image.

    Parameters
    ----------
    name, source : str
        As in `Image`.
    foreign : bool
        As in `Image`.
    state : {'waiting', 'done', 'incomplete', 'quarantined'}
        Not tried to the end; complete; complete but for regions that failed; not run, or ended,
        for the reason given.
    reason : str
        Why it is incomplete or quarantined; "" otherwise.
    objects : int or None
        Objects found; None where none are looked for, or not yet.
    regions, regions_done : int
        Regions of all passes, and those of them that are done.
    pixels : int
        Pixels of the level that is read, all planes.
    seconds : float
        Time from its start to its end, over all calls.
    tries : int
        Calls that worked on it.
    tag : str
        What tells whether a file that is ingested was changed.
    finished : str
        When its last try ended.
    """

    name: str
    source: str
    foreign: bool
    state: State = "waiting"
    reason: str = ""
    objects: int | None = None
    regions: int = 0
    regions_done: int = 0
    pixels: int = 0
    seconds: float = 0.0
    tries: int = 0
    tag: str = ""
    finished: str = ""


@dataclass(slots=True)
class Document:
    """All rows of a batch, in order, with the settings that they were made with.

    Parameters
    ----------
    parts : dict of str to str
        What decides pixels, by name.
    rows : dict of str to Row
        By the name of the image.
    """

    parts: dict[str, str]
    rows: dict[str, Row] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Document as it is kept."""
        rows = [asdict(row) for row in self.rows.values()]
        return {"format": FORMAT, "settings": self.parts, "images": rows}

    @classmethod
    def from_json(cls, found: Mapping[str, Any], where: str) -> Document:
        """Take a document that was kept.

        Raises
        ------
        OutputError
            If it is of another version, or damaged.
        """
        if found.get("format") != FORMAT:
            raise OutputError(
                where=where,
                expected=f"a batch of format {FORMAT}",
                found=f"format {found.get('format')!r}",
                remedy="Choose another folder, or the tilewright that wrote this one.",
            )
        names = {f.name for f in fields(Row)}
        try:
            rows = [Row(**{k: row[k] for k in names}) for row in found["images"]]
            return cls(dict(found["settings"]), {row.name: row for row in rows})
        except (KeyError, TypeError, ValueError) as err:
            raise OutputError(
                where=where,
                expected="the document of a batch",
                found=f"{type(err).__name__}: {err}",
                remedy="Remove the file and give the command again: what is done of each image "
                "is kept with its result.",
            ) from err


def read_document(folder: Location) -> Document | None:
    """Read the document of a batch; None where there is none.

    Raises
    ------
    OutputError
        If it cannot be read.
    """
    place = folder / DOCUMENT
    try:
        if not place.is_file():
            return None
    except NotADirectoryError:
        return None
    return Document.from_json(read_json(place, OutputError), str(place))
