"""Objects of the class map over all cells: joined as a tree of blocks, each a task of its own.

::

    join-1    blocks of 8 x 8 cells   the parts along the sides of cells become components
    join-2    blocks of 8 x 8 blocks  those that reach a side of their block, and so on

A block keeps what became of each component below it, its whole objects, and what goes on beyond.
No process holds more than the sides of 64 children; the driver sums counts of objects by chunk. A
worker finds the objects of a cell by going up from block to block.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.components import component_settings, load_edges, load_parts
from engine.ledger import FOLDER
from engine.methods.components import Edges, Parts
from engine.methods.joining import Components, join_block, open_cell
from engine.numbering import (
    add_counts,
    chunk_grid,
    chunk_numbers,
    load_numbers,
    save_numbers,
    sum_counts,
)
from engine.pixels import plane_number
from engine.store import pack_arrays, unpack_arrays, write_file
from engine.work import Done
from tiling import Box, Grid, Region

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.ledger import Record
    from engine.methods.joining import Joint
    from engine.planning import Job, Pass
    from engine.store import Location, StoredObject

#: Children, or counts of blocks, that are read at once.
_REQUESTS = 16


@dataclass(frozen=True)
class Found:
    """Objects that the parts of a cell belong to, of those parts that touch a side.

    Parameters
    ----------
    local : ndarray of shape (n,), int64
        Index of each part in its cell, ascending.
    parts : Parts
        What its object measures as a whole.
    heads : ndarray of shape (n, 3), int64
        The part that holds the first pixel of the object: row and column of its cell, index there.
    pieces : ndarray of shape (n,), int64
        Parts of the object.
    led : ndarray of shape (n,), bool
        Whether the part is itself the one with the first pixel.
    """

    local: np.ndarray
    parts: Parts
    heads: np.ndarray
    pieces: np.ndarray
    led: np.ndarray


@dataclass(frozen=True)
class _Block:
    """What a block keeps: where each of its children's components went, and its whole objects."""

    starts: tuple[tuple[int, int], ...]
    target: tuple[np.ndarray, ...]
    closed: Components

    def of_child(self, start: tuple[int, int]) -> np.ndarray:
        """Where the components of the child went that begins there."""
        return self.target[self.starts.index(start)]


def cell_grid(job: Job) -> Grid:
    """Cells whose parts are kept."""
    return Grid(job.frame.planes, job.frame.extent, (job.shard, job.shard))


def cell_place(job: Job, cell: Box) -> tuple[int, int]:
    """Row and column of a cell in its plane."""
    return cell.start[0] // job.shard, cell.start[1] // job.shard


def join_region(job: Job, step: Pass, region: Region) -> Done:
    """Join the components of the children of one block over their seams.

    Parameters
    ----------
    job : Job
        The run.
    step : Pass
        Which level.
    region : Region
        Plane and core of the block, in pixels of the level that is read.

    Returns
    -------
    Done
        Its notes count the objects that are whole with it.
    """
    below = _below(job, step)
    side = below.grid.cell if below else (job.shard, job.shard)
    boxes = [box for box in region.core.split(side) if box.meets(job.area)]

    def read(box: Box) -> tuple[tuple[int, int], Components]:
        """Read what one child may go on with, and its place."""
        at = box.start[0] // side[0], box.start[1] // side[1]
        if below:
            return at, _load_open(job, below, Region(region.plane, box))
        edges, parts = load_edges(job, region.plane, box), load_parts(job, region.plane, box)
        return at, open_cell(edges, parts.take(edges.touching()), cell_place(job, box))

    with ThreadPoolExecutor(_REQUESTS) as pool:
        children = dict(pool.map(read, boxes))
    settings = component_settings(job)
    joint = join_block(children, settings.connectivity, last=step.grid.shape[-2:] == (1, 1))
    stored = _save(job, step, region, boxes, joint)
    return Done({"whole": len(joint.closed.pieces)}, tuple(stored))


def count_objects(job: Job, records: Mapping[str, Iterable[Record]]) -> str:
    """Count objects by chunk, in cells and over seams; put the sums where tasks find them.

    Parameters
    ----------
    job : Job
        The run; all its blocks are joined.
    records : mapping of str to iterable of Record
        Of the pass that made the final class map, and of those that joined, by name.

    Returns
    -------
    str
        Name of what is kept.

    Raises
    ------
    OutputError
        If there are more objects than the label image can name.
    """
    name = component_settings(job).name
    chunks = chunk_grid(job, name)
    counts = np.zeros(len(chunks), np.int64)
    steps = {step.name: step for step in _joins(job)}
    for of, found in records.items():
        if of in steps:
            _add_joined(job, steps[of], found, counts)
            continue
        for record in found:
            add_counts(job, chunks, record.region, record.notes["parts"], counts)
    return save_numbers(job, "joined", {"before": sum_counts(job, name, counts)})


@lru_cache(maxsize=2)
def open_counts(out: Location, name: str) -> np.ndarray:
    """Objects in all chunks before each; named by content, so read once per process."""
    return load_numbers(out, name)["before"]


def find_objects(job: Job, cell: Region) -> Found:
    """Find the objects of the parts of a cell that touch a side, block by block upwards."""
    place = cell_place(job, cell.core)
    local = load_edges(job, cell.plane, cell.core).touching()
    at, left, start = np.arange(len(local)), np.arange(len(local)), cell.core.start
    rows: list[np.ndarray] = []
    whole: list[Components] = []
    for step in _joins(job):
        side = step.grid.cell
        region = step.grid.region((*cell.plane, start[0] // side[0], start[1] // side[1]))
        block = _read_block(job.out, job.token, _name(step, region, "joined"))
        to = block.of_child((start[0], start[1]))[at]
        rows.append(left[to >= 0])
        whole.append(block.closed.take(to[to >= 0], block.closed.edges))
        at, left, start = -1 - to[to < 0], left[to < 0], region.core.start
    order = np.argsort(np.concatenate(rows))
    parts = Parts.concatenate([one.parts for one in whole]).take(order)
    heads = np.concatenate([one.heads for one in whole])[order]
    pieces = np.concatenate([one.pieces for one in whole])[order]
    led = (heads == np.column_stack([np.tile(place, (len(local), 1)), local])).all(axis=1)
    return Found(local, parts, heads, pieces, led)


def _add_joined(job: Job, step: Pass, records: Iterable[Record], counts: np.ndarray) -> None:
    """Add the objects of each chunk that blocks of one level made whole."""

    def read(record: Record) -> dict[str, np.ndarray]:
        return _load(job, step, record.region, "counts")

    with ThreadPoolExecutor(_REQUESTS) as pool:
        for known in pool.map(read, records):
            np.add.at(counts, known["chunks"], known["counts"])


def _joins(job: Job) -> list[Pass]:
    """List the passes that join, the smallest blocks first."""
    return [step for step in job.passes() if step.kind == "join"]


def _below(job: Job, step: Pass) -> Pass | None:
    """Pass whose blocks a block of this one is made of; None for cells."""
    return next((s for s in _joins(job) if s.name == step.after), None)


def _save(
    job: Job, step: Pass, region: Region, boxes: list[Box], joint: Joint
) -> list[StoredObject]:
    """Keep what a block knows: for cells below, for the block above, and for the driver."""
    settings = component_settings(job)
    kept = joint.closed.parts.first[joint.closed.parts.area >= settings.min_area]
    chunks = chunk_grid(job, settings.name)
    numbers = chunk_numbers(chunks, plane_number(job, region.plane), kept)
    number, count = np.unique(numbers, return_counts=True)
    below = {
        "starts": np.array([box.start for box in boxes], np.int64),
        "ends": np.cumsum([len(target) for target in joint.target]),
        "target": np.concatenate(joint.target),
        **_arrays(joint.closed),
    }
    kinds = {"joined": below, "counts": {"chunks": number, "counts": count}}
    if step.grid.shape[-2:] != (1, 1):
        kinds["open"] = _arrays(joint.open)
    return [
        write_file(job.out, _name(step, region, kind), pack_arrays(arrays, compress=True))
        for kind, arrays in kinds.items()
    ]


def _arrays(some: Components) -> dict[str, np.ndarray]:
    """Components as named arrays."""
    arrays = {f"edges.{f.name}": getattr(some.edges, f.name) for f in fields(Edges)}
    arrays |= {f"parts.{f.name}": getattr(some.parts, f.name) for f in fields(Parts)}
    return arrays | {"heads": some.heads, "pieces": some.pieces}


def _components(found: Mapping[str, np.ndarray]) -> Components:
    """Components of what `_arrays` made of them."""
    edges = Edges(**{f.name: found[f"edges.{f.name}"] for f in fields(Edges)})
    parts = Parts(**{f.name: found[f"parts.{f.name}"] for f in fields(Parts)})
    return Components(edges, parts, found["heads"], found["pieces"])


def _load_open(job: Job, step: Pass, region: Region) -> Components:
    """Read what goes on beyond a block."""
    return _components(_load(job, step, region, "open"))


def _load(job: Job, step: Pass, region: Region, kind: str) -> dict[str, np.ndarray]:
    return unpack_arrays((job.out / _name(step, region, kind)).read_bytes())


@lru_cache(maxsize=8)
def _read_block(out: Location, token: str, name: str) -> _Block:
    """Block of the run with this token; a worker holds those of its regions and neighbours."""
    found = unpack_arrays((out / name).read_bytes())
    starts = tuple((y, x) for y, x in found["starts"].tolist())
    return _Block(starts, tuple(np.split(found["target"], found["ends"][:-1])), _components(found))


def _name(step: Pass, region: Region, kind: str) -> str:
    """File, below OUT, of a block."""
    return f"{FOLDER}/components/{step.digest[:16]}/{region.key}-{kind}.npz"
