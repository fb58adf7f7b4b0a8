"""A Dask scheduler and workers that are started by themselves, as a user would, for a test."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client

from engine.cluster import WORKER_ENVIRONMENT


@dataclass
class OwnCluster:
    """Scheduler and workers; each worker has a nanny.

    Parameters
    ----------
    folder : Path
        Working folder of its processes, and place of their logs.
    """

    folder: Path
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)
    address: str = ""

    def start(self) -> None:
        """Start the scheduler."""
        place = self.folder / "scheduler.json"
        self._run("scheduler", "--host", "127.0.0.1", "--port", "0", "--scheduler-file", str(place))
        with Client(scheduler_file=str(place), timeout=60) as client:
            self.address = client.scheduler.address

    def add_worker(self, **environment: str) -> psutil.Process:
        """Start a nanny with a worker; it comes while the test goes on."""
        words = ("--nthreads", "2", "--memory-limit", "0", "--death-timeout", "30")
        process = self._run("worker", self.address, *words, **environment)
        return psutil.Process(process.pid)

    def wait_for_workers(self, count: int) -> None:
        """Wait until so many are there."""
        with Client(self.address, timeout=30) as client:
            client.wait_for_workers(count, timeout=90)

    def end(self) -> None:
        """End all processes, workers of nannies included."""
        for process in reversed(self.processes):
            family = [process, *_children(process.pid)]
            for one in family:
                if one.poll() is None if isinstance(one, subprocess.Popen) else one.is_running():
                    one.kill()
            process.wait()

    def _run(self, *words: str, **environment: str) -> "subprocess.Popen[bytes]":
        log = (self.folder / f"{len(self.processes)}-{words[0]}.log").open("wb")
        with log:
            process = subprocess.Popen(
                [sys.executable, "-m", "dask", *words, "--no-dashboard"],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                env={**os.environ, **WORKER_ENVIRONMENT, **environment},
            )
        self.processes.append(process)
        return process


@contextmanager
def own_cluster(folder: Path, workers: int) -> Iterator[OwnCluster]:
    """Scheduler and workers that end with the block."""
    cluster = OwnCluster(folder)
    try:
        cluster.start()
        for _ in range(workers):
            cluster.add_worker()
        if workers:
            cluster.wait_for_workers(workers)
        yield cluster
    finally:
        cluster.end()


def kill_family(process: psutil.Process) -> None:
    """Kill a nanny and its worker, the nanny first, so that it starts no other."""
    children = process.children(recursive=True)
    for one in (process, *children):
        with suppress(psutil.NoSuchProcess):
            one.kill()


def wait_for_records(out: Path, count: int, within_s: float = 120) -> None:
    """Wait until a run has so many record objects."""
    deadline = time.monotonic() + within_s
    folder = out / ".tilewright" / "records"
    while len(list(folder.glob("*/regions/*.jsonl"))) < count:
        assert time.monotonic() < deadline, f"no {count} records in {within_s} s"
        time.sleep(0.05)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
