"""Lines that show whether they are whole: one JSON object each, its checksum first.

::

    {"crc":"8d2f01aa","pass":"regions", ...}
    {"crc":"1c6e77b0","pass":"regions", ...}
    {"crc":"5a900c3d","lines":2}                  the last line says how many come before it

A line that was changed does not agree with its checksum, an object that was cut short lacks its
last line.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from engine.store.checksums import checksum

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from engine.store.location import Location

# {"crc":"8 digits",
_HEAD = 18


def seal(fields: Mapping[str, Any]) -> str:
    """Make a line.

    Raises
    ------
    TypeError, ValueError
        If the fields are not JSON, NaN and infinity among them.

    Examples
    --------
    >>> seal({"lines": 2})
    '{"crc":"49af4f34","lines":2}'
    """
    body = json.dumps(fields, separators=(",", ":"), allow_nan=False)[1:]
    return f'{{"crc":"{checksum(body.encode())}",{body}'


def unseal(line: bytes) -> dict[str, Any]:
    """Read a line.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    if not is_whole(line):
        msg = "a line that does not agree with its checksum"
        raise ValueError(msg)
    fields: dict[str, Any] = json.loads(line)
    return fields


def is_whole(line: bytes) -> bool:
    """Whether a line agrees with its checksum."""
    return line[:8] == b'{"crc":"' and line[8:16] == checksum(line[_HEAD:]).encode()


def pack(lines: Iterable[str]) -> bytes:
    """Join lines to the content of an object."""
    listed = list(lines)
    return "\n".join([*listed, seal({"lines": len(listed)}), ""]).encode()


def whole_lines(data: bytes, place: Location) -> Iterator[bytes]:
    """Go through the lines of an object.

    Raises
    ------
    OutputError
        If the object was cut short or a line is damaged; names it.
    """
    lines = data.split(b"\n")
    if not _is_complete(lines):
        raise damaged(place, "an object that was cut short")
    for number, line in enumerate(lines[:-2], 1):
        if not is_whole(line):
            raise damaged(place, "a line that does not agree with its checksum", number)
        yield line


def unpack(data: bytes, place: Location) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Go through the lines of an object, each as written and as read.

    Raises
    ------
    OutputError
        If the object was cut short or a line is damaged; names it.
    """
    for line in whole_lines(data, place):
        yield line, json.loads(line)


def salvage(data: bytes) -> tuple[list[tuple[bytes, dict[str, Any]]], bool]:
    """Take the lines of an object that are whole; say whether that is all of it."""
    lines = data.split(b"\n")
    whole = _is_complete(lines)
    good = []
    for line in lines[:-2] if whole else lines:
        try:
            good.append((line, unseal(line)))
        except ValueError:
            whole = False
    return [(line, fields) for line, fields in good if "lines" not in fields], whole


def damaged(place: Location, found: str, number: int | None = None) -> OutputError:
    """Error of an object that is not as it was written."""
    return OutputError(
        where=f"{place}" if number is None else f"{place}, line {number}",
        expected="records as tilewright wrote them",
        found=found,
        remedy="Run `tilewright verify OUT --repair`: what it tells of is then checked or computed "
        "again, all other records are kept.",
    )


def _is_complete(lines: list[bytes]) -> bool:
    """Whether the last line is there, and as many before it as it says."""
    if len(lines) < 2 or lines[-1] != b"":
        return False
    try:
        return bool(unseal(lines[-2]).get("lines") == len(lines) - 2)
    except ValueError:
        return False
