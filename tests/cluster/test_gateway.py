"""A run through a real Dask-Gateway server on the loopback interface: the same result as here."""

import sys
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

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

TILES = (
    *("--set", "storage.chunk=128", "--set", "storage.shard=256", "--set", "tiling.tile=256"),
    *("--set", "segment.precision=float32", "--region", "256", "--recipe", "nuclei"),
)
ARRAYS = ("labels/nuclei/0", "labels/nuclei/1", "maps/probability/0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with gateway_server(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(autouse=True)
def password() -> Iterator[None]:
    with dask.config.set({"gateway.auth.kwargs.password": PASSWORD}):
        yield


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    return commands_in(tmp_path, monkeypatch, capsys)


def gone(server: Server, within_s: float = 20) -> bool:
    """Whether all clusters of a server end."""
    deadline = time.monotonic() + within_s
    while server.clusters() and time.monotonic() < deadline:
        time.sleep(0.1)
    return not server.clusters()


def test_a_run_through_a_gateway_is_as_one_here(
    server: Server, tilewright: Command, tmp_path: Path, run_recipe: Runner, nuclei: np.ndarray
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    here = run_recipe(
        image, tmp_path / "here.ome.zarr", "segment.precision=float32", "resources.region=256"
    )
    assert here.complete
    there = tilewright(
        *("run", "image.ome.zarr", "there.ome.zarr"), *TILES,
        *("--cluster", "gateway"), *server.settings(), "--workers", 1,
        *("--cluster-set", "worker_memory_gib=3"),
        *("--cluster-set", "environment.DASK_LOGGING__DISTRIBUTED=error"),
    )  # fmt: skip
    assert there.code == 0, there.err
    assert there.err == ""
    for name in ARRAYS:
        ours, theirs = (read(tmp_path / f"{k}.ome.zarr", name) for k in ("here", "there"))
        assert np.array_equal(ours, theirs), name
    assert ours.any()
    assert gone(server)


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (("worker_memory_gib=100",), ("option worker_memory", "must be <= 8")),
        (("image=registry/name:1",), ("option image", "worker_memory, worker_cores, environment")),
        (("options.speed=11",), ("option speed", "one of the server's options")),
        (("pass_environment=NOT_SET_ANYWHERE",), ("pass_environment", "a variable of this")),
        (("address=http://127.0.0.1:1",), ("answers within", "refused")),
        (("address=file:///etc",), ("answers within", "no http address")),
        (("wokers=3",), ("--cluster-set wokers", "Did you mean 'workers'?")),
        (("partition=long",), ("--cluster-set partition", "a setting of this cluster (gateway)")),
        (("adapt_min=3", "adapt_max=2"), ("adapt_min <= adapt_max", "3 and 2")),
        (("image=registry:5000/name",), ("an image with a tag",)),
        (("idle_timeout_s=0",), ("--cluster-set idle_timeout_s", "found 0")),
    ],
)
def test_what_cannot_be_is_refused_before_a_cluster_is_asked_for(
    server: Server, tilewright: Command, settings: tuple[str, ...], messages: tuple[str, ...]
) -> None:
    save_image(Path("image.ome.zarr"), np.arange(64 * 64, dtype="u1").reshape(64, 64))
    words = [word for setting in settings for word in ("--cluster-set", setting)]
    several = () if "adapt_min=3" in settings else ("--workers", 1)
    started = time.monotonic()
    answer = tilewright(
        *("run", "image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity"),
        *("--cluster", "gateway", *server.settings(), *words, *several),
    )
    answer.refuses(*messages)
    assert time.monotonic() - started < 10
    assert server.clusters() == []


def test_a_wrong_password(server: Server, tilewright: Command) -> None:
    save_image(Path("image.ome.zarr"), np.arange(64 * 64, dtype="u1").reshape(64, 64))
    words = ("run", "image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity")
    with dask.config.set({"gateway.auth.kwargs.password": "another"}):
        answer = tilewright(*words, "--cluster", "gateway", *server.settings(), "--workers", 1)
    answer.refuses("401", "DASK_GATEWAY__AUTH__KWARGS__PASSWORD")
    assert PASSWORD not in answer.err
    assert "another" not in answer.err


@pytest.mark.slow
def test_no_worker_in_time(server: Server, tilewright: Command) -> None:
    save_image(Path("image.ome.zarr"), np.arange(64 * 64, dtype="u1").reshape(64, 64))
    words = ("run", "image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity")
    started = time.monotonic()
    # A worker that does not start: Dask has no such option.
    late = ("--cluster-set", "options.arguments=--no-such-option", "--cluster-set", "wait_s=8")
    answer = tilewright(*words, "--cluster", "gateway", *server.settings(), *late, "--workers", 1)
    answer.refuses("at least one worker within", "the server's log")
    assert time.monotonic() - started < 30
    assert gone(server)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, tilewright: Command) -> None:
    monkeypatch.setitem(sys.modules, "dask_gateway", None)
    save_image(Path("image.ome.zarr"), np.arange(64 * 64, dtype="u1").reshape(64, 64))
    answer = tilewright(
        *("run", "image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity"),
        *("--cluster", "gateway", "--workers", 1, "--cluster-set", "address=http://127.0.0.1:1"),
    )
    answer.refuses("the package dask_gateway", "pip install 'tilewright[gateway]'")
