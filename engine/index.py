"""Where the objects of pass 1 are kept, and how many come before each chunk: ids and neighbours."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import OutputError
from engine.ledger import Ledger
from engine.outlines import load_objects
from engine.store import Location, write_atomic
from tiling import Box, Grid, Region

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.ledger import Record
    from engine.methods.starconvex import StarObjects
    from engine.planning import Job


@dataclass(frozen=True)
class Index:
    """Where the objects of a run are kept, and how many come before each chunk.

    Parameters
    ----------
    planes : ndarray of shape (n, P), int64
        Plane of each region of pass 1 that is done.
    cores : ndarray of shape (n, 4), int64
        Its core: y0, x0, y1, x1.
    reach : float
        Longest ray of any object, in pixels.
    before : ndarray of shape (chunks + 1,), int64
        Objects in all chunks before each chunk; the last entry is the total.
    """

    planes: np.ndarray
    cores: np.ndarray
    reach: float
    before: np.ndarray

    @property
    def total(self) -> int:
        """Objects in all."""
        return int(self.before[-1])

    def meeting(self, plane: tuple[int, ...], box: Box) -> list[Region]:
        """Regions of pass 1, in one plane, whose cores meet a box."""
        here = (self.planes == np.array(plane, np.int64)).all(axis=1)
        here &= (self.cores[:, :2] < box.stop).all(axis=1)
        here &= (self.cores[:, 2:] > box.start).all(axis=1)
        rows = self.cores[here].tolist()
        return [Region(plane, Box((a, b), (c, d))) for a, b, c, d in rows]


def make_index(job: Job, records: Iterable[Record]) -> Index:
    """Sum the counts of pass 1 into ids.

    Raises
    ------
    OutputError
        If there are more objects than the label image can name.
    """
    grid = chunk_grid(job)
    counts = np.zeros(len(grid) + 1, np.int64)
    planes, cores, reach = [], [], 0.0
    for record in records:
        planes.append(record.region.plane)
        cores.append((*record.region.core.start, *record.region.core.stop))
        reach = max(reach, float(record.notes["reach"]))
        cells = record.region.core.split(grid.cell)
        for cell, count in zip(cells, record.notes["counts"], strict=True):
            # A part of an image that ran whole before has records outside of it too.
            if cell.meets(job.area):
                counts[grid.number(record.region.plane, *cell.start) + 1] = count
    shape = (len(planes), len(job.frame.planes))
    index = Index(
        np.array(planes, np.int64).reshape(shape),
        np.array(cores, np.int64).reshape(-1, 4),
        reach,
        np.cumsum(counts),
    )
    layer = job.layer(job.stardist.instances.name)
    if index.total > np.iinfo(layer.dtype).max:
        raise OutputError(
            where=f"labels of '{job.out}'",
            expected=f"at most {np.iinfo(layer.dtype).max} objects, as {layer.dtype} can name",
            found=str(index.total),
            remedy="Run the image in parts with --within, each into its own OUT.",
        )
    return index


def chunk_grid(job: Job) -> Grid:
    """Chunks of the label image."""
    chunk = job.layer(job.stardist.instances.name).chunk
    return Grid(job.frame.planes, job.frame.extent, (chunk, chunk))


def save_index(job: Job, index: Index) -> str:
    """Put the index where tasks find it; return its name, which no other index ever had."""
    with io.BytesIO() as buffer:
        np.savez(
            buffer,
            planes=index.planes,
            cores=index.cores,
            reach=np.float64(index.reach),
            before=index.before,
        )
        data = buffer.getvalue()
    name = f"index-{hashlib.sha256(data).hexdigest()[:32]}.npz"
    write_atomic(Ledger(job.out).path("work", name), data)
    return name


@lru_cache(maxsize=2)
def open_index(out: Location, name: str) -> Index:
    """Index of a run; named by its content, so read once per process."""
    found = Ledger(out).path("work", name).read_bytes()
    with np.load(io.BytesIO(found), allow_pickle=False) as data:
        return Index(data["planes"], data["cores"], float(data["reach"]), data["before"])


def load_near(
    job: Job, index: Index, plane: tuple[int, ...], box: Box
) -> dict[Region, tuple[StarObjects, np.ndarray]]:
    """Parts of pass 1 whose objects may meet a box: their objects, and the keys that they saw."""
    outer = box.grow(int(np.ceil(index.reach)) + 1)
    return {part: load_objects(job, part) for part in index.meeting(plane, outer)}
