"""Pass 2: dense ids, rendered from the tables of the owners, and the check of every seam.

Nothing is rendered before all objects are known, so a label can only come from the region that
owns it: no object is drawn by a neighbour and owned by nobody. Neither pixels nor ids
(`engine.numbering`) depend on regions.

For 10^8 objects in 10^5 regions a task holds the objects of one region and its neighbours, some
10^4 of 200 bytes; the driver holds one count per chunk, 8 bytes each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from engine.index import Index, load_near, open_index
from engine.methods.starconvex import StarObjects, keys, render
from engine.numbering import chunk_grid, chunk_numbers, dense_ids
from engine.pixels import plane_number, write_layer
from engine.suspects import Drawing, flag_objects
from engine.tables import objects_table, write_part
from engine.work import Done
from tiling import Box, Region, disagreement

if TYPE_CHECKING:
    from engine.planning import Job

#: Rows that are measured at once.
_ROWS = 64


def label_region(job: Job, region: Region) -> Done:
    """Draw the labels of a region and write the table of the objects that it owns.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Plane and core in pixels of the level that is read.

    Returns
    -------
    Done
        Its notes count the objects, those of them that show no pixel, ghosts and missed at the
        seams.
    """
    index = open_index(job.out, job.index)
    near = _near(job, index, region)
    objects = StarObjects.concatenate([part for part, _ in near.values()], job.n_rays)
    ids = _dense_ids(job, index, region.plane, objects)
    own = objects.inside(region.core)
    canvas_box = _around(objects.boxes()[own], region.core).clip(job.frame.bounds)
    drawn = np.flatnonzero(objects.meeting(canvas_box))
    canvas = render(objects.take(drawn), canvas_box)
    table = np.concatenate([np.zeros(1, np.uint64), ids[drawn]])
    layer = job.layer(job.stardist.instances.name)
    labels = table.astype(layer.dtype)[canvas[region.core.slices(canvas_box.start)]]
    stored = write_layer(job, layer.name, region, labels[None])
    measures = _measure(canvas, canvas_box, own[drawn])
    mine = objects.take(drawn[own[drawn]])
    shown = measures[:, 0] > 0
    drawing = Drawing(
        region,
        objects.take(drawn),
        canvas[region.core.slices(canvas_box.start)],
        mine.take(shown),
        ids[drawn[own[drawn]]][shown],
        measures[shown],
    )
    rows = objects_table(job, region.plane, drawing.ids, drawing.own, drawing.measures)
    rows, more, suspects = flag_objects(job, drawing, rows, index.reach)
    part = write_part(job, layer.name, region, rows)
    ghosts, missed, seams = _check_seams(job, index, region, near)
    notes = {
        "objects": int(shown.sum()),
        "hidden": int((~shown).sum()),
        "ghosts": ghosts,
        "missed": missed,
        "crossing": seams,
        **suspects,
    }
    return Done(notes, (*stored, part, *more))


def _near(job: Job, index: Index, region: Region) -> dict[Region, tuple[StarObjects, np.ndarray]]:
    """Parts of pass 1 whose objects may meet an object of this region, or its core."""
    assigned = _assigned(index, region)
    around = [region.core, *(part.core for part in assigned)]
    outer = _around(np.array([[*b.start, *b.stop] for b in around]), region.core)
    return load_near(job, index, region.plane, outer.grow(int(np.ceil(index.reach)) + 1))


def _assigned(index: Index, region: Region) -> list[Region]:
    """Regions of pass 1 whose seams this region checks: those that begin inside it."""
    return [
        part
        for part in index.meeting(region.plane, region.core)
        if region.core.holds(part.core.start)
    ]


def _dense_ids(job: Job, index: Index, plane: tuple[int, ...], objects: StarObjects) -> np.ndarray:
    """Dense id of every object whose chunk is wholly known: (n,) uint64."""
    chunks = chunk_grid(job, job.stardist.instances.name)
    chunk = chunk_numbers(chunks, plane_number(job, plane), objects.points)
    return dense_ids(index.before, chunk, objects.points)


def _measure(canvas: np.ndarray, box: Box, own: np.ndarray) -> np.ndarray:
    """Area, centroid and box of the drawn objects that are owned: (n, 7) float64.

    Columns: area, centroid y and x, box y0, x0, y1, x1; zero where no pixel shows.
    """
    count = len(own) + 1
    sums = np.zeros((3, count))
    for top in range(0, len(canvas), _ROWS):
        part = canvas[top : top + _ROWS]
        y, x = np.nonzero(part)
        values = part[y, x]
        # Sums of whole numbers, exact in float64: the order does not matter.
        sums[0] += np.bincount(values, minlength=count)
        sums[1] += np.bincount(values, y + float(top + box.start[0]), count)
        sums[2] += np.bincount(values, x + float(box.start[1]), count)
    found = ndimage.find_objects(canvas, max_label=len(own))
    edges = np.zeros((len(own), 4))
    for k in np.flatnonzero(own):
        if found[k] is not None:
            y, x = found[k]
            edges[k] = y.start, x.start, y.stop, x.stop
    edges += [*box.start, *box.start]
    area = sums[0, 1:]
    centre = sums[1:, 1:] / np.maximum(area, 1)
    measures = np.concatenate([area[:, None], centre.T, edges], axis=1)
    result: np.ndarray = measures[own]
    return result


def _check_seams(
    job: Job,
    index: Index,
    region: Region,
    near: dict[Region, tuple[StarObjects, np.ndarray]],
) -> tuple[int, int, int]:
    """Compare what regions saw of their neighbours with what these say themselves.

    Returns
    -------
    ghosts, missed, crossing : int
        Objects seen but not owned, owned but not seen, and objects that cross a seam in all.
    """
    ghosts = missed = crossing = 0
    number = plane_number(job, region.plane)
    for part in _assigned(index, region):
        foreign = [other for key, (other, _) in near.items() if key != part]
        objects = StarObjects.concatenate(foreign, job.n_rays)
        owned = keys(objects.take(objects.meeting(part.core)).points, number, job.frame.extent)
        seen = near[part][1]
        # A part that was never computed cannot own what was seen in it: no disagreement.
        extra, lost = disagreement(_in_known(job, index, part.plane, seen), owned)
        ghosts, missed, crossing = ghosts + extra, missed + lost, crossing + len(owned)
    return ghosts, missed, crossing


def _in_known(job: Job, index: Index, plane: tuple[int, ...], seen: np.ndarray) -> np.ndarray:
    """Keys whose anchors lie in regions that are done."""
    if len(seen) == 0:
        return seen
    place = (seen.astype(np.int64) - 1) - plane_number(job, plane) * job.frame.bounds.size
    points = np.stack(np.divmod(place, job.frame.extent[1]), axis=1)
    around = Box(tuple(points.min(axis=0).tolist()), tuple((points.max(axis=0) + 1).tolist()))
    known = np.zeros(len(seen), bool)
    for part in index.meeting(plane, around):
        known |= ((points >= part.core.start) & (points < part.core.stop)).all(axis=1)
    return seen[known]


def _around(edges: np.ndarray, core: Box) -> Box:
    """Smallest box around a core and boxes given as rows (y0, x0, y1, x1)."""
    rows = np.concatenate([edges.reshape(-1, 4), [[*core.start, *core.stop]]]).astype(np.int64)
    low, high = rows[:, :2].min(axis=0), rows[:, 2:].max(axis=0)
    return Box(tuple(low.tolist()), tuple(high.tolist()))
