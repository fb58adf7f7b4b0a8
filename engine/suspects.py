"""What the labels pass adds where objects were flagged: columns, the table of suspects, the map.

The table of suspects holds a row for every object that is flagged as a false positive, and for
every candidate of a false negative, with its outline: a list to look at, not a second mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from engine.flags import ObjectFlags, load_flags
from engine.methods.flag_matching import features
from engine.methods.starconvex import StarObjects, keys, render
from engine.pixels import plane_number, write_layer
from engine.planning.elements import LEAST_REACH, SUSPECTS
from engine.tables import objects_table, write_part
from tiling import Box

if TYPE_CHECKING:
    from engine.planning import Job
    from engine.store import StoredObject
    from tiling import Region

#: What a row of the table of suspects is taken for.
FALSE_POSITIVE, FALSE_NEGATIVE = "false positive", "false negative"


@dataclass(frozen=True)
class Drawing:
    """What the labels pass drew of a region.

    Parameters
    ----------
    region : Region
        The region.
    drawn : StarObjects
        Objects on the canvas.
    canvas : ndarray of the core's shape, int32
        0 for background, else 1 + index of the object on top.
    own : StarObjects
        Those that the region owns and that show a pixel.
    ids : ndarray of shape (n,), uint64
        Their dense ids.
    measures : ndarray of shape (n, 7), float64
        As for `objects_table`.
    """

    region: Region
    drawn: StarObjects
    canvas: np.ndarray
    own: StarObjects
    ids: np.ndarray
    measures: np.ndarray


def flag_objects(
    job: Job, drawing: Drawing, rows: pa.Table, reach: float
) -> tuple[pa.Table, tuple[StoredObject, ...], dict[str, int]]:
    """Add what the defenses say, where the recipe flags; else change nothing.

    Parameters
    ----------
    job : Job
        The run.
    drawing : Drawing
        What was drawn.
    rows : pyarrow.Table
        Rows of the objects, by id.
    reach : float
        Longest ray of any object of the image.

    Returns
    -------
    rows : pyarrow.Table
        With columns ``votes``, ``variants_seen`` (int32), ``vote_fraction``, ``smallest_distance``
        (float32, pixels; null where every distance was beyond tau) and ``suspect`` (bool).
    stored : tuple of StoredObject
        The map of votes and the part of the table of suspects.
    notes : dict of str to int
        Suspects of both kinds.
    """
    if not job.bank:
        return rows, (), {}
    region = drawing.region
    box = _around(drawing.drawn, region.core).grow(2 * int(np.ceil(max(reach, LEAST_REACH))) + 1)
    flags = load_flags(job, region.plane, box)
    stored = write_layer(job, "flag_votes", region, _votes_map(job, drawing, flags)[None])
    found = flags.rows(_keys(job, drawing, drawing.own))
    rows = _with_columns(rows, flags, found[np.argsort(drawing.ids, kind="stable")])
    suspects = _suspects_table(job, drawing, flags, found)
    part = write_part(job, SUSPECTS, region, suspects)
    kinds = suspects["kind"].to_pylist()
    counts = {
        "false_positives": kinds.count(FALSE_POSITIVE),
        "false_negatives": kinds.count(FALSE_NEGATIVE),
    }
    return rows, (*stored, part), counts


def _votes_map(job: Job, drawing: Drawing, flags: ObjectFlags) -> np.ndarray:
    """Votes at each pixel: of the object there, or of a candidate where there is none; uint16."""
    votes = flags.votes[flags.rows(_keys(job, drawing, drawing.drawn))]
    painted = np.concatenate([[0], votes])[drawing.canvas]
    core = drawing.region.core
    meeting = flags.extras.meeting(core)
    extra = render(flags.extras.take(meeting), core)
    extra[painted > 0] = 0
    extra[drawing.canvas > 0] = 0
    both = painted + np.concatenate([[0], flags.extra_votes[meeting]])[extra]
    votes_map: np.ndarray = np.minimum(both, np.iinfo(np.uint16).max).astype(np.uint16)
    return votes_map


def _suspects_table(job: Job, drawing: Drawing, flags: ObjectFlags, found: np.ndarray) -> pa.Table:
    """Rows of the suspects that a region owns: false positives by id, then the others by key."""
    plane = drawing.region.plane
    flagged = flags.suspect[found]
    order = np.flatnonzero(flagged)
    order = order[np.argsort(drawing.ids[order], kind="stable")]
    wrong = drawing.own.take(order)
    table = objects_table(job, plane, drawing.ids[order], wrong, drawing.measures[order])
    rows = found[order]
    positives = _with_kind(table, FALSE_POSITIVE, wrong, flags.votes[rows], flags.seen[rows])
    inside = np.flatnonzero(flags.extras.inside(drawing.region.core))
    places = keys(flags.extras.points[inside], plane_number(job, plane), job.frame.extent)
    inside = inside[np.argsort(places)]
    missing = flags.extras.take(inside)
    table = objects_table(
        job, plane, np.arange(len(missing), dtype=np.uint64), missing, _polygon_measures(missing)
    )
    table = table.set_column(0, "id", pa.nulls(len(missing), pa.uint64()))
    votes, seen = flags.extra_votes[inside], flags.extra_seen[inside]
    negatives = _with_kind(table, FALSE_NEGATIVE, missing, votes, seen)
    return pa.concat_tables([positives, negatives])


def _with_kind(
    table: pa.Table, kind: str, objects: StarObjects, votes: np.ndarray, seen: np.ndarray
) -> pa.Table:
    """Add kind, votes and outline to rows of suspects."""
    outlines = [one.T.ravel() for one in objects.outlines()]
    table = table.add_column(0, "kind", pa.array([kind] * len(objects), pa.string()))
    for name, column in _vote_columns(votes, seen).items():
        table = table.append_column(name, column)
    return table.append_column("outline", pa.array(outlines, pa.list_(pa.float32())))


def _with_columns(rows: pa.Table, flags: ObjectFlags, found: np.ndarray) -> pa.Table:
    """Rows of objects with what the defenses say."""
    for name, column in _vote_columns(flags.votes[found], flags.seen[found]).items():
        rows = rows.append_column(name, column)
    distance = flags.distance[found].astype(np.float32)
    near = pa.array(distance, pa.float32(), mask=~np.isfinite(distance))
    rows = rows.append_column("smallest_distance", near)
    return rows.append_column("suspect", pa.array(flags.suspect[found], pa.bool_()))


def _vote_columns(votes: np.ndarray, seen: np.ndarray) -> dict[str, pa.Array]:
    share = votes / np.maximum(seen, 1)
    return {
        "votes": pa.array(votes, pa.int32()),
        "variants_seen": pa.array(seen, pa.int32()),
        "vote_fraction": pa.array(share, pa.float32()),
    }


def _polygon_measures(objects: StarObjects) -> np.ndarray:
    """Area, centroid and box of polygons that nobody drew: (n, 7) float64."""
    measures = np.empty((len(objects), 7))
    if len(objects) == 0:
        return measures
    found, rays = features(objects), objects.rays.astype(np.float64)
    turn = np.sin(2 * np.pi / rays.shape[1]) / 2
    measures[:, 0] = np.rint((rays * np.roll(rays, -1, axis=1)).sum(axis=1) * turn)
    measures[:, 1:3] = found[:, [5, 4]]
    measures[:, 3:] = objects.boxes()
    return measures


def _keys(job: Job, drawing: Drawing, objects: StarObjects) -> np.ndarray:
    number = plane_number(job, drawing.region.plane)
    return keys(objects.points, number, job.frame.extent)


def _around(objects: StarObjects, core: Box) -> Box:
    """Smallest box around a core and the anchors of objects."""
    points = np.concatenate([objects.points, [core.start, np.array(core.stop) - 1]])
    low, high = points.min(axis=0), points.max(axis=0) + 1
    return Box(tuple(low.tolist()), tuple(high.tolist()))
