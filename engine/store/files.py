"""Small documents: read with a clear error, replaced in one step."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError, OutputError
from engine.store.failures import read_error, write_error
from engine.store.location import Location

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.errors import RefusedError

_COPY = "Copy the file again from its source, or write the folder anew."
_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def local_path(path: str | Path, error: type[RefusedError] = InputError) -> Path:
    """Path on the local disk of a file in a foreign format, which its readers need there.

    Parameters
    ----------
    path : str or Path
        What the user gave; ``~`` is expanded, nothing else is changed.
    error : type of RefusedError
        What to raise: `InputError` for something to read, `OutputError` for something to write.

    Returns
    -------
    Path
        The same place, as a path.

    Raises
    ------
    RefusedError
        `error`, where `path` is a URL such as ``s3://bucket/image.zarr``.
    """
    text = str(path)
    if _URL.match(text):
        raise error(
            where=text,
            expected="a path on a local or mounted disk",
            found=f"a URL ({text.split('://', 1)[0]})",
            remedy="Only OME-Zarr images are read from object stores and web servers: copy or "
            "mount this and give its path.",
        )
    return Path(path).expanduser()


def describe(value: object) -> str:
    """Show a value out of a document in an error, cut to a readable length.

    Parameters
    ----------
    value : object
        Anything; None is a value that is not there.

    Returns
    -------
    str
        At most 80 characters.
    """
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def write_atomic(place: str | Path | Location, data: bytes) -> None:
    """Replace an object in one step: a reader sees the old bytes or the new ones, never a part.

    The folder is made where it is missing. The bytes are on the disk when the call returns.

    Parameters
    ----------
    place : str, Path or Location
        File or object to write.
    data : bytes
        Its whole new content.

    Raises
    ------
    OutputError
        If the disk is full or the place cannot be written.
    """
    target = Location.parse(place, OutputError)
    try:
        target.write_bytes(data)
    except OSError as err:
        raise write_error(str(target), err) from err


def write_json(place: str | Path | Location, document: Mapping[str, Any]) -> None:
    """Write a JSON document in one step; one that already holds the same bytes is left alone.

    Parameters
    ----------
    place : str, Path or Location
        File or object to write.
    document : mapping
        What JSON can hold; keys keep their order. NaN and infinity are not JSON.

    Raises
    ------
    OutputError
        If the document is not JSON or the place cannot be written.
    """
    target = Location.parse(place, OutputError)
    try:
        data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as err:
        raise OutputError(
            where=str(target),
            expected="values that JSON can hold",
            found=str(err),
            remedy="Replace NaN, infinity and objects by numbers, strings or null.",
        ) from err
    try:
        if read_optional(target) == data:
            return
        target.write_bytes(data)
    except OSError as err:
        raise write_error(str(target), err) from err


def read_optional(place: Location) -> bytes | None:
    """Content of an object; None where there is none.

    Parameters
    ----------
    place : Location
        File or object to read.

    Returns
    -------
    bytes or None
        All of it.

    Raises
    ------
    OSError
        If it may be there and cannot be read.
    """
    try:
        return place.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None


def read_json(
    place: str | Path | Location, error: type[RefusedError] = InputError
) -> dict[str, Any]:
    """Read an object that holds one JSON object.

    Parameters
    ----------
    place : str, Path or Location
        File or object to read.
    error : type of RefusedError
        What to raise where it cannot be read.

    Returns
    -------
    dict
        The JSON object.

    Raises
    ------
    RefusedError
        `error`, if it is missing, cannot be read, is cut short, is not JSON or holds something
        else than a JSON object.
    """
    target = Location.parse(place, error)
    try:
        data = target.read_bytes()
    except OSError as err:
        raise read_error(str(target), err, error) from err
    return parse_json(data, str(target), error)


def read_first(
    folder: Location, names: Sequence[str], error: type[RefusedError] = InputError
) -> tuple[str, dict[str, Any]] | None:
    """Read the first of some documents that is there.

    Parameters
    ----------
    folder : Location
        Where they may be.
    names : sequence of str
        In the order of preference.
    error : type of RefusedError
        What to raise.

    Returns
    -------
    tuple of str and dict, or None
        Name and content; None where none of them is there.

    Raises
    ------
    RefusedError
        `error`, if the one found is damaged, or none is found and the store denies to say so.

    Notes
    -----
    Public buckets that do not allow listing say "access denied" of what is not there.
    """
    denied: PermissionError | None = None
    for name in names:
        try:
            data = read_optional(folder / name)
        except PermissionError as err:
            denied = err
        except OSError as err:
            raise read_error(str(folder / name), err, error) from err
        else:
            if data is not None:
                return name, parse_json(data, str(folder / name), error)
    if denied is not None:
        raise read_error(str(folder), denied, error) from denied
    return None


def parse_json(data: bytes, where: str, error: type[RefusedError] = InputError) -> dict[str, Any]:
    """Take a JSON object out of bytes.

    Parameters
    ----------
    data : bytes
        Content of a document.
    where : str
        What errors name.
    error : type of RefusedError
        What to raise.

    Returns
    -------
    dict
        The JSON object.

    Raises
    ------
    RefusedError
        `error`, if the bytes are cut short, not JSON, or something else than an object.
    """
    try:
        document = json.loads(data)
    except ValueError as err:  # also UnicodeDecodeError
        found = f"damaged JSON ({err})"
        raise error(where=where, expected="a JSON object", found=found, remedy=_COPY) from err
    if not isinstance(document, dict):
        found = f"a JSON {type(document).__name__}"
        raise error(where=where, expected="a JSON object", found=found, remedy=_COPY)
    return document


def free_bytes(place: str | Path | Location) -> int | None:
    """Bytes that this user can still write at a place, which need not exist yet.

    Parameters
    ----------
    place : str, Path or Location
        A file or folder, there or to be made.

    Returns
    -------
    int or None
        Free bytes of the disk that holds its nearest existing parent; None for an object store,
        which sets no limit.
    """
    target = Location.parse(place)
    if not target.is_local:
        return None
    path = target.path
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
