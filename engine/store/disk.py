"""Files on a disk: replaced in one step, created exclusively, durable when a call returns."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from zarr.storage import LocalStore, StorePath

from engine.store.location import Stat

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Disk:
    """The disks of this machine, as `engine.store.location.Backend`."""

    def read(self, name: str) -> bytes:
        """Read a whole file."""
        return Path(name).read_bytes()

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Read some bytes of a file."""
        with Path(name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    def write(self, name: str, data: bytes) -> Stat:
        """Write beside, bring to the disk, rename into place."""
        path = Path(name)
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
        make_folder(path.parent)
        try:
            _write_new(partial, data)
            written = partial.stat()
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        sync_folder(path.parent)
        return Stat(written.st_size, str(written.st_mtime_ns))

    def create(self, name: str, data: bytes) -> None:
        """Create by O_EXCL, which also network file systems keep; removed where writing fails."""
        path = Path(name)
        make_folder(path.parent)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files."""
        for name in names:
            Path(name).unlink(missing_ok=True)

    def stat(self, name: str) -> Stat | None:
        """Size and time of change of a file."""
        try:
            found = Path(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Stat(found.st_size, str(found.st_mtime_ns)) if _is_file(found.st_mode) else None

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder."""
        return Path(name).is_dir()

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """Entries of a folder, links followed."""
        if not Path(name).is_dir():
            return [], []
        with os.scandir(name) as entries:
            found = [(entry.name, entry.is_dir()) for entry in entries]
        return [n for n, folder in found if folder], [n for n, folder in found if not folder]

    def walk(self, name: str) -> Iterator[tuple[str, Stat]]:
        """All files below a folder."""
        root = Path(name)
        for folder, _, files in os.walk(root):
            for file in files:
                path = Path(folder) / file
                found = self.stat(str(path))
                if found is not None:
                    yield path.relative_to(root).as_posix(), found

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all below."""
        path = Path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def zarr_path(self, name: str, *, read_only: bool) -> StorePath:
        """Zarr's view of a folder."""
        return StorePath(LocalStore(name, read_only=read_only))


DISK = Disk()


def _is_file(mode: int) -> bool:
    return (mode & 0o170000) == 0o100000


def _write_new(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, that survive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed entry of the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
