"""Pass 0: what is global and must not depend on the cut; counted by region, summed, frozen."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InputError
from engine.ledger import Ledger
from engine.methods.intensity import Binning
from engine.stages.normalise import Levels
from engine.store import write_atomic
from engine.work import plane_number, read_pixels

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from engine.ledger import Record
    from engine.planning import Job
    from tiling import Region


def range_region(job: Job, region: Region) -> dict[str, Any]:
    """Least and largest finite value of a region, by channel, and the number that are not finite.

    Raises
    ------
    InputError
        If there are NaN or infinite pixels and the recipe refuses them.
    """
    pixels, bad = _finite(job, read_pixels(job, region.plane, region.core))
    if bad and job.stardist.input.nonfinite == "refuse":
        raise InputError(
            where=f"'{job.source.path}', {region}",
            expected="finite pixels",
            found=f"{bad} that are NaN or infinite",
            remedy="Take them for 0 with --set input.nonfinite=zero, or mend the image.",
        )
    return {
        "low": [float(channel.min()) for channel in pixels],
        "high": [float(channel.max()) for channel in pixels],
        "nonfinite": bad,
    }


def statistics_region(job: Job, region: Region) -> dict[str, Any]:
    """Count the intensities of a region, or take the percentiles of its lattice cells."""
    pixels, _ = _finite(job, read_pixels(job, region.plane, region.core))
    settings = job.stardist.normalise
    arrays: dict[str, np.ndarray]
    if settings.over == "local":
        q = [settings.low, settings.high]
        cells = list(region.core.split((settings.cell, settings.cell)))
        parts = [pixels[(slice(None), *c.slices(region.core.start))] for c in cells]
        values = np.array([np.percentile(p.reshape(len(p), -1), q, axis=1) for p in parts])
        at = np.array([[n // settings.cell for n in c.start] for c in cells])
        arrays = {"at": at, "values": values.astype(np.float32)}
    else:
        binnings = binning(job)
        counts = [b.count(channel) for b, channel in zip(binnings, pixels, strict=True)]
        arrays = {f"counts{k}": c for k, c in enumerate(counts)}
    with io.BytesIO() as buffer:
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        write_atomic(_part(job.out, region), buffer.getvalue())
    return {}


def needs_range(job: Job) -> bool:
    """Whether values must be bounded before they can be counted."""
    floats = np.dtype(job.frame.dtype).kind == "f"
    return floats or Binning.for_dtype(job.frame.dtype) is None


def binning(job: Job) -> tuple[Binning, ...]:
    """How intensities are counted, by channel."""
    known = Binning.for_dtype(job.frame.dtype)
    if known is not None:
        return (known,) * job.frame.channels
    records = [r.notes for r in Ledger(job.out).records("range", job.digest)]
    channels = range(job.frame.channels)
    low = [min(notes["low"][k] for notes in records) for k in channels]
    high = [max(notes["high"][k] for notes in records) for k in channels]
    return tuple(Binning.for_range(a, b) for a, b in zip(low, high, strict=True))


def freeze(job: Job, records: Iterable[Record]) -> Levels:
    """Sum the parts of all regions to the levels of the image, of each plane or of the lattice.

    Raises
    ------
    InputError
        If the whole image has one value: there is nothing to normalise by.
    """
    regions = [record.region for record in records]
    levels = (
        _lattice(job, regions) if job.stardist.normalise.over == "local" else _sums(job, regions)
    )
    if (levels.high <= levels.low).all():
        raise InputError(
            where=f"'{job.source.path}', channels {job.source.channels}",
            expected="an image with some contrast",
            found=f"the value {float(levels.low.flat[0]):g} between the percentiles "
            f"{job.stardist.normalise.low} and {job.stardist.normalise.high} everywhere",
            remedy="Choose another channel or level; a constant image has nothing to segment.",
        )
    return levels


def _sums(job: Job, regions: list[Region]) -> Levels:
    """Percentiles of summed counts, over the image or by plane."""
    settings, binnings = job.stardist.normalise, binning(job)
    by_plane = settings.over == "plane"
    planes = int(np.prod(job.frame.planes, dtype=np.int64)) if by_plane else 1
    low = np.zeros((planes, job.frame.channels), np.float32)
    high = np.zeros_like(low)
    groups: dict[int, list[Region]] = {}
    for region in regions:
        groups.setdefault(plane_number(job, region.plane) if by_plane else 0, []).append(region)
    for group, members in groups.items():
        totals = [np.zeros(b.bins, np.int64) for b in binnings]
        for region in members:
            with np.load(_part(job.out, region), allow_pickle=False) as data:
                for k, total in enumerate(totals):
                    total += data[f"counts{k}"]
        for k, (b, total) in enumerate(zip(binnings, totals, strict=True)):
            low[group, k] = b.percentile(total, settings.low)
            high[group, k] = b.percentile(total, settings.high)
    return Levels(low, high) if by_plane else Levels(low[0], high[0])


def _lattice(job: Job, regions: list[Region]) -> Levels:
    """Percentiles of lattice cells, with a floor to the contrast so that noise is not stretched."""
    settings = job.stardist.normalise
    planes = int(np.prod(job.frame.planes, dtype=np.int64))
    cells = [-(-n // settings.cell) for n in job.frame.extent]
    both = np.zeros((2, planes, job.frame.channels, *cells), np.float32)
    for region in regions:
        with np.load(_part(job.out, region), allow_pickle=False) as data:
            for (y, x), values in zip(data["at"], data["values"], strict=True):
                both[:, plane_number(job, region.plane), :, y, x] = values
    low, high = both
    spread = high.max(axis=(2, 3)) - low.min(axis=(2, 3))
    floor = settings.contrast_floor * spread[:, :, None, None]
    return Levels(low, np.maximum(high, low + floor), settings.cell)


def _finite(job: Job, pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """Pixels with what is not finite taken for 0, and how many those are."""
    if pixels.dtype.kind != "f":
        return pixels, 0
    finite = np.isfinite(pixels)
    bad = int(pixels.size - np.count_nonzero(finite))
    return (np.where(finite, pixels, 0) if bad else pixels), bad


def _part(out: Path, region: Region) -> Path:
    return Ledger(out).path("statistics", "parts", f"{region.key}.npz")
