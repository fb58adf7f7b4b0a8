"""Whether what a record says of a stored object is still true."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from engine.errors import OutputError
from engine.store.arrays import array_document, array_of, shard_shape
from engine.store.checksums import checksum, checksums_of
from engine.store.failures import error_number, read_error
from engine.store.files import read_optional
from engine.store.location import Location
from engine.store.staging import staging

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import zarr

    from engine.store.checksums import StoredObject

Verdict = Literal["missing", "damaged"] | None


class Checker:
    """Compares stored objects with what records say of them; threads may share it.

    Parameters
    ----------
    out : str, Path or Location
        The result. Its arrays are opened once and not again.
    """

    def __init__(self, out: str | Path | Location) -> None:
        self._out = Location.parse(out, OutputError)
        self._arrays: dict[str, tuple[Mapping[str, Any], zarr.Array[Any]]] = {}
        self._opening = threading.Lock()

    def check(self, stored: StoredObject, depth: Literal["listing", "bytes"]) -> Verdict:
        """Say what is wrong with a stored object.

        Parameters
        ----------
        stored : StoredObject
            Out of a record.
        depth : {'listing', 'bytes'}
            By its size and tag, or by its decoded content.

        Returns
        -------
        'missing', 'damaged' or None
            None where it is as recorded, also where it is rightly absent.

        Raises
        ------
        OutputError
            If the store does not answer, or the document of the object's array is missing or
            damaged.
        """
        place = self._out / stored.name
        try:
            if depth == "listing":
                return self._by_listing(place, stored)
            if _is_chunk(stored.name):
                return self._by_pixels(place, stored)
            return _by_bytes(place, stored)
        except OSError as err:
            raise read_error(str(place), err, OutputError) from err

    def _by_listing(self, place: Location, stored: StoredObject) -> Verdict:
        """Compare size and tag."""
        found = place.stat()
        if not stored.checksums:
            return None if found is None else "damaged"
        if found is None:
            return "missing"
        return None if (found.size, found.tag) == (stored.size, stored.tag) else "damaged"

    def _by_pixels(self, place: Location, stored: StoredObject) -> Verdict:
        """Decode and compare."""
        if place.is_local and not place.is_file():
            return "missing" if stored.checksums else None
        name, _, rest = stored.name.rpartition("/c/")
        document, array = self._array(name)
        at = tuple(int(part) for part in rest.split("/"))
        if place.is_local:
            pixels = _decode(array, at)
        else:
            data = read_optional(place)
            if data is None:
                return "missing" if stored.checksums else None
            with staging(self._out / name, document) as draft:
                draft.file(at).write_bytes(data)
                pixels = _decode(draft.array, at)
        if pixels is None:
            return "damaged"
        found = checksums_of(pixels, array.chunks[-2:], array.fill_value)
        return None if found == stored.checksums else "damaged"

    def _array(self, name: str) -> tuple[Mapping[str, Any], zarr.Array[Any]]:
        """Array of OUT by its path."""
        with self._opening:
            if name not in self._arrays:
                document = array_document(self._out / name, OutputError)
                self._arrays[name] = document, array_of(document, self._out / name, "r")
            return self._arrays[name]


def _is_chunk(name: str) -> bool:
    """Whether a name is that of an object of an array: ``.../c/0/1``."""
    _, found, rest = name.rpartition("/c/")
    return bool(found) and all(part.isdigit() for part in rest.split("/"))


def _by_bytes(place: Location, stored: StoredObject) -> Verdict:
    """Compare the bytes of a plain file."""
    data = read_optional(place)
    if data is None:
        return "missing"
    return None if checksum(data) == stored.checksums else "damaged"


def _decode(array: zarr.Array[Any], at: tuple[int, ...]) -> np.ndarray[Any, Any] | None:
    """Pixels of one object inside the array, (Y, X); None where its bytes are damaged."""
    box = tuple(
        slice(i * s, min((i + 1) * s, n))
        for i, s, n in zip(at, shard_shape(array), array.shape, strict=True)
    )
    try:
        pixels = np.asarray(array[box])
    except (RuntimeError, ValueError) as err:
        number = error_number(err)
        if number is not None:
            raise OSError(number, str(err)) from err
        return None
    return pixels.reshape(pixels.shape[-2:])
