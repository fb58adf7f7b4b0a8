"""Refusals that all readers share: requests outside the image, no pixels, foreign dtypes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.store.sources.base import DTYPES, SourceInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tiling.box import Box


def check_request(info: SourceInfo, plane: Mapping[str, int], box: Box) -> None:
    """Refuse a request that does not lie in the image.

    Parameters
    ----------
    info : SourceInfo
        Facts of the source.
    plane : mapping of str to int
        Wanted plane.
    box : Box
        Wanted box (y, x).

    Raises
    ------
    ValueError
        If an axis is missing, unknown or out of range.
    """
    if set(plane) != set(info.plane_axes):
        msg = f"plane must name the axes {info.plane_axes}, got {tuple(plane)}"
        raise ValueError(msg)
    for axis, index in plane.items():
        if not 0 <= index < info.size(axis):
            msg = f"plane index must lie in [0, {info.size(axis)}) on {axis}, got {index}"
            raise ValueError(msg)
    inside = len(box.start) == 2 and all(
        a >= 0 and b <= n for a, b, n in zip(box.start, box.stop, info.shape[-2:], strict=True)
    )
    if not inside:
        msg = f"box must lie in an image of {info.shape[-2:]} (y, x), got {box}"
        raise ValueError(msg)


def check_shape(where: str, shape: Iterable[int]) -> None:
    """Refuse an image without pixels.

    Parameters
    ----------
    where : str
        Path of the file.
    shape : iterable of int
        Lengths of its axes.

    Raises
    ------
    InputError
        If an axis has length zero.
    """
    lengths = tuple(shape)
    if not lengths or min(lengths) < 1:
        raise InputError(
            where=where,
            expected="an image of at least one pixel",
            found=f"the shape {lengths}",
            remedy="Check how the file was written.",
        )


def taken_dtype(where: str, dtype: np.dtype[np.generic] | None) -> str:
    """Name of the dtype in which pixels of this dtype are taken.

    Parameters
    ----------
    where : str
        Path of the file.
    dtype : numpy dtype or None
        As the file states it; None where the reader knows none.

    Returns
    -------
    str
        One of `DTYPES`; uint8 for one-bit images.

    Raises
    ------
    InputError
        If pixels of this dtype cannot be taken.
    """
    if dtype is not None and dtype == np.bool_:
        return "uint8"
    if dtype is not None and dtype.newbyteorder("=").name in DTYPES:
        return dtype.newbyteorder("=").name
    remedy = "Convert the image to one of these."
    if dtype is not None and dtype.kind in "iu":
        remedy = (
            "Convert the image to uint32 or float64: 64-bit integers cannot be computed with "
            "without losing digits."
        )
    if dtype is not None and dtype.kind == "c":
        remedy = "Save the real part, the magnitude or the phase as an image of its own."
    raise InputError(
        where=where,
        expected=f"pixels of {', '.join(DTYPES)}",
        found="a pixel format that no reader knows" if dtype is None else str(dtype),
        remedy=remedy,
    )
