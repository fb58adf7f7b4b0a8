"""Objects of the class map over all cells: which parts belong together, and the ids of all.

The driver holds the parts that touch a side of their cell, some 60 bytes each, and the sides of two
rows of cells; all others are counted by their chunk. A worker reads what is known of the rows of
cells that it needs.
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
    """Parts that touch a side of their cell, with the part that holds the anchor of their object.

    Parameters
    ----------
    cells, local : ndarray of shape (n,), int64
        Number of the cell of each part, in C order of the planes and cells, and its index there;
        ascending.
    head_cells, head_local : ndarray of shape (n,), int64
        The part that holds the anchor of its object.
    kept : ndarray of shape (n,), bool
        Whether its object is large enough.
    """

    cells: np.ndarray
    local: np.ndarray
    head_cells: np.ndarray
    head_local: np.ndarray
    kept: np.ndarray

    def of_cell(self, cell: int) -> Joined:
        """Take those of one cell."""
        return self.take(slice(*np.searchsorted(self.cells, [cell, cell + 1])))

    def take(self, rows: slice | np.ndarray) -> Joined:
        """Take some of the parts."""
        return Joined(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    @cached_property
    def led(self) -> np.ndarray:
        """Whether a part holds the anchor of its object itself: (n,) bool."""
        return np.asarray((self.head_cells == self.cells) & (self.head_local == self.local))


@dataclass(frozen=True)
class JoinedRow:
    """What is known of one row of cells.

    Parameters
    ----------
    parts : Joined
        Parts in its cells.
    members : Joined
        Parts, of any cell, of the objects whose anchors lie in its cells; ordered by these.
    """

    parts: Joined
    members: Joined

    def members_led_by(self, cell: int) -> Joined:
        """Parts of the objects whose anchors lie in a cell."""
        low, high = np.searchsorted(self.members.head_cells, [cell, cell + 1])
        return self.members.take(slice(low, high))


@dataclass(frozen=True)
class JoinedIndex:
    """Where the rows of cells are kept, and what comes before each chunk.

    Parameters
    ----------
    rows : tuple of str
        Name of what is known of each row of cells that has a part at a side; "" for the others.
    wide : int
        Cells of a row.
    before : ndarray of shape (chunks + 1,), int64
        Objects in all chunks before each chunk; the last entry is the total.
    """

    rows: tuple[str, ...]
    wide: int
    before: np.ndarray


def cell_grid(job: Job) -> Grid:
    """Cells whose parts are kept."""
    return Grid(job.frame.planes, job.frame.extent, (job.shard, job.shard))


def join_objects(job: Job, records: Iterable[Record]) -> tuple[Joined, np.ndarray]:
    """Join the parts of all cells over their seams, and count objects by chunk.

    Parameters
    ----------
    job : Job
        The run.
    records : iterable of Record
        Of the pass that made the final class map.

    Returns
    -------
    joined : Joined
        All parts that touch a side.
    before : ndarray of shape (chunks + 1,), int64
        Objects in all chunks before each.

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
    total = int(groups[-1])
    # By object and anchor: the first of an object holds its anchor.
    order = np.lexsort((first[:, 1], first[:, 0], group))
    head = order[np.searchsorted(group[order], np.arange(total))]
    size = np.bincount(group, area, total).astype(np.int64)
    kept = size >= settings.min_area
    own = head[kept]
    planes = cell[own] // int(np.prod(cells.shape[-2:]))
    np.add.at(counts, chunk_numbers(chunks, planes, first[own]), 1)
    joined = Joined(cell, local, cell[head[group]], local[head[group]], kept[group])
    return joined, sum_counts(job, settings.name, counts)


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


def save_joined(job: Job, joined: Joined, before: np.ndarray) -> str:
    """Put it, row by row of cells, where tasks find it; return a name that no other ever had."""
    wide = cell_grid(job).shape[-1]
    by_cell = joined.take(np.lexsort((joined.local, joined.cells)))
    by_head = joined.take(np.lexsort((joined.head_local, joined.head_cells)))
    names = []
    for row in range(len(cell_grid(job)) // wide):
        ends = [row * wide, (row + 1) * wide]
        parts = by_cell.take(slice(*np.searchsorted(by_cell.cells, ends)))
        members = by_head.take(slice(*np.searchsorted(by_head.head_cells, ends)))
        if not len(parts.cells):
            names.append("")
            continue
        arrays = {f"parts.{f.name}": getattr(parts, f.name) for f in fields(Joined)}
        arrays |= {f"members.{f.name}": getattr(members, f.name) for f in fields(Joined)}
        names.append(save_numbers(job, "row", arrays))
    kept = {"rows": np.array(names, np.bytes_), "wide": np.array(wide), "before": before}
    return save_numbers(job, "joined", kept)


@lru_cache(maxsize=2)
def open_joined(out: Location, name: str) -> JoinedIndex:
    """Read where rows are kept; named by its content, so once per process."""
    found = load_numbers(out, name)
    rows = tuple(bytes(one).decode() for one in found["rows"])
    return JoinedIndex(rows, int(found["wide"]), found["before"])


def open_row(job: Job, cell: int) -> JoinedRow:
    """Read what is known of the row of a cell."""
    index = open_joined(job.out, job.joined)
    return _read_row(job.out, index.rows[cell // index.wide])


@lru_cache(maxsize=8)
def _read_row(out: Location, name: str) -> JoinedRow:
    """Row of cells; a worker holds a few, of which its regions and their neighbours are."""
    if not name:
        nothing = np.zeros(0, np.int64)
        empty = Joined(nothing, nothing, nothing, nothing, nothing.astype(bool))
        return JoinedRow(empty, empty)
    found = load_numbers(out, name)

    def part(of: str) -> Joined:
        return Joined(**{f.name: found[f"{of}.{f.name}"] for f in fields(Joined)})

    return JoinedRow(part("parts"), part("members"))
