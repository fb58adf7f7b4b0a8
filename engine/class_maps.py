"""What the regions pass keeps of a class map: the map, its entropy, probabilities, parts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.borders import save_border
from engine.components import save_components
from engine.pixels import quantise, write_layer
from engine.planning.elements import CLASSES, ENTROPY, INITIAL, probability_layer

if TYPE_CHECKING:
    from engine.planning import Job
    from engine.stages.base import Made, Raster
    from engine.store import StoredObject
    from tiling import Region


def save_classes(
    job: Job, region: Region, made: Made
) -> tuple[tuple[StoredObject, ...], dict[str, Any]]:
    """Write the class map of a region as the ensemble made it, and what is said of it.

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
        What the record keeps of what was written; nothing where the recipe makes no class map.
    notes : dict
        ``parts``: objects that lie inside one cell, by chunk, where no repair follows.
    """
    if job.classes is None or job.ensemble is None:
        return (), {}
    core, repaired = region.core, job.classes.repair is not None
    initial: Raster = made.products[INITIAL]
    entropy: Raster = made.products[ENTROPY]
    stored = write_layer(job, INITIAL if repaired else CLASSES, region, initial.cut(core))
    stored += write_layer(job, ENTROPY, region, entropy.cut(core))
    stored += tuple(save_border(job, region, "regions", initial))
    for name in job.classes.keep:
        probability: Raster = made.products["class_probability"]
        k = job.ensemble.classes.index(name)
        values = quantise(probability.cut(core)[k : k + 1])
        stored += write_layer(job, probability_layer(name), region, values)
    if repaired or job.classes.objects is None:
        return stored, {}
    kept, counts = save_components(job, region, initial.cut(core)[0], entropy.cut(core)[0])
    return (*stored, *kept), {"parts": counts}
