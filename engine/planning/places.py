"""Whether a result can go where it is asked to go."""

from __future__ import annotations

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
        Absolute.

    Raises
    ------
    OutputError
        If it lies inside the source, around it, or holds something else.
    """
    place = local_path(out, OutputError).absolute()
    image = local_path(source).absolute()
    if place == image or image in place.parents or place in image.parents:
        relation = "the same place" if place == image else f"'{place}' and '{image}'"
        raise OutputError(
            where=f"OUT '{out}'",
            expected="a place that neither holds the image nor lies inside it",
            found=relation,
            remedy="Choose another OUT, beside the image.",
        )
    if place.is_file():
        raise _not_ours(out, "a file")
    if place.is_dir() and not Ledger(place).exists and any(place.iterdir()):
        raise _not_ours(out, "a folder that tilewright did not start")
    if ".zarr" not in "".join(place.suffixes):
        raise OutputError(
            where=f"OUT '{out}'",
            expected="a name that ends in .ome.zarr, as viewers look for it",
            found=f"'{place.name}'",
            remedy=f"Use '{out}.ome.zarr'.",
        )
    return place


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
