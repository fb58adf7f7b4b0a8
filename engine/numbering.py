"""Dense ids of objects: how many come before each chunk, and the rank of an object in its own.

Ids follow the chunks of the label image in C order and, within a chunk, the anchors in raster
order: an id is the number of objects in the chunks before, plus the rank in its own.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import OutputError
from engine.ledger import Ledger
from engine.store import pack_arrays, unpack_arrays, write_atomic
from tiling import Grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.planning import Job
    from engine.store import Location
    from tiling import Box, Region


def chunk_grid(job: Job, name: str) -> Grid:
    """Chunks of a label image."""
    chunk = job.layer(name).chunk
    return Grid(job.frame.planes, job.frame.extent, (chunk, chunk))


def count_anchors(core: Box, chunk: int, anchors: np.ndarray) -> list[int]:
    """Count objects in the chunks inside a core, in C order.

    Parameters
    ----------
    core : Box
        Whole chunks, but at the edge of the image.
    chunk : int
        Side of a chunk, in pixels.
    anchors : ndarray of shape (n, 2), int64
        Inside the core, in pixels of the plane.
    """
    high, wide = (-(-n // chunk) for n in core.shape)
    places = (anchors - core.start) // chunk
    numbers = places[:, 0] * wide + places[:, 1]
    return [int(n) for n in np.bincount(numbers, minlength=high * wide)]


def add_counts(
    job: Job, chunks: Grid, region: Region, found: Sequence[int], counts: np.ndarray
) -> None:
    """Add what a region counted in each chunk.

    Parameters
    ----------
    job : Job
        The run.
    chunks : Grid
        Of the label image.
    region : Region
        Which counted.
    found : sequence of int
        From `count_anchors`.
    counts : ndarray of shape (chunks,), int64
        Of all chunks; added to.
    """
    inside = region.core.split(chunks.cell)
    for box, count in zip(inside, found, strict=True):
        # A part of an image that ran whole before has records outside of it too.
        if box.meets(job.area):
            counts[chunks.number(region.plane, *box.start)] += count


def sum_counts(job: Job, name: str, counts: np.ndarray) -> np.ndarray:
    """Count the objects in all chunks before each; the last is the total: (chunks + 1,) int64.

    Parameters
    ----------
    job : Job
        The run.
    name : str
        Of the label image.
    counts : ndarray of shape (chunks,), int64
        Objects in each chunk.

    Raises
    ------
    OutputError
        If there are more objects than the label image can name.
    """
    before, layer = np.concatenate([[0], np.cumsum(counts)]), job.layer(name)
    if before[-1] > np.iinfo(layer.dtype).max:
        raise OutputError(
            where=f"labels of '{job.out}'",
            expected=f"at most {np.iinfo(layer.dtype).max} objects, as {layer.dtype} can name",
            found=str(before[-1]),
            remedy="Run the image in parts with --within, each into its own OUT.",
        )
    return before


def chunk_numbers(chunks: Grid, planes: np.ndarray | int, anchors: np.ndarray) -> np.ndarray:
    """Chunk that holds each anchor: (n,) int64.

    Parameters
    ----------
    chunks : Grid
        Of the label image.
    planes : int or ndarray of shape (n,)
        Number of the plane of each, in C order.
    anchors : ndarray of shape (n, 2), int64
        In pixels of the plane.
    """
    places = anchors // chunks.cell[0]
    rows, columns = chunks.shape[-2:]
    numbers: np.ndarray = (planes * rows + places[:, 0]) * columns + places[:, 1]
    return numbers


def dense_ids(before: np.ndarray, chunk: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Dense id of every object, of chunks of which all objects are given: (n,) uint64.

    Parameters
    ----------
    before : ndarray of shape (chunks + 1,), int64
        From `sum_counts`.
    chunk : ndarray of shape (n,), int64
        From `chunk_numbers`.
    anchors : ndarray of shape (n, 2), int64
        In pixels of the plane.
    """
    order = np.lexsort((anchors[:, 1], anchors[:, 0], chunk))
    ranked = chunk[order]
    rank = np.arange(len(order)) - np.searchsorted(ranked, ranked)
    ids = np.empty(len(anchors), np.uint64)
    ids[order] = before[ranked] + rank + 1
    return ids


def save_numbers(job: Job, kind: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Put what is known of all objects where tasks find it; return a name no other ever had."""
    data = pack_arrays(arrays)
    name = f"{kind}-{hashlib.sha256(data).hexdigest()[:32]}.npz"
    write_atomic(Ledger(job.out).path("work", name), data)
    return name


def load_numbers(out: Location, name: str) -> dict[str, np.ndarray]:
    """Read what `save_numbers` kept."""
    return unpack_arrays(Ledger(out).path("work", name).read_bytes())
