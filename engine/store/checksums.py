"""Checksums of what is stored: of decoded chunks, since encoders need not repeat their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Stands for a chunk that is not stored because it holds nothing but the fill value.
ABSENT = "--------"


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a record keeps of one stored object, to find out later whether it still stands.

    Parameters
    ----------
    name : str
        Its place below OUT, such as ``labels/nuclei/0/c/0/1``.
    checksums : str
        Eight hexadecimal digits for each decoded chunk, in C order, `ABSENT` for one of fill value
        alone; for a plain file those of its bytes; empty where the object is not stored because
        all its chunks are absent.
    size : int
        Bytes as stored; 0 where it is not.
    tag : str
        Etag, or time of change in nanoseconds, when it was written; empty where it is not stored.
    """

    name: str
    checksums: str
    size: int
    tag: str

    def to_json(self) -> list[Any]:
        """Return it as a JSON array."""
        return [self.name, self.checksums, self.size, self.tag]

    @classmethod
    def from_json(cls, data: Sequence[Any]) -> StoredObject:
        """Make it from a JSON array.

        Raises
        ------
        TypeError, ValueError
            If it is none.
        """
        name, checksums, size, tag = data
        return cls(str(name), str(checksums), int(size), str(tag))


def checksum(data: bytes | np.ndarray[Any, Any]) -> str:
    """CRC-32C of bytes, or of an array's values in C order and little-endian: 8 hex digits.

    Parameters
    ----------
    data : bytes or ndarray
        Any of them.

    Returns
    -------
    str
        Always lower case.

    Examples
    --------
    >>> checksum(b"123456789")
    'e3069283'
    """
    if isinstance(data, np.ndarray):
        data = np.ascontiguousarray(data, data.dtype.newbyteorder("<"))
    return f"{google_crc32c.value(data):08x}"


def checksums_of(pixels: np.ndarray[Any, Any], chunk: Sequence[int], fill: object) -> str:
    """Checksums of the chunks of one stored object.

    Parameters
    ----------
    pixels : (Y, X) ndarray
        Its part inside the array.
    chunk : sequence of int
        Rows and columns of a chunk.
    fill : scalar
        Value of what is not stored.

    Returns
    -------
    str
        As of `StoredObject.checksums`; empty where all chunks are of fill value.

    Examples
    --------
    >>> checksums_of(np.array([[0, 0, 1, 2, 3]], np.uint8), (1, 2), 0)
    '--------03f89f52412da0a5'
    """
    rows, columns = (range(0, n, c) for n, c in zip(pixels.shape, chunk, strict=True))
    # One buffer for all: fresh memory for each copy costs more than the checksum.
    buffer = np.empty(chunk[0] * chunk[1], pixels.dtype.newbyteorder("<"))
    found = []
    for y in rows:
        for x in columns:
            part = pixels[y : y + chunk[0], x : x + chunk[1]]
            # A few pixels spare most chunks the comparison of all.
            if (part[::64, ::64] == fill).all() and (part == fill).all():
                found.append(ABSENT)
                continue
            copy = buffer[: part.size].reshape(part.shape)
            copy[...] = part
            found.append(checksum(copy))
    return "" if set(found) == {ABSENT} else "".join(found)
