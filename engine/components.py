"""Parts of objects that each cell keeps: what they measure, and which of them touch a side."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from engine.ledger import FOLDER
from engine.methods.components import Edges, Parts, cell_edges, measure_parts, number_parts
from engine.numbering import count_anchors
from engine.store import pack_arrays, unpack_arrays, write_file
from tiling import Box, Region

if TYPE_CHECKING:
    from engine.planning import Job
    from engine.recipe import ComponentSettings
    from engine.store import StoredObject


def component_settings(job: Job) -> ComponentSettings:
    """How objects are made of the class map.

    Raises
    ------
    TypeError
        If the recipe makes none: an error of the caller.
    """
    settings = job.classes.objects if job.classes else None
    if settings is None:
        msg = "a job without objects of classes has no such part"
        raise TypeError(msg)
    return settings


def number_cell(job: Job, classes: np.ndarray) -> np.ndarray:
    """Give each part of an object in a cell a number: (y, x) int32, 0 outside."""
    settings = component_settings(job)
    if job.ensemble is None:
        msg = "a job with objects of classes has an ensemble"
        raise TypeError(msg)
    names = job.ensemble.classes
    wanted = settings.classes or names[1:]
    chosen = np.array([name in wanted for name in names])
    return number_parts(chosen[classes], settings.connectivity)


def save_components(
    job: Job, region: Region, classes: np.ndarray, entropy: np.ndarray
) -> tuple[list[StoredObject], list[int]]:
    """Keep the parts of objects in every cell of a region.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Whole cells, but at the edge of the image.
    classes, entropy : ndarray of the core's shape, uint8
        The final class map, and the entropy as stored.

    Returns
    -------
    stored : list of StoredObject
        Two files for each cell.
    counts : list of int
        Objects that lie inside one cell, in each chunk of the label image, in C order inside the
        core; those that touch a side are counted when all cells are known.
    """
    settings = component_settings(job)
    chunk, stored = job.layer(settings.name).chunk, []
    core = region.core
    counted: list[np.ndarray] = []
    count = len(job.ensemble.classes) if job.ensemble else 0
    for cell in core.split((job.shard, job.shard)):
        part = cell.slices(core.start)
        numbers = number_cell(job, classes[part])
        start = (cell.start[0], cell.start[1])
        parts = measure_parts(numbers, classes[part], entropy[part], start, count)
        edges = cell_edges(numbers)
        touching = edges.touching()
        inner = parts.area >= settings.min_area
        inner[touching] = False
        counted.append(parts.first[inner])
        sides = {f.name: getattr(edges, f.name) for f in fields(Edges)}
        columns = {f.name: getattr(parts, f.name) for f in fields(Parts)}
        for kind, arrays in (("parts", columns), ("edges", sides)):
            stored.append(_save(job, region.plane, cell, kind, arrays))
    return stored, count_anchors(core, chunk, np.concatenate(counted))


def load_parts(job: Job, plane: tuple[int, ...], cell: Box) -> Parts:
    """Parts of a cell."""
    return Parts(**_load(job, plane, cell, "parts"))


def load_edges(job: Job, plane: tuple[int, ...], cell: Box) -> Edges:
    """Sides of a cell."""
    found = _load(job, plane, cell, "edges")
    return Edges(**{f.name: found[f.name] for f in fields(Edges)})


def _save(
    job: Job, plane: tuple[int, ...], cell: Box, kind: str, arrays: dict[str, np.ndarray]
) -> StoredObject:
    data = pack_arrays(arrays, compress=True)
    return write_file(job.out, _name(job, plane, cell, kind), data)


def _load(job: Job, plane: tuple[int, ...], cell: Box, kind: str) -> dict[str, np.ndarray]:
    return unpack_arrays((job.out / _name(job, plane, cell, kind)).read_bytes())


def _name(job: Job, plane: tuple[int, ...], cell: Box, kind: str) -> str:
    """File, below OUT, of a cell; of the pass that makes the final class map."""
    maker = "repair" if "repair" in job.digests else "regions"
    folder = f"{FOLDER}/components/{job.digests[maker][:16]}"
    return f"{folder}/{Region(plane, cell).key}-{kind}.npz"
