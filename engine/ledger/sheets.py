"""The lines of one object as arrays: where their regions lie, without an object for each."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.ledger.lines import damaged, whole_lines

if TYPE_CHECKING:
    from engine.store.location import Location

# What every line of a record or mark begins with, after its checksum. No text inside it can look
# like this, since JSON escapes quotes.
_PLACE = re.compile(
    rb'\{"crc":"........","pass":"((?:[^"\\]|\\.)*)","plane":\[([\d,]*)\],"box":\[([\d,]+)\],"digest":"([^"]*)"'
)


@dataclass(frozen=True, slots=True)
class Sheet:
    """Lines of one object that belong to one pass and digest.

    Parameters
    ----------
    lines : list of bytes
        As written, each of them whole.
    planes : ndarray of shape (n, P), int64
        Plane of the region of each.
    boxes : ndarray of shape (n, 4), int64
        Its core: y0, x0, y1, x1.
    """

    lines: list[bytes]
    planes: np.ndarray
    boxes: np.ndarray

    def fields(self, row: int) -> dict[str, Any]:
        """Everything that a line says."""
        found: dict[str, Any] = json.loads(self.lines[row])
        return found

    def take(self, rows: list[int]) -> Sheet:
        """Keep some of the lines."""
        lines = [self.lines[row] for row in rows]
        at = np.array(rows, np.int64)
        return Sheet(lines, self.planes[at], self.boxes[at])


@dataclass(slots=True)
class _Texts:
    lines: list[bytes] = field(default_factory=list)
    planes: list[bytes] = field(default_factory=list)
    boxes: list[bytes] = field(default_factory=list)


def read_sheets(data: bytes, place: Location) -> dict[tuple[str, str], Sheet]:
    """Sort the lines of an object by pass and digest.

    Raises
    ------
    OutputError
        If the object was cut short or a line is damaged; names it.
    """
    texts: dict[tuple[bytes, bytes], _Texts] = {}
    for number, line in enumerate(whole_lines(data, place), 1):
        found = _PLACE.match(line)
        if found is None:
            raise damaged(place, "a line without a region", number)
        pass_name, plane, box, digest = found.groups()
        some = texts.get((pass_name, digest))
        if some is None:
            some = texts[pass_name, digest] = _Texts()
        some.lines.append(line)
        some.planes.append(plane)
        some.boxes.append(box)
    try:
        return {
            (_text(about[0]), _text(about[1])): Sheet(
                some.lines, _integers(some.planes, None), _integers(some.boxes, 4)
            )
            for about, some in texts.items()
        }
    except ValueError as err:
        raise damaged(place, f"a line without a proper region ({err})") from err


def _integers(texts: list[bytes], columns: int | None) -> np.ndarray:
    """Read rows of integers; as many in each, and as many as in the first where None."""
    if columns is None:
        columns = texts[0].count(b",") + 1 if texts[0] else 0
    if columns == 0:
        if any(texts):
            msg = "more planes than in the first line"
            raise ValueError(msg)
        return np.zeros((len(texts), 0), np.int64)
    if any(text.count(b",") != columns - 1 for text in texts):
        msg = f"expected {columns} numbers in each line"
        raise ValueError(msg)
    rows = np.fromstring(b",".join(texts).decode(), np.int64, sep=",")
    return rows.reshape(len(texts), columns)


def _text(data: bytes) -> str:
    text: str = json.loads(b'"' + data + b'"')
    return text
