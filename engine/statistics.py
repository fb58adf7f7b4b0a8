"""Pass 0: what is global and must not depend on the cut; counted by region, summed, frozen.

::

    up to 16 bits       statistics ──────────────────────► levels
    32 bits and more    coarse ──► bins, frozen ──► fine ──► levels

A sweep writes one part per region, its record last; the driver sums the parts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import InputError
from engine.ledger import Ledger, State
from engine.methods.intensity import (
    BINS,
    between,
    count,
    count_within,
    counted_dtype,
    finite_values,
    place_of,
    ranks,
    value_of,
    wide,
)
from engine.pixels import open_levels, plane_number, read_pixels, read_sources
from engine.recipe import NetworkRecipe
from engine.stages.normalise import Levels
from engine.store import checksum, pack_arrays, unpack_arrays, write_atomic
from engine.work import Done

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.ledger import Record
    from engine.planning import Job, Pass
    from engine.store import Location
    from tiling import Region


def counts(job: Job) -> bool:
    """Whether a run has a pass 0."""
    return isinstance(job.recipe, NetworkRecipe)


def sweeps(job: Job) -> tuple[str, ...]:
    """Names of the sweeps of pass 0, in order."""
    if job.network.normalise.over == "local" or not wide(job.frame.dtype):
        return ("statistics",)
    return ("coarse", "fine")


def statistics_region(job: Job, step: Pass, region: Region) -> Done:
    """Count the intensities of a region, or take the percentiles of its lattice cells.

    Returns
    -------
    Done
        Its notes have ``nonfinite``, of a first sweep: pixels that are NaN or infinite.
    """
    sources = read_sources(job, region.plane, region.core)
    pixels = read_pixels(job, region.plane, region.core)
    notes: dict[str, Any] = {}
    if step.name == "fine":
        arrays = _fine(job, region, pixels)
    elif job.network.normalise.over == "local":
        arrays, bad = _cells(job, region, pixels)
        notes = {"nonfinite": bad}
    else:
        found = [count(channel) for channel in pixels]
        arrays = {f"bins{k}": c.bins for k, c in enumerate(found)}
        arrays |= {f"counts{k}": c.counts for k, c in enumerate(found)}
        arrays["limits"] = np.array([(c.least, c.most) for c in found], np.int64)
        notes = {"nonfinite": sum(c.nonfinite for c in found)}
    _save(part_place(job, step.name, region), arrays)
    notes["read"] = [*region.core.start, *region.core.stop]
    return Done(notes, (), sources, checksum(pixels))


def check_finite(job: Job, records: Iterable[Record]) -> None:
    """Refuse pixels that are NaN or infinite, where the recipe does.

    Raises
    ------
    InputError
        If a first sweep counted some.
    """
    if job.network.input.nonfinite != "refuse":
        return
    bad = [record for record in records if record.notes["nonfinite"]]
    if bad:
        first = min((r.region for r in bad), key=lambda r: (r.plane, r.core.start))
        raise InputError(
            where=f"'{job.source.path}', the first in {first}",
            expected="finite pixels",
            found=f"{sum(r.notes['nonfinite'] for r in bad)} that are NaN or infinite",
            remedy="Take them for background with --set input.nonfinite=zero, or mend the image.",
        )


def save_bins(job: Job, regions: Iterable[Region]) -> None:
    """Freeze which upper halves of keys the fine sweep counts; a few for each plane and channel."""
    kept = _groups(job, regions)
    bins = np.zeros((_group_count(job), job.frame.channels, 4), np.uint16)
    for group, members in kept.items():
        for k, (total, _) in enumerate(_totals(job, _first(job), members)):
            if total.any():
                bins[group, k] = [place_of(total, rank)[0] for rank in _wanted(job, total)]
    _save(_bins_place(job), {"bins": bins})


def freeze(job: Job, regions: Iterable[Region]) -> Levels:
    """Sum the parts of all regions to the levels of the image, of each plane or of the lattice.

    Where the two percentiles of a plane and channel are equal, its largest value takes the place
    of the high one, and if that is no higher, its smallest that of the low one.

    Raises
    ------
    InputError
        If each plane and channel has one value: there is nothing to normalise by.
    """
    if job.network.normalise.over == "local":
        levels = _lattice(job, regions)
    else:
        low, high = _percentiles(job, regions)
        by_plane = job.network.normalise.over == "plane"
        levels = Levels(low, high) if by_plane else Levels(low[0], high[0])
    if (levels.high <= levels.low).all():
        raise _no_contrast(job, levels.low)
    return levels


def _no_contrast(job: Job, values: np.ndarray) -> InputError:
    """Say of which channels every pixel, or every pixel of a part, has one of these values."""
    channels = " and ".join(map(str, job.source.channels))
    least, most = float(values.min()), float(values.max())
    parts = {"image": "channel", "plane": "plane and channel", "local": "cell of normalise.cell"}
    part = parts[job.network.normalise.over]
    return InputError(
        where=f"'{job.source.path}', channel{'s' * (len(job.source.channels) > 1)} {channels}",
        expected="an image with some contrast",
        found=f"the value {least:g} everywhere"
        if least == most
        else f"one value in each {part}, from {least:g} to {most:g}",
        remedy="Choose another channel or level; a constant image has nothing to segment.",
    )


def check_frozen(job: Job, levels: Levels) -> None:
    """Refuse an image that changed so much that its statistics are others.

    Raises
    ------
    InputError
        If they differ from those that the run was started with.
    """
    frozen = open_levels(job)
    same = all(
        np.array_equal(getattr(frozen, name), getattr(levels, name)) for name in ("low", "high")
    )
    if not same:
        raise InputError(
            where=f"'{job.source.path}'",
            expected="changes that leave the intensity statistics as they were",
            found=f"levels {_range(frozen)} before, {_range(levels)} now, which every pixel of "
            "the result depends on",
            remedy="Make everything anew, beside what stands, with --restart.",
        )


def _range(levels: Levels) -> str:
    return f"{float(levels.low.min()):g} to {float(levels.high.max()):g}"


def parts_that_stand(job: Job, name: str, step: Pass, states: np.ndarray) -> np.ndarray:
    """States of a sweep, without the regions whose counts are gone: they are scratch.

    Returns
    -------
    ndarray of the shape of the grid, uint8
        As given, `State.NEW` where a region is done and its part is not there.
    """
    if not (states == State.DONE).any():
        return states
    folder = part_place(job, name, step.grid.region((0,) * len(step.grid.shape))).parent
    there = set(folder.children()[1])
    states = states.copy()
    for region in step.grid:
        at = step.grid.cells(region)
        if (states[at] == State.DONE).all() and part_place(job, name, region).name not in there:
            states[at] = State.NEW
    return states


def part_place(job: Job, name: str, region: Region) -> Location:
    """File of what a sweep counted in a region; scratch, until the run is complete."""
    return parts_folder(job.out) / job.digests["statistics"][:16] / f"{name}-{region.key}.npz"


def parts_folder(out: Location) -> Location:
    """Folder of what sweeps counted."""
    return Ledger(out).path("statistics", "parts")


def _percentiles(job: Job, regions: Iterable[Region]) -> tuple[np.ndarray, np.ndarray]:
    """Low and high level: (groups, C) float32 each."""
    dtype = counted_dtype(job.frame.dtype)
    both = np.zeros((2, _group_count(job), job.frame.channels), np.float32)
    for group, members in _groups(job, regions).items():
        fine = _fine_totals(job, group, members) if wide(job.frame.dtype) else None
        for k, (total, limits) in enumerate(_totals(job, _first(job), members)):
            if not total.any():
                continue
            keys = []
            for rank in _wanted(job, total):
                key, rest = place_of(total, rank)
                if fine is not None:
                    key = key << 16 | place_of(fine[k][key], rest)[0]
                keys.append(key)
            a, b, c, d = (value_of(key, dtype) for key in keys)
            n, settings = int(total.sum()), job.network.normalise
            low = between(a, b, ranks(n, settings.low)[2])
            high = between(c, d, ranks(n, settings.high)[2])
            least, most = (value_of(key, dtype) for key in limits)
            both[:, group, k] = _apart(low, high, least, most)
    return both[0], both[1]


def _apart(low: float, high: float, least: float, most: float) -> tuple[float, float]:
    """Levels that differ, unless all values are equal: a few bright objects on a flat ground."""
    high = high if np.float32(high) > np.float32(low) else most
    return (low if np.float32(high) > np.float32(low) else least), high


def _wanted(job: Job, total: np.ndarray) -> list[int]:
    """Ranks next to the low and to the high percentile."""
    n, settings = int(total.sum()), job.network.normalise
    return [*ranks(n, settings.low)[:2], *ranks(n, settings.high)[:2]]


def _totals(
    job: Job, name: str, regions: list[Region]
) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """Sum the counts of a first sweep, with least and largest key, by channel."""
    totals = np.zeros((job.frame.channels, BINS), np.int64)
    limits = np.tile(np.array([2**32 - 1, 0], np.int64), (job.frame.channels, 1))
    for region in regions:
        data = _load(part_place(job, name, region))
        for k, total in enumerate(totals):
            total[data[f"bins{k}"]] += data[f"counts{k}"]
        found = data["limits"]
        limits[:, 0] = np.minimum(limits[:, 0], found[:, 0])
        limits[:, 1] = np.maximum(limits[:, 1], found[:, 1])
    for total, (least, most) in zip(totals, limits.tolist(), strict=True):
        yield total, (least, most)


def _fine_totals(job: Job, group: int, regions: list[Region]) -> list[dict[int, np.ndarray]]:
    """Sum the counts of lower halves of keys by their upper half, by channel."""
    totals = [
        {int(upper): np.zeros(BINS, np.int64) for upper in bins} for bins in _open_bins(job)[group]
    ]
    for region in regions:
        data = _load(part_place(job, "fine", region))
        for k, total in enumerate(totals):
            keys, counts = data[f"keys{k}"], data[f"counts{k}"]
            for upper, lower in total.items():
                inside = keys >> 16 == upper
                lower[keys[inside] & (BINS - 1)] += counts[inside]
    return totals


def _fine(job: Job, region: Region, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Count lower halves of keys inside the frozen bins."""
    arrays = {}
    for k, bins in enumerate(_open_bins(job)[_group(job, region)]):
        arrays[f"keys{k}"], arrays[f"counts{k}"] = count_within(pixels[k], np.unique(bins))
    return arrays


def _cells(job: Job, region: Region, pixels: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    """Percentiles, least and largest value of lattice cells; and the pixels that are not finite."""
    settings, bad = job.network.normalise, 0
    cells = list(region.core.split((settings.cell, settings.cell)))
    values = np.zeros((len(cells), 4, len(pixels)), np.float32)
    for n, cell in enumerate(cells):
        for k, channel in enumerate(pixels):
            part = channel[cell.slices(region.core.start)]
            finite = finite_values(part)
            bad += part.size - finite.size
            if finite.size:
                values[n, :2, k] = np.percentile(finite, [settings.low, settings.high])
                values[n, 2:, k] = finite.min(), finite.max()
    at = np.array([[n // settings.cell for n in cell.start] for cell in cells])
    return {"at": at, "values": values}, bad


def _lattice(job: Job, regions: Iterable[Region]) -> Levels:
    """Percentiles of lattice cells, with a floor to the contrast so that noise is not stretched."""
    settings = job.network.normalise
    planes = int(np.prod(job.frame.planes, dtype=np.int64))
    cells = [-(-n // settings.cell) for n in job.frame.extent]
    found = np.zeros((4, planes, job.frame.channels, *cells), np.float32)
    for region in regions:
        data = _load(part_place(job, "statistics", region))
        for (y, x), values in zip(data["at"], data["values"], strict=True):
            found[:, plane_number(job, region.plane), :, y, x] = values
    low, high, least, most = found
    spread = high.max(axis=(2, 3)) - low.min(axis=(2, 3))
    # Few bright objects on a flat ground: no percentile sees them.
    whole = most.max(axis=(2, 3)) - least.min(axis=(2, 3))
    floor = settings.contrast_floor * np.where(spread > 0, spread, whole)[:, :, None, None]
    return Levels(low, np.maximum(high, low + floor), settings.cell)


def _first(job: Job) -> str:
    """Name of the first sweep."""
    return sweeps(job)[0]


def _group(job: Job, region: Region) -> int:
    """Which planes are normalised alike: number of those of a region."""
    return plane_number(job, region.plane) if job.network.normalise.over == "plane" else 0


def _group_count(job: Job) -> int:
    by_plane = job.network.normalise.over == "plane"
    return int(np.prod(job.frame.planes, dtype=np.int64)) if by_plane else 1


def _groups(job: Job, regions: Iterable[Region]) -> dict[int, list[Region]]:
    """Regions by group."""
    groups: dict[int, list[Region]] = {}
    for region in regions:
        groups.setdefault(_group(job, region), []).append(region)
    return groups


def _open_bins(job: Job) -> np.ndarray:
    """Bins of the fine sweep, (groups, C, 4); read once per process and run."""
    return _read_bins(_bins_place(job), job.token)


@lru_cache(maxsize=8)
def _read_bins(place: Location, _token: str) -> np.ndarray:
    return _load(place)["bins"]


def _bins_place(job: Job) -> Location:
    return parts_folder(job.out) / job.digests["statistics"][:16] / "bins.npz"


def _load(place: Location) -> dict[str, np.ndarray]:
    return unpack_arrays(place.read_bytes())


def _save(place: Location, arrays: dict[str, np.ndarray]) -> None:
    write_atomic(place, pack_arrays(arrays, compress=True))
