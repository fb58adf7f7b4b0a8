"""MONAI: a sliding window in memory, and tiles merged out of core into Zarr.

One process, as MONAI has it; PyTorch takes all threads.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import torch
from common import label_whole
from monai.inferers.inferer import PatchInferer, SlidingWindowInferer
from monai.inferers.merger import ZarrAvgMerger
from monai.inferers.splitter import SlidingWindowSplitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from common import Case

    from engine.networks.runtime import OpenNetwork


def predictor(network: OpenNetwork) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Network as MONAI wants it: (N, C, Y, X) to prob (N, 1, y, x) and rays (N, R, y, x)."""

    def predict(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        prob, rays = network.predict(batch.numpy())
        return prob[:, None], rays.permute(0, 3, 1, 2)

    return predict


def sliding(case: Case, image: np.ndarray, network: OpenNetwork, _: int) -> np.ndarray:
    """SlidingWindowInferer, plain average, everything in memory: labels (Y, X)."""
    inferer = SlidingWindowInferer(
        roi_size=case.tile,
        sw_batch_size=case.launch,
        overlap=case.overlap / case.tile,
        mode="constant",
    )
    with torch.inference_mode():
        prob, rays = inferer(torch.from_numpy(image)[None, None], predictor(network))
    extent = (image.shape[0], image.shape[1])
    return label_whole(case, prob[0, 0].numpy(), rays[0].numpy(), extent)


def merging(case: Case, image: np.ndarray, network: OpenNetwork, _: int) -> np.ndarray:
    """PatchInferer with ZarrAvgMerger, chunks of a stride: labels (Y, X)."""
    both = predictor(network)
    stride = (case.tile - case.overlap) // case.grid
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        inferer = PatchInferer(
            SlidingWindowSplitter(case.tile, case.overlap / case.tile),
            ZarrAvgMerger,
            batch_size=case.launch,
            store=f"{folder}/merged.zarr",
            value_store=f"{folder}/values.zarr",
            count_store=f"{folder}/counts.zarr",
            chunks=(1, 1 + case.rays, stride, stride),
        )
        merged = inferer(
            torch.from_numpy(image)[None, None], lambda batch: torch.cat(both(batch), dim=1)
        )
        maps = np.asarray(merged[0])
    extent = (image.shape[0], image.shape[1])
    rows, columns = (-(-n // case.grid) for n in extent)
    return label_whole(case, maps[0, :rows, :columns], maps[1:, :rows, :columns], extent)
