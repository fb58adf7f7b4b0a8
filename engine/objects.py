"""The objects pass: connected components of the final class map, with dense ids and their table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from engine.components import component_settings, load_parts, number_cell
from engine.joining import cell_box, cell_number, open_joined, open_row
from engine.methods.components import Parts
from engine.numbering import chunk_grid, chunk_numbers, dense_ids
from engine.pixels import plane_number, read_layer, write_layer
from engine.planning.elements import CLASSES
from engine.tables import Rows, placed_table, write_part
from engine.work import Done

if TYPE_CHECKING:
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
    for cell in region.core.split((job.shard, job.shard)):
        classes = read_layer(job, CLASSES, region.plane, cell)
        numbers = number_cell(job, classes)
        number = cell_number(job, region.plane, cell)
        own = _own_ids(job, number)
        ids = _ids(job, number, own)
        table = np.concatenate([np.zeros(1, np.uint64), ids]).astype(layer.dtype)
        labels[cell.slices(region.core.start)] = table[numbers]
        objects, reaching = _owned(job, number, own)
        owned.append((own[own > 0], objects))
        crossing += reaching
    stored = write_layer(job, name, region, labels[None])
    found = np.concatenate([ids for ids, _ in owned])
    rows = _table(job, region.plane, found, Parts.concatenate([parts for _, parts in owned]))
    part = write_part(job, name, region, rows)
    return Done({"objects": len(found), "crossing": crossing}, (*stored, part))


def _ids(job: Job, number: int, own: np.ndarray) -> np.ndarray:
    """Id of every part of a cell, 0 for those that are too small: (n,) uint64.

    Parameters
    ----------
    job : Job
        The run.
    number : int
        The cell.
    own : ndarray of shape (n,), uint64
        From `_own_ids`.
    """
    ids, joined = own.copy(), open_row(job, number).parts.of_cell(number)
    for other in np.unique(joined.head_cells).tolist():
        theirs = own if other == number else _own_ids(job, other)
        here = joined.head_cells == other
        ids[joined.local[here]] = theirs[joined.head_local[here]]
    return ids


def _own_ids(job: Job, number: int) -> np.ndarray:
    """Ids of the parts of a cell that hold the anchor of an object; 0 for the others."""
    settings, cell = component_settings(job), cell_box(job, number)
    parts, joined = load_parts(job, cell.plane, cell.core), open_row(job, number).parts
    joined = joined.of_cell(number)
    kept = parts.area >= settings.min_area
    kept[joined.local] = joined.kept & joined.led
    anchors = parts.first[kept]
    chunks = chunk_grid(job, settings.name)
    chunk = chunk_numbers(chunks, plane_number(job, cell.plane), anchors)
    ids = np.zeros(len(parts), np.uint64)
    ids[kept] = dense_ids(open_joined(job.out, job.joined).before, chunk, anchors)
    return ids


def _owned(job: Job, number: int, own: np.ndarray) -> tuple[Parts, int]:
    """Objects whose anchors lie in a cell, in the order of its parts; how many reach out of it."""
    cell = cell_box(job, number)
    parts, mine = load_parts(job, cell.plane, cell.core), np.flatnonzero(own)
    collected, group = [parts.take(mine)], [np.arange(len(mine))]
    members = open_row(job, number).members_led_by(number)
    others = members.take(members.kept & ~members.led)
    for there in np.unique(others.cells).tolist():
        box, some = cell_box(job, there), others.take(others.cells == there)
        collected.append(load_parts(job, box.plane, box.core).take(some.local))
        group.append(np.searchsorted(mine, some.head_local))
    united = Parts.concatenate(collected).united(np.concatenate(group), len(mine))
    return united, len(np.unique(others.head_local))


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
