"""Suppression and rendering against the stardist package and scikit-image, which define them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import polygon
from star_shapes import by_package, cells

from engine.methods.pruning import _left_out, area_at_most, shared_at_least, survivors
from engine.methods.starconvex import StarObjects, render, suppress
from tiling import Box


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    grid=st.sampled_from([1, 2, 4]),
    radius=st.sampled_from([3.0, 8.0, 14.0, 30.0]),
    noise=st.sampled_from([0.0, 0.03, 0.3]),
    rays=st.sampled_from([4, 8, 16, 32, 64]),
    origin=st.sampled_from([0, 40, 5000, 123_457, 4_000_000]),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.6, 0.9]),
)
def test_survivors_are_those_of_the_package(
    seed: int, grid: int, radius: float, noise: float, rays: int, origin: int, threshold: float
) -> None:
    objects = cells(
        seed, grid=grid, side=64 * grid, radius=radius, noise=noise, rays=rays, origin=origin
    )
    kept = survivors(objects.points, objects.rays, objects.scores, threshold)
    np.testing.assert_array_equal(kept, by_package(objects, threshold))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([5, 30, 200]))
def test_survivors_among_polygons_without_any_order(seed: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 10 + spread, (300, 2))
    rays = rng.uniform(0.001, 20, (300, 1)) * rng.uniform(0.3, 1, (300, 32))
    scores = np.sort(rng.random(300))[::-1].astype(np.float32)
    objects = StarObjects(points, scores, rays.astype(np.float32))
    kept = survivors(objects.points, objects.rays, objects.scores, 0.3)
    np.testing.assert_array_equal(kept, by_package(objects, 0.3))


def test_most_candidates_need_no_clipping() -> None:
    objects = cells(6, side=400, radius=20, noise=0.01, origin=200)
    _, out = _left_out(objects.points, objects.rays, objects.scores, 0.3)
    assert out.mean() > 0.6


def test_candidates_of_a_witness_that_does_not_survive_come_back() -> None:
    # A chain: each suppresses the next, in hills of one pixel each, so that all are peaks.
    rays = np.full((40, 32), 20, np.float32)
    points = np.stack([np.full(40, 100), 100 + 12 * np.arange(40)], axis=1)
    scores = np.linspace(1, 0.5, 40, dtype=np.float32)
    kept = survivors(points, rays, scores, 0.3)
    np.testing.assert_array_equal(kept, by_package(StarObjects(points, scores, rays), 0.3))
    assert 0 < kept.sum() < 40


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2])
@pytest.mark.parametrize("origin", [100, 9_000, 140_003])
def test_bounds_hold_for_single_pairs(noise: float, origin: int) -> None:
    # The share that the bounds promise is one at which the package suppresses the second.
    objects = cells(7, side=120, noise=noise, origin=origin)
    rng = np.random.default_rng(1)
    first, second = rng.integers(0, len(objects), (2, 4000))
    near = np.abs(objects.points[first] - objects.points[second]).max(axis=1) < 14
    first, second = first[near], second[near]
    shared = shared_at_least(objects.points, objects.rays, first, second)
    area = area_at_most(objects.rays)
    share = shared / np.minimum(area[first], area[second])
    known = np.flatnonzero(shared > 0)
    assert len(known) > 50
    for k in known[:300]:
        pair = objects.take(np.array([second[k], first[k]]))
        assert by_package(pair, float(share[k]) * 0.9999).tolist() == [True, False]


def test_suppression_does_not_depend_on_the_order_given() -> None:
    objects = cells(5)
    shuffled = objects.take(np.random.default_rng(0).permutation(len(objects)))
    first, second = suppress(objects, 0.3), suppress(shuffled, 0.3)
    np.testing.assert_array_equal(first.points, second.points)
    np.testing.assert_array_equal(first.rays, second.rays)
    assert (np.diff(first.scores) <= 0).all()


def test_no_candidates_give_no_objects() -> None:
    assert len(suppress(StarObjects.none(32), 0.3)) == 0


def painted(objects: StarObjects, box: Box) -> np.ndarray:
    """Paint one polygon after the other with scikit-image, the best last: labels as `render`."""
    low = min(*box.start, int(objects.boxes()[:, :2].min(initial=0)))
    high = max(*box.stop, int(objects.boxes()[:, 2:].max(initial=0)))
    canvas = np.zeros((high - low, high - low), np.int32)
    outlines = objects.outlines().astype(np.float64) - low
    for k in np.lexsort((-objects.points[:, 1], -objects.points[:, 0], objects.scores)):
        canvas[polygon(*outlines[k], canvas.shape)] = k + 1
    return canvas[box.slices((low, low))]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 30),
    rays=st.sampled_from([3, 4, 8, 32, 64]),
    longest=st.sampled_from([0.5, 5, 40]),
    whole=st.sampled_from([None, 1, 2]),
    corner=st.tuples(st.integers(20, 110), st.integers(20, 110)),
)
def test_rendering_is_that_of_scikit_image(
    seed: int, count: int, rays: int, longest: float, whole: int | None, corner: tuple[int, int]
) -> None:
    # Rays of whole and half pixels put vertices and edges right on pixels. Far from 0, where
    # float32 keeps sines of 1e-16, which decide a pixel, but not in a canvas that lies elsewhere.
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0, longest, (count, 1)) * rng.uniform(0.1, 1, (count, rays))
    lengths = lengths if whole is None else np.round(lengths * whole) / whole
    objects = StarObjects(
        rng.integers(50, 150, (count, 2)),
        np.round(rng.random(count), 1).astype(np.float32),
        np.maximum(lengths, 1e-3).astype(np.float32),
    )
    box = Box(corner, (corner[0] + 70, corner[1] + 50))
    np.testing.assert_array_equal(render(objects, box), painted(objects, box))


def test_an_object_has_the_same_pixels_in_every_box() -> None:
    objects = suppress(cells(2, side=200, origin=1000), 0.3)
    whole = render(objects, Box((1000, 1000), (1200, 1200)))
    part = render(objects, Box((1037, 1101), (1150, 1190)))
    assert part.any()
    np.testing.assert_array_equal(part, whole[37:150, 101:190])


@pytest.mark.parametrize("ray", [np.nan, np.inf, 2.0**31])
def test_rays_that_are_no_distances_raise(ray: float) -> None:
    rays = np.full((2, 32), 5, np.float32)
    rays[1, 7] = ray
    objects = StarObjects(np.array([[50, 50], [60, 60]]), np.ones(2, np.float32), rays)
    with pytest.raises(ValueError, match=r"1 of 2 .* \(60, 60\)"):
        suppress(objects, 0.4)
