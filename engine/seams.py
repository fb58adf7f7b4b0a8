"""The seams pass: both sides of every seam of a class map say what they saw, and are compared.

Class maps are equal on both sides by construction, as tiles lie on one lattice whatever the cut.
The check shows that this holds, on every run: workers whose processors or devices differ in the
last bits are seen here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.borders import class_makers, load_border
from engine.index import Cores, collect_cores
from engine.numbering import load_numbers, save_numbers
from engine.pixels import read_layer
from engine.work import Done

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.ledger import Record
    from engine.planning import Job
    from engine.store import Location
    from tiling import Region


def save_makers(job: Job, records: Mapping[str, Iterable[Record]]) -> str:
    """Put where all regions of a class map lie where tasks find it; return its name.

    Parameters
    ----------
    job : Job
        The run.
    records : mapping of str to iterable of Record
        Of the passes of `class_makers`.
    """
    arrays: dict[str, np.ndarray] = {}
    for maker, found in records.items():
        cores = collect_cores((record.region for record in found), len(job.frame.planes))
        arrays |= {f"{maker}.planes": cores.planes, f"{maker}.cores": cores.cores}
    return save_numbers(job, "makers", arrays)


def compare_region(job: Job, region: Region) -> Done:
    """Compare, for regions that begin in this one, what they saw beyond their cores.

    Parameters
    ----------
    job : Job
        The run; all of its class maps are complete.
    region : Region
        Plane and core in pixels of the level that is read.

    Returns
    -------
    Done
        Its notes count the pixels that both sides saw, and those on which they differ.
    """
    makers = _open_makers(job.out, job.makers)
    pixels = differing = 0
    for maker, layer in class_makers(job).items():
        for part in makers[maker].meeting(region.plane, region.core):
            if not region.core.holds(part.core.start):
                continue
            for box, seen in load_border(job, part, maker):
                owned = read_layer(job, layer, region.plane, box)
                pixels += box.size
                differing += int(np.count_nonzero(seen != owned))
    return Done({"pixels": pixels, "differing": differing})


@lru_cache(maxsize=2)
def _open_makers(out: Location, name: str) -> dict[str, Cores]:
    """Regions of each pass that makes a class map; named by content, so read once."""
    found = load_numbers(out, name)
    passes = {key.partition(".")[0] for key in found}
    return {step: Cores(found[f"{step}.planes"], found[f"{step}.cores"]) for step in passes}
