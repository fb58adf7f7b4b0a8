"""Whether a result can go where it is asked to go."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from engine.errors import OutputError, ResourceError
from engine.ledger import Ledger
from engine.store import free_bytes, local_path

if TYPE_CHECKING:
    from pathlib import Path


def check_out(out: str | Path, source: str) -> Path:
    """Path of OUT, if it is free or holds a run of ours, and does not touch the source.

    Parameters
    ----------
    out : str or Path
        Where the result should go.
    source : str
        The image or file that is read.

    Returns
    -------
    Path
        Absolute, with symbolic links followed.

    Raises
    ------
    OutputError
        If it lies inside the source, around it, or holds something else.
    """
    # Links followed: by another name, OUT could lie inside the image all the same.
    named = local_path(out, OutputError)
    place, image = named.resolve(), local_path(source).resolve()
    if place == image or image in place.parents or place in image.parents:
        relation = "the same place" if place == image else f"'{place}' and '{image}'"
        raise OutputError(
            where=f"OUT '{out}'",
            expected="a place that neither holds the image nor lies inside it",
            found=relation,
            remedy="Choose another OUT, beside the image.",
        )
    if place.exists() and not place.is_dir():
        raise _not_ours(out, "a file")
    if place.is_dir() and not Ledger(place).exists and any(place.iterdir()):
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


def _check_parents(out: str | Path, place: Path) -> None:
    """Refuse a place below a file, inside a Zarr of someone else, or where nothing can be made."""
    above = next(folder for folder in place.parents if folder.exists())
    documents = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
    store = next(
        (p for p in (above, *above.parents) if any((p / name).is_file() for name in documents)),
        None,
    )
    if not above.is_dir():
        found = f"the file '{above}' above it"
    elif store is not None:
        found = f"a place inside the Zarr '{store}'"
    elif not os.access(above, os.W_OK | os.X_OK):
        found = f"the folder '{above}', which this user cannot write"
    else:
        return
    raise OutputError(
        where=f"OUT '{out}'",
        expected="a place in a folder of its own that can be written",
        found=found,
        remedy="Choose another OUT.",
    )


def check_replaceable(place: Path) -> None:
    """Refuse to replace anything but an image that an ingest made.

    Parameters
    ----------
    place : Path
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


def check_disk(out: Path, needed: int) -> int:
    """Free bytes where OUT goes.

    Raises
    ------
    ResourceError
        If less is free than is needed.
    """
    free = free_bytes(out)
    if free < needed:
        raise ResourceError(
            where=f"disk of '{out}'",
            expected=f"{needed / 1e9:.2f} GB free",
            found=f"{free / 1e9:.2f} GB",
            remedy="Make space, choose another OUT, or run a part with --within.",
        )
    return free


def _not_ours(out: str | Path, found: str) -> OutputError:
    return OutputError(
        where=f"OUT '{out}'",
        expected="nothing, or a run of tilewright to continue",
        found=found,
        remedy="Choose another OUT; nothing there was touched.",
    )
