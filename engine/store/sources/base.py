"""What every source of `ingest` offers: facts without pixels, and boxes of pixels on request."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

    from tiling.box import Box

AXES = ("t", "c", "z", "y", "x")
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


@dataclass(frozen=True, slots=True)
class FileStamp:
    """How one file looked when the source was opened.

    Parameters
    ----------
    path : str
        Absolute path.
    size : int
        Bytes.
    mtime_ns : int
        Time of the last change, nanoseconds since the epoch.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class SourceInfo:
    """What is known of a source without reading its pixels.

    Parameters
    ----------
    axes : tuple of str
        Subset of ``("t", "c", "z", "y", "x")`` in this order; y and x always last.
    shape : tuple of int
        Length of each axis, each at least 1.
    dtype : str
        One of `DTYPES`; one-bit images are taken as uint8 with the values 0 and 1.
    scale : tuple of float
        Physical size of a pixel on each axis, 1.0 where unknown.
    units : tuple of (str or None)
        ``"micrometer"`` or ``"second"`` for each axis, None where unknown and for c.
    channel_names : tuple of str
        One for each channel; empty without a c axis.
    channel_colors : tuple of str
        ``RRGGBB`` for each channel; empty where unknown.
    properties : mapping of str to str
        Whatever else the files say: slide properties, facts of the OME description, frame names.
    preferred_block : tuple of int
        Size (y, x) that is cheap to read: TIFF tile, strip, or the whole frame.
    format : str
        What the source is, in words: "OME-TIFF", "PNG", "12 frames, PNG".
    stored : tuple of str
        `axes` in the order of the file's array; the same axes.
    named_by : str
        What in the source names its axes; "" where nothing does, and `axes` are a guess.

    Raises
    ------
    ValueError
        If the fields do not fit each other: an error of the reader, not of the user.

    Examples
    --------
    >>> info = SourceInfo(axes=("c", "y", "x"), shape=(2, 450, 400), dtype="uint8",
    ...                   scale=(1.0, 0.5, 0.5), units=(None, "micrometer", "micrometer"),
    ...                   channel_names=("DAPI", "actin"))
    >>> info.plane_axes, info.channels, info.size("x")
    ((), 2, 400)
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    scale: tuple[float, ...]
    units: tuple[str | None, ...]
    channel_names: tuple[str, ...] = ()
    channel_colors: tuple[str, ...] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    preferred_block: tuple[int, int] = (512, 512)
    format: str = ""
    stored: tuple[str, ...] = ()
    named_by: str = ""

    def __post_init__(self) -> None:
        n = len(self.axes)
        rules = {
            "axes must be a subset of t, c, z, y, x in this order with y and x": (
                self.axes == tuple(a for a in AXES if a in self.axes)
                and self.axes[-2:] == ("y", "x")
            ),
            "shape must hold one length >= 1 for each axis": (
                len(self.shape) == n and min(self.shape, default=0) >= 1
            ),
            f"dtype must be one of {', '.join(DTYPES)}": self.dtype in DTYPES,
            "scale must hold one number > 0 for each axis": (
                len(self.scale) == n and all(s > 0 for s in self.scale)
            ),
            "units must hold one entry for each axis": len(self.units) == n,
            "channel_names must hold one name for each channel": len(self.channel_names)
            == (self.channels if "c" in self.axes else 0),
            "channel_colors must be empty or hold one for each channel": len(self.channel_colors)
            in {0, len(self.channel_names)},
            "stored must be empty or hold the axes in another order": not self.stored
            or sorted(self.stored) == sorted(self.axes),
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"{rule}, got {self}")

    @property
    def plane_axes(self) -> tuple[str, ...]:
        """Leading axes other than c: what `Source.read` wants an index for."""
        return tuple(a for a in self.axes[:-2] if a != "c")

    @property
    def channels(self) -> int:
        """Number of channels; 1 without a c axis."""
        return self.shape[self.axes.index("c")] if "c" in self.axes else 1

    def size(self, axis: str) -> int:
        """Length of an axis; 1 where the source has no such axis."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1


class Source(Protocol):
    """An image in a foreign format, read box by box; safe to use from several threads.

    Attributes
    ----------
    info : SourceInfo
        Facts, known from the moment of opening.
    """

    info: SourceInfo

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box of one plane, all channels.

        Parameters
        ----------
        plane : mapping of str to int
            One index for each of ``info.plane_axes``.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (C, Y, X)
            Pixels in the dtype of the source, native byte order; C is 1 without a c axis.

        Raises
        ------
        InputError
            If the files cannot be decoded here.
        ValueError
            If `plane` or `box` do not lie in the image.
        """
        ...

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """Path, size and time of change of every file behind the source."""
        ...

    def close(self) -> None:
        """Close the files; reading afterwards is an error."""
        ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def stamp(path: str | os.PathLike[str]) -> FileStamp:
    """Stamp of one file as it is now.

    Parameters
    ----------
    path : str or path-like
        An existing file.

    Returns
    -------
    FileStamp
        With the absolute path.
    """
    absolute = Path(path).resolve()
    status = absolute.stat()
    return FileStamp(str(absolute), status.st_size, status.st_mtime_ns)
