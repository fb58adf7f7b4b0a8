"""Dask's own words on dying processes stay off the terminal; errors of tasks still arrive."""

import logging
import os
import signal
from pathlib import Path

import pytest

from engine.cluster import ClusterSpec, open_cluster
from engine.running.logs import log_to_folder
from engine.store import Location

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def speak() -> int:
    """Say what Dask, tornado and asyncio say of lost connections, in a worker process."""
    for name in ("distributed.batched", "distributed.client", "tornado.application", "asyncio"):
        logging.getLogger(name).info("a connection was lost")
        logging.getLogger(name).error("a connection was lost")
    return os.getpid()


def fail() -> None:
    msg = "this one is ours"
    raise ArithmeticError(msg)


def test_only_our_errors_reach_the_terminal(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (
        log_to_folder(Location.parse(tmp_path)),
        open_cluster(ClusterSpec("local", 2, 1)) as client,
    ):
        found = client.run(speak)
        with pytest.raises(ArithmeticError, match="ours"):
            client.submit(fail).result()
        logging.getLogger("distributed.scheduler").warning("a worker was lost")
        os.kill(next(iter(found.values())), signal.SIGKILL)
        client.wait_for_workers(2, timeout=60)
    # What the scheduler says after its end.
    logging.getLogger("distributed.batched").error("a connection was lost")
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    (log,) = tmp_path.glob("*.log")
    assert "a worker was lost" in log.read_text()
