"""The log of a run: one file beside its records."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.store import Location

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_LOGGERS = ("engine", "distributed")

#: Threads of this process that drive a run, each with a log of its own.
_DRIVERS: set[int] = set()
_LEVEL = {"before": logging.NOTSET}
_LOCK = threading.Lock()


@contextmanager
def log_to_folder(folder: Location) -> Iterator[None]:
    """Write what this process logs to a new object in `folder`, until the block ends.

    On a disk line by line; elsewhere as a whole, at the end. A log that cannot be written, as on a
    full disk, ends no run: its lines go to the terminal. Of several runs in this process, each on
    a thread of its own, none has the lines of another's thread; what workers say, all have.
    """
    name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.log"
    with TemporaryDirectory() as scratch:
        place = folder.path if folder.is_local else Path(scratch)
        place.mkdir(parents=True, exist_ok=True)
        try:
            with _logging_to(place / name):
                yield
        finally:
            if not folder.is_local:
                try:
                    (folder / name).write_bytes((place / name).read_bytes())
                except OSError as err:
                    logging.getLogger(__name__).warning("the log is lost: %s", err)


class _File(logging.FileHandler):
    """A log file that says once when it cannot be written."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Say that lines are lost, at the first of them."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
        elif not self.broken:
            self.broken = True
            sys.stderr.write(f"log {self.baseFilename}: {sys.exc_info()[1]}\n")

    def close(self) -> None:
        """Close; what could not be written is told of already."""
        with suppress(OSError):
            super().close()

    broken = False


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    own = threading.get_ident()

    def wanted(record: logging.LogRecord) -> bool:
        elsewhere = record.process != os.getpid() or record.thread not in _DRIVERS
        return elsewhere or record.thread == own

    handler.addFilter(wanted)
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    _drive(own)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        _rest(own)
        handler.close()


def _drive(thread: int) -> None:
    """Note a driver; the first has the engine log what it does."""
    engine = logging.getLogger(_LOGGERS[0])
    with _LOCK:
        if not _DRIVERS:
            _LEVEL["before"] = engine.level
            engine.setLevel(logging.INFO)
        _DRIVERS.add(thread)


def _rest(thread: int) -> None:
    """Forget a driver; the last puts the level back."""
    with _LOCK:
        _DRIVERS.discard(thread)
        if not _DRIVERS:
            logging.getLogger(_LOGGERS[0]).setLevel(_LEVEL["before"])
