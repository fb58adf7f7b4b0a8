"""Where the objects of pass 1 are kept, and how many come before each chunk: ids and neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.numbering import add_counts, chunk_grid, load_numbers, save_numbers, sum_counts
from engine.outlines import load_objects
from tiling import Box, Region

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.ledger import Record
    from engine.methods.starconvex import StarObjects
    from engine.planning import Job
    from engine.store import Location


@dataclass(frozen=True)
class Cores:
    """Where the regions of a pass lie that are done.

    Parameters
    ----------
    planes : ndarray of shape (n, P), int64
        Plane of each.
    cores : ndarray of shape (n, 4), int64
        Its core: y0, x0, y1, x1.
    """

    planes: np.ndarray
    cores: np.ndarray

    def meeting(self, plane: tuple[int, ...], box: Box) -> list[Region]:
        """Regions, in one plane, whose cores meet a box."""
        here = (self.planes == np.array(plane, np.int64)).all(axis=1)
        here &= (self.cores[:, :2] < box.stop).all(axis=1)
        here &= (self.cores[:, 2:] > box.start).all(axis=1)
        rows = self.cores[here].tolist()
        return [Region(plane, Box((a, b), (c, d))) for a, b, c, d in rows]


@dataclass(frozen=True)
class Index(Cores):
    """Where the objects of a run are kept, and how many come before each chunk.

    Parameters
    ----------
    planes, cores : ndarray
        Regions of pass 1 that are done.
    reach : float
        Longest ray of any object, in pixels.
    before : ndarray of shape (chunks + 1,), int64
        Objects in all chunks before each chunk; the last entry is the total.
    """

    reach: float
    before: np.ndarray

    @property
    def total(self) -> int:
        """Objects in all."""
        return int(self.before[-1])


def collect_cores(regions: Iterable[Region], planes: int) -> Cores:
    """List where regions lie.

    Parameters
    ----------
    regions : iterable of Region
        The regions.
    planes : int
        Axes before y and x.
    """
    found = [(*r.plane, *r.core.start, *r.core.stop) for r in regions]
    rows = np.array(found, np.int64).reshape(-1, planes + 4)
    return Cores(rows[:, :planes], rows[:, planes:])


def make_index(job: Job, records: Iterable[Record]) -> Index:
    """Sum the counts of pass 1 into ids.

    Raises
    ------
    OutputError
        If there are more objects than the label image can name.
    """
    name = job.stardist.instances.name
    chunks = chunk_grid(job, name)
    counts = np.zeros(len(chunks), np.int64)
    regions, reach = [], 0.0
    for record in records:
        add_counts(job, chunks, record.region, record.notes["counts"], counts)
        regions.append(record.region)
        reach = max(reach, float(record.notes["reach"]))
    found = collect_cores(regions, len(job.frame.planes))
    return Index(found.planes, found.cores, reach, sum_counts(job, name, counts))


def save_index(job: Job, index: Index) -> str:
    """Put the index where tasks find it; return its name, which no other index ever had."""
    arrays = {
        "planes": index.planes,
        "cores": index.cores,
        "reach": np.array(index.reach),
        "before": index.before,
    }
    return save_numbers(job, "index", arrays)


@lru_cache(maxsize=2)
def open_index(out: Location, name: str) -> Index:
    """Index of a run; named by its content, so read once per process."""
    found = load_numbers(out, name)
    return Index(found["planes"], found["cores"], float(found["reach"]), found["before"])


def load_near(
    job: Job, index: Index, plane: tuple[int, ...], box: Box
) -> dict[Region, tuple[StarObjects, np.ndarray]]:
    """Parts of pass 1 whose objects may meet a box: their objects, and the keys that they saw."""
    outer = box.grow(int(np.ceil(index.reach)) + 1)
    return {part: load_objects(job, part) for part in index.meeting(plane, outer)}
