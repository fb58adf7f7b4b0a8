"""Boxes of pixels out of TIFF pages: only the tiles, strips or rows that meet the box are read."""

from __future__ import annotations

import os
import threading
from math import prod
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.store.sources.cache import DecodeCache
from engine.store.sources.tiff_chain import beyond_end
from engine.store.sources.tiff_grid import SegmentGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from tifffile import TiffFrame, TiffPage

    from engine.store.sources.tiff_layout import PageStack
    from tiling.box import Box

# Tiles that reach over a box are kept for its neighbour: a row of 512-px tiles along an edge of
# 8192 px in RGB is 13 MB.
CACHE_BYTES = 32 << 20

# Compressions that tifffile decodes with tables kept outside of the segment.
_JPEG = {6, 7, 34892, 33007}


class TiffPixels:
    """Reads boxes of the planes of a stack of pages; safe to use from several threads.

    Files are read by position, so that threads share a descriptor without a lock; the lock
    guards tifffile alone, which looks up pages by moving through the file.

    Parameters
    ----------
    path : Path
        The file that was opened. Others behind the stack are opened for each read.
    stack : PageStack
        The pages.

    Raises
    ------
    InputError
        If no decoder is known for the compression.
    """

    def __init__(self, path: Path, stack: PageStack) -> None:
        self._path = path
        self._stack = stack
        self._grid = SegmentGrid.of(stack.keyframe)
        self._lock = threading.Lock()
        self._cache = DecodeCache(CACHE_BYTES)
        self._check_codec()
        self._fd = os.open(path, os.O_RDONLY)

    @property
    def block(self) -> tuple[int, int]:
        """Size (y, x) of a segment; some rows where pixels lie in the file as they are."""
        _, _, height, width, _ = self._stack.keyframe.shaped
        if self._stack.keyframe.is_final:
            return min(256, height), width
        return min(self._grid.height, height), min(self._grid.width, width)

    def close(self) -> None:
        """Close the file and drop what was kept."""
        self._cache.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def files(self) -> tuple[Path, ...]:
        """All files that hold pages, in the order in which they first appear."""
        paths = {self._path: None}
        for i in range(0 if self._stack.offset is not None else self._stack.n_pages):
            paths[self._file(self._page(i))] = None
        return tuple(paths)

    def check_complete(self) -> None:
        """Compare where segments should lie with the sizes of the files.

        Raises
        ------
        InputError
            If any pixel lies beyond the end of its file, or if a page is missing.
        """
        stack, sizes = self._stack, {self._path: os.fstat(self._fd).st_size}
        if stack.offset is not None:
            n_bytes = prod(stack.shape) * stack.dtype.itemsize
            if stack.offset + n_bytes > sizes[self._path]:
                raise beyond_end(
                    self._path, f"{n_bytes} bytes of pixels", stack.offset, sizes[self._path]
                )
            return
        for i in range(stack.n_pages):
            page = self._page(i)
            path = self._file(page)
            size = sizes.setdefault(path, path.stat().st_size)
            self._check_page(page, i, size)

    def _check_page(self, page: TiffPage | TiffFrame, number: int, size: int) -> None:
        """Refuse a page whose segments do not all lie in its file of `size` bytes."""
        keyframe, path = self._stack.keyframe, self._file(page)
        needed = prod(self._grid.along) * keyframe.shaped[0]
        pieces = list(zip(page.dataoffsets, page.databytecounts, strict=False))
        if keyframe.is_final and pieces and _in_one_piece(page):
            pieces = [(page.dataoffsets[0], keyframe.nbytes)]
        elif len(pieces) < needed:
            found = f"{len(pieces)} positions"
            raise _broken(path, f"{needed} tiles or strips", found, number)
        start, n_bytes = max(pieces, key=sum)
        if start + n_bytes > size:
            raise beyond_end(path, f"{n_bytes} bytes of page {number + 1}", start, size)

    def read(self, plane: int, box: Box) -> NDArray[np.generic]:
        """Read a box of one plane.

        Parameters
        ----------
        plane : int
            Flat number of the plane in the stack.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (Y, X, S)
            All samples of each pixel, native byte order.

        Raises
        ------
        InputError
            If the file cannot be read or decoded here.
        """
        stack = self._stack
        separate, depth, height, width, samples = stack.keyframe.shaped
        plane_bytes = height * width * samples * stack.dtype.itemsize
        if stack.offset is not None:
            return self._rows(self._path, stack.offset + plane * plane_bytes, box)
        number, inner = divmod(plane, separate * depth)
        page = self._page(number)
        if stack.keyframe.is_final and _in_one_piece(page):
            start = page.dataoffsets[0] + inner * plane_bytes
            return self._rows(self._file(page), start, box)
        return self._segments(page, number, divmod(inner, depth), box)

    def _rows(self, path: Path, start: int, box: Box) -> NDArray[np.generic]:
        """Read the rows of a box from a plane that lies in the file as it is."""
        keyframe = self._stack.keyframe
        _, _, _, width, samples = keyframe.shaped
        stored = self._stack.dtype.newbyteorder(keyframe.parent.byteorder)
        pixel = samples * stored.itemsize
        out = np.empty((*box.shape, samples), stored)
        if box.empty:
            return out.astype(self._stack.dtype)
        whole = box.shape[1] == width
        rows = out.reshape(1 if whole else box.shape[0], -1)
        for i, row in enumerate(rows):
            at = start + ((box.start[0] + i) * width + box.start[1]) * pixel
            self._fill(path, at, row.view(np.uint8))
        return out.astype(self._stack.dtype, copy=False)

    def _segments(
        self, page: TiffPage | TiffFrame, number: int, inner: tuple[int, int], box: Box
    ) -> NDArray[np.generic]:
        """Decode the tiles or strips of a page that meet a box."""
        keyframe, grid = self._stack.keyframe, self._grid
        out = np.empty((*box.shape, keyframe.shaped[4]), self._stack.dtype)
        for index, cell in grid.meeting(*inner, box):
            part = cell.clip(box)
            decoded = self._segment(page, number, index, keep=not box.contains(cell))
            if decoded is None:
                out[part.slices(box.start)] = keyframe.nodata
                continue
            pixels = decoded[inner[1] % grid.depth][part.slices(cell.start)]
            if pixels.shape[:2] != part.shape:
                raise _broken(self._file(page), f"pixels for {part}", "fewer", number)
            out[part.slices(box.start)] = pixels
        return out

    def _segment(
        self, page: TiffPage | TiffFrame, number: int, index: int, *, keep: bool
    ) -> NDArray[np.generic] | None:
        """Give a decoded segment (depth, rows, columns, samples); None where none was stored."""
        if index >= len(page.dataoffsets):
            raise _broken(self._file(page), f"a tile or strip {index}", "none", number)
        if not page.dataoffsets[index] or not page.databytecounts[index]:
            return None
        if keep or self._grid.depth > 1:
            return self._cache.get((number, index), lambda: self._decode(page, number, index))
        return self._decode(page, number, index)

    def _decode(self, page: TiffPage | TiffFrame, number: int, index: int) -> NDArray[np.generic]:
        keyframe, path = self._stack.keyframe, self._file(page)
        data = np.empty(page.databytecounts[index], np.uint8)
        self._fill(path, page.dataoffsets[index], data)
        tables: dict[str, bytes | None] = {}
        if keyframe.compression in _JPEG:
            tables = {"jpegtables": page.jpegtables, "jpegheader": keyframe.jpegheader}
        try:
            decoded = keyframe.decode(data.tobytes(), index, **tables)[0]
        # Decoders of some thirty formats meet damaged bytes here, each with errors of its own.
        except Exception as err:
            raise InputError(
                where=f"{path}, page {number + 1}",
                expected=f"a readable tile or strip {index} ({keyframe.compression!r})",
                found=f"{type(err).__name__}: {err}",
                remedy="The file is damaged there: copy or export it again.",
            ) from err
        return np.asarray(decoded)

    def _page(self, number: int) -> TiffPage | TiffFrame:
        with self._lock:
            page = self._stack.page(number)
        if page is None:
            raise _broken(self._path, "all pages that its description names", "none", number)
        return page

    def _file(self, page: TiffPage | TiffFrame) -> Path:
        path = Path(page.parent.filehandle.path)
        return self._path if path.name == self._path.name else path

    def _fill(self, path: Path, at: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes of a file from position `at` on."""
        if path == self._path:
            done = _read_into(self._fd, at, out)
        else:
            fd = os.open(path, os.O_RDONLY)
            try:
                done = _read_into(fd, at, out)
            finally:
                os.close(fd)
        if done < out.nbytes:
            raise beyond_end(path, f"{out.nbytes} bytes of pixels", at, path.stat().st_size)

    def _check_codec(self) -> None:
        """Refuse a compression without a decoder now, and make tifffile's decoder, once."""
        keyframe = self._stack.keyframe
        try:
            # Decoding nothing still fails where the decoder is an impossible one.
            keyframe.decode(None, 0)
        except (KeyError, ValueError, NotImplementedError, ImportError) as err:
            raise InputError(
                where=str(self._path),
                expected="a TIFF compression that can be decoded",
                found=f"{keyframe.compression!r}: {err}",
                remedy="Export the image uncompressed, or with Deflate, LZW, Zstandard or JPEG.",
            ) from err


def _in_one_piece(page: TiffPage | TiffFrame) -> bool:
    """Whether the strips or tiles of an uncompressed page follow each other without a gap."""
    offsets = page.dataoffsets
    ends = map(add, offsets, page.databytecounts)
    return all(end == start for end, start in zip(ends, offsets[1:], strict=False))


def _read_into(fd: int, at: int, out: NDArray[np.uint8]) -> int:
    """Read from position `at` until `out` is full or the file ends; bytes read."""
    view, done = out.data, 0
    while done < len(view):
        # One call moves at most 2 GiB on Linux.
        n = os.preadv(fd, [view[done:]], at + done)
        if n == 0:
            break
        done += n
    return done


def _broken(path: Path, expected: str, found: str, page: int) -> InputError:
    return InputError(
        where=f"{path}, page {page + 1}",
        expected=expected,
        found=found,
        remedy="The file is incomplete: copy or export it again, with all files that belong to it.",
    )
