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


def checksum(data: bytes | np.ndarray) -> str:
    """CRC-32C of bytes, or of an array's values in C order and little-endian: 8 hex digits.

    Examples
    --------
    >>> checksum(b"123456789")
    'e3069283'
    """
    if isinstance(data, np.ndarray):
        little = data.dtype.newbyteorder("<")
        data = np.ascontiguousarray(data, little).tobytes()
    return f"{google_crc32c.value(data):08x}"
