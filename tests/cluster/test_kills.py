"""Long runs on clusters that servers start: scaled, adapted, hurt and stopped; the same result."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from journeys import read, save_image
from own_cluster import kill_family, own_cluster, wait_for_records

pytest.importorskip("dask_gateway", reason="needs the extra gateway")
pytest.importorskip("dask_gateway_server", reason="needs dask-gateway-server[local]")

from gateway_server import PASSWORD, Server, gateway_server

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

SETTINGS = (
    *("--recipe", "nuclei", "--set", "storage.chunk=128", "--set", "storage.shard=256"),
    *("--set", "tiling.tile=256", "--set", "segment.precision=float32", "--region", "256"),
)
ARRAYS = ("labels/nuclei/0", "labels/nuclei/1", "maps/probability/0")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with gateway_server(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray) -> Path:
    pixels = np.pad(nuclei, [(0, 1100 - 512), (0, 1200 - 512)], mode="symmetric")
    return save_image(tmp_path_factory.mktemp("image") / "image.zarr", pixels)


@pytest.fixture(scope="module")
def whole(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run on this machine, without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out.ome.zarr"
    finish(start(image, out, "--workers", "2"))
    return out


def start(image: Path, out: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "engine.cli", "run", str(image), str(out), *SETTINGS, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DASK_GATEWAY__AUTH__KWARGS__PASSWORD": PASSWORD,
        },
    )


def finish(process: "subprocess.Popen[str]") -> None:
    text, errors = process.communicate(timeout=300)
    assert process.returncode == 0, text + errors
    assert "Traceback" not in errors, errors


def same(first: Path, second: Path) -> None:
    for name in ARRAYS:
        assert np.array_equal(read(first, name), read(second, name)), name


def until(true: Callable[[], bool], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def on_gateway(server: Server, *settings: str) -> list[str]:
    words = [word for setting in settings for word in ("--cluster-set", setting)]
    return ["--cluster", "gateway", *server.settings(), *words]


def worker_of(nanny: psutil.Process) -> psutil.Process:
    found = nanny.children(recursive=True)
    return max(found, key=lambda child: child.memory_info().rss)


def test_scaled_to_two_and_both_killed_in_turn(
    server: Server, image: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    process = start(image, out, *on_gateway(server, "workers=2", "worker_memory_gib=3"))
    wait_for_records(out, 3)
    until(lambda: len(server.nannies()) == 2, 60, "two workers")
    # Its nanny starts another one.
    worker_of(server.nannies()[0]).kill()
    wait_for_records(out, 5)
    # The server starts another one.
    killed = server.nannies()[1]
    kill_family(killed)
    finish(process)
    same(out, whole)
    until(lambda: not server.clusters(), 30, "the cluster to end")


def test_adapted_between_bounds(server: Server, nuclei: np.ndarray, tmp_path: Path) -> None:
    # Larger than the others: the second worker is asked for when the first one has begun.
    pixels = np.pad(nuclei, [(0, 2600 - 512), (0, 2400 - 512)], mode="symmetric")
    image = save_image(tmp_path / "image.zarr", pixels)
    whole, out = tmp_path / "whole.ome.zarr", tmp_path / "out.ome.zarr"
    finish(start(image, whole, "--workers", "2"))
    process = start(
        image,
        out,
        *on_gateway(server, "adapt_min=1", "adapt_max=3", "worker_memory_gib=3"),
        *("--cluster-set", "environment.DASK_DISTRIBUTED__ADAPTIVE__TARGET_DURATION=100ms"),
    )
    most = 0
    while process.poll() is None:
        most = max(most, len(server.nannies()))
        time.sleep(0.2)
    finish(process)
    # One that was let go may still be ending while another starts.
    assert most >= 2
    same(out, whole)
    until(lambda: not server.clusters(), 30, "the cluster to end")


def test_stopped_with_nothing_left_and_continued(
    server: Server, image: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    words = on_gateway(server, "workers=1", "worker_memory_gib=3")
    process = start(image, out, *words)
    wait_for_records(out, 2)
    process.send_signal(signal.SIGINT)
    text, errors = process.communicate(timeout=60)
    assert process.returncode == 130, text + errors
    assert "Traceback" not in errors
    until(lambda: not server.clusters(), 30, "the cluster to end")
    # While the cluster starts, too.
    again = start(image, out, *words)
    until(lambda: bool(server.clusters()), 60, "a scheduler")
    again.send_signal(signal.SIGINT)
    text, errors = again.communicate(timeout=60)
    assert again.returncode == 130, text + errors
    until(lambda: not server.clusters(), 30, "the cluster to end")
    finish(start(image, out, *words))
    same(out, whole)


def test_a_cluster_that_is_left_serves_again(
    server: Server, image: Path, whole: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "out.ome.zarr", tmp_path / "other.ome.zarr"
    finish(start(image, out, *on_gateway(server, "workers=1", "leave=true", "idle_timeout_s=60")))
    (name,) = {p.name for p in (server.log.parent / "clusters").iterdir()}
    assert server.nannies()
    finish(start(image, other, *on_gateway(server, f"name={name}")))
    same(out, whole)
    same(other, whole)
    until(lambda: not server.clusters(), 30, "the cluster to end")


def test_a_scheduler_and_workers_of_ones_own(image: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    with own_cluster(tmp_path, workers=1) as cluster:
        second = cluster.add_worker()
        cluster.wait_for_workers(2)
        process = start(image, out, "--cluster", cluster.address)
        wait_for_records(out, 3)
        kill_family(second)
        cluster.add_worker()
        finish(process)
        # It is not ours to end.
        assert cluster.processes[0].poll() is None
    same(out, whole)
