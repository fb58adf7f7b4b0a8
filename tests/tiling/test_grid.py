"""Cores write each pixel once, whatever was done before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tiling import Box, Grid, Region

extents = st.tuples(st.integers(1, 70), st.integers(1, 70))
cells = st.tuples(st.integers(1, 30), st.integers(1, 30))


def painted(grid: Grid, regions: list[Region]) -> np.ndarray:
    count = np.zeros((*grid.planes, *grid.extent), int)
    for region in regions:
        count[(*region.plane, *region.core.slices())] += 1
    return count


@given(st.lists(st.integers(1, 3), max_size=2), extents, cells)
def test_cores_write_each_pixel_once(
    planes: list[int], extent: tuple[int, int], cell: tuple[int, int]
) -> None:
    grid = Grid(tuple(planes), extent, cell)
    regions = list(grid)
    assert len(regions) == len(grid)
    assert (painted(grid, regions) == 1).all()
    for number, region in enumerate(regions):
        assert grid.number(region.plane, *region.core.start) == number


@given(extents, cells, st.integers(1, 3), st.integers(1, 3), st.data())
def test_what_is_missing_completes_what_is_done(
    extent: tuple[int, int], cell: tuple[int, int], before: int, after: int, data: st.DataObject
) -> None:
    grid = Grid((2,), extent, cell)
    earlier = list(Grid((2,), extent, (cell[0] * before, cell[1] * before)))
    # By number: hypothesis shows what it draws from, and that would be 30 kB of regions.
    numbers = data.draw(st.lists(st.integers(0, len(earlier) - 1), unique=True))
    done = [earlier[number] for number in numbers]
    stands = np.zeros(grid.shape, bool)
    for region in done:
        stands[grid.cells(region)] = True
    left = list(grid.missing(stands, (cell[0] * after, cell[1] * after)))
    assert (painted(grid, done + left) == 1).all()


@given(extents, cells, st.integers(1, 3), st.data())
def test_what_is_missing_of_a_part_fills_that_part(
    extent: tuple[int, int], cell: tuple[int, int], times: int, data: st.DataObject
) -> None:
    grid = Grid((), extent, cell)
    spans = []
    for n, c in zip(extent, cell, strict=True):
        first = data.draw(st.integers(0, (n - 1) // c))
        spans.append((first * c, min(n, data.draw(st.integers(first + 1, -(-n // c))) * c)))
    part = Box((spans[0][0], spans[1][0]), (spans[0][1], spans[1][1]))
    stands = data.draw(arrays(bool, grid.shape))
    left = list(grid.missing(stands, (cell[0] * times, cell[1] * times), part))
    wanted = np.zeros(extent, int)
    wanted[part.slices()] = 1
    for cell_region in grid:
        if stands[grid.cells(cell_region)].all():
            wanted[cell_region.core.slices()] = 0
    assert (painted(grid, left) == wanted).all()


def test_a_region_of_which_nothing_is_done_stays_whole() -> None:
    grid = Grid((), (100, 100), (10, 10))
    assert len(list(grid.missing(np.zeros((10, 10), bool), (50, 50)))) == 4


def test_refuses_empty_images() -> None:
    with pytest.raises(ValueError, match="extent must be >= 1"):
        Grid((), (0, 5), (1, 1))
