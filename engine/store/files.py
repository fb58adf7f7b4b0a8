"""Small documents on the local disk: read with a clear error, replaced in one step."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import InputError, OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.errors import RefusedError

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


def local_path(path: str | Path, error: type[RefusedError] = InputError) -> Path:
    """Path on the local disk that a string or path names.

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
            remedy="Copy or mount the data and give its path; object stores are not supported yet.",
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


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader sees the old bytes or the new ones, never a part.

    The folder is made where it is missing. The bytes are on the disk when the call returns.

    Parameters
    ----------
    path : Path
        File to write.
    data : bytes
        Its whole new content.

    Raises
    ------
    OutputError
        If the disk is full or the place cannot be written.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as err:
        raise OutputError(
            where=str(path),
            expected="a place that can be written",
            found=err.strerror or str(err),
            remedy="Free space there, correct its permissions or choose another place.",
        ) from err


def _sync_folder(folder: Path) -> None:
    """Make a renamed entry of the folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document in one step; a file that already holds the same bytes is left alone.

    Parameters
    ----------
    path : Path
        File to write.
    document : mapping
        What JSON can hold; keys keep their order. NaN and infinity are not JSON.

    Raises
    ------
    OutputError
        If the document is not JSON or the place cannot be written.
    """
    try:
        data = (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()
    except (TypeError, ValueError) as err:
        raise OutputError(
            where=str(path),
            expected="values that JSON can hold",
            found=str(err),
            remedy="Replace NaN, infinity and objects by numbers, strings or null.",
        ) from err
    if path.is_file() and path.read_bytes() == data:
        return
    write_atomic(path, data)


def read_json(path: Path, error: type[RefusedError] = InputError) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Parameters
    ----------
    path : Path
        File to read.
    error : type of RefusedError
        What to raise where it cannot be read.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    RefusedError
        `error`, if the file is missing, cannot be read, is cut short, is not JSON or holds
        something else than an object.
    """
    remedy = "Copy the file again from its source, or write the folder anew."
    try:
        document = json.loads(path.read_bytes())
    except OSError as err:
        found = err.strerror or str(err)
        raise error(
            where=str(path), expected="a file that can be read", found=found, remedy=remedy
        ) from err
    except ValueError as err:  # also UnicodeDecodeError
        raise error(
            where=str(path), expected="a JSON object", found=f"damaged JSON ({err})", remedy=remedy
        ) from err
    if not isinstance(document, dict):
        raise error(
            where=str(path),
            expected="a JSON object",
            found=f"a JSON {type(document).__name__}",
            remedy=remedy,
        )
    return document


def free_bytes(path: Path) -> int:
    """Bytes that this user can still write at `path`, which need not exist yet.

    Parameters
    ----------
    path : Path
        A file or folder, there or to be made.

    Returns
    -------
    int
        Free bytes of the disk that holds its nearest existing parent.
    """
    place = path.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
