"""A run as a user starts it: processes, a stop in the middle, a worker that dies, the same end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from journeys import read, save_image
from stardist import data

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

SETTINGS = [
    *("--set", "storage.chunk=128", "--set", "storage.shard=256"),
    *("--set", "tiling.tile=256"),
    *("--set", "segment.precision=float32", "--region", "256", "--workers", "2"),
]


def command(image: Path, out: Path) -> list[str]:
    arguments = ["run", str(image), str(out), "--recipe", "nuclei", *SETTINGS]
    return [sys.executable, "-m", "engine.cli", *arguments]


def start(image: Path, out: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(image, out),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_records(out: Path, count: int, process: subprocess.Popen[str]) -> None:
    folder = out / ".tilewright" / "records"
    deadline = time.monotonic() + 120
    while len(list(folder.glob("*/regions/*.jsonl"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no region was done in two minutes"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nuclei = np.asarray(data.test_image_nuclei_2d())
    pixels = np.pad(nuclei, [(0, 900 - 512), (0, 1100 - 512)], mode="symmetric")
    return save_image(tmp_path_factory.mktemp("image") / "image.zarr", pixels)


@pytest.fixture(scope="module")
def whole(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run without interruption."""
    out = tmp_path_factory.mktemp("whole") / "out.ome.zarr"
    process = start(image, out)
    text, errors = process.communicate(timeout=200)
    assert process.returncode == 0, text + errors
    assert "done" in text
    return out


def same(first: Path, second: Path) -> None:
    for name in ("labels/nuclei/0", "labels/nuclei/1", "maps/probability/0"):
        assert np.array_equal(read(first, name), read(second, name)), name
    tables = [
        pq.read_table(out / "tables" / "nuclei.parquet").sort_by("id") for out in (first, second)
    ]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows > 300


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_continued_is_as_never_stopped(
    image: Path, whole: Path, tmp_path: Path, how: signal.Signals
) -> None:
    out = tmp_path / "out.ome.zarr"
    process = start(image, out)
    wait_for_records(out, 3, process)
    asked = time.monotonic()
    process.send_signal(how)
    text, errors = process.communicate(timeout=60)
    assert time.monotonic() - asked < 30
    assert process.returncode == 130, text + errors
    assert "same command again" in errors
    assert "Traceback" not in text + errors
    again = start(image, out)
    text, errors = again.communicate(timeout=200)
    assert again.returncode == 0, text + errors
    assert "stand already" in text
    same(whole, out)


def test_a_worker_that_dies_is_replaced(image: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ome.zarr"
    process = start(image, out)
    wait_for_records(out, 2, process)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    max(workers, key=lambda child: child.memory_info().rss).kill()
    text, errors = process.communicate(timeout=200)
    assert process.returncode == 0, text + errors
    same(whole, out)
