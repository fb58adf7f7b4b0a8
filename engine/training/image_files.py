"""Image files of trainings: found in a folder, read whole."""

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.io import imread

from engine.errors import InputError

_TIFF_SUFFIXES = (".tif", ".tiff")
SUFFIXES = (".png", *_TIFF_SUFFIXES)


def is_tiff(path: Path) -> bool:
    """Whether a file is called as a TIFF is."""
    return path.suffix.lower() in _TIFF_SUFFIXES


def image_files(folder: Path) -> dict[str, Path]:
    """Find the images of a folder.

    Parameters
    ----------
    folder : Path
        Holds files with one of `SUFFIXES`.

    Returns
    -------
    dict
        Paths by names without suffix, sorted.

    Raises
    ------
    InputError
        If there is no such folder, none of such files, or two of one name.
    """
    if not folder.is_dir():
        raise InputError(
            where=str(folder), expected="a folder", found="none", remedy="Correct the path.",
        )  # fmt: skip
    paths = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in SUFFIXES]
    if not paths:
        raise InputError(
            where=str(folder), expected=f"files ending in {', '.join(SUFFIXES)}", found="none",
            remedy="Correct the path, or convert the images.",
        )  # fmt: skip
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise InputError(
                where=str(path), expected="one file of each name", found=str(files[path.stem]),
                remedy="Remove one.",
            )  # fmt: skip
        files[path.stem] = path
    return files


def read_image(path: Path) -> NDArray[Any]:
    """Read a PNG or TIFF whole.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        As the file has it.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        return np.asarray(tifffile.imread(path) if is_tiff(path) else imread(path))
    except (OSError, ValueError, SyntaxError, tifffile.TiffFileError) as err:  # PIL: SyntaxError
        raise InputError(
            where=str(path), expected="a readable image", found=str(err),
            remedy="Copy it again or leave it out.",
        ) from err  # fmt: skip


def read_pixels(path: Path) -> NDArray[Any]:
    """Read a PNG or TIFF of real numbers whole.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    ndarray
        As the file has it.

    Raises
    ------
    InputError
        If it cannot be read, is empty, or holds other numbers.
    """
    pixels = read_image(path)
    if pixels.size == 0 or pixels.dtype.kind not in "buif":
        raise InputError(
            where=str(path), expected="pixels of a real type",
            found=f"{pixels.shape} {pixels.dtype}",
            remedy="Convert it.",
        )  # fmt: skip
    return pixels
