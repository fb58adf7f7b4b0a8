"""Pass 3: one level of a pyramid from the level above, a region at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.pixels import open_layer, write_layer
from engine.planning.elements import BAND
from engine.store import read_plane
from engine.work import Done
from tiling import Box

if TYPE_CHECKING:
    from engine.planning import Job, Pass
    from tiling import Region


def reduce_region(job: Job, step: Pass, region: Region) -> Done:
    """Halve one region of a layer.

    Parameters
    ----------
    job : Job
        The run.
    step : Pass
        Names the layer and the level that is made.
    region : Region
        In pixels of that level.
    """
    layer = job.layer(step.layer)
    above = layer.levels[step.level - 1]
    array = open_layer(job, layer.name, step.level - 1).array
    box = region.core.refine(2).clip(Box.of_shape(above.shape[-2:]))
    reduced = np.empty((layer.channels, *region.core.shape), layer.dtype)
    for channel, target in enumerate(reduced):
        pixels = read_plane(array, layer.leading(region.plane, channel), box)
        # Nearest, not mean: averaging two labels invents a third.
        target[...] = pixels[::2, ::2] if layer.is_label else mean_of_four(pixels)
    return Done(stored=write_layer(job, step.layer, region, reduced, step.level))


def mean_of_four(pixels: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels, at an odd edge of those that are there; in the same dtype.

    Parameters
    ----------
    pixels : ndarray of shape (Y, X)
        Any real dtype.

    Returns
    -------
    ndarray of shape (ceil(Y / 2), ceil(X / 2))
        Integers are rounded to the nearest, halves up.

    Examples
    --------
    >>> mean_of_four(np.array([[1, 2, 5], [3, 4, 8]], np.uint8)).tolist()
    [[3, 7]]
    """
    rows, columns = (-(-n // 2) for n in pixels.shape)
    result = np.empty((rows, columns), pixels.dtype)
    for first in range(0, rows, BAND):
        band = pixels[2 * first : 2 * (first + BAND)]
        even = [(0, n % 2) for n in band.shape]
        whole = np.pad(band, even, mode="edge") if any(b for _, b in even) else band
        result[first : first + BAND] = _reduced(whole)
    return result


def _reduced(whole: np.ndarray) -> np.ndarray:
    """Mean of 2 x 2 pixels of a band with even sides."""
    quads = [whole[y::2, x::2] for y in (0, 1) for x in (0, 1)]
    if whole.dtype.kind == "f":
        # Each is divided before, so that no sum overflows; by a power of two, which is exact.
        total = sum(q.astype(np.float64) * 0.25 for q in quads)
        return np.asarray(total).astype(whole.dtype)
    if whole.dtype.kind == "b":
        quads = [q.view(np.uint8) for q in quads]
    # Quotients and remainders by 4 apart: nothing overflows, in any integer type.
    quarter, rest = quads[0] >> 2, quads[0] & 3
    for quad in quads[1:]:
        quarter += quad >> 2
        rest += quad & 3
    rest += 2
    quarter += rest >> 2
    return quarter.astype(whole.dtype, copy=False)
