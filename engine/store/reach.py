"""Whether a store can be used, asked before a run: small requests, clear errors."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from engine.errors import OutputError
from engine.store.failures import read_error, write_error
from engine.store.location import Location

if TYPE_CHECKING:
    from pathlib import Path

    from engine.errors import RefusedError

# Documents that an image, or a result, may begin with.
_DOCUMENTS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")


def check_store(place: str | Path | Location, error: type[RefusedError]) -> None:
    """Refuse a bucket or web server that does not answer, or not to this user.

    Parameters
    ----------
    place : str, Path or Location
        An image or a result, which need not exist; of a disk nothing is asked.
    error : type of RefusedError
        What to raise: `InputError` for something to read, `OutputError` for something to write.

    Raises
    ------
    RefusedError
        `error`, within 15 s or so: no or wrong credentials, a profile that does not exist, an
        endpoint that is wrong or silent, another region, a bucket that does not exist.
    """
    target = Location.parse(place, error)
    if target.is_local:
        return
    from engine.store.buckets import look_at_bucket  # loads obstore, which few runs need

    root = "/".join(target.url.split("/", 3)[:3])
    try:
        bucket = look_at_bucket(root)
        try:
            if target.can_list:
                bucket.is_folder(target.url)
                return
        except PermissionError:
            # Public buckets may forbid listing and still give what is asked for by name.
            if error is OutputError:
                raise
        bucket.knows_any([f"{target}/{name}" for name in _DOCUMENTS])
    except OSError as err:
        raise read_error(str(target), err, error) from err


def check_exclusive_create(place: str | Path | Location) -> None:
    """Refuse a store in which two can create the same object, or that takes no data at all.

    Parameters
    ----------
    place : str, Path or Location
        A folder, made where it is missing; one object is made in it and removed.

    Raises
    ------
    OutputError
        If the second of two exclusive creations succeeds, or the store refuses both.
    """
    probe = Location.parse(place, OutputError) / f".exclusive-{uuid.uuid4().hex}"
    try:
        probe.create_bytes(b"1")
        try:
            probe.create_bytes(b"2")
        except FileExistsError:
            return
        finally:
            probe.delete()
    except OSError as err:
        raise write_error(str(probe.parent), err) from err
    raise OutputError(
        where=str(probe.parent),
        expected="a store where only one of two can create an object",
        found="one where both did: it ignores If-None-Match, so two runs could not be kept apart",
        remedy="Choose a store that knows conditional writes, or a disk.",
    )
