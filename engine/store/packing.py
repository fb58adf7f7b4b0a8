"""Arrays in one object: npz, of which nothing is ever unpickled."""

from __future__ import annotations

import io
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

# NumPy parses the header of each array as Python source, which fails now and then in two threads at
# once before Python 3.12.2 (python/cpython#106905, "AST constructor recursion depth mismatch").
_PARSING = Lock()


def pack_arrays(arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> bytes:
    """Put named arrays into the bytes of an npz file; equal arrays give equal bytes.

    Parameters
    ----------
    arrays : mapping of str to ndarray
        None of objects.
    compress : bool
        Whether to deflate them: smaller, and slower to write.
    """
    save = np.savez_compressed if compress else np.savez
    with io.BytesIO() as buffer:
        save(buffer, allow_pickle=False, **arrays)
        return buffer.getvalue()


def unpack_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Read all arrays of an npz file.

    Raises
    ------
    ValueError
        If one holds objects.
    """
    with _PARSING, np.load(io.BytesIO(data), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
