"""Outlines of star-convex objects, kept beside OUT's arrays: labels can always be drawn again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.ledger import FOLDER
from engine.methods.starconvex import StarObjects, keys
from engine.numbering import count_anchors
from engine.pixels import plane_number, quantise, write_layer
from engine.store import StoredObject, pack_arrays, unpack_arrays, write_file

if TYPE_CHECKING:
    from engine.planning import Job
    from engine.stages.base import Made, Raster
    from tiling import Region


def save_stars(
    job: Job, region: Region, made: Made
) -> tuple[tuple[StoredObject, ...], dict[str, Any]]:
    """Keep what the regions pass found of star-convex objects: probability, and outlines.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Plane and core in pixels of the level that is read.
    made : Made
        What the stages made.

    Returns
    -------
    stored : tuple of StoredObject
        What the record keeps of what was written; nothing where the recipe finds no such objects.
    notes : dict
        ``reach``, the longest ray of an object, and ``counts``, objects by chunk.
    """
    if job.model is None:
        return (), {}
    probability: Raster = made.products["probability"]
    stored = write_layer(job, "probability", region, quantise(probability.cut(region.core)))
    objects: StarObjects = made.products["objects"]
    kept, counts = save_objects(job, region, objects)
    return (*stored, kept), {"reach": objects.reach, "counts": counts}


def save_objects(job: Job, region: Region, objects: StarObjects) -> tuple[StoredObject, list[int]]:
    """Keep the objects that a region owns, and the keys of the foreign ones that it saw.

    Returns
    -------
    stored : StoredObject
        The file.
    counts : list of int
        Objects owned in each chunk of the label image, in C order inside the core.
    """
    number = plane_number(job, region.plane)
    own = objects.inside(region.core)
    mine = objects.take(own)
    foreign = objects.take(~own)
    foreign = foreign.take(foreign.meeting(region.core))
    arrays = {
        "points": mine.points,
        "scores": mine.scores,
        "rays": mine.rays,
        "seen": np.sort(keys(foreign.points, number, job.frame.extent)),
    }
    stored = write_file(job.out, objects_name(job, region), pack_arrays(arrays))
    chunk = job.layer(job.stardist.instances.name).chunk
    return stored, count_anchors(region.core, chunk, mine.points)


def load_objects(job: Job, region: Region) -> tuple[StarObjects, np.ndarray]:
    """Objects that a region owns, and the keys of the foreign ones that it saw."""
    found = unpack_arrays((job.out / objects_name(job, region)).read_bytes())
    rays = found["rays"].reshape(-1, job.n_rays)
    return StarObjects(found["points"], found["scores"], rays), found["seen"]


def objects_name(job: Job, region: Region) -> str:
    """File, below OUT, of the polygons that a region owns; kept, some 150 bytes each."""
    return f"{FOLDER}/objects/{job.digests['regions'][:16]}/{region.key}.npz"
