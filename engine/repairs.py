"""The repair pass: class maps as the ensemble made them in, filled in where it disagrees, out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from engine.borders import save_border
from engine.components import save_components
from engine.methods.entropy import FULL
from engine.pixels import read_layer, write_layer
from engine.planning.elements import CLASSES, ENTROPY, INITIAL, REPAIRS, probability_layer
from engine.stages.base import Place, Raster
from engine.tables import physical_columns, write_part
from engine.work import Done, compute_on_device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.planning import Job
    from engine.stages.base import Made
    from engine.stages.inpaint import Repair
    from tiling import Box, Region


def repair_region(job: Job, region: Region) -> Done:
    """Fill in the uncertain patches of a region, and write the table of what was done.

    Parameters
    ----------
    job : Job
        The run; the regions pass is complete.
    region : Region
        Plane and core in pixels of the level that is read.

    Returns
    -------
    Done
        Its notes count windows, those that ran, repairs, and pixels that changed.
    """
    wanted = {CLASSES: job.with_border(region.core), REPAIRS: region.core}
    boxes = job.repair_pipeline().fold(wanted)
    given = {name: _known(job, name, region, boxes[name]) for name in (INITIAL, ENTROPY)}
    if "class_probability" in boxes and job.ensemble is not None:
        box = boxes["class_probability"]
        layers = [probability_layer(name) for name in job.ensemble.classes]
        maps = [_known(job, name, region, box).data for name in layers]
        given["class_probability"] = Raster(box, np.concatenate(maps))

    def run(trial: Job) -> Made:
        pipeline = trial.repair_pipeline()
        return pipeline.run_from(given, wanted, Place(region.plane, trial.running_launch))

    made = compute_on_device(job, region, run)
    classes: Raster = made.products[CLASSES]
    repairs: list[Repair] = made.products["repairs"]
    stored = list(write_layer(job, CLASSES, region, classes.cut(region.core)))
    stored += save_border(job, region, "repair", classes)
    notes = {**made.notes, "repairs": len(repairs)}
    stored.append(write_part(job, REPAIRS, region, repairs_table(job, region.plane, repairs)))
    if job.classes is not None and job.classes.objects:
        entropy = given[ENTROPY].cut(region.core)[0]
        kept, counts = save_components(job, region, classes.cut(region.core)[0], entropy)
        return Done({**notes, "parts": counts}, (*stored, *kept))
    return Done(notes, tuple(stored))


def _known(job: Job, name: str, region: Region, box: Box) -> Raster:
    """Read a map where the run made it; beyond the part that is done all is uncertain.

    What an earlier, larger run left there must not decide what this one makes.
    """
    inside = box.clip(job.area)
    values = np.full((1, *box.shape), FULL if name == ENTROPY else 0, np.uint8)
    values[0][inside.slices(box.start)] = read_layer(job, name, region.plane, inside)
    return Raster(box, values)


def repairs_table(job: Job, plane: tuple[int, ...], repairs: Sequence[Repair]) -> pa.Table:
    """Rows of repairs, in lattice order.

    Returns
    -------
    pyarrow.Table
        Plane; box ``y0, x0, y1, x1`` around the uncertain patches, half-open, in pixels and in
        micrometres; how many they are, their mean entropy in [0, 1], pixels that changed, whether
        they were left as they are since nothing near them can be trusted, and pixels of each class
        ``before_`` and ``after_``. Patches far from any foreground stay background, unmarked.
    """
    layer = job.layer(CLASSES)
    columns: dict[str, pa.Array] = {}
    for axis, index in zip(layer.axes[:-2], plane, strict=True):
        columns[axis.name] = pa.array(np.full(len(repairs), index), pa.int32())
    boxes = np.array([[*r.box.start, *r.box.stop] for r in repairs], np.int64).reshape(-1, 4)
    pixels = {name: boxes[:, k] for k, name in enumerate(("y0", "x0", "y1", "x1"))}
    columns |= {name: pa.array(values, pa.int64()) for name, values in pixels.items()}
    columns["patches"] = pa.array([r.patches for r in repairs], pa.int32())
    columns["entropy"] = pa.array([r.entropy for r in repairs], pa.float32())
    columns["changed"] = pa.array([r.changed for r in repairs], pa.int64())
    columns["left"] = pa.array([r.left for r in repairs], pa.bool_())
    for k, name in enumerate(job.mae.config.classes if job.mae else ()):
        columns[f"before_{name}"] = pa.array([r.before[k] for r in repairs], pa.int64())
        columns[f"after_{name}"] = pa.array([r.after[k] for r in repairs], pa.int64())
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    more = physical_columns(layer, {k: v.astype(float) for k, v in pixels.items()}, area)
    columns |= {name: column for name, column in more.items() if name != "area_um2"}
    return pa.table(columns)
