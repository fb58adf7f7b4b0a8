"""The grid of regions: the units of work whose cores write each pixel exactly once.

::

        ┌───────────── image, one plane ─────────────┐
        │  core (0,0)      │  core (0,1)      │ core │   a core is a whole number of shards,
        │             ┌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┐         │   cut off only by the image's edge
        ├─────────────┼────┼───────────┼────┼────────┤   ← seam
        │             ╎halo│ core (1,1)│    ╎        │   a region reads its core and a halo,
        │             └╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┘         │   and writes its core alone
        └────────────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """One unit of work: a core in one plane of the image.

    Parameters
    ----------
    plane : tuple of int
        Index on every leading axis (t, z); empty for a plain 2-D image.
    core : Box
        The (y, x) pixels that this region alone writes.

    Examples
    --------
    >>> Region((3,), Box((0, 2048), (2048, 4000))).key
    '3_0-2048_2048-4000'
    """

    plane: tuple[int, ...]
    core: Box

    @property
    def key(self) -> str:
        """Name made of plane and core, safe in file names: ``t_y0-y1_x0-x1``."""
        spans = [f"{a}-{b}" for a, b in zip(self.core.start, self.core.stop, strict=True)]
        return "_".join([*map(str, self.plane), *spans])

    def __str__(self) -> str:
        place = f"[{self.core}]"
        return f"plane {self.plane} {place}" if self.plane else place


@dataclass(frozen=True, slots=True)
class Grid:
    """Cut of every plane of an image into cells, in C order.

    Parameters
    ----------
    planes : tuple of int
        Length of every leading axis; empty for a plain 2-D image.
    extent : tuple of int
        (Y, X) of a plane.
    cell : tuple of int
        (y, x) size of a cell.

    Raises
    ------
    ValueError
        If a size is not positive.

    Examples
    --------
    >>> grid = Grid((), (3000, 4000), (2048, 2048))
    >>> len(grid), [str(region) for region in grid][-1]
    (4, '[2048:3000,2048:4000]')
    """

    planes: tuple[int, ...]
    extent: tuple[int, int]
    cell: tuple[int, int]

    def __post_init__(self) -> None:
        for name in ("planes", "extent", "cell"):
            if any(n < 1 for n in getattr(self, name)):
                msg = f"{name} must be >= 1 on every axis, got {getattr(self, name)}"
                raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of cells on every axis, leading axes first."""
        cells = (-(-n // c) for n, c in zip(self.extent, self.cell, strict=True))
        return (*self.planes, *cells)

    def __len__(self) -> int:
        n = 1
        for count in self.shape:
            n *= count
        return n

    def __iter__(self) -> Iterator[Region]:
        for index in product(*(range(n) for n in self.shape)):
            yield self.region(index)

    def region(self, index: tuple[int, ...]) -> Region:
        """Region of a cell, by its index on every axis."""
        plane, at = index[: len(self.planes)], index[len(self.planes) :]
        start = tuple(i * c for i, c in zip(at, self.cell, strict=True))
        stop = tuple(min(a + c, n) for a, c, n in zip(start, self.cell, self.extent, strict=True))
        return Region(plane, Box(start, stop))

    def number(self, plane: tuple[int, ...], y: int, x: int) -> int:
        """Place in C order of the cell that holds pixel (y, x) of a plane."""
        index = (*plane, y // self.cell[0], x // self.cell[1])
        number = 0
        for i, n in zip(index, self.shape, strict=True):
            number = number * n + i
        return number

    def cells(self, region: Region) -> tuple[int | slice, ...]:
        """Index, in an array of this grid's `shape`, of the cells that a region covers.

        Examples
        --------
        >>> Grid((4,), (3000, 4000), (1024, 1024)).cells(Region((2,), Box((0, 1024), (2048, 4000))))
        (2, slice(0, 2, None), slice(1, 4, None))
        """
        spans = zip(region.core.start, region.core.stop, self.cell, strict=True)
        return (*region.plane, *(slice(a // c, -(-b // c)) for a, b, c in spans))

    def missing(
        self, done: np.ndarray, region_cell: tuple[int, int], within: Box | None = None
    ) -> Iterator[Region]:
        """List what is left when the cells that are done are taken away.

        Parameters
        ----------
        done : ndarray of this grid's `shape`, bool
            Which cells stand.
        region_cell : tuple of int
            Size of the regions to make, a multiple of this grid's cell.
        within : Box or None
            Part of every plane that is wanted, a union of cells; all where None.

        Yields
        ------
        Region
            Rectangles of cells, in C order of the regions they lie in. A region of which nothing
            is done comes out whole; of one that is partly done, the rest comes out in runs of
            cells, so that nothing that stands is written again.
        """
        bounds = Box.of_shape(self.extent)
        area = bounds if within is None else within.clip(bounds)
        coarse = Grid(self.planes, self.extent, region_cell)
        first = [a // c for a, c in zip(area.start, region_cell, strict=True)]
        last = [-(-b // c) for b, c in zip(area.stop, region_cell, strict=True)]
        places = (range(a, b) for a, b in zip(first, last, strict=True))
        for index in product(*(range(n) for n in self.planes), *places):
            region = coarse.region(index)
            core = region.core.clip(area)
            stands = done[self.cells(Region(region.plane, core))]
            if not stands.any():
                yield Region(region.plane, core)
            elif not stands.all():
                left = zip(core.split(self.cell), stands.ravel().tolist(), strict=True)
                for box in _runs([cell for cell, there in left if not there]):
                    yield Region(region.plane, box)


def _runs(cells: list[Box]) -> Iterator[Box]:
    """Join cells that follow each other on a row into one box."""
    run: Box | None = None
    for cell in cells:
        if run and run.start[0] == cell.start[0] and run.stop[1] == cell.start[1]:
            run = Box(run.start, cell.stop)
        else:
            if run:
                yield run
            run = cell
    if run:
        yield run
