"""The benchmarks measure what they say: the same launches, and the same objects by every peer."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journeys import save_image

import engine
from engine.stages.stardist import Candidates

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = (
    "MONAI SlidingWindowInferer",
    "MONAI PatchInferer + ZarrAvgMerger",
    "stardist BlockND.cover",
    "dask map_overlap",
)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.fixture
def planned(tmp_path: Path, nuclei: np.ndarray, model: str) -> tuple[Any, Path]:
    image = save_image(tmp_path / "image.zarr", np.pad(nuclei, [(0, 188), (0, 88)], "symmetric"))
    settings = [f"segment.model={model}", "segment.precision=float32", "storage.shard=512"]
    settings.append("resources.region=512")
    return engine.plan(image, tmp_path / "out.ome.zarr", overrides=settings), image


def test_the_bare_network_sees_the_launches_of_the_run(
    scripts: Any, planned: tuple[Any, Path]
) -> None:
    bare = scripts("bare")
    plan, _ = planned
    pixels = np.random.default_rng(0).random(plan.job.frame.extent, np.float32)
    batches = [batch for k in range(bare.PROCESSES) for batch in bare.record(plan, pixels, k)]
    assert sum(map(len, batches)) == plan.tiles.computed
    assert all(len(batch) <= plan.job.launch.tiles for batch in batches)
    tile = next(s for s in plan.job.pipeline().stages if isinstance(s, Candidates)).tiling.tile
    assert {batch.shape[1:] for batch in batches} == {(1, tile, tile)}
    # The first tile of the first region is the image's own corner.
    np.testing.assert_array_equal(batches[0][0, 0], pixels[:tile, :tile])


@pytest.mark.parametrize("name", PEERS)
def test_peers_find_the_nuclei(
    scripts: Any, planned: tuple[Any, Path], tmp_path: Path, name: str
) -> None:
    plan, image = planned
    case = scripts("common").Case.of_plan(
        plan, scripts("throughput").normalised(image, plan, tmp_path)
    )
    pixels = np.load(case.image)
    network = case.network()
    peer = scripts("run_peer").PEERS[name]
    labels = peer(case, pixels, network, 1)
    whole = scripts("peers.stardist_peer").blocks(case, pixels, network, 1)
    assert labels.shape == pixels.shape
    count, expected = len(np.unique(labels)) - 1, len(np.unique(whole)) - 1
    assert expected > 150
    assert abs(count - expected) <= 0.03 * expected
    both = (labels > 0) & (whole > 0)
    assert both.sum() > 0.93 * max((labels > 0).sum(), (whole > 0).sum())
