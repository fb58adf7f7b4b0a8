"""Pixels of a task: read from the image or from OUT, written as whole shards, statistics frozen."""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from engine.ledger import Ledger
from engine.stages.normalise import Levels
from engine.store import (
    ImageReader,
    Location,
    StoredObject,
    Target,
    open_target,
    pack_arrays,
    read_plane,
    unpack_arrays,
    use_fast_codecs,
    write_atomic,
    write_box,
)
from engine.store.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.planning import Job
    from engine.store.sources import Source
    from tiling import Box, Region


def read_pixels(
    job: Job, plane: tuple[int, ...], box: Box, channels: Sequence[int] | None = None
) -> np.ndarray:
    """Read a box of one plane: (C, Y, X) in the source's dtype; the job's channels, or others."""
    source = job.source
    wanted = source.channels if channels is None else channels
    if source.foreign:
        reader = open_foreign(source.path, job.token)
        names = [name for name in reader.info.axes if name not in "cyx"]
        pixels = reader.read(dict(zip(names, plane, strict=True)), box)
        return np.ascontiguousarray(np.asarray(pixels)[list(wanted)])
    return open_image(source.path, source.level, job.token).read(plane, wanted, box)


def read_sources(
    job: Job, plane: tuple[int, ...], box: Box, channels: Sequence[int] | None = None
) -> tuple[tuple[str, str], ...]:
    """Name and tag of each input object that holds part of a box.

    None of a foreign source, whose files the plan knows.
    """
    source = job.source
    if source.foreign:
        return ()
    wanted = source.channels if channels is None else channels
    return open_image(source.path, source.level, job.token).sources(plane, wanted, box)


def write_layer(
    job: Job, name: str, region: Region, pixels: np.ndarray, level: int = 0
) -> tuple[StoredObject, ...]:
    """Write a region, in pixels of the level that is read, to a level of a layer.

    Parameters
    ----------
    job : Job
        The run.
    name : str
        The layer.
    region : Region
        For level 0: in pixels of the level that is read; above: in pixels of that level.
    pixels : ndarray of shape (C, Y, X)
        In the layer's dtype.
    level : int
        Level of the layer.

    Returns
    -------
    tuple of StoredObject
        What the record keeps of what was written.
    """
    layer = job.layer(name)
    target = open_layer(job, name, level)
    box = region.core.coarsen(layer.scale) if level == 0 else region.core
    stored: list[StoredObject] = []
    for channel, values in enumerate(pixels):
        leading = layer.leading(region.plane, channel)
        stored += write_box(target, leading, box, np.ascontiguousarray(values))
    return tuple(stored)


def read_layer(job: Job, name: str, plane: tuple[int, ...], box: Box) -> np.ndarray:
    """Read a box of level 0 of a layer of one channel: (y, x) in its dtype."""
    layer = job.layer(name)
    array = open_layer(job, name, 0).array
    return read_plane(array, layer.leading(plane, 0), box.coarsen(layer.scale))


def quantise(probability: np.ndarray) -> np.ndarray:
    """Store probabilities in [0, 1] as uint8: 255 is 1; nothing is ever computed from these."""
    levels: np.ndarray = np.rint(np.clip(probability, 0, 1) * 255)
    return levels.astype(np.uint8)


def plane_number(job: Job, plane: tuple[int, ...]) -> int:
    """Place of a plane in C order."""
    return int(np.ravel_multi_index(plane, job.frame.planes)) if plane else 0


def save_levels(job: Job, levels: Levels) -> None:
    """Freeze the statistics of pass 0."""
    arrays = {"low": levels.low, "high": levels.high, "cell": np.array(levels.cell, np.int64)}
    write_atomic(levels_place(job.out, job.digests["statistics"]), pack_arrays(arrays))


def levels_place(out: Location, digest: str) -> Location:
    """File of the statistics of pass 0."""
    return Ledger(out).path("statistics", f"levels-{digest[:16]}.npz")


def open_levels(job: Job) -> Levels:
    """Statistics of pass 0: frozen, so read once per process and run."""
    return _read_levels(job.out, job.digests["statistics"], job.token)


@lru_cache(maxsize=8)
def _read_levels(out: Location, digest: str, _token: str) -> Levels:
    found = unpack_arrays(levels_place(out, digest).read_bytes())
    return Levels(found["low"], found["high"], int(found["cell"]))


@lru_cache(maxsize=8)
def open_image(path: str, level: int, _token: str) -> ImageReader:
    """Image of this process, opened anew for another run."""
    use_fast_codecs(threads=1)
    return ImageReader(path, level)


@lru_cache(maxsize=4)
def open_foreign(path: str, _token: str) -> _Held:
    """Foreign source of this process; the driver has checked its files."""
    return _Held(open_source(path, verify=False))


class _Held:
    """A source that is closed when neither the cache nor a task refers to this any more.

    Parameters
    ----------
    source : Source
        The source.
    """

    def __init__(self, source: Source) -> None:
        self.info = source.info
        self.read = source.read
        weakref.finalize(self, source.close)


def open_layer(job: Job, name: str, level: int) -> Target:
    """Array of OUT that this process writes or reads."""
    layer = job.layer(name)
    below = "/".join(part for part in (layer.group, layer.levels[level].path) if part)
    return _open_target(job.out, below, job.token)


@lru_cache(maxsize=64)
def _open_target(out: Location, name: str, _token: str) -> Target:
    """Array of OUT, opened anew for another run."""
    use_fast_codecs(threads=1)
    return open_target(out, name)
