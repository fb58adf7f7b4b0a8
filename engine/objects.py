"""The objects pass: connected components of the final class map, with dense ids and their table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from engine.components import component_settings, load_parts, number_cell
from engine.joining import Found, cell_grid, cell_place, find_objects, open_counts
from engine.methods.components import Parts
from engine.numbering import chunk_grid, chunk_numbers, dense_ids
from engine.pixels import plane_number, read_layer, write_layer
from engine.planning.elements import CLASSES
from engine.tables import Rows, placed_table, write_part
from engine.work import Done

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.planning import Job
    from tiling import Region


def object_region(job: Job, region: Region) -> Done:
    """Label the objects of a region, and write the table of those whose anchors lie in it.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Plane and core in pixels of the level that is read; whole cells, but at the image's edge.

    Returns
    -------
    Done
        Its notes count the objects, and those that cross a seam of cells.
    """
    name = component_settings(job).name
    layer = job.layer(name)
    labels = np.zeros(region.core.shape, layer.dtype)
    owned: list[tuple[np.ndarray, Parts]] = []
    crossing = 0

    @cache
    def cell_at(row: int, column: int) -> _Cell:
        """Cell of the plane; those around are asked for again and again."""
        return _Cell.open(job, cell_grid(job).region((*region.plane, row, column)))

    for cell in region.core.split((job.shard, job.shard)):
        numbers = number_cell(job, read_layer(job, CLASSES, region.plane, cell))
        here = cell_at(*cell_place(job, cell))
        ids = _ids(here, cell_at)
        table = np.concatenate([np.zeros(1, np.uint64), ids]).astype(layer.dtype)
        labels[cell.slices(region.core.start)] = table[numbers]
        mine = np.flatnonzero(here.own)
        owned.append((here.own[mine], here.objects.take(mine)))
        crossing += here.crossing
    stored = write_layer(job, name, region, labels[None])
    found = np.concatenate([ids for ids, _ in owned])
    rows = _table(job, region.plane, found, Parts.concatenate([parts for _, parts in owned]))
    part = write_part(job, name, region, rows)
    return Done({"objects": len(found), "crossing": crossing}, (*stored, part))


@dataclass(frozen=True)
class _Cell:
    """Parts of a cell, and which of them hold the first pixel of an object.

    Parameters
    ----------
    found : Found
        Objects of the parts that touch a side.
    objects : Parts
        What the object of each part measures; of parts that hold no first pixel what they do.
    own : ndarray of shape (n,), uint64
        Ids of objects at the parts that hold their first pixel; 0 elsewhere.
    crossing : int
        Objects that begin here and have parts beyond, or several here that meet beyond.
    """

    found: Found
    objects: Parts
    own: np.ndarray
    crossing: int

    @classmethod
    def open(cls, job: Job, cell: Region) -> _Cell:
        """Read what is known of a cell."""
        settings, found = component_settings(job), find_objects(job, cell)
        parts = load_parts(job, cell.plane, cell.core)
        begin = np.ones(len(parts), np.bool_)
        begin[found.local] = found.led
        objects = parts.replaced(found.local[found.led], found.parts.take(found.led))
        kept = begin & (objects.area >= settings.min_area)
        anchors = objects.first[kept]
        chunk = chunk_numbers(
            chunk_grid(job, settings.name), plane_number(job, cell.plane), anchors
        )
        own = np.zeros(len(parts), np.uint64)
        own[kept] = dense_ids(open_counts(job.out, job.joined), chunk, anchors)
        crossing = np.count_nonzero(kept[found.local] & (found.pieces > 1))
        return cls(found, objects, own, int(crossing))


def _ids(here: _Cell, cell_at: Callable[[int, int], _Cell]) -> np.ndarray:
    """Id of every part of a cell, 0 for those whose objects are too small: (n,) uint64."""
    ids, heads = here.own.copy(), here.found.heads
    for row, column in np.unique(heads[:, :2], axis=0).tolist():
        some = (heads[:, :2] == (row, column)).all(axis=1)
        ids[here.found.local[some]] = cell_at(row, column).own[heads[some, 2]]
    return ids


def _table(job: Job, plane: tuple[int, ...], ids: np.ndarray, parts: Parts) -> pa.Table:
    """Rows of objects, by id."""
    order = np.argsort(ids, kind="stable")
    ids, parts = ids[order], parts.take(order)
    area = np.maximum(parts.area, 1)[:, None]
    columns = [parts.area[:, None], parts.sums / area, parts.boxes]
    more = {"entropy": pa.array(parts.entropy / (255.0 * area[:, 0]), pa.float32())}
    for k, name in enumerate(job.ensemble.classes if job.ensemble else ()):
        more[f"pixels_{name}"] = pa.array(parts.classes[:, k], pa.int64())
    rows = Rows(plane, ids, parts.first, np.concatenate(columns, axis=1).astype(np.float64))
    return placed_table(job, job.layer(component_settings(job).name), rows, more)
