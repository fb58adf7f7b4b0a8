"""stardist: blocks with context, each predicted, suppressed and filtered on its own.

`BlockND.cover` as in `predict_instances_big`, with our network in the place of Keras. Context is
64 pixels, from where a pixel no longer depends on what lies beyond; blocks share the largest
object on top. In the package blocks take their turns, and PyTorch takes all threads; since they
do not need each other, a user can deal them to processes, which is tried as well.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from common import Case, label_whole
from stardist.big import BlockND

if TYPE_CHECKING:
    from engine.networks.runtime import OpenNetwork

BLOCK, CONTEXT, OBJECT = 1024, 64, 96


def blocks(case: Case, image: np.ndarray, network: OpenNetwork, _: int) -> np.ndarray:
    """Cover, predict, filter, write, in one process: labels (Y, X)."""
    labels = np.zeros(image.shape, np.int32)
    found = 0
    for block in cover(image):
        drawn, count = segment(case, block, block.read(image), network)
        block.write(labels, np.where(drawn, drawn + found, 0))
        found += count
    return labels


def blocks_dealt(case: Case, image: np.ndarray, _: OpenNetwork, processes: int) -> np.ndarray:
    """Cover, deal out, write in this process: labels (Y, X)."""
    labels = np.zeros(image.shape, np.int32)
    found = 0
    every = cover(image)
    parts = (block.read(image) for block in every)
    answers = pool(case, processes).map(segment_there, [case] * len(every), every, parts)
    for block, (drawn, count) in zip(every, answers, strict=True):
        block.write(labels, np.where(drawn, drawn + found, 0))
        found += count
    return labels


def cover(image: np.ndarray) -> list[BlockND]:
    """Blocks of an image."""
    size = min(BLOCK, *image.shape)
    covered: list[BlockND] = BlockND.cover(image.shape, "YX", size, OBJECT, CONTEXT, grid=(2, 2))
    return covered


def segment(
    case: Case, block: BlockND, part: np.ndarray, network: OpenNetwork
) -> tuple[np.ndarray, int]:
    """Labels of the objects that a block is responsible for, dense from 1, and their number."""
    pad = [(0, -n % 16) for n in part.shape]
    with torch.inference_mode():
        prob, rays = network.predict(np.pad(part, pad, mode="reflect")[None, None])
    rows, columns = (-(-n // case.grid) for n in part.shape)
    maps = prob[0, :rows, :columns].numpy(), rays[0, :rows, :columns].permute(2, 0, 1).numpy()
    drawn = block.crop_context(label_whole(case, *maps, (part.shape[0], part.shape[1])))
    kept = block.filter_objects(drawn, None)
    present = np.bincount(kept.ravel()) > 0
    present[0] = False
    dense = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return dense[kept], int(present.sum())


def segment_there(case: Case, block: BlockND, part: np.ndarray) -> tuple[np.ndarray, int]:
    """Do `segment` in a process of the pool, with the network that it holds."""
    return segment(case, block, part, case.network())


@lru_cache(maxsize=1)
def pool(case: Case, processes: int) -> ProcessPoolExecutor:
    """Pool of processes, started once and kept."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))
