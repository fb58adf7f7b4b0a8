"""An archive through a real Dask-Gateway server: one cluster for all images, a bad one aside."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from journeys import Runner, read, save_image

pytest.importorskip("dask_gateway", reason="needs the extra gateway")
pytest.importorskip("dask_gateway_server", reason="needs dask-gateway-server[local]")

import dask
from command_line import Command, commands_in
from gateway_server import PASSWORD, Server, gateway_server

from engine.batch.document import Row, read_document
from engine.store import Location

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

TILES = (
    *("--set", "storage.chunk=128", "--set", "storage.shard=256", "--set", "tiling.tile=256"),
    *("--set", "segment.precision=float32"),
)
IMAGES = 20


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with (
        dask.config.set({"gateway.auth.kwargs.password": PASSWORD}),
        gateway_server(tmp_path_factory.mktemp("gateway")) as found,
    ):
        yield found


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    (tmp_path / "work").mkdir()
    return commands_in(tmp_path / "work", monkeypatch, capsys)


def rows(out: Path) -> dict[str, Row]:
    document = read_document(Location.parse(out))
    assert document is not None
    return document.rows


def test_twenty_images_with_one_damaged_on_one_cluster(
    server: Server, tilewright: Command, tmp_path: Path, run_recipe: Runner, nuclei: np.ndarray
) -> None:
    folder = tmp_path / "work"
    for k in range(IMAGES):
        save_image(folder / f"in/n{k:02d}.ome.zarr", np.roll(nuclei, 31 * k, axis=1)[:256, :256])
    damaged = folder / "in/n07.ome.zarr/zarr.json"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:30])
    words = (
        *("batch", "in", "--out", "out", *TILES, "--cluster", "gateway", *server.settings()),
        *("--workers", 2, "--cluster-set", "worker_memory_gib=3"),
        *("--cluster-set", "environment.DASK_LOGGING__DISTRIBUTED=error"),
    )
    answer = tilewright(*words)
    assert answer.code == 3, answer
    found = rows(folder / "out")
    assert [name for name, row in found.items() if row.state != "done"] == ["n07"]
    assert "zarr.json" in found["n07"].reason
    assert _gone(server)
    damaged.write_bytes(whole)
    assert tilewright(*words).code == 0
    again = rows(folder / "out")
    assert {name: row for name, row in again.items() if name != "n07"} == {
        name: row for name, row in found.items() if name != "n07"
    }
    for name in ("n00", "n07", "n19"):
        alone = tmp_path / f"{name}.ome.zarr"
        image = folder / f"in/{name}.ome.zarr"
        assert run_recipe(image, alone, "segment.precision=float32").complete
        for array in ("labels/nuclei/0", "maps/probability/0"):
            ours = read(folder / f"out/{name}.ome.zarr", array)
            assert np.array_equal(ours, read(alone, array)), (name, array)
    assert _gone(server)


def _gone(server: Server, within_s: float = 20) -> bool:
    """Whether all clusters of a server end."""
    deadline = time.monotonic() + within_s
    while server.clusters() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not server.clusters()
