"""Places where images lie: a path on a disk, an object in a bucket, a file on a web server.

::

    Location("/data/cells.ome.zarr")  ──► disk.Disk          read, write, exclusive create, list
    Location("s3://bucket/cells")     ──► buckets.Bucket     the same
    Location("https://host/cells")    ──► buckets.Bucket     read only, no listing

Every effect raises `OSError` or one of its kinds (`FileNotFoundError`, `FileExistsError`,
`PermissionError`, `TimeoutError`), whatever lies below.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from zarr.storage import StorePath

    from engine.errors import RefusedError

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
_SCHEMES = ("s3", "https", "http")


@dataclass(frozen=True, slots=True)
class Stat:
    """What a store says of an object without reading it.

    Parameters
    ----------
    size : int
        Bytes.
    tag : str
        Changes when the content does: the etag, or the time of change in nanoseconds.
    """

    size: int
    tag: str


class Backend(Protocol):
    """What a kind of store can do with a name; see the methods of `Location`."""

    def read(self, name: str) -> bytes:
        """Read a whole object."""

    def read_part(self, name: str, start: int, length: int) -> bytes:
        """Read some bytes of an object that is at least so long."""

    def write(self, name: str, data: bytes) -> Stat:
        """Replace an object in one step; durable when the call returns."""

    def create(self, name: str, data: bytes) -> None:
        """Make an object that must not be there yet; of several callers one succeeds."""

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; what is not there is no error."""

    def stat(self, name: str) -> Stat | None:
        """Size and tag of an object; None where there is none."""

    def is_folder(self, name: str) -> bool:
        """Whether there is a folder, or anything below where folders are names alone."""

    def children(self, name: str) -> tuple[list[str], list[str]]:
        """Names of the folders and of the objects directly below; empty where there are none."""

    def walk(self, name: str) -> Iterator[tuple[str, Stat]]:
        """All objects below, by their path relative to `name`, in no order."""

    def remove(self, name: str) -> None:
        """Remove everything below, and the folder itself where there are such things."""

    def zarr_path(self, name: str, *, read_only: bool) -> StorePath:
        """Zarr's view of everything below."""


@dataclass(frozen=True, slots=True, order=True)
class Location:
    """A folder or an object, by name; nothing is opened before something is asked of it.

    Parameters
    ----------
    url : str
        An absolute path of a disk, or a URL with one of the schemes s3, https and http; without a
        slash at its end.

    Examples
    --------
    >>> place = Location.parse("s3://archive/plates/7.ome.zarr/")
    >>> str(place / "labels" / "nuclei"), place.name, place.suffix
    ('s3://archive/plates/7.ome.zarr/labels/nuclei', '7.ome.zarr', '.zarr')
    """

    url: str

    @classmethod
    def parse(cls, text: str | Path | Location, error: type[RefusedError] = InputError) -> Location:
        """Take what a user typed; ``~`` is expanded, a relative path made absolute.

        Raises
        ------
        RefusedError
            `error`, if the scheme is not known or the URL names no bucket or host.
        """
        if isinstance(text, Location):
            return text
        match = _SCHEME.match(str(text))
        if match is None:
            return cls(str(Path(text).expanduser().absolute()))
        scheme, rest = match[1].lower(), str(text)[match.end() :]
        if scheme == "file":
            return cls(str(Path(rest).absolute()))
        if scheme not in _SCHEMES:
            raise error(
                where=str(text),
                expected="a path, or a URL that begins with s3://, https:// or http://",
                found=f"the scheme {scheme}",
                remedy="Copy or mount the data and give its path.",
            )
        parts = rest.rstrip("/").split("/")
        if {"", ".", ".."} & set(parts):
            raise error(
                where=str(text),
                expected=f"{scheme}://{'bucket' if scheme == 's3' else 'host'}/name",
                found="an empty, '.' or '..' part",
                remedy="Write the URL out.",
            )
        if scheme != "s3" and {"?", "#"} & set(rest):
            raise error(
                where=str(text),
                expected="the address of a folder",
                found="a query or a fragment in it",
                remedy="Leave out what follows the name, or copy the image and give its path.",
            )
        return cls(f"{scheme}://{rest.rstrip('/')}")

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine, mounted ones included."""
        return _SCHEME.match(self.url) is None

    @property
    def can_list(self) -> bool:
        """Whether the store tells what lies below a name; web servers do not."""
        return self.is_local or self.url.startswith("s3://")

    @property
    def path(self) -> Path:
        """The same place as a path.

        Raises
        ------
        TypeError
            If it is not local: an error of the caller.
        """
        if not self.is_local:
            msg = f"not a path of a disk: {self.url}"
            raise TypeError(msg)
        return Path(self.url)

    @property
    def name(self) -> str:
        """Last part."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def suffix(self) -> str:
        """What follows the last dot of the name, with the dot; empty where there is none."""
        return Path(self.name).suffix

    @property
    def parent(self) -> Location:
        """The folder that holds it; a bucket, a host and the root of a disk hold themselves."""
        if self.is_local:
            return Location(str(self.path.parent))
        scheme, rest = self.url.split("://", 1)
        return Location(f"{scheme}://{rest.rsplit('/', 1)[0]}")

    def is_inside(self, other: Location) -> bool:
        """Whether it is `other` or lies below it."""
        return self == other or self.url.startswith(other.url.rstrip("/") + "/")

    def __truediv__(self, name: str) -> Location:
        """Place below; an empty name is the place itself."""
        parts = str(name).strip("/")
        return Location(f"{self.url.rstrip('/')}/{parts}") if parts else self

    def __str__(self) -> str:
        return self.url

    def read_bytes(self) -> bytes:
        """Read the whole object.

        Raises
        ------
        OSError
            `FileNotFoundError` where it is missing; others as the store says.
        """
        return self._backend.read(self.url)

    def read_part(self, start: int, length: int) -> bytes:
        """Read some bytes of an object that is at least so long; else as `read_bytes`."""
        return self._backend.read_part(self.url, start, length)

    def write_bytes(self, data: bytes) -> Stat:
        """Replace the object in one step; a reader sees the old bytes or the new ones.

        Folders above are made. The bytes survive a power cut once the call returns.

        Returns
        -------
        Stat
            Of the new object.
        """
        return self._backend.write(self.url, data)

    def create_bytes(self, data: bytes) -> None:
        """Make an object that is not there yet; of several callers at once exactly one succeeds.

        Raises
        ------
        FileExistsError
            If it is there.
        OSError
            As the store says; one that cannot create exclusively says so.
        """
        self._backend.create(self.url, data)

    def delete(self) -> None:
        """Remove the object; none is no error."""
        self._backend.delete([self.url])

    def stat(self) -> Stat | None:
        """Size and tag of the object; None where there is none."""
        return self._backend.stat(self.url)

    def is_file(self) -> bool:
        """Whether there is an object."""
        return self.stat() is not None

    def exists(self) -> bool:
        """Whether there is an object, or anything below where the store can list."""
        return self.is_file() or (self.can_list and self.is_folder())

    def is_folder(self) -> bool:
        """Whether there is a folder; in a bucket, whether anything lies below."""
        return self._backend.is_folder(self.url)

    def children(self) -> tuple[list[str], list[str]]:
        """Names of the folders and of the objects directly below, sorted."""
        folders, objects = self._backend.children(self.url)
        return sorted(folders), sorted(objects)

    def walk(self) -> Iterator[tuple[str, Stat]]:
        """Go through all objects below: path relative to this place, and what is known of it."""
        return self._backend.walk(self.url)

    def remove(self) -> None:
        """Remove everything below, and the place itself; nothing there is no error."""
        self._backend.remove(self.url)

    def zarr_path(self, *, read_only: bool) -> StorePath:
        """Zarr's view of everything below."""
        return self._backend.zarr_path(self.url, read_only=read_only)

    @property
    def _backend(self) -> Backend:
        """What does the work; one per process and bucket."""
        if self.is_local:
            from engine.store.disk import DISK

            return DISK
        from engine.store.buckets import open_bucket  # loads obstore, which few runs need

        return open_bucket("/".join(self.url.split("/", 3)[:3]))


def delete_all(places: Iterable[Location]) -> None:
    """Remove objects of one store, many in each request where the store can."""
    listed = list(places)
    for start in range(0, len(listed), 1000):
        some = listed[start : start + 1000]
        some[0]._backend.delete([place.url for place in some])
