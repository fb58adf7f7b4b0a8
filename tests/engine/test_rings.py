"""Outlines along the edges of pixels: filled again they are the pixels, however they were read."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.draw import polygon

from engine.methods.rings import Corners, Polygon, find_corners, ring_area, trace

LABELS = arrays(
    np.uint32,
    array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.sampled_from([0, 1, 2**32 - 1]),
)


def filled(ring: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centres lie inside a ring."""
    mask = np.zeros(shape, np.bool_)
    mask[polygon(ring[:, 0] - 0.5, ring[:, 1] - 0.5, shape)] = True
    return mask


def painted(polygons: list[Polygon], shape: tuple[int, int]) -> np.ndarray:
    """How many polygons cover each pixel: shells without their holes."""
    count = np.zeros(shape, np.int64)
    for shell, *holes in polygons:
        inside = filled(shell, shape).astype(np.int64)
        for hole in holes:
            inside -= filled(hole, shape)
        assert inside.min() >= 0  # holes lie in their own shell
        count += inside
    return count


def outlines(labels: np.ndarray, side: int) -> dict[int, list[Polygon]]:
    """Polygons of labels whose corners were found block by block."""
    padded = np.pad(labels, 1)
    rows, columns = (range(0, n + 1, side) for n in labels.shape)
    return trace(
        Corners.concatenate(
            find_corners(padded[y : y + side + 1, x : x + side + 1], (y - 1, x - 1))
            for y in rows
            for x in columns
        )
    )


@given(LABELS, st.integers(1, 10))
def test_filled_again_they_are_the_pixels(labels: np.ndarray, side: int) -> None:
    found = outlines(labels, side)
    assert set(found) == set(np.unique(labels).tolist()) - {0}
    for label, polygons in found.items():
        np.testing.assert_array_equal(painted(polygons, labels.shape), labels == label)
        rings = [ring for one in polygons for ring in one]
        assert sum(map(ring_area, rings)) == np.count_nonzero(labels == label)
        for shell, *holes in polygons:
            assert ring_area(shell) > 0
            assert all(ring_area(hole) < 0 for hole in holes)
        # Simple, as GeoJSON's readers ask for: no point twice; and no point without a turn.
        for ring in rings:
            assert len(np.unique(ring, axis=0)) == len(ring)
            steps = np.roll(ring, -1, axis=0) - ring
            assert ((steps != 0).sum(axis=1) == 1).all()
            assert ((steps[:, 0] == 0) != np.roll(steps[:, 0] == 0, 1)).all()


@pytest.mark.parametrize(
    ("rows", "rings"),
    [
        (["#"], [1]),
        (["#.", ".#"], [1, 1]),  # they touch at a point alone
        (["###", "#.#", "###"], [2]),
        (["####", "#.##", "##.#", "####"], [3]),  # two holes that touch are two
        ([".##", "#.#", "###"], [2]),  # a hole that is open at a point alone
        (["#####", "#...#", "#.#.#", "#...#", "#####"], [2, 1]),  # an island in a hole
    ],
)
def test_rings_of_shapes(rows: list[str], rings: list[int]) -> None:
    labels = np.array([[letter == "#" for letter in row] for row in rows]).astype(np.uint8)
    (polygons,) = outlines(labels, 16).values()
    assert sorted((len(one) for one in polygons), reverse=True) == rings


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((4, 5), np.uint16), 3) == {}
