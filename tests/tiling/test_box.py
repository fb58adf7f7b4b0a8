"""Boxes agree with NumPy slicing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling import Box

corner = st.tuples(st.integers(-20, 20), st.integers(-20, 20))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    start = draw(corner)
    shape = draw(st.tuples(st.integers(0, 25), st.integers(0, 25)))
    return Box(start, (start[0] + shape[0], start[1] + shape[1]))


def mask(box: Box) -> np.ndarray:
    canvas = np.zeros((120, 120), bool)
    canvas[box.slices((-60, -60))] = True
    return canvas


@given(boxes(), boxes())
def test_clip_and_meets_are_intersection(a: Box, b: Box) -> None:
    both = mask(a) & mask(b)
    assert a.meets(b) == both.any()
    if a.meets(b):
        assert np.array_equal(mask(a.clip(b)), both)
    else:
        assert a.clip(b).empty
        assert b.contains(a.clip(b))


@given(boxes(), st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_split_covers_the_box_once(box: Box, cell: tuple[int, int]) -> None:
    count = np.zeros((120, 120), int)
    for part in box.split(cell):
        assert not part.empty
        assert part.snap(cell).shape == cell
        count += mask(part)
    assert np.array_equal(count, mask(box).astype(int))


@given(boxes(), st.integers(1, 9))
def test_snap_is_refine_of_coarsen(box: Box, step: int) -> None:
    snapped = box.snap(step)
    assert snapped == box.coarsen(step).refine(step)
    assert snapped.contains(box)
    for axis in range(2):
        assert box.start[axis] - snapped.start[axis] < step
        assert snapped.stop[axis] - box.stop[axis] < step


def test_refuses_what_is_no_box() -> None:
    with pytest.raises(ValueError, match="as many axes"):
        Box((0,), (1, 2))
    with pytest.raises(ValueError, match="stop must be >= start"):
        Box((0, 3), (1, 2))
