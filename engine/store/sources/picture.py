"""PNG, JPEG and BMP: formats that are decoded a whole frame at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from engine.errors import InputError
from engine.store.sources.base import FileStamp, Source, SourceInfo, stamp
from engine.store.sources.checks import check_request, check_shape
from engine.store.sources.facts import RGB_COLORS, RGB_NAMES
from engine.store.sources.picture_header import PictureHeader, read_header

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from engine.store.sources.cache import DecodeCache
    from tiling.box import Box


class PictureSource(Source):
    """One frame in a file; decoded whole, and kept while its neighbouring boxes are read.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        ``"png"``, ``"jpeg"`` or ``"bmp"``.
    cache : DecodeCache
        Holds decoded frames; shared between the frames of a folder.

    Raises
    ------
    InputError
        If the file is damaged or was cut off, or if its pixels cannot be taken.
    """

    def __init__(self, path: Path, kind: str, cache: DecodeCache) -> None:
        self._path = path
        self._header = read_header(path, kind)
        self._cache = cache
        check_shape(str(path), (self._header.height, self._header.width, self._header.samples))
        self.info = _describe(self._header)

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box; see `Source.read`.

        Parameters
        ----------
        plane : mapping of str to int
            Empty.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (C, Y, X)
            uint8 or uint16.

        Raises
        ------
        InputError
            If the file cannot be decoded.
        """
        check_request(self.info, plane, box)
        frame = self._cache.get(self._path, self._decode)
        return np.ascontiguousarray(np.moveaxis(frame[box.slices()], -1, 0))

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """Stamp of the file."""
        return (stamp(self._path),)

    def close(self) -> None:
        """Drop the frame if it is kept; no file stays open."""
        self._cache.drop(self._path)

    def _decode(self) -> NDArray[np.generic]:
        """Decode the frame: (Y, X, S)."""
        header, data = self._header, self._path.read_bytes()
        try:
            if header.kind == "png":
                frame = imagecodecs.png_decode(data)
            elif header.kind == "jpeg":
                frame = imagecodecs.jpeg8_decode(data)
            else:
                frame = imagecodecs.bmp_decode(data, asrgb=header.samples > 1)
        # Each codec has an error class of its own, all of them derived from RuntimeError.
        except (RuntimeError, ValueError) as err:
            raise self._broken(f"{type(err).__name__}: {err}") from err
        shape = (header.height, header.width, header.samples)
        whole = np.asarray(frame)
        if whole.size != np.prod(shape) or whole.dtype.name != header.dtype:
            raise self._broken(f"{whole.dtype.name} pixels of shape {whole.shape}")
        return whole.reshape(shape)

    def _broken(self, found: str) -> InputError:
        h = self._header
        return InputError(
            where=str(self._path),
            expected=f"a {h.kind.upper()} frame of {h.height} x {h.width} x {h.samples} {h.dtype}",
            found=found,
            remedy="The file is damaged or was changed: copy or export it again.",
        )


def _describe(header: PictureHeader) -> SourceInfo:
    shape: tuple[int, ...] = (header.height, header.width)
    axes: tuple[str, ...] = ("y", "x")
    scale: tuple[float, ...] = header.pixel_um or (1.0, 1.0)
    units: tuple[str | None, ...] = ("micrometer",) * 2 if header.pixel_um else (None, None)
    names: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    if header.samples > 1:
        shape, axes = (header.samples, *shape), ("c", *axes)
        scale, units = (1.0, *scale), (None, *units)
        names = RGB_NAMES[: header.samples] if header.samples > 2 else ("grey", "alpha")
        colors = (*RGB_COLORS, "FFFFFF")[: header.samples] if header.samples > 2 else ()
    return SourceInfo(
        axes=axes,
        shape=shape,
        dtype=header.dtype,
        scale=scale,
        units=units,
        channel_names=names,
        channel_colors=colors,
        properties=header.properties,
        preferred_block=(header.height, header.width),
        format=header.kind.upper(),
        stored=(*axes[-2:], *axes[:-2]),
    )
