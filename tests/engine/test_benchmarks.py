"""The benchmarks measure what they say: the same launches, the same objects, as many records."""

from __future__ import annotations

import importlib
import subprocess
import sys
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


@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_regions_that_cost_nothing_are_recorded_and_resumed(scripts: Any, tmp_path: Path) -> None:
    scale, side = scripts("scale"), 70
    ended = scale.run(tmp_path, side, "--end", "2500")
    folder = tmp_path / "out.ome.zarr" / ".tilewright"
    assert not list((folder / "lease").glob("*.end"))
    # What a worker was writing when the run was killed.
    late = folder / "records" / "000001" / "image" / ".half"
    late.parent.mkdir(parents=True, exist_ok=True)
    late.write_text("half a rec")
    with scale.scheduler(tmp_path) as (address, process):
        found = scale.run(tmp_path, side, "--cluster", address, "--scheduler", str(process))
    assert found["before"] >= ended["regions"] >= 2500
    assert found["before"] + found["regions"] == side * side
    # Fifty regions share an object, whatever row they end on; some units are not full.
    assert found["regions"] / 50 <= found["record_objects"] <= found["regions"] / 50 + 2
    assert found["objects_after"] == 0
    assert found["segments"] <= 3
    assert found["rows"][-1]["regions"] <= found["regions"]
    assert found["scheduler_peak_bytes"] > 2**20
    assert " all done" in scale.plan(tmp_path, side)["said"]


def test_growth_is_that_of_the_last_image(scripts: Any) -> None:
    rows = [{"driver_peak_bytes": n} for n in (1, 100, 108)]
    assert scripts("scale").growth(rows, "driver_peak_bytes") == 0.08
    assert scripts("scale").growth(rows[:1], "driver_peak_bytes") is None


def test_planning_imports_no_geometry() -> None:
    """Half of the time of the command, before: see `plan` in benchmarks/scale.py."""
    code = "import sys, engine.cli.main as m; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"stardist", "skimage", "scipy", "numba", "torch", "distributed"}
    assert not heavy & set(done.stdout.split())
