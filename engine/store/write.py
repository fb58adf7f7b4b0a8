"""Writing pixels: every stored object appears whole, in one step, or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zarr.storage import LocalStore

from engine.errors import OutputError
from engine.store.arrays import open_array, shard_shape
from engine.store.files import read_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import zarr

    from tiling.box import Box

_PARTIAL = ".partial-"


def write_box(
    array: zarr.Array[Any], leading: Sequence[int], box: Box, pixels: np.ndarray[Any, Any]
) -> None:
    """Write whole stored objects of one plane; repeating it gives the same pixels.

    Objects are made beside the array, brought to the disk and then renamed into place, so that
    neither a crash nor a late second writer of the same pixels leaves part of one. What stood
    there before is not read. Objects of fill value are not stored; an old one is removed.

    Parameters
    ----------
    array : zarr.Array
        Opened with mode ``r+``.
    leading : sequence of int
        One index for each axis before y and x.
    box : Box
        Rows and columns; its edges lie on edges of shards or of the array.
    pixels : (Y, X) ndarray
        New pixels, in the array's dtype.

    Raises
    ------
    OutputError
        If the box would cut a shard, lies outside the array, or the pixels have another shape or
        dtype (nothing is written then), or if the disk refuses (whole objects may be).
    """
    _check(array, leading, box, pixels)
    folder = array_folder(array)
    staging = folder / f"{_PARTIAL}{uuid.uuid4().hex}"
    at = tuple(slice(i, i + 1) for i in leading)
    try:
        fresh = _stage(folder, staging)
        fresh[at + box.slices()] = pixels[(None,) * len(at)]
        for place in _places(array, leading, box):
            made, target = (x.metadata.encode_chunk_key(place) for x in (fresh, array))
            _publish(staging / made, folder / target)
    except (OSError, RuntimeError) as err:
        raise OutputError(
            where=f"{folder}, {tuple(leading)}, {box}",
            expected="a disk that takes the pixels",
            found=f"{type(err).__name__}: {err}",
            remedy="Free space there or correct its permissions, then run again.",
        ) from err
    finally:
        shutil.rmtree(staging, ignore_errors=True)


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


def array_folder(array: zarr.Array[Any]) -> Path:
    """Folder of an array on the local disk.

    Parameters
    ----------
    array : zarr.Array
        From `open_array`.

    Returns
    -------
    Path
        Where its ``zarr.json`` is.

    Raises
    ------
    OutputError
        If the array lies elsewhere.
    """
    store = array.store_path.store
    if not isinstance(store, LocalStore):
        raise OutputError(
            where=str(array.store_path),
            expected="an array on the local disk",
            found=type(store).__name__,
            remedy="Open it with engine.store.open_array.",
        )
    return Path(store.root) / array.store_path.path


def _stage(folder: Path, staging: Path) -> zarr.Array[Any]:
    """Make an empty array like the one in `folder`, its objects directly in `staging`."""
    document = read_json(folder / "zarr.json", OutputError)
    # One folder to make and remove instead of one per axis: removing one takes up to 4 ms.
    document["chunk_key_encoding"] = {"name": "default", "configuration": {"separator": "."}}
    staging.mkdir()
    (staging / "zarr.json").write_text(json.dumps(document))
    return open_array(staging, "r+")


def _places(array: zarr.Array[Any], leading: Sequence[int], box: Box) -> list[tuple[int, ...]]:
    """Places, in the grid of stored objects, that a box of one plane is made of."""
    cells = box.coarsen(shard_shape(array)[-2:])
    places = product(*(range(a, b) for a, b in zip(cells.start, cells.stop, strict=True)))
    return [(*leading, *place) for place in places]


def _publish(made: Path, target: Path) -> None:
    """Put an object in its place; remove what is there where none was made."""
    if not made.exists():
        target.unlink(missing_ok=True)
        return
    with made.open("rb") as file:
        os.fsync(file.fileno())  # records are written last and must not outlive their pixels
    target.parent.mkdir(parents=True, exist_ok=True)
    made.replace(target)


def remove_partial(path: Path) -> int:
    """Remove what writers that were killed left beside an array's objects.

    Parameters
    ----------
    path : Path
        Folder of the array; nobody may be writing to it.

    Returns
    -------
    int
        Leftovers removed.
    """
    left = list(path.glob(f"{_PARTIAL}*"))
    for folder in left:
        shutil.rmtree(folder)
    return len(left)
