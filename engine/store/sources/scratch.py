"""Files of object stores and web servers, brought to the scratch of this machine to be read.

A file lies in a folder of its own, below the temporary files, while some process here has it open:
each holds a shared lock on it. Who closes it last removes it; what a killed process left goes when
the next file is brought.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from engine.errors import InputError, ResourceError
from engine.store.failures import read_error
from engine.store.sources.base import FileStamp, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from engine.store.location import Location, Stat
    from engine.store.sources.base import SourceInfo
    from tiling.box import Box

#: Formats of several files, of which the first alone says nothing.
SEVERAL_FILES = frozenset([".mrxs", ".vms", ".vmu"])

#: Bytes of one request.
_PART = 32 * 2**20

_LOCK = "lock"

#: Begins the names of folders that are being removed.
_GONE = "gone-"

#: Pause where another process came between.
_TICK_S = 0.02


@dataclass(frozen=True)
class _Hold:
    """A file in scratch that this process may read until it lets go."""

    folder: Path
    file: Path
    handle: int

    def release(self) -> None:
        """Let go; the last one here removes the file."""
        _remove_unless_held(self.folder, self.handle)
        os.close(self.handle)


class StagedSource(Source):
    """A source whose file was brought here; in all else as the one that reads the file.

    Parameters
    ----------
    place : Location
        Where the file comes from.
    found : Stat
        What its store said of it.
    inner : Source
        Reads the file.
    hold : object
        Keeps the file until `close`, or until nothing refers to this source any more.
    """

    def __init__(self, place: Location, found: Stat, inner: Source, hold: _Hold) -> None:
        self.info: SourceInfo = inner.info
        self._place = place
        self._found = found
        self._inner = inner
        self._file = hold.file
        self._end = weakref.finalize(self, _close, inner, hold)

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box of one plane."""
        try:
            return self._inner.read(plane, box)
        except InputError as err:
            raise _by_url(err, self._file, self._place) from err

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """URL with the tag that its store gives, and size."""
        return (FileStamp(f"{self._place}#{self._found.tag}", self._found.size, 0),)

    def close(self) -> None:
        """Close the file, and let it go."""
        self._end()


def open_staged(place: Location, opener: Callable[[Path], Source]) -> StagedSource:
    """Bring a file here, once for all processes of this machine, and open it.

    Parameters
    ----------
    place : Location
        Object of a bucket, or file of a web server.
    opener : callable
        Opens a file on this machine.

    Returns
    -------
    StagedSource

    Raises
    ------
    InputError
        If there is no such file, it is of a format of several files, or it cannot be read.
    ResourceError
        If scratch has no room for it.
    """
    found = _stat(place)
    hold = _hold(place, found)
    try:
        return StagedSource(place, found, opener(hold.file), hold)
    except InputError as err:
        hold.release()
        raise _by_url(err, hold.file, place) from err
    except BaseException:
        hold.release()
        raise


def sweep(root: Path) -> None:
    """Remove files below a folder of scratch that no process has open."""
    for folder in root.iterdir():
        if folder.name.startswith(_GONE):
            shutil.rmtree(folder, ignore_errors=True)
            continue
        with suppress(OSError):
            handle = os.open(folder / _LOCK, os.O_RDWR)
            try:
                _remove_unless_held(folder, handle)
            finally:
                os.close(handle)


def _remove_unless_held(folder: Path, handle: int) -> None:
    """Remove a folder whose lock nobody else holds.

    It is moved away first: others see it whole or not at all, and may make it anew meanwhile. A
    handle of a lock that is gone says nothing of the one that lies there now.
    """
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_same(handle, folder / _LOCK):
            gone = folder.with_name(f"{_GONE}{uuid4().hex}")
            folder.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)


def scratch_root() -> Path:
    """Folder of scratch of this user; `TMPDIR` moves it."""
    return Path(tempfile.gettempdir()) / f"tilewright-scratch-{os.getuid()}"


def _close(inner: Source, hold: _Hold) -> None:
    inner.close()
    hold.release()


def _stat(place: Location) -> Stat:
    """Ask for size and tag of a file that can be brought."""
    if place.suffix.lower() in SEVERAL_FILES:
        raise InputError(
            where=str(place),
            expected="a slide in one file",
            found=f"a {place.suffix}, whose pixels lie in other files",
            remedy="Copy the slide with all its files to a disk and give its path.",
        )
    try:
        found = place.stat()
    except OSError as err:
        raise read_error(str(place), err) from err
    if found is None:
        raise InputError(
            where=str(place),
            expected="a file",
            found="nothing there",
            remedy="Check the URL for a typing error.",
        )
    return found


def _hold(place: Location, found: Stat) -> _Hold:
    """Take a shared lock on a file in scratch, brought there where it is missing."""
    root = scratch_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep(root)
    key = hashlib.sha256(f"{place}\0{found.tag}\0{found.size}".encode()).hexdigest()[:24]
    folder = root / key
    file = folder / place.name
    while True:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        try:
            handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # another removed the folder meanwhile
        try:
            if _locked(handle, place, found, file):
                return _Hold(folder, file, handle)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        time.sleep(_TICK_S)


def _locked(handle: int, place: Location, found: Stat, file: Path) -> bool:
    """Lock a file that is here, brought where it is not; False where another came between."""
    lock = file.with_name(_LOCK)
    # Waits while another brings it.
    fcntl.flock(handle, fcntl.LOCK_SH)
    if not _is_same(handle, lock):
        return False
    if file.exists():
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not _is_same(handle, lock):
        return False
    if not file.exists():
        _bring(place, found, file)
    fcntl.flock(handle, fcntl.LOCK_SH)
    # Between two locks another may have found it in nobody's hands, and removed it.
    return file.exists() and _is_same(handle, lock)


def _is_same(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _bring(place: Location, found: Stat, file: Path) -> None:
    """Copy a file here, part by part."""
    free = shutil.disk_usage(file.parent).free
    if free < found.size:
        raise ResourceError(
            where=f"scratch at '{file.parent.parent}'",
            expected=f"{found.size / 1e9:.2f} GB free for '{place}'",
            found=f"{free / 1e9:.2f} GB",
            remedy="Make space there, or set TMPDIR to a larger disk.",
        )
    partial = file.with_name(f"{file.name}.partial")
    try:
        with partial.open("wb") as target:
            for start in range(0, found.size, _PART):
                target.write(place.read_part(start, min(_PART, found.size - start)))
        if place.stat() != found:
            raise InputError(
                where=str(place),
                expected="a file that stays as it is",
                found="one that changed while it was read",
                remedy="Wait until it is written, then run again.",
            )
    except OSError as err:
        raise read_error(str(place), err) from err
    partial.replace(file)


def _by_url(err: InputError, file: Path, place: Location) -> InputError:
    """Make an error of a reader name the URL, in place of the file in scratch."""
    texts = (err.where, err.expected, err.found, err.remedy)
    where, expected, found, remedy = (t.replace(str(file), str(place)) for t in texts)
    return InputError(where=where, expected=expected, found=found, remedy=remedy)
