"""Label images: planes of integer ids, read box by box and checked when read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from engine.errors import InputError
from engine.store.arrays import Sliced, read_plane

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiling.box import Box


class LabelArray(Sliced, Protocol):
    """What is asked of an array: NumPy, Zarr and Dask arrays all do."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels on each axis."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of a pixel."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelSource:
    """A label image and where it came from.

    Parameters
    ----------
    name : str
        What error messages call it, usually its path.
    array : LabelArray
        Level 0, (..., Y, X), any integer dtype, 0 = background.
    axes : tuple of str
        Name of each axis, the last two ``y`` and ``x``.

    Raises
    ------
    InputError
        If the dtype is no integer, the last two axes are not y and x, or there is no pixel.

    Examples
    --------
    >>> source = LabelSource("truth", np.zeros((3, 8, 9), np.uint16), ("z", "y", "x"))
    >>> [plane.index for plane in source.planes]
    [(0,), (1,), (2,)]
    """

    name: str
    array: LabelArray
    axes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not np.issubdtype(self.array.dtype, np.integer):
            raise InputError(
                where=self.name,
                expected="labels: integers, one id per object",
                found=f"dtype {self.array.dtype}",
                remedy="Give a label image; label the connected components of a mask first.",
            )
        if self.axes[-2:] != ("y", "x") or len(self.axes) != len(self.array.shape):
            raise InputError(
                where=self.name,
                expected="one name per axis, the last two y and x",
                found=f"axes {self.axes} of shape {tuple(self.array.shape)}",
                remedy="Give an instance label image of one channel, with y and x last.",
            )
        if 0 in self.array.shape:
            raise InputError(
                where=self.name,
                expected="at least one pixel",
                found=f"shape {tuple(self.array.shape)}",
                remedy="Check how the labels were written.",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels on each axis, leading axes of length 1 left out."""
        shape = tuple(int(n) for n in self.array.shape)
        lead = [k for k in range(len(shape) - 2) if shape[k] > 1]
        return shape[lead[0] :] if lead else shape[-2:]

    @property
    def planes(self) -> tuple[LabelPlane, ...]:
        """Every plane of the array, C order."""
        lead = (int(n) for n in self.array.shape[:-2])
        return tuple(LabelPlane(self, index) for index in np.ndindex(*lead))


@dataclass(frozen=True, slots=True, eq=False)
class LabelPlane:
    """One plane (Y, X) of a label image.

    Parameters
    ----------
    source : LabelSource
        Where it lies.
    index : tuple of int
        Its place on the leading axes.

    Examples
    --------
    >>> from tiling.box import Box
    >>> source = LabelSource("truth", np.arange(6).reshape(1, 2, 3), ("z", "y", "x"))
    >>> source.planes[0].read(Box((0, 1), (2, 3)))
    array([[1, 2],
           [4, 5]])
    """

    source: LabelSource
    index: tuple[int, ...]

    def __post_init__(self) -> None:
        lead = self.source.array.shape[:-2]
        if len(self.index) != len(lead) or not all(
            0 <= k < n for k, n in zip(self.index, lead, strict=True)
        ):
            raise ValueError(f"index must lie in the leading axes {lead}, got {self.index}")

    def read(self, within: Box) -> NDArray[np.integer[Any]]:
        """Labels of a box of the plane.

        Parameters
        ----------
        within : Box
            Rows and columns, inside the plane, not empty.

        Returns
        -------
        (H, W) integer array
            Labels, as stored.

        Raises
        ------
        InputError
            If an id lies below 0, or stored bytes are damaged.
        """
        where = f"{self.source.name}, plane {self.index}, rows and columns {within}"
        try:
            part: NDArray[np.integer[Any]] = read_plane(self.source.array, self.index, within)
        except (RuntimeError, ValueError, OSError) as err:
            raise InputError(
                where=where,
                expected="stored bytes that decode to labels",
                found=f"{type(err).__name__}: {err}",
                remedy="Copy the labels again from their source.",
            ) from err
        if part.dtype.kind == "i" and (lowest := int(part.min())) < 0:
            raise InputError(
                where=where,
                expected="ids of 0 (background) and above",
                found=f"id {lowest}",
                remedy="Relabel the image without negative ids, or store it unsigned.",
            )
        return part
