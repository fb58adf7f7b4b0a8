"""The table of objects: one row each, in parts of Parquet that regions write on their own."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.methods.starconvex import keys
from engine.pixels import plane_number
from engine.planning.elements import shown_table
from engine.store import delete_all, micrometres, write_file

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from engine.methods.starconvex import StarObjects
    from engine.planning import Job, Layer
    from engine.store import Location, StoredObject
    from tiling import Region


def objects_table(
    job: Job, plane: tuple[int, ...], ids: np.ndarray, objects: StarObjects, measures: np.ndarray
) -> pa.Table:
    """Rows of the objects that a region owns.

    Parameters
    ----------
    job : Job
        The run.
    plane : tuple of int
        Index on every leading axis.
    ids : ndarray of shape (n,), uint64
        Dense ids, as in the label image.
    objects : StarObjects
        Anchors and probabilities.
    measures : ndarray of shape (n, 7), float64
        Area, centroid y and x, box y0, x0, y1, x1 of the visible pixels, in pixels.

    Returns
    -------
    pyarrow.Table
        Sorted by id. Lengths are in pixels of the level that was read; columns that end in
        ``_um`` and ``_um2`` are in micrometres of the image's physical space, null where the
        pixel size is unknown. A box is half-open.
    """
    order = np.argsort(ids, kind="stable")
    rows = Rows(plane, ids[order], objects.points[order], measures[order])
    scores = {"probability": pa.array(objects.scores[order], pa.float32())}
    return placed_table(job, job.layer(job.stardist.instances.name), rows, scores)


@dataclass(frozen=True)
class Rows:
    """Objects of one plane, sorted by id.

    Parameters
    ----------
    plane : tuple of int
        Index on every leading axis.
    ids : ndarray of shape (n,), uint64
        Dense ids.
    points : ndarray of shape (n, 2), int64
        Anchors, which give the keys.
    measures : ndarray of shape (n, 7), float64
        Area, centroid y and x, box y0, x0, y1, x1, in pixels.
    """

    plane: tuple[int, ...]
    ids: np.ndarray
    points: np.ndarray
    measures: np.ndarray


def placed_table(job: Job, layer: Layer, rows: Rows, more: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of objects with their places, in pixels and in micrometres, around columns of their own.

    Parameters
    ----------
    job : Job
        The run.
    layer : Layer
        The label image that shows them.
    rows : Rows
        The objects.
    more : mapping of str to pyarrow.Array
        Columns that stand between pixels and micrometres.
    """
    area, y, x, y0, x0, y1, x1 = rows.measures.T
    names = [axis.name for axis in layer.axes[:-2]]
    columns: dict[str, pa.Array] = {"id": pa.array(rows.ids, pa.uint64())}
    number = plane_number(job, rows.plane)
    columns["key"] = pa.array(keys(rows.points, number, job.frame.extent), pa.uint64())
    for name, index in zip(names, rows.plane, strict=True):
        columns[name] = pa.array(np.full(len(rows.ids), index), pa.int32())
    pixels = {"y": y, "x": x, "y0": y0, "x0": x0, "y1": y1, "x1": x1}
    whole = {"y0", "x0", "y1", "x1"}
    for name, values in pixels.items():
        kind = pa.int64() if name in whole else pa.float64()
        columns[name] = pa.array(values).cast(kind)
    columns["area"] = pa.array(area).cast(pa.int64())
    columns |= more
    columns |= physical_columns(layer, pixels, area)
    return pa.table(columns)


def write_part(job: Job, table: str, region: Region, rows: pa.Table) -> StoredObject:
    """Write the rows of a region; a part without rows is written too, with its columns.

    Returns
    -------
    StoredObject
        The part under the name that it has once the run is published.
    """
    name = part_name(region)
    with io.BytesIO() as buffer:
        pq.write_table(rows, buffer, compression="zstd")
        stored = write_file(job.out, f"{job.tables[table]}/{name}", buffer.getvalue())
    return replace(stored, name=f"{shown_table(table)}/{name}")


def part_name(region: Region) -> str:
    """File of the rows of a region, in the folder of its table."""
    return f"part-{region.key}.parquet"


def keep_parts(out: Location, folder: str, known: Container[str]) -> None:
    """Remove the parts of a table but these: of a pass that was done again in other cuts.

    Parameters
    ----------
    out : Location
        The result.
    folder : str
        Folder of the table, below OUT.
    known : container of str
        Names of the parts that stay.
    """
    place = out / folder
    delete_all(place / name for name in place.children()[1] if name not in known)


def physical_columns(
    layer: Layer, pixels: Mapping[str, np.ndarray], area: np.ndarray
) -> dict[str, pa.Array]:
    """Columns in micrometres: places of pixel centres and edges, and the area."""
    level = layer.levels[0]
    steps = [
        micrometres(size, axis.unit)
        for size, axis in zip(level.scale[-2:], layer.axes[-2:], strict=True)
    ]
    starts = [
        micrometres(shift, axis.unit)
        for shift, axis in zip(level.translation[-2:], layer.axes[-2:], strict=True)
    ]
    columns = {}
    for name, values in pixels.items():
        k = 0 if name.startswith("y") else 1
        step, start = steps[k], starts[k]
        if step is None or start is None:
            columns[f"{name}_um"] = pa.nulls(len(values), pa.float64())
        else:
            # The place of a pixel is its centre (OME-NGFF 0.5); a box ends half a pixel away.
            half = 0.5 if len(name) > 1 else 0.0
            columns[f"{name}_um"] = pa.array(start + (values - half) * step)
    known = steps[0] is not None and steps[1] is not None
    squares = area * steps[0] * steps[1] if known else None  # type: ignore[operator]
    columns["area_um2"] = (
        pa.nulls(len(area), pa.float64()) if squares is None else pa.array(squares)
    )
    return columns
