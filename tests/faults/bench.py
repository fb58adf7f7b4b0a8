"""The processes of one place at the bench: drivers, a scheduler, workers; orders to strike."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psutil

from engine.cluster import WORKER_ENVIRONMENT
from tests.faults.hooks.fault_injection import FOLDER, install

HOOKS = Path(__file__).parent / "hooks"

#: How long a run of some seconds may take before it counts as hanging.
LIMIT_S = 90.0

_PRELOADED = ("engine.cli.main", "engine.api", "engine.running", "engine.report", "engine.tasks")
# To start a process is to ask all others how they are, and the answer is given once.
_FORKING = threading.RLock()
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([*_PRELOADED, "engine.networks.stardist"])


class DefectError(AssertionError):
    """The engine did not keep a promise."""


def wait_until(found: Callable[[], bool], what: str, limit_s: float = LIMIT_S) -> None:
    """Wait for a state that can be observed.

    Raises
    ------
    DefectError
        If it does not come about in time.
    """
    deadline = time.monotonic() + limit_s
    while not found():
        if time.monotonic() > deadline:
            msg = f"waited {limit_s:.0f} s for {what}"
            raise DefectError(msg)
        time.sleep(0.02)


class Driver:
    """One call of the command line, in a session of its own.

    Parameters
    ----------
    words : tuple of str
        What stands behind ``tilewright``.
    environment : mapping of str to str
        Beside that of this process.
    log : Path
        Takes what it prints.
    cold : bool
        Start a Python of its own rather than fork one that has imported the engine; the wall clock
        can be set wrong in such a one only.
    """

    def __init__(
        self, words: tuple[str, ...], environment: Mapping[str, str], log: Path, *, cold: bool
    ) -> None:
        self.words = words
        self._started = time.monotonic()
        self._log = log
        self._process: subprocess.Popen[bytes] | BaseProcess
        if cold:
            with log.open("wb") as file:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "engine.cli", *words],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, **environment},
                )
        else:
            log.write_bytes(b"")
            self._process = _FORKS.Process(
                target=_command_line, args=(words, dict(environment), str(log))
            )
            with _FORKING:
                self._process.start()
        if self._process.pid is None:
            raise TypeError("a process that was started has a number")
        self.pid = self._process.pid

    def code(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        with _FORKING:
            return self._process.exitcode

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Exit code, once it has ended.

        Raises
        ------
        DefectError
            If it hangs.
        """
        try:
            wait_until(lambda: self.code() is not None, f"the end of {self}", limit_s)
        except DefectError as err:
            msg = f"{err}; it printed: {self.text()[-1500:]}"
            raise DefectError(msg) from err
        code = self.code()
        if code is None:
            raise TypeError("a process that has ended has an exit code")
        return code

    @property
    def age_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to the driver alone; whether it still ran."""
        if self.code() is not None:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def workers(self) -> list[psutil.Process]:
        """Worker processes that it started."""
        return _workers_below(self.pid)

    def text(self) -> str:
        """What it printed so far."""
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """Kill what is left of its session."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        if isinstance(self._process, subprocess.Popen):
            self._process.wait(10)
        else:
            wait_until(lambda: self.code() is not None, f"{self} to be dead", 10)

    def __str__(self) -> str:
        return f"tilewright {' '.join(self.words[:3])} (process {self.pid})"


class SharedCluster:
    """A scheduler and two workers that stay while drivers come and go.

    Parameters
    ----------
    folder : Path
        Takes logs, and orders for what strikes inside the workers.
    environment : mapping of str to str
        Beside that of this process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._file = folder / f"scheduler-{time.monotonic_ns()}.json"
        self._environment = environment
        self._parts: list[subprocess.Popen[bytes]] = []
        quiet = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
        self._start("scheduler", *quiet, "--scheduler-file", str(self._file))
        self._start(
            "worker", "--scheduler-file", str(self._file), "--nworkers", "2", "--nthreads", "2",
            "--no-dashboard", "--preload", "engine.tasks", "--local-directory", str(folder),
        )  # fmt: skip
        try:
            wait_until(self.ready, f"a scheduler with two workers, see {folder}")
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Where drivers find it."""
        found: str = json.loads(self._file.read_text())["address"]
        return found

    def ready(self) -> bool:
        """Whether both workers are there."""
        try:
            document = json.loads(self._file.read_text())
            port = document["services"]["dashboard"]
            url = f"http://127.0.0.1:{port}/json/counts.json"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(json.load(answer)["workers"] == 2)
        except (OSError, URLError, ValueError):
            return False

    def workers(self) -> list[psutil.Process]:
        """Worker processes."""
        return _workers_below(self._parts[1].pid)

    def kill_scheduler(self) -> None:
        """Kill the scheduler; the workers find out by themselves."""
        self._parts[0].kill()

    def close(self) -> None:
        """Kill everything."""
        for part in self._parts:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(part.pid, signal.SIGKILL)
            part.wait(10)

    def _start(self, name: str, *words: str) -> None:
        with (self._folder / f"{name}.log").open("ab") as log:
            part = subprocess.Popen(
                [sys.executable, "-m", "dask", name, *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                env={**os.environ, **WORKER_ENVIRONMENT, **self._environment},
            )
        self._parts.append(part)


class Bench:
    """One place at the bench.

    Parameters
    ----------
    folder : Path
        Its own.
    environment : mapping of str to str
        What all its processes get, such as credentials of a store.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._environment = {
            **environment,
            FOLDER: str(folder),
            "PYTHONPATH": os.pathsep.join(
                [str(HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "200",
        }
        self._cluster: SharedCluster | None = None
        self._drivers: list[Driver] = []
        self._logs = 0

    def drive(
        self, *words: str, cold: bool = False, environment: Mapping[str, str] | None = None
    ) -> Driver:
        """Start ``tilewright`` with these words."""
        self._logs += 1
        log = self.folder / f"driver-{self._logs:04d}.log"
        driver = Driver(words, {**self._environment, **(environment or {})}, log, cold=cold)
        self._drivers.append(driver)
        return driver

    def cluster(self) -> SharedCluster:
        """Scheduler with two workers; a new one where the last was hurt beyond use."""
        if self._cluster is not None and not self._cluster.ready():
            try:
                wait_until(self._cluster.ready, "workers that were killed to be replaced", 15)
            except DefectError:
                self._cluster.close()
                self._cluster = None
        if self._cluster is None:
            self._cluster = SharedCluster(self.folder, self._environment)
        return self._cluster

    def arm(self, **order: Any) -> None:
        """Give an order to the processes; see `tests.faults.hooks.fault_injection`."""
        self.disarm()
        partial = self.folder / "armed.partial"
        partial.write_text(json.dumps(order))
        partial.replace(self.folder / "armed.json")

    def disarm(self) -> str:
        """Take the order back; what struck, or nothing."""
        (self.folder / "armed.json").unlink(missing_ok=True)
        struck = self.folder / "struck"
        note = struck.read_text() if struck.is_file() else ""
        struck.unlink(missing_ok=True)
        return note

    def clear(self) -> None:
        """End all drivers, and take back what was ordered."""
        for driver in self._drivers:
            driver.end()
        self._drivers.clear()
        self.disarm()

    def close(self) -> None:
        """End everything."""
        self.clear()
        if self._cluster is not None:
            self._cluster.close()


def _workers_below(pid: int) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


def _command_line(words: tuple[str, ...], environment: dict[str, str], log: str) -> None:
    """Be ``tilewright``, in a process that was forked for it."""
    os.setsid()
    # Its own keeper of semaphores: what a killed driver leaves is no concern of the others.
    keeper = resource_tracker._resource_tracker
    keeper._fd = keeper._pid = None  # type: ignore[attr-defined]
    os.environ.update(environment)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    install()
    sys.argv = ["tilewright", *words]
    from engine.cli import main  # after the environment is set

    main()
