"""PNG files that show something: where they may go, and how they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from engine.errors import OutputError
from engine.store.files import local_path, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def png_path(out: str | Path) -> Path:
    """Path of a PNG file that may be written; asked for before anything is drawn.

    Raises
    ------
    OutputError
        If it does not end in ``.png``, is a folder, or is on no disk.
    """
    path = local_path(out, OutputError)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise OutputError(
            where=str(path),
            expected="the path of a PNG file",
            found="a folder" if path.is_dir() else f"the ending {path.suffix!r}",
            remedy="Give a path that ends in .png.",
        )
    return path


def write_png(path: Path, picture: NDArray[Any]) -> None:
    """Write a picture, (Y, X, 3) uint8; the file is replaced in one step where it exists.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    write_atomic(path, bytes(imagecodecs.png_encode(np.ascontiguousarray(picture))))
