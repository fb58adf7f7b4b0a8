"""Objects of the class map over all cells: which parts belong together, and the ids of all.

Only the parts that touch a side of their cell are held at once, some 60 bytes each, and the sides
of two rows of cells; the others are counted by their chunk.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from engine.components import component_settings, load_edges
from engine.methods.components import join_over_seams
from engine.numbering import (
    add_counts,
    chunk_grid,
    chunk_numbers,
    load_numbers,
    save_numbers,
    sum_counts,
)
from tiling import Box, Grid, Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.ledger import Record
    from engine.methods.components import Edges
    from engine.planning import Job
    from engine.store import Location

#: Cells whose sides are read at once.
_REQUESTS = 16


@dataclass(frozen=True)
class Joined:
    """Parts that touch a side of their cell, by object, and what comes before each chunk.

    Parameters
    ----------
    cells : ndarray of shape (n,), int64
        Number of the cell of each part, in C order of the planes and cells.
    local : ndarray of shape (n,), int64
        Index of the part in its cell.
    group : ndarray of shape (n,), int64
        Number of its object; ascending.
    head : ndarray of shape (groups,), int64
        Row of the part that holds the anchor of each object.
    kept : ndarray of shape (groups,), bool
        Whether the object is large enough.
    before : ndarray of shape (chunks + 1,), int64
        Objects in all chunks before each chunk; the last entry is the total.
    """

    cells: np.ndarray
    local: np.ndarray
    group: np.ndarray
    head: np.ndarray
    kept: np.ndarray
    before: np.ndarray

    @cached_property
    def _by_cell(self) -> np.ndarray:
        return np.argsort(self.cells, kind="stable")

    def rows(self, cell: int) -> np.ndarray:
        """Rows of the parts of a cell, ascending."""
        order = self._by_cell
        low, high = np.searchsorted(self.cells, [cell, cell + 1], sorter=order)
        found: np.ndarray = order[low:high]
        return found

    def members(self, group: int) -> np.ndarray:
        """Rows of the parts of an object."""
        low, high = np.searchsorted(self.group, [group, group + 1])
        return np.arange(low, high)


def cell_grid(job: Job) -> Grid:
    """Cells whose parts are kept."""
    return Grid(job.frame.planes, job.frame.extent, (job.shard, job.shard))


def join_objects(job: Job, records: Iterable[Record]) -> Joined:
    """Join the parts of all cells over their seams, and count objects by chunk.

    Parameters
    ----------
    job : Job
        The run.
    records : iterable of Record
        Of the pass that made the final class map.

    Raises
    ------
    OutputError
        If there are more objects than the label image can name.
    """
    settings, cells = component_settings(job), cell_grid(job)
    chunks = chunk_grid(job, settings.name)
    counts = np.zeros(len(chunks), np.int64)
    for record in records:
        add_counts(job, chunks, record.region, record.notes["parts"], counts)
    found = [_plane(job, cells, plane) for plane in product(*map(range, job.frame.planes))]
    groups = np.cumsum([0, *(int(part[2].max(initial=-1)) + 1 for part in found)])
    cell, local, first, area = (np.concatenate([part[k] for part in found]) for k in (0, 1, 3, 4))
    group = np.concatenate([part[2] + at for part, at in zip(found, groups, strict=False)])
    # By object and anchor: the first of an object holds its anchor.
    order = np.lexsort((first[:, 1], first[:, 0], group))
    cell, local, first, area, group = (a[order] for a in (cell, local, first, area, group))
    total = int(groups[-1])
    head = np.searchsorted(group, np.arange(total))
    size = np.bincount(group, area, total).astype(np.int64)
    kept = size >= settings.min_area
    own = head[kept]
    planes = cell[own] // int(np.prod(cells.shape[-2:]))
    np.add.at(counts, chunk_numbers(chunks, planes, first[own]), 1)
    return Joined(cell, local, group, head, kept, sum_counts(job, settings.name, counts))


def _plane(job: Job, cells: Grid, plane: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Parts of a plane that touch a side: cell, index, group, first pixel, area."""
    first, area = [np.zeros((0, 2), np.int64)], [np.zeros(0, np.int64)]

    def rows() -> Iterator[tuple[int, dict[int, Edges]]]:
        """Sides of the cells, row by row."""
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for y in range(cells.shape[-2]):
                boxes = [cells.region((*plane, y, x)).core for x in range(cells.shape[-1])]
                inside = [(x, box) for x, box in enumerate(boxes) if box.meets(job.area)]
                found = list(pool.map(lambda one: load_edges(job, plane, one[1]), inside))
                first.extend(one[1] for one in found)
                area.extend(one[2] for one in found)
                yield y, {x: one[0] for (x, _), one in zip(inside, found, strict=True)}

    parts, group = join_over_seams(rows(), component_settings(job).connectivity)
    high, wide = cells.shape[-2:]
    number = int(np.ravel_multi_index(plane, cells.planes)) if plane else 0
    cell = (number * high + parts[:, 0]) * wide + parts[:, 1]
    return cell, parts[:, 2], group, np.concatenate(first), np.concatenate(area)


def cell_box(job: Job, number: int) -> Region:
    """Cell by its number."""
    grid = cell_grid(job)
    return grid.region(tuple(int(n) for n in np.unravel_index(number, grid.shape)))


def cell_number(job: Job, plane: tuple[int, ...], cell: Box) -> int:
    """Find the number of a cell, in C order of the planes and cells."""
    return cell_grid(job).number(plane, cell.start[0], cell.start[1])


def save_joined(job: Job, joined: Joined) -> str:
    """Put it where tasks find it; return its name, which no other ever had."""
    return save_numbers(job, "joined", {f.name: getattr(joined, f.name) for f in fields(Joined)})


@lru_cache(maxsize=2)
def open_joined(out: Location, name: str) -> Joined:
    """Read what was joined; named by its content, so once per process."""
    return Joined(**load_numbers(out, name))
