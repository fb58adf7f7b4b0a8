"""Whether a result can go where it is asked to go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.errors import OutputError, ResourceError
from engine.ledger import FOLDER, Ledger
from engine.store import Location, check_store, free_bytes

if TYPE_CHECKING:
    from pathlib import Path

# Documents that tell a Zarr of someone else.
_DOCUMENTS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def check_out(out: str | Path, source: str) -> Location:
    """Location of OUT, if it is free or holds a run of ours, and does not touch the source.

    Parameters
    ----------
    out : str or Path
        Where the result should go: on a disk, or in a bucket.
    source : str
        The image or file that is read.

    Returns
    -------
    Location
        Absolute, with symbolic links followed.

    Raises
    ------
    OutputError
        If it lies inside the source, around it, cannot be written, or holds something else.
    """
    named = Location.parse(out, OutputError)
    # Links followed: by another name, OUT could lie inside the image all the same.
    place, image = _resolved(named), _resolved(Location.parse(source))
    if place.is_inside(image) or image.is_inside(place):
        relation = "the same place" if place == image else f"'{place}' and '{image}'"
        raise OutputError(
            where=f"OUT '{out}'",
            expected="a place that neither holds the image nor lies inside it",
            found=relation,
            remedy="Choose another OUT, beside the image.",
        )
    if place.url.startswith("http"):
        raise OutputError(
            where=f"OUT '{out}'",
            expected="a path of a disk, or s3://bucket/name",
            found="a web server, which takes no data",
            remedy="Choose another OUT.",
        )
    check_store(place, OutputError)
    if place.is_file():
        raise _not_ours(out, "a file")
    folders, objects = place.children()
    # A run that ended in its first second leaves its records without a document.
    if not Ledger(place).exists and (objects or set(folders) - {FOLDER}):
        raise _not_ours(out, "a folder that tilewright did not start")
    _check_parents(out, place)
    if named.suffix != ".zarr":
        raise OutputError(
            where=f"OUT '{out}'",
            expected="a name that ends in .ome.zarr, as viewers look for it",
            found=f"'{named.name}'",
            remedy=f"Use '{named}.ome.zarr'.",
        )
    return place


def _resolved(place: Location) -> Location:
    return Location(str(place.path.resolve())) if place.is_local else place


def _check_parents(out: str | Path, place: Location) -> None:
    """Refuse a place below a file, inside a Zarr of someone else, or where nothing can be made."""
    parents = [place.parent]
    while parents[-1].parent != parents[-1]:
        parents.append(parents[-1].parent)
    if place.is_local:
        parents = parents[next(k for k, p in enumerate(parents) if p.path.exists()) :]
        above = parents[0]
        if above.is_file():
            raise _no_place(out, f"the file '{above}' above it")
    store = next((p for p in parents if any((p / n).is_file() for n in _DOCUMENTS)), None)
    if store is not None:
        raise _no_place(out, f"a place inside the Zarr '{store}'")
    if place.is_local and not os.access(parents[0].path, os.W_OK | os.X_OK):
        raise _no_place(out, f"the folder '{parents[0]}', which this user cannot write")


def _no_place(out: str | Path, found: str) -> OutputError:
    return OutputError(
        where=f"OUT '{out}'",
        expected="a place in a folder of its own that can be written",
        found=found,
        remedy="Choose another OUT.",
    )


def check_replaceable(place: Location) -> None:
    """Refuse to replace anything but an image that an ingest made.

    Parameters
    ----------
    place : Location
        As `check_out` gave it.

    Raises
    ------
    OutputError
        If a result of another recipe stands there, whose making may have cost days.
    """
    ledger = Ledger(place)
    if ledger.exists and "ingest" not in ledger.read_run()["parts"]:
        raise OutputError(
            where=f"DEST '{place}'",
            expected="nothing, or an image that `tilewright ingest` made",
            found="a result of `tilewright run`",
            remedy="Choose another DEST, or remove that result yourself.",
        )


def check_disk(out: Location, needed: int) -> None:
    """Refuse a disk that cannot hold the result; buckets set no limit.

    Raises
    ------
    ResourceError
        If less is free than is needed.
    """
    free = free_bytes(out)
    if free is not None and free < needed:
        raise ResourceError(
            where=f"disk of '{out}'",
            expected=f"{needed / 1e9:.2f} GB free",
            found=f"{free / 1e9:.2f} GB",
            remedy="Make space, choose another OUT, or run a part with --within.",
        )


def _not_ours(out: str | Path, found: str) -> OutputError:
    return OutputError(
        where=f"OUT '{out}'",
        expected="nothing, or a run of tilewright to continue",
        found=found,
        remedy="Choose another OUT; nothing there was touched.",
    )
