"""deploy/local/run_local.sh, started for real: a gateway that answers, and leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from deployed import DEPLOY

pytest.importorskip("dask_gateway_server", reason="needs dask-gateway-server, of the extra test")

SCRIPT = DEPLOY / "local" / "run_local.sh"


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports() -> int:
    """First of three ports in a row that nobody uses."""
    for first in range(23000 + os.getpid() % 2000, 32000, 7):
        if not any(taken(first + i) for i in range(3)):
            return first
    raise AssertionError("no three free ports")


class Script:
    """The script with everything that it started."""

    def __init__(self, port: int, folder: Path) -> None:
        environment = {"PYTHON": sys.executable, "TMPDIR": str(folder), "PATH": os.environ["PATH"]}
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(SCRIPT), str(port)],
                env=environment | {"TILEWRIGHT_GATEWAY_PASSWORD": "right"},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def wait_for(self, text: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self) -> list[psutil.Process]:
        """End it; processes that are left.

        With SIGTERM: where tests run in the background, SIGINT is ignored.
        """
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=20)
        _, left = psutil.wait_procs(family, timeout=5)
        return left


@pytest.fixture
def script(tmp_path: Path) -> Iterator[tuple[Script, int]]:
    port = free_ports()
    started = Script(port, tmp_path)
    try:
        yield started, port
    finally:
        if started.process.poll() is None:
            started.stop()


def get(url: str, user: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url)
    if user:
        request.add_header("Authorization", f"Basic {user}")
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, ""


@pytest.mark.cluster
def test_gateway_answers_refuses_and_ends_with_the_script(
    script: tuple[Script, int], tmp_path: Path
) -> None:
    started, port = script
    started.wait_for("gateway ready", timeout_s=30)
    url = f"http://127.0.0.1:{port}"
    assert get(f"{url}/api/health") == (200, '{"status": "pass"}')
    # user:right and user:wrong
    assert get(f"{url}/api/v1/options", "dXNlcjp3cm9uZw==")[0] == 401
    code, text = get(f"{url}/api/v1/options", "dXNlcjpyaWdodA==")
    assert code == 200
    fields = {each["field"] for each in json.loads(text)["cluster_options"]}
    assert {"worker_cores", "worker_memory", "environment"} <= fields

    second = subprocess.run(
        [str(SCRIPT), str(port)],
        env=os.environ | {"PYTHON": sys.executable},
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert second.returncode == 2
    assert "is taken: give another" in second.stderr

    assert started.stop() == []
    assert started.process.returncode == 0
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


def test_a_python_without_a_gateway_is_refused_with_the_remedy(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    answer = subprocess.run(
        [str(SCRIPT)], env=os.environ | {"PYTHON": str(python)},
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert answer.returncode == 2
    assert "pip install dask-gateway" in answer.stderr
