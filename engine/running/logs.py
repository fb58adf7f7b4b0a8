"""The log of a run: one file beside its records."""

from __future__ import annotations

import logging
import sys
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


@contextmanager
def log_to_folder(folder: Location) -> Iterator[None]:
    """Write what this process logs to a new object in `folder`, until the block ends.

    On a disk line by line; elsewhere as a whole, at the end. A log that cannot be written, as on a
    full disk, ends no run: its lines go to the terminal.
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
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    engine = loggers[0]
    before = engine.level
    engine.setLevel(logging.INFO)
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        engine.setLevel(before)
        handler.close()
