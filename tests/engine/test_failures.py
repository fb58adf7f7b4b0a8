"""What workers do to a run when they fail or die, on real worker processes; no pixel is made."""

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from distributed import Client
from journeys import save_image

import engine.cluster.configuration
from engine.cluster import ClusterSpec, open_cluster
from engine.errors import StoppedRunError
from engine.planning import Job, Pass, make_plan
from engine.recipe import load_settings
from engine.running.window import Given, Window
from engine.store import Location
from engine.tasks import Receipt, Unit
from engine.work import Done
from tiling import Region

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

# Workers cannot import the modules of these tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

RETRIES = 2


def said(folder: Path, region: Region) -> list[int]:
    """Processes that began a region, in order."""
    path = folder / region.key
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def note(folder: Path, region: Region) -> int:
    """Say that a region is begun; how often it was."""
    with (folder / region.key).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(said(folder, region))


def kill(folder: Path, how: int, bad: str, _job: Job, _step: Pass, region: Region) -> Done:
    """End the process at one region, while others are at work beside it."""
    note(folder, region)
    if region.key == bad:
        time.sleep(0.2)
        if how == 0:
            os._exit(1)
        os.kill(os.getpid(), how)
    time.sleep(0.4)
    return Done({"n": 1})


def fail(folder: Path, bad: str, often: int, _job: Job, _step: Pass, region: Region) -> Done:
    """Raise at one region, the first times."""
    if note(folder, region) <= often and region.key == bad:
        msg = "chunk 3 cannot be decoded"
        raise ValueError(msg)
    return Done()


def sleep(_job: Job, _step: Pass, _region: Region) -> Done:
    """Hold a thread."""
    time.sleep(60)
    return Done()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """Job of the identity recipe with 16 regions."""
    folder = tmp_path_factory.mktemp("failures")
    image = save_image(folder / "image.zarr", np.zeros((1024, 1024), "u1"))
    settings = load_settings("identity", ["storage.chunk=128", "storage.shard=256"])
    return make_plan(str(image), folder / "unused.ome.zarr", settings).job


@pytest.fixture
def job(plain: Job, tmp_path: Path) -> Job:
    """The same, with an OUT of its own."""
    return replace(plain, out=Location.parse(tmp_path / "out.ome.zarr"))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two worker processes of two threads."""
    with open_cluster(ClusterSpec("local", 2, 2)) as client:
        yield client


def units_of(job: Job, size: int) -> list[Unit]:
    """All regions of the copy, some in each unit."""
    step = job.passes()[0]
    regions = list(step.grid)
    return [Unit(step, tuple(regions[k : k + size])) for k in range(0, len(regions), size)]


def outcome(
    client: Client,
    job: Job,
    units: list[Unit],
    doing: Callable[[Job, Pass, Region], Done],
) -> tuple[Counter[str], list[Given]]:
    """Regions in receipts, with their number, and those given up."""
    done: Counter[str] = Counter()
    given = []
    for found in Window(client, job, 1, RETRIES, lambda: None, doing).run(units):
        if isinstance(found, Given):
            given.append(found)
        else:
            receipt: Receipt = found[1]
            assert receipt.bundle is not None
            done.update(record.region.key for record in receipt.bundle.records())
    return done, given


@pytest.mark.parametrize(
    ("how", "size"),
    [(0, 4), (signal.SIGKILL, 1), (signal.SIGSEGV, 1)],
    ids=["exit", "kill", "segv"],
)
def test_a_region_that_kills_its_worker_is_given_up_alone(
    client: Client, job: Job, tmp_path: Path, how: int, size: int
) -> None:
    units = units_of(job, size)[: 8 if size == 1 else 4]
    regions = [region for unit in units for region in unit.regions]
    bad = regions[5]
    done, given = outcome(client, job, units, partial(kill, tmp_path, how, bad.key))
    assert [(g.unit.regions, g.attempts) for g in given] == [((bad,), RETRIES + 1)]
    assert "died 3 times" in given[0].message
    assert set(done) == {r.key for r in regions} - {bad.key}
    # Once in its bundle, where there is one, then by itself.
    assert len(said(tmp_path, bad)) == RETRIES + 1 + (size > 1)
    # What ran beside it when it first died is not taken along again and again.
    others = [len(said(tmp_path, r)) for r in regions if r != bad]
    assert max(others) <= (2 if size == 1 else 3)
    assert sum(client.nthreads().values()) >= 2


def test_a_region_that_fails_is_tried_elsewhere_after_a_pause(
    client: Client, job: Job, tmp_path: Path
) -> None:
    # All workers are back, however many deaths there were before.
    client.wait_for_workers(2, timeout=30)
    units = units_of(job, 4)[:2]
    bad = units[0].regions[2]
    begun = time.monotonic()
    _, given = outcome(client, job, units, partial(fail, tmp_path, bad.key, 2))
    assert given == []
    assert time.monotonic() - begun >= 1.5
    first, second, third = said(tmp_path, bad)
    assert first != second != third
    # The others of its bundle are not done again.
    assert all(len(said(tmp_path, r)) == 1 for u in units for r in u.regions if r != bad)


def test_a_region_that_always_fails_is_given_up_with_its_error(
    client: Client, job: Job, tmp_path: Path
) -> None:
    units = units_of(job, 4)[:2]
    bad = units[1].regions[0]
    _, given = outcome(client, job, units, partial(fail, tmp_path, bad.key, 99))
    assert [(g.unit.regions, g.attempts) for g in given] == [((bad,), RETRIES + 1)]
    assert given[0].message == "ValueError: chunk 3 cannot be decoded"


def test_what_workers_log_comes_to_the_log_and_not_to_the_terminal(
    client: Client,
    job: Job,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    units = units_of(job, 1)[:1]
    with caplog.at_level(logging.WARNING, logger="engine"):
        outcome(client, job, units, partial(fail, tmp_path, units[0].regions[0].key, 99))
        time.sleep(0.5)
    records = [r for r in caplog.records if r.name == "engine.tasks"]
    assert len(records) == RETRIES + 1
    assert "chunk 3 cannot be decoded" in str(records[0].exc_text)
    assert capfd.readouterr().err == ""


def test_a_stop_does_not_wait_for_tasks(job: Job, tmp_path: Path) -> None:
    """Also: the log goes on where Dask silences the terminal."""
    logger = logging.getLogger("distributed")
    handler = logging.FileHandler(tmp_path / "log")
    logger.addHandler(handler)
    asked = 0.0

    def check() -> None:
        nonlocal asked
        if list((tmp_path / "out.ome.zarr").glob(".tilewright/attempts/*/*/*")):
            asked = time.monotonic()
            raise KeyboardInterrupt

    try:
        with (
            pytest.raises(KeyboardInterrupt),
            open_cluster(ClusterSpec("local", 1, 2)) as client,
        ):
            list(Window(client, job, 1, 3, check, sleep).run(units_of(job, 1)))
        assert time.monotonic() - asked < 8
        assert handler.level == logging.NOTSET
    finally:
        logger.removeHandler(handler)
        handler.close()
    assert "killed by signal 9" in (tmp_path / "log").read_text()


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[tuple[str, list["subprocess.Popen[bytes]"]]]:
    """Scheduler and worker that run by themselves."""
    place = tmp_path / "scheduler.json"
    base = [sys.executable, "-m", "dask"]
    ours = ["--scheduler-file", str(place), "--no-dashboard", "--host", "127.0.0.1"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    quiet["env"] = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    commands = [
        [*base, "scheduler", "--port", "0", *ours],
        [*base, "worker", "--nthreads", "1", "--no-nanny", *ours, "--memory-limit", "0"],
    ]
    processes = [subprocess.Popen(words, cwd=tmp_path, **quiet) for words in commands]
    try:
        with Client(scheduler_file=str(place), timeout=30) as client:
            client.wait_for_workers(1, timeout=60)
            address = client.scheduler.address
        yield address, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_scheduler_that_dies_stops_the_run_and_no_region_is_blamed(
    job: Job,
    tmp_path: Path,
    foreign: tuple[str, list["subprocess.Popen[bytes]"]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engine.cluster.configuration, "CONNECT_TIMEOUT_S", 2)
    address, (scheduler, _) = foreign
    killed = 0.0

    def check() -> None:
        nonlocal killed
        begun = list((tmp_path / "out.ome.zarr").glob(".tilewright/attempts/*/*/*"))
        if begun and not killed:
            killed = time.monotonic()
            scheduler.kill()

    found = []
    with open_cluster(ClusterSpec(address, 1, 1)) as client:
        window = Window(client, job, 1, 0, check, sleep)
        with pytest.raises(StoppedRunError, match="the scheduler is gone"):
            found += window.run(units_of(job, 1))
    assert found == []
    assert 0 < time.monotonic() - killed < 20


def full_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have the disk be full after some writes of any kind: pixels, records, marks, reports."""
    left = iter(range(count))
    real = {name: getattr(Location, name) for name in ("write_bytes", "create_bytes")}

    def refusing(name: str) -> Callable[[Location, bytes], Any]:
        def write(place: Location, data: bytes) -> Any:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))
            return real[name](place, data)

        return write

    for name in real:
        monkeypatch.setattr(Location, name, refusing(name))


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_full_disk_is_no_fault_of_a_region(
    job: Job, cluster_address: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Neither where the note of an attempt is refused nor where a record is."""
    full_after(monkeypatch, count)
    with Client(cluster_address) as client:
        flight = Window(client, job, 1, 3, lambda: None, lambda *_: Done()).run(units_of(job, 1))
        found: list[object] = []
        with pytest.raises(StoppedRunError, match="No space left on device") as raised:
            found.extend(flight)
    assert raised.value.exit_code == 3
    assert not [f for f in found if isinstance(f, Given)]
