"""Several runs in one process: each log has its own lines."""

import logging
import threading
from pathlib import Path

from engine.running.logs import log_to_folder
from engine.store import Location


def test_each_thread_has_its_own_log_and_all_have_what_workers_say(tmp_path: Path) -> None:
    engine = logging.getLogger("engine")
    before = engine.level
    both, done = threading.Barrier(3), threading.Barrier(3)

    def run(name: str) -> None:
        with log_to_folder(Location.parse(tmp_path / name)):
            both.wait()
            engine.info("line of %s", name)
            done.wait()
            both.wait()

    threads = [threading.Thread(target=run, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    both.wait()
    done.wait()
    engine.info("line of a worker")
    both.wait()
    for thread in threads:
        thread.join()
    for name, other in (("one", "two"), ("two", "one")):
        (file,) = (tmp_path / name).iterdir()
        text = file.read_text()
        assert f"line of {name}" in text
        assert f"line of {other}" not in text
        assert "line of a worker" in text
    assert engine.level == before
