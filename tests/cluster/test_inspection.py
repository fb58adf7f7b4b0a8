"""Workers that are not as this process is: said before the first region, or passed over later."""

import shutil
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from journeys import Runner, read, save_image
from own_cluster import OwnCluster, kill_family, own_cluster

from engine.api import Silent
from engine.cluster import ClusterSpec, check_cluster, inspect_cluster, inspection, open_cluster
from engine.errors import ModelError, ResourceError
from engine.networks.model_folder import open_model
from engine.planning import make_plan
from engine.recipe import load_settings
from engine.running import execute

# In `make test-cluster`: each starts a scheduler and workers of its own.
pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(240)]

SETTINGS = ("storage.chunk=128", "storage.shard=256", "tiling.tile=256")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnCluster]:
    with own_cluster(tmp_path_factory.mktemp("cluster"), workers=1) as found:
        yield found


def other_torch(folder: Path) -> str:
    """Path on which torch seems to be another version."""
    place = folder / "site" / "torch-1.0.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 1.0\n")
    return str(place.parent)


def test_a_worker_without_the_model_or_with_another(
    cluster: OwnCluster, nuclei: np.ndarray, tmp_path: Path
) -> None:
    """What a worker does not see is gone from a disk that both see, after the plan was made."""
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    mine = Path(shutil.copytree(open_model("nuclei-fluo").path, tmp_path / "mine"))
    out = tmp_path / "OUT.ome.zarr"
    settings = load_settings("nuclei", [*SETTINGS, f"segment.model={mine}"])
    plan = make_plan(str(image), out, settings)
    mine.rename(tmp_path / "hidden")
    with pytest.raises(ModelError, match=r"worker tcp.*model .*mine' cannot be read.*every worker"):
        execute(plan, cluster.address, Silent())
    assert not out.exists()
    shutil.copytree(tmp_path / "hidden", mine)
    (mine / "thresholds.json").write_text('{"prob": 0.7, "nms": 0.4}')
    with pytest.raises(ModelError, match=r"worker tcp.*mine' has other bytes than here"):
        check_cluster(ClusterSpec(cluster.address, 1, 1), plan.job)
    shutil.rmtree(mine)
    (tmp_path / "hidden").rename(mine)
    check_cluster(ClusterSpec(cluster.address, 1, 1), plan.job)


def test_a_worker_of_another_version(cluster: OwnCluster, tmp_path: Path) -> None:
    late = cluster.add_worker(PYTHONPATH=other_torch(tmp_path))
    try:
        cluster.wait_for_workers(2)
        with (
            pytest.raises(ResourceError, match=r"worker tcp.*torch 1\.0 instead of"),
            open_cluster(ClusterSpec(cluster.address, 1, 1)),
        ):
            pass
    finally:
        kill_family(late)


def test_one_that_comes_later_does_nothing(
    cluster: OwnCluster, nuclei: np.ndarray, run_recipe: Runner, tmp_path: Path
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    assert run_recipe(image, tmp_path / "here.ome.zarr", "segment.precision=float32").complete
    settings = load_settings("nuclei", [*SETTINGS, "segment.precision=float32"])
    plan = make_plan(str(image), tmp_path / "OUT.ome.zarr", settings)
    late = []

    class Joins(Silent):
        """Has another worker join when the first region is done."""

        def cluster_started(self, dashboard: str, workers: int) -> None:
            assert workers == 1
            late.append(cluster.add_worker(PYTHONPATH=other_torch(tmp_path)))
            cluster.wait_for_workers(2)

    try:
        outcome = execute(plan, cluster.address, Joins())
    finally:
        kill_family(late[0])
    assert outcome.complete
    log = next((tmp_path / "OUT.ome.zarr/.tilewright/logs").iterdir()).read_text()
    assert "torch 1.0 instead of" in log
    name = "labels/nuclei/0"
    ours, theirs = (read(tmp_path / f"{k}.ome.zarr", name) for k in ("here", "OUT"))
    assert np.array_equal(ours, theirs)


def test_an_installation_at_another_place_serves(
    cluster: OwnCluster, nuclei: np.ndarray, tmp_path: Path
) -> None:
    """As in an image: networks that come with the package are found where it lies there."""
    site = tmp_path / "site"
    for package in ("engine", "tiling"):
        origin = Path(str(import_module(package).__file__)).parent
        shutil.copytree(origin, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    # What others edit while the tests run is no other code.
    inspection._code.cache_clear()
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    job = make_plan(str(image), tmp_path / "OUT.ome.zarr", load_settings("nuclei", SETTINGS)).job
    other = cluster.add_worker(PYTHONPATH=str(site))
    try:
        cluster.wait_for_workers(2)
        with open_cluster(ClusterSpec(cluster.address, 1, 1)) as client:
            inspect_cluster(client, "here", job)
            found = {*client.run(lambda sent: str(sent.model.path), job).values()}
    finally:
        kill_family(other)
    assert job.model is not None
    assert found == {str(job.model.path), str(site / "engine/networks/bundled/nuclei-fluo")}
