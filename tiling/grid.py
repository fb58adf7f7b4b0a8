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
    from collections.abc import Iterable, Iterator


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

    def missing(self, done: Iterable[Region], region_cell: tuple[int, int]) -> Iterator[Region]:
        """List what is left when `done` is taken away, in regions of `region_cell`.

        Parameters
        ----------
        done : iterable of Region
            Regions whose cores are unions of cells of this grid, of any size.
        region_cell : tuple of int
            Size of the regions to make, a multiple of this grid's cell.

        Yields
        ------
        Region
            Rectangles of cells, in C order of the regions they lie in. A region of which nothing
            is done comes out whole; of one that is partly done, the rest comes out in runs of
            cells, so that nothing that stands is written again.
        """
        covered = {(r.plane, cell.start) for r in done for cell in r.core.split(self.cell)}
        for region in Grid(self.planes, self.extent, region_cell):
            cells = list(region.core.split(self.cell))
            left = [c for c in cells if (region.plane, c.start) not in covered]
            if len(left) == len(cells):
                yield region
            else:
                for box in _runs(left):
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
