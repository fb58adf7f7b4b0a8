"""What a worker is asked to do: one region of one pass, its record last."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Any

from engine.device import resident_peak
from engine.labels import label_region
from engine.ledger import Ledger, Record
from engine.pyramid import reduce_region
from engine.statistics import statistics_region
from engine.work import copy_region, process_region

if TYPE_CHECKING:
    from engine.planning import Job, Pass
    from tiling import Region


def perform(job: Job, step: Pass, region: Region) -> Record:
    """Do one region of a pass: pixels first, record last; doing it twice changes nothing.

    Parameters
    ----------
    job : Job
        The run.
    step : Pass
        What is done.
    region : Region
        Where.

    Returns
    -------
    Record
        As written beside the pixels.
    """
    start = time.perf_counter()
    notes = _notes(job, step, region)
    record = Record(
        step.name,
        region,
        job.digest,
        time.perf_counter() - start,
        resident_peak(),
        f"{socket.gethostname()}:{os.getpid()}",
        notes,
    )
    Ledger(job.out).write(record)
    return record


def _notes(job: Job, step: Pass, region: Region) -> dict[str, Any]:
    match step.kind:
        case "statistics":
            return statistics_region(job, step, region)
        case "regions":
            return process_region(job, region)
        case "labels":
            return label_region(job, region)
        case "copy":
            return copy_region(job, region)
        case "pyramid":
            return reduce_region(job, step, region)
