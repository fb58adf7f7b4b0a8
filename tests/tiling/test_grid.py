"""Cores write each pixel once, whatever was done before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling import Grid, Region

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
    done = data.draw(st.lists(st.sampled_from(earlier), unique=True))
    left = list(grid.missing(done, (cell[0] * after, cell[1] * after)))
    assert (painted(grid, done + left) == 1).all()


def test_a_region_of_which_nothing_is_done_stays_whole() -> None:
    grid = Grid((), (100, 100), (10, 10))
    assert len(list(grid.missing([], (50, 50)))) == 4


def test_refuses_empty_images() -> None:
    with pytest.raises(ValueError, match="extent must be >= 1"):
        Grid((), (0, 5), (1, 1))
