"""Stored objects in a folder of the local disk, where the fast codecs can make and read them."""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.store.arrays import array_of
from engine.store.location import Location

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import zarr

PARTIAL = ".partial-"
"""How the names of staging folders begin."""


class Staging:
    """An array like another one, empty at first, whose objects lie in one folder.

    Parameters
    ----------
    folder : Path
        New folder.
    document : mapping
        ``zarr.json`` of the other array.
    """

    def __init__(self, folder: Path, document: Mapping[str, Any]) -> None:
        # One folder to make and remove instead of one per axis: removing one takes up to 4 ms.
        flat = {"name": "default", "configuration": {"separator": "."}}
        own = {**document, "chunk_key_encoding": flat}
        (folder / "zarr.json").write_text(json.dumps(own))
        self._folder = folder
        self.array: zarr.Array[Any] = array_of(own, Location(str(folder)), "r+")

    def file(self, place: tuple[int, ...]) -> Path:
        """File of the object at a place in the grid of stored objects, made or not."""
        return self._folder / self.array.metadata.encode_chunk_key(place)


@contextmanager
def staging(beside: Location, document: Mapping[str, Any]) -> Iterator[Staging]:
    """Open a staging array, removed at the end.

    Parameters
    ----------
    beside : Location
        Folder of the array that it is for: on a disk it lies there, so that objects can be
        renamed into place; else among the temporary files of this machine.
    document : mapping
        Document of that array.

    Yields
    ------
    Staging
        Empty.
    """
    if beside.is_local:
        folder = beside.path / f"{PARTIAL}{uuid.uuid4().hex}"
        folder.mkdir()
    else:
        folder = Path(tempfile.mkdtemp(prefix="tilewright-"))
    try:
        yield Staging(folder, document)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
