"""A file that is written as a stream and replaced in one step."""

from __future__ import annotations

import os
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.store.failures import write_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside a path, which takes its place once the block ends without an error.

    Parameters
    ----------
    path : Path
        File to write; what stands there stays until then.

    Yields
    ------
    BinaryIO
        Empty.

    Raises
    ------
    OutputError
        If it cannot be written. An `OSError` that the block raises counts as one: what it reads
        has errors of its own.
    """
    beside = path.with_name(f".{path.name}.partial-{uuid.uuid4().hex}")
    try:
        with beside.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as err:
        raise write_error(f"'{path}'", err) from err
    finally:
        beside.unlink(missing_ok=True)
