"""The chain of pages of a TIFF file, walked once: a truncated file is refused before any work."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from engine.errors import InputError

# TIFF 6.0, section 2, and the BigTIFF design: bytes of one value of each field type.
_TYPE_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8,
    18: 8,
}  # fmt: skip
# Fields without which pixels cannot be found; a damaged private field does no harm.
_NEEDED = {256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 324, 325}


@dataclass(frozen=True, slots=True)
class _Format:
    """Layout of the directories: classic TIFF or BigTIFF, little or big endian."""

    order: str
    first_at: int
    count: str
    entry: str
    offset: str
    inline: int


def _formats(header: bytes) -> _Format | None:
    """Layout that the first bytes announce; None where they announce no TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(header[:2])
    if order is None or len(header) < 8:
        return None
    version = struct.unpack(order + "H", header[2:4])[0]
    if version == 42:
        return _Format(order, 4, "H", "HHI", "I", 4)
    if version == 43 and header[4:8] == struct.pack(order + "HH", 8, 0):
        return _Format(order, 8, "Q", "HHQ", "Q", 8)
    return None


def is_tiff(path: Path) -> bool:
    """Whether the first bytes of a file are those of a TIFF or BigTIFF.

    Parameters
    ----------
    path : Path
        A readable file.

    Returns
    -------
    bool
        The rest of the file may still be damaged.
    """
    with path.open("rb") as file:
        return _formats(file.read(16)) is not None


def count_pages(path: Path) -> int:
    """Pages in the main chain of a TIFF file, every directory of which lies in the file.

    Readers commonly stop silently at a directory beyond the end of the file, so a stack that was
    cut off would come out shorter. Nothing but directories is read.

    Parameters
    ----------
    path : Path
        A TIFF or BigTIFF file.

    Returns
    -------
    int
        At least 1.

    Raises
    ------
    InputError
        If the header, a directory, or a field that is needed to find pixels lies beyond the end
        of the file, or if the chain is a loop.

    Notes
    -----
    TIFF revision 6.0, section 2; BigTIFF: https://www.awaresystems.be/imaging/tiff/bigtiff.html
    """
    size = path.stat().st_size
    fd = os.open(path, os.O_RDONLY)
    try:
        layout = _formats(os.pread(fd, 16, 0))
        if layout is None:
            raise _damaged(path, f"no TIFF header in a file of {size} bytes")
        at = _unpack(fd, layout.order + layout.offset, layout.first_at)
        seen: set[int] = set()
        while at is not None and at != 0:
            if at in seen:
                raise _damaged(path, f"a chain of pages that returns to byte {at}")
            seen.add(at)
            at = _next(fd, path, layout, at, size, len(seen))
        if at is None or not seen:
            raise _damaged(path, f"no page in a file of {size} bytes")
        return len(seen)
    finally:
        os.close(fd)


def _unpack(fd: int, form: str, at: int) -> int | None:
    """Read one number; None beyond the end of the file."""
    data = os.pread(fd, struct.calcsize(form), at)
    return int(struct.unpack(form, data)[0]) if len(data) == struct.calcsize(form) else None


def _next(fd: int, path: Path, layout: _Format, at: int, size: int, page: int) -> int:
    """Check the directory at byte `at`; position of the next one, 0 after the last."""
    count = _unpack(fd, layout.order + layout.count, at)
    entry = struct.Struct(layout.order + layout.entry + f"{layout.inline}s")
    head = struct.calcsize(layout.order + layout.count)
    if count is None or at + head + count * entry.size > size:
        raise beyond_end(path, f"the directory of page {page}", at, size)
    block = os.pread(fd, count * entry.size, at + head)
    for tag, kind, values, inline in entry.iter_unpack(block):
        n_bytes = values * _TYPE_BYTES.get(kind, 1)
        if tag not in _NEEDED or n_bytes <= layout.inline:
            continue
        value_at = struct.unpack(layout.order + layout.offset, inline)[0]
        if value_at + n_bytes > size:
            raise beyond_end(path, f"field {tag} of page {page}", value_at, size)
    following = _unpack(fd, layout.order + layout.offset, at + head + count * entry.size)
    if following is None:
        raise beyond_end(path, f"the end of page {page}'s directory", at, size)
    return following


def beyond_end(path: Path, what: str, at: int, size: int) -> InputError:
    """Make the error of a file that is shorter than its own directories say.

    Parameters
    ----------
    path : Path
        The file.
    what : str
        What lies beyond its end.
    at : int
        Where that should start, in bytes.
    size : int
        Bytes of the file.

    Returns
    -------
    InputError
        To be raised by the caller.
    """
    return _damaged(path, f"{what} at byte {at}, beyond the end of its {size} bytes")


def _damaged(path: Path, found: str) -> InputError:
    return InputError(
        where=str(path),
        expected="a complete TIFF file",
        found=found,
        remedy="The file is damaged or was cut off while it was copied: copy or export it again.",
    )
