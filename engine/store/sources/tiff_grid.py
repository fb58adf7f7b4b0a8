"""Tiles and strips of a TIFF page: which of them meet a box."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tiling.box import Box

if TYPE_CHECKING:
    from tifffile import TiffPage


@dataclass(frozen=True)
class SegmentGrid:
    """How a page is cut into segments: tiles, or strips as tiles of full width.

    Parameters
    ----------
    depth, height, width : int
        Size of a segment in pixels.
    along : tuple of int
        Segments along depth, rows and columns of a page.

    Examples
    --------
    >>> grid = SegmentGrid(depth=1, height=64, width=64, along=(1, 4, 3))
    >>> [index for index, _ in grid.meeting(0, 0, Box((60, 70), (70, 80)))]
    [1, 4]
    """

    depth: int
    height: int
    width: int
    along: tuple[int, int, int]

    @classmethod
    def of(cls, page: TiffPage) -> SegmentGrid:
        """Grid of a page and of all pages like it."""
        _, n_depth, n_rows, n_columns, _ = page.shaped
        if page.is_tiled:
            depth, height, width = page.tiledepth, page.tilelength, page.tilewidth
        else:
            depth, height, width = 1, max(1, min(page.rowsperstrip, n_rows)), n_columns
        along = (-(-n_depth // depth), -(-n_rows // height), -(-n_columns // width))
        return cls(depth, height, width, along)

    def meeting(self, separate: int, depth: int, box: Box) -> Iterator[tuple[int, Box]]:
        """Find the segments of one plane of a page that meet a box.

        Parameters
        ----------
        separate, depth : int
            Sample plane and slice within the page.
        box : Box
            Two axes (y, x).

        Yields
        ------
        int
            Number of the segment in the page.
        Box
            Its rectangle, not clipped to the image.
        """
        n_depth, n_rows, n_columns = self.along
        base = (separate * n_depth + depth // self.depth) * n_rows
        cells = box.coarsen((self.height, self.width))
        for i in range(cells.start[0], cells.stop[0]):
            for j in range(cells.start[1], cells.stop[1]):
                cell = Box((i, j), (i + 1, j + 1)).refine((self.height, self.width))
                yield (base + i) * n_columns + j, cell
