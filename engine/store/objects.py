"""Which stored objects an array consists of, by name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.store.arrays import shard_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import zarr

    from engine.store.location import Location

ABSENT_TAG = "absent"
"""Tag of an object that is not stored."""

#: Requests at once for one call.
_REQUESTS = 16


def touched(array: zarr.Array[Any], indices: Sequence[Sequence[int]]) -> list[str]:
    """Names of the stored objects that hold some pixels.

    Parameters
    ----------
    array : zarr.Array
        Opened array.
    indices : sequence of sequences of int
        Indices on each axis; a range for consecutive ones.

    Returns
    -------
    list of str
        Below the array, in C order.
    """
    cells = [_cells(chosen, size) for chosen, size in zip(indices, shard_shape(array), strict=True)]
    return [array.metadata.encode_chunk_key(place) for place in product(*cells)]


def _cells(indices: Sequence[int], size: int) -> Sequence[int]:
    """Places on one axis of the grid of stored objects."""
    if isinstance(indices, range) and indices:
        return range(indices[0] // size, indices[-1] // size + 1)
    return sorted({index // size for index in indices})


def spread(array: zarr.Array[Any], most: int) -> list[str]:
    """Names of stored objects that lie spread over an array.

    Parameters
    ----------
    array : zarr.Array
        Opened array.
    most : int
        Objects to name.

    Returns
    -------
    list of str
        Below the array; its corners first, each name once.
    """
    grid = [-(-n // s) for n, s in zip(array.shape, shard_shape(array), strict=True)]
    corners = list(product(*((0, n - 1) if n > 1 else (0,) for n in grid)))[:most]
    between = np.linspace(0, prod(grid) - 1, most).astype(np.int64)
    others = [tuple(int(i) for i in np.unravel_index(k, grid)) for k in between]
    chosen = list(dict.fromkeys([*corners, *others]))[:most]
    return [array.metadata.encode_chunk_key(place) for place in chosen]


def tags_of(folder: Location, names: Sequence[str]) -> list[str]:
    """Ask what tells whether objects were changed.

    Parameters
    ----------
    folder : Location
        Where they lie.
    names : sequence of str
        Below that.

    Returns
    -------
    list of str
        On a disk size and time of change in nanoseconds, else the etag; `ABSENT_TAG` where there
        is no object.

    Raises
    ------
    OSError
        If the store does not answer, or denies to.
    """

    def tag(name: str) -> str:
        found = (folder / name).stat()
        if found is None:
            return ABSENT_TAG
        return f"{found.size}-{found.tag}" if folder.is_local else found.tag

    if folder.is_local or len(names) < 2:
        return [tag(name) for name in names]
    with ThreadPoolExecutor(min(_REQUESTS, len(names))) as pool:
        return list(pool.map(tag, names))
