"""Pass 3: one level of a pyramid from the level above, a region at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.work import open_target, write_layer
from tiling import Box

if TYPE_CHECKING:
    from engine.planning import Job, Pass
    from tiling import Region


def reduce_region(job: Job, step: Pass, region: Region) -> dict[str, Any]:
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
    array = open_target(job.out / layer.group / above.path, job.digest)
    box = region.core.refine(2).clip(Box.of_shape(above.shape[-2:]))
    reduced = []
    for channel in range(layer.channels):
        at: Any = (*layer.leading(region.plane, channel), *box.slices())
        pixels = np.asarray(array[at])
        # Nearest, not mean: averaging two labels invents a third.
        reduced.append(pixels[::2, ::2] if layer.is_label else mean_of_four(pixels))
    write_layer(job, step.layer, region, np.stack(reduced), step.level)
    return {}


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
    even = [(0, n % 2) for n in pixels.shape]
    whole = np.pad(pixels, even, mode="edge") if any(b for _, b in even) else pixels
    quads = (whole[y::2, x::2] for y in (0, 1) for x in (0, 1))
    if pixels.dtype.kind == "f":
        total = sum(q.astype(np.float64) for q in quads)
        return np.asarray(total / 4).astype(pixels.dtype)
    wide = np.int32 if pixels.dtype.itemsize <= 2 else np.int64
    counted = np.sum([q.astype(wide) for q in quads], axis=0)
    return np.asarray((counted + 2) >> 2).astype(pixels.dtype)
