"""The passes of a job, in order, each after the one whose result it reads.

::

    regions ──► flags ──► labels              star-convex objects, and which to doubt
       └──────► repair ──► join-1 ──► …       class map; blocks of cells, blocks of blocks
                   │           └────► objects   connected components of the map
                   └─────► seams              what both sides of each seam of the map saw
    copy                                      the image itself
    pyramid-LAYER-LEVEL                       of everything, level by level
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from engine.planning.elements import CLASSES, REPAIRS, SUSPECTS, Layer, Pass
from engine.recipe import IdentityRecipe, StarDistRecipe
from engine.stages.flags import field_side
from tiling import Grid

#: Children along a side of a block whose objects are joined: 64 files are read at once.
FAN = 8

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.planning.job import Job


def job_passes(job: Job) -> tuple[Pass, ...]:
    """List all passes of a job but pass 0, in order, with their digests."""
    grid = Grid(job.frame.planes, job.frame.extent, (job.shard, job.shard))
    passes = []
    if not isinstance(job.recipe, IdentityRecipe):
        passes.append(Pass("regions", "regions", grid))
    if isinstance(job.recipe, StarDistRecipe):
        passes += _star_passes(job, grid)
    passes += _class_passes(job, grid)
    if any(layer.name == "image" for layer in job.layers):
        passes.append(Pass("copy", "copy", grid, "image"))
    makers = {step.written: step.name for step in passes}
    for layer in job.layers:
        passes += _pyramid_passes(job, layer, makers)
    return tuple(replace(step, digest=job.digests.get(step.name, "")) for step in passes)


def _star_passes(job: Job, grid: Grid) -> list[Pass]:
    """List the passes that make objects of what the regions pass found."""
    name, flags = job.stardist.instances.name, job.stardist.flags
    if not flags:
        return [Pass("labels", "labels", grid, name, after="regions", tables=(name,))]
    return [
        Pass("flags", "flags", grid, after="regions", field=field_side(flags)),
        Pass("labels", "labels", grid, name, after="flags", tables=(name, SUSPECTS)),
    ]


def _class_passes(job: Job, grid: Grid) -> list[Pass]:
    """List the passes that repair the class map and make objects of it."""
    settings, after = job.classes, "regions"
    passes: list[Pass] = []
    if settings is None:
        return passes
    if settings.repair:
        passes.append(Pass("repair", "repair", grid, CLASSES, after=after, tables=(REPAIRS,)))
        after = "repair"
    if settings.objects:
        joins, name = _join_passes(grid, after), settings.objects.name
        done = joins[-1].name
        passes += [*joins, Pass("objects", "objects", grid, name, after=done, tables=(name,))]
    passes.append(Pass("seams", "seams", grid, after=after))
    return passes


def _join_passes(cells: Grid, after: str) -> list[Pass]:
    """List the passes that join objects over seams, up to one block for each plane."""
    passes: list[Pass] = []
    grid = cells
    while not passes or grid.shape[-2:] != (1, 1):
        grid = Grid(grid.planes, grid.extent, (grid.cell[0] * FAN, grid.cell[1] * FAN))
        name = f"join-{len(passes) + 1}"
        passes.append(Pass(name, "join", grid, level=len(passes) + 1, after=after))
        after = name
    return passes


def _pyramid_passes(job: Job, layer: Layer, makers: Mapping[str, str]) -> list[Pass]:
    """List the passes that make the levels of a layer, each of the one above."""
    passes, after = [], makers[layer.made_with or layer.name]
    for k in range(1, len(layer.levels)):
        y, x = layer.levels[k].shape[-2:]
        grid = Grid(job.frame.planes, (y, x), (layer.shard, layer.shard))
        name, shrink = f"pyramid-{layer.name}-{k}", layer.scale * 2**k
        passes.append(Pass(name, "pyramid", grid, layer.name, k, shrink, after))
        after = name
    return passes
