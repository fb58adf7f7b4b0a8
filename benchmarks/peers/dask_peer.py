"""dask.array: the network mapped over overlapping chunks, the naive way to a large image.

No average: the overlap is cut off, as map_overlap has it. One process with threads, each running
the network on one chunk at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dask
import dask.array as da
import numpy as np
import torch
from common import label_whole

if TYPE_CHECKING:
    from common import Case

    from engine.networks.runtime import OpenNetwork


def mapped(case: Case, image: np.ndarray, network: OpenNetwork, threads: int) -> np.ndarray:
    """Map over chunks that are tiles of the case once their overlap is added: labels (Y, X)."""
    chunk = case.tile - case.overlap
    depth = case.overlap // 2
    torch.set_num_threads(1)  # dask runs the threads

    def predict(block: np.ndarray) -> np.ndarray:
        pad = [(0, -n % 16) for n in block.shape]
        with torch.inference_mode():
            prob, rays = network.predict(np.pad(block, pad, mode="reflect")[None, None])
        maps = np.concatenate([prob.numpy(), rays.permute(0, 3, 1, 2)[0].numpy()])
        inner = [slice(depth // case.grid, -(-(n - depth) // case.grid)) for n in block.shape]
        return np.ascontiguousarray(maps[(slice(None), *inner)])

    pixels = da.from_array(image, chunks=chunk)
    halves = tuple(tuple(-(-n // case.grid) for n in sizes) for sizes in pixels.chunks)
    overlapped = da.overlap.overlap(pixels, depth=depth, boundary="reflect")
    chunks = ((1 + case.rays,), *halves)
    maps = overlapped.map_blocks(predict, new_axis=0, chunks=chunks, dtype=np.float32)
    with dask.config.set(scheduler="threads", num_workers=threads):
        prob_and_rays = maps.compute()
    extent = (image.shape[0], image.shape[1])
    return label_whole(case, prob_and_rays[0], prob_and_rays[1:], extent)
