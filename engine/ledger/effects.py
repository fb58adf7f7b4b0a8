"""Reading and writing of the ledger's objects: what a store refuses is told as an error of OUT."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.errors import OutputError
from engine.store.location import delete_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from engine.store.location import Location


def read(place: Location) -> bytes:
    """Read an object.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    OutputError
        If it cannot be read.
    """
    with _told(place, "an object that can be read", passing=FileNotFoundError):
        return place.read_bytes()


def write(place: Location, data: bytes) -> None:
    """Replace an object in one step.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with _told(place, "a place that can be written"):
        place.write_bytes(data)


def create(place: Location, data: bytes) -> None:
    """Make an object that is not there yet.

    Raises
    ------
    FileExistsError
        If it is.
    OutputError
        If it cannot be made.
    """
    with _told(place, "a place that can be written", passing=FileExistsError):
        place.create_bytes(data)


def delete(places: Iterable[Location]) -> None:
    """Remove objects.

    Raises
    ------
    OutputError
        If they cannot be removed.
    """
    listed = list(places)
    if listed:
        with _told(listed[0], "objects that can be removed"):
            delete_all(listed)


def clear(folder: Location) -> None:
    """Remove everything below.

    Raises
    ------
    OutputError
        If it cannot be removed.
    """
    with _told(folder, "objects that can be removed"):
        folder.remove()


def is_there(place: Location) -> bool:
    """Whether there is an object.

    Raises
    ------
    OutputError
        If the store does not say.
    """
    with _told(place, "an object that can be read"):
        return place.is_file()


def names(folder: Location) -> list[str]:
    """Names of the objects of a folder, but those that are being written.

    Raises
    ------
    OutputError
        If it cannot be listed.
    """
    with _told(folder, "a folder that can be listed"):
        return [name for name in folder.children()[1] if not name.startswith(".")]


def folders(folder: Location) -> list[str]:
    """Names of the folders of a folder.

    Raises
    ------
    OutputError
        If it cannot be listed.
    """
    with _told(folder, "a folder that can be listed"):
        return folder.children()[0]


@contextmanager
def _told(
    place: Location, expected: str, passing: type[OSError] | tuple[()] = ()
) -> Iterator[None]:
    try:
        yield
    except passing:
        raise
    except OSError as err:
        raise OutputError(
            where=str(place),
            expected=expected,
            found=err.strerror or str(err),
            remedy="Mend the place (space, permissions, credentials, connection) and give the same "
            "command again: what is done is kept.",
        ) from err
