"""Writing pixels: every stored object appears whole, in one step, or not at all."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from engine.errors import OutputError
from engine.store.arrays import array_document, array_of, shard_shape
from engine.store.checksums import StoredObject, checksum, checksums_of
from engine.store.disk import make_folder, sync_folder
from engine.store.failures import write_error
from engine.store.location import Location, delete_all
from engine.store.staging import PARTIAL, staging

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    import zarr

    from tiling.box import Box

#: Objects of one box that are sent to a bucket at once.
_REQUESTS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """An array of OUT that is written; see `open_target`.

    Parameters
    ----------
    out : Location
        The result.
    name : str
        Path of the array inside it.
    array : zarr.Array
        Opened for reading and writing; threads may use it at the same time.
    document : mapping
        Its ``zarr.json``.
    """

    out: Location
    name: str
    array: zarr.Array[Any]
    document: Mapping[str, Any]

    @property
    def place(self) -> Location:
        """Folder of the array."""
        return self.out / self.name


def open_target(out: str | Path | Location, name: str) -> Target:
    """Open an array of OUT for writing.

    Parameters
    ----------
    out : str, Path or Location
        The result.
    name : str
        Path of the array inside it, such as ``"labels/nuclei/0"``; made by `create_array`.

    Returns
    -------
    Target
        For this process; another one opens its own.

    Raises
    ------
    OutputError
        If it is missing or damaged.
    """
    root = Location.parse(out, OutputError)
    document = array_document(root / name, OutputError)
    return Target(root, name, array_of(document, root / name, "r+"), document)


def write_box(
    target: Target, leading: Sequence[int], box: Box, pixels: np.ndarray[Any, Any]
) -> tuple[StoredObject, ...]:
    """Write whole stored objects of one plane; repeating it gives the same pixels.

    Objects are made on the local disk, beside an array that lies there too; then each is brought
    to the disk and renamed into place, or sent to the bucket. So neither a crash nor a late second
    writer of the same pixels leaves part of one. What stood there before is not read. Objects of
    fill value are not stored; an old one is removed.

    Parameters
    ----------
    target : Target
        Where to.
    leading : sequence of int
        One index for each axis before y and x.
    box : Box
        Rows and columns; its edges lie on edges of shards or of the array.
    pixels : (Y, X) ndarray
        New pixels, in the array's dtype.

    Returns
    -------
    tuple of StoredObject
        One for each stored object that the box is made of, in C order; for a record.

    Raises
    ------
    OutputError
        If the box would cut a shard, lies outside the array, or the pixels have another shape or
        dtype (nothing is written then), or if the store refuses (whole objects may be).
    """
    array = target.array
    _check(array, leading, box, pixels)
    sums = _checksums(array, leading, box, pixels)
    try:
        filled = [place for place, text in sums.items() if text]
        made = dict(zip(filled, _publish(target, leading, box, pixels, filled), strict=True))
        _remove(target, [place for place in sums if place not in made])
    except (OSError, RuntimeError) as err:
        raise write_error(f"{target.place}, {tuple(leading)}, {box}", err) from err
    names = {place: f"{target.name}/{array.metadata.encode_chunk_key(place)}" for place in sums}
    return tuple(
        StoredObject(names[place], text, *made.get(place, (0, ""))) for place, text in sums.items()
    )


def write_file(out: str | Path | Location, name: str, data: bytes) -> StoredObject:
    """Write a plain file of OUT in one step.

    Parameters
    ----------
    out : str, Path or Location
        The result.
    name : str
        Path of the file inside it.
    data : bytes
        Its whole content.

    Returns
    -------
    StoredObject
        For a record.

    Raises
    ------
    OutputError
        If the store refuses.
    """
    place = Location.parse(out, OutputError) / name
    try:
        made = place.write_bytes(data)
    except OSError as err:
        raise write_error(str(place), err) from err
    return StoredObject(name, checksum(data), made.size, made.tag)


def remove_partial(place: str | Path | Location) -> int:
    """Remove what writers that were killed left beside an array's objects.

    Parameters
    ----------
    place : str, Path or Location
        Folder of the array; nobody may be writing to it.

    Returns
    -------
    int
        Leftovers removed; none in a bucket, where nothing is left.
    """
    folder = Location.parse(place, OutputError)
    if not folder.is_local:
        return 0
    left = list(folder.path.glob(f"{PARTIAL}*"))
    for path in left:
        shutil.rmtree(path)
    return len(left)


def _check(
    array: zarr.Array[Any], leading: Sequence[int], box: Box, pixels: np.ndarray[Any, Any]
) -> None:
    """Refuse what is not whole shards of this array."""
    extent, shard = array.shape[-2:], shard_shape(array)
    fits = len(box.start) == 2 and len(leading) == array.ndim - 2 and set(shard[:-2]) <= {1}
    fits = fits and all(
        0 <= a < b <= n and a % s == 0 and (b % s == 0 or b == n)
        for a, b, n, s in zip(box.start, box.stop, extent, shard[-2:], strict=True)
    )
    fits = fits and all(0 <= i < n for i, n in zip(leading, array.shape[:-2], strict=True))
    if not fits or pixels.shape != box.shape or pixels.dtype != array.dtype:
        raise OutputError(
            where=str(array.store_path),
            expected=f"{array.dtype} pixels for whole shards of {shard} in {array.shape}",
            found=f"{pixels.dtype} pixels {pixels.shape} for {tuple(leading)}, {box}",
            remedy="Choose regions that are whole numbers of shards.",
        )


def _checksums(
    array: zarr.Array[Any], leading: Sequence[int], box: Box, pixels: np.ndarray[Any, Any]
) -> dict[tuple[int, ...], str]:
    """Checksums of every stored object of a box, by its place in their grid, in C order."""
    shard, chunk = shard_shape(array)[-2:], array.chunks[-2:]
    cells = box.coarsen(shard)
    found = {}
    for y, x in product(*(range(a, b) for a, b in zip(cells.start, cells.stop, strict=True))):
        top, left = y * shard[0] - box.start[0], x * shard[1] - box.start[1]
        part = pixels[top : top + shard[0], left : left + shard[1]]
        found[(*leading, y, x)] = checksums_of(part, chunk, array.fill_value)
    return found


def _publish(
    target: Target,
    leading: Sequence[int],
    box: Box,
    pixels: np.ndarray[Any, Any],
    places: Sequence[tuple[int, ...]],
) -> list[tuple[int, str]]:
    """Make the objects at some places and put them there; size and tag of each."""
    if not places:
        return []
    with staging(target.place, target.document) as draft:
        at = tuple(slice(i, i + 1) for i in leading)
        draft.array[at + box.slices()] = pixels[(None,) * len(at)]
        pairs = [(draft.file(place), _object(target, place)) for place in places]
        if not target.place.is_local:
            with ThreadPoolExecutor(min(_REQUESTS, len(pairs))) as pool:
                return list(pool.map(lambda pair: _send(*pair), pairs))
        done = [_rename(made, place.path) for made, place in pairs]
    for folder in {place.path.parent for _, place in pairs}:
        sync_folder(folder)
    return done


def _object(target: Target, place: tuple[int, ...]) -> Location:
    """Where the object at a place in the grid of stored objects lies."""
    return target.place / target.array.metadata.encode_chunk_key(place)


def _rename(made: Path, path: Path) -> tuple[int, str]:
    """Put an object in its place on the same disk."""
    with made.open("rb") as file:
        os.fsync(file.fileno())  # records are written last and must not outlive their pixels
        written = os.fstat(file.fileno())
    make_folder(path.parent)
    made.replace(path)
    return written.st_size, str(written.st_mtime_ns)


def _send(made: Path, place: Location) -> tuple[int, str]:
    """Put an object in its place in a bucket."""
    stat = place.write_bytes(made.read_bytes())
    return stat.size, stat.tag


def _remove(target: Target, places: Sequence[tuple[int, ...]]) -> None:
    """Remove the objects of fill value that stand; what is gone must stay gone after a crash."""
    delete_all([_object(target, place) for place in places])
