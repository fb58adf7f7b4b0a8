"""What a region saw of a class map just beyond its core: its side of the seams, kept for the check.

A region computes one more line of pixels, below and to the right of its core, than it writes. The
neighbour writes these; `engine.seams` compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.ledger import FOLDER
from engine.planning.elements import CLASSES, INITIAL
from engine.store import pack_arrays, unpack_arrays, write_file
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from engine.planning import Job
    from engine.stages.base import Raster
    from engine.store import StoredObject
    from tiling import Region


def class_makers(job: Job) -> dict[str, str]:
    """Name the passes that make a class map, and the layer that each writes."""
    if job.classes is None:
        return {}
    if job.classes.repair is None:
        return {"regions": CLASSES}
    return {"regions": INITIAL, "repair": CLASSES}


def save_border(job: Job, region: Region, maker: str, classes: Raster) -> list[StoredObject]:
    """Keep the classes that a region saw beyond its core; nothing where the area ends there.

    Parameters
    ----------
    job : Job
        The run.
    region : Region
        Plane and core in pixels of the level that is read.
    maker : str
        The pass: one of `class_makers`.
    classes : Raster
        Of one channel, uint8; over the box `Job.with_border` at least.
    """
    lines = {f"line{k}": classes.cut(box)[0] for k, box in enumerate(_lines(job, region.core))}
    if not lines:
        return []
    data = pack_arrays(lines, compress=True)
    return [write_file(job.out, _name(job, region, maker), data)]


def load_border(job: Job, region: Region, maker: str) -> Iterator[tuple[Box, np.ndarray]]:
    """Boxes beyond the core of a region, each with the classes that it saw there: (y, x) uint8."""
    boxes = list(_lines(job, region.core))
    if boxes:
        found = unpack_arrays((job.out / _name(job, region, maker)).read_bytes())
        yield from ((box, found[f"line{k}"]) for k, box in enumerate(boxes))


def _lines(job: Job, core: Box) -> Iterator[Box]:
    """Line of pixels below a core, with the corner, and the one to its right; where they are."""
    (y0, x0), (y1, x1), (y2, x2) = core.start, core.stop, job.with_border(core).stop
    for box in (Box((y1, x0), (y2, x2)), Box((y0, x1), (y1, x2))):
        if not box.empty:
            yield box


def _name(job: Job, region: Region, maker: str) -> str:
    """File, below OUT, of the border of a region."""
    return f"{FOLDER}/borders/{job.digests[maker][:16]}/{region.key}.npz"
