"""Suppression and comparison with tensors against what the host does; on a GPU see tests/gpu."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from star_shapes import by_package, cells

from engine.device import Launch
from engine.methods import flag_device, flag_matching, star_device
from engine.methods.star_device import DeviceObjects, suppress_on
from engine.methods.star_overlap import Polygons, Sharing, sharing
from engine.methods.starconvex import StarObjects, suppress
from engine.stages.base import Frame, Place
from engine.stages.pooling import BandSums
from engine.stages.stardist import Instances
from tiling import BlendPlan, Box, Lattice, Tiling


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def agrees(objects: StarObjects, threshold: float) -> None:
    """Both name the same survivors, in the same order."""
    here, there = suppress(objects, threshold), suppress_on("cpu", objects, threshold)
    np.testing.assert_array_equal(here.points, there.points)
    np.testing.assert_array_equal(here.scores, there.scores)
    np.testing.assert_array_equal(here.rays, there.rays)


# Suppression


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    grid=st.sampled_from([1, 2, 4]),
    radius=st.sampled_from([3.0, 8.0, 14.0, 30.0]),
    noise=st.sampled_from([0.0, 0.03, 0.3]),
    rays=st.sampled_from([4, 8, 16, 32, 64]),
    origin=st.sampled_from([-40, 0, 40, 5000, 123_457, 4_000_000]),
    threshold=st.sampled_from([0.0, 0.1, 0.3, 0.4, 0.6, 0.9]),
)
def test_survivors_are_those_of_the_host(
    seed: int, grid: int, radius: float, noise: float, rays: int, origin: int, threshold: float
) -> None:
    agrees(
        cells(
            seed, grid=grid, side=64 * grid, radius=radius, noise=noise, rays=rays, origin=origin
        ),
        threshold,
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([5, 30, 200]))
def test_survivors_among_polygons_without_any_order(seed: int, spread: int) -> None:
    rng = np.random.default_rng(seed)
    rays = rng.uniform(0.001, 20, (300, 1)) * rng.uniform(0.3, 1, (300, 32))
    agrees(
        StarObjects(
            rng.integers(0, 10 + spread, (300, 2)),
            np.round(rng.random(300), 2).astype(np.float32),
            rays.astype(np.float32),
        ),
        0.3,
    )


def test_a_chain_in_which_each_overlaps_the_next() -> None:
    rays = np.full((40, 32), 20, np.float32)
    points = np.stack([np.full(40, 100), 100 + 12 * np.arange(40)], axis=1)
    agrees(StarObjects(points, np.linspace(1, 0.5, 40, dtype=np.float32), rays), 0.3)


def test_one_huge_polygon_among_small_ones() -> None:
    objects = cells(3, side=200, origin=3000)
    rays = objects.rays.copy()
    rays[len(rays) // 2] = 900
    agrees(StarObjects(objects.points, objects.scores, rays), 0.3)


def test_polygons_without_area_stay() -> None:
    points = np.array([[9, 9], [9, 9], [9, 10], [30, 30]])
    rays = np.full((4, 32), 1e-3, np.float32)
    agrees(StarObjects(points, np.ones(4, np.float32), rays), 0.3)


def test_no_candidate_and_one() -> None:
    agrees(StarObjects.none(32), 0.3)
    agrees(cells(1).take(np.array([0])), 0.3)


@pytest.mark.parametrize("ray", [np.nan, np.inf, 2.0**31])
def test_rays_that_are_no_distances_raise(ray: float) -> None:
    rays = np.full((2, 32), 5, np.float32)
    rays[1, 7] = ray
    objects = StarObjects(np.array([[50, 50], [60, 60]]), np.ones(2, np.float32), rays)
    with pytest.raises(ValueError, match=r"1 of 2 .* \(60, 60\)"):
        suppress_on("cpu", objects, 0.4)


def test_few_pairs_are_left_to_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = []
    inner = star_device._lost

    def counted(ordered: DeviceObjects, some: torch.Tensor, threshold: float) -> torch.Tensor:
        pairs.append(len(some))
        return inner(ordered, some, threshold)

    monkeypatch.setattr(star_device, "_lost", counted)
    objects = cells(6, side=400, radius=20, noise=0.01, origin=200)
    suppress_on("cpu", objects, 0.3)
    assert sum(pairs) < 0.02 * len(objects)


def test_objects_on_a_device_are_those_of_the_host() -> None:
    objects = cells(4)
    there = DeviceObjects.of(objects, "cpu")
    box = Box((10, 20), (70, 90))
    assert there.inside(box).tolist() == objects.inside(box).tolist()
    assert there.reach == objects.reach
    assert DeviceObjects.of(StarObjects.none(32), "cpu").reach == 0
    some = there.take(there.inside(box)).on_host()
    np.testing.assert_array_equal(some.rays, objects.take(objects.inside(box)).rays)


# Pairs


def star(y: int, x: int, rays: list[float]) -> tuple[list[int], list[float]]:
    """One polygon of four rays, towards +x, +y, -x, -y."""
    return [y, x], rays


def shared(*stars: tuple[list[int], list[float]]) -> Sharing:
    """Bounds of the share of two polygons, as close as they get."""
    points = torch.tensor([point for point, _ in stars])
    polygons = Polygons.of(points, torch.tensor([rays for _, rays in stars]))
    one, two = torch.tensor([0]), torch.tensor([1])
    # No simple bound is above all and below nothing: the integral is asked.
    return sharing(polygons, one, two, 0.999)


def test_areas_are_those_of_truncated_polygons() -> None:
    polygons = Polygons.of(torch.tensor([[50, 50]]), torch.tensor([[10.0, 20.5, 10.9, 20.0]]))
    # Truncated: (60, 50), (50, 70), (39, 50), (50, 30).
    assert polygons.area.tolist() == [21 * 40 / 2]
    assert polygons.low.tolist() == [[30, 39]]
    assert polygons.high.tolist() == [[70, 60]]
    assert polygons.fold.tolist() == [0]


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (star(50, 50, [20, 20, 20, 20]), 1),  # the same
        (star(50, 50, [10, 10, 10, 10]), 1),  # inside
        (star(50, 70, [20, 20, 20, 20]), 0.25),  # a quarter in common
        (star(50, 90, [20, 20, 20, 20]), 0),  # a corner in common
        (star(51, 51, [20, 20, 20, 20]), 0.95),
    ],
)
def test_shares_of_squares_on_their_corners(
    other: tuple[list[int], list[float]], share: float
) -> None:
    found = shared(star(50, 50, [20, 20, 20, 20]), other)
    assert found.least <= share + 1e-5
    assert share - 1e-5 <= found.most
    middle = float(found.least + found.most) / 2
    if 0 < share < 1:
        assert middle == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize(("noise", "decided"), [(0.0, 0.8), (0.1, 0.7), (0.3, 0.3)])
@pytest.mark.parametrize("origin", [0, 9_000])
def test_the_bounds_of_single_pairs_hold(noise: float, decided: float, origin: int) -> None:
    objects = cells(7, side=120, noise=noise, origin=origin)
    rng = np.random.default_rng(1)
    first, second = np.sort(rng.integers(0, len(objects), (2, 3000)), axis=0)
    near = np.abs(objects.points[first] - objects.points[second]).max(axis=1) < 20
    first, second = (k[near & (first < second)][:400] for k in (first, second))
    there = DeviceObjects.of(objects, "cpu")
    polygons = Polygons.of(there.points, there.rays)
    for threshold in (0.1, 0.3, 0.6):
        found = sharing(polygons, torch.from_numpy(first), torch.from_numpy(second), threshold)
        above, below = found.above(threshold).tolist(), found.below(threshold).tolist()
        assert sum(above) + sum(below) > decided * len(first)
        for k in range(len(first)):
            stays = by_package(objects.take(np.array([first[k], second[k]])), threshold)[1]
            assert not (above[k] and stays)
            assert not (below[k] and not stays)


# Comparison


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), origin=st.sampled_from([-30, 0, 100_000]))
def test_features_are_those_of_the_host(seed: int, origin: int) -> None:
    objects = cells(seed, side=60, origin=origin)
    here, there = flag_matching.features(objects), flag_device.features(objects, "cpu")
    np.testing.assert_array_equal(there[:, :4], here[:, :4])
    np.testing.assert_allclose(there[:, 4:], here[:, 4:], atol=1e-9, rtol=0)


def test_no_object_has_no_features() -> None:
    assert flag_device.features(StarObjects.none(32), "cpu").shape == (0, 6)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    places=st.sampled_from([2, 50]),
)
def test_the_nearest_are_those_of_the_host(seed: int, sizes: tuple[int, int], places: int) -> None:
    # Few places: many are equally near, and the first counts.
    rng = np.random.default_rng(seed)
    one, other = (rng.integers(0, places, (n, 6)).astype(np.float64) for n in sizes)
    here = flag_matching._nearest(one, other, "cpu")
    there = flag_device.nearest(one, other, "cpu")
    np.testing.assert_array_equal(here[0], there[0])
    np.testing.assert_array_equal(here[1], there[1])


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    one, other = rng.random((50, 6)), rng.random((7, 6))
    whole = flag_device.nearest(one, other, "cpu")
    monkeypatch.setattr(flag_device, "_BLOCK", 20)
    for a, b in zip(whole, flag_device.nearest(one, other, "cpu"), strict=True):
        np.testing.assert_array_equal(a, b)


# Candidates that do not leave the device


def test_bands_of_candidates_are_joined_in_order() -> None:
    whole = cells(3, side=200)
    parts = [whole.take(np.arange(*edges)) for edges in ((0, 5), (5, 5), (5, len(whole)))]
    joined = DeviceObjects.concatenate([DeviceObjects.of(part, "cpu") for part in parts])
    assert joined.reach == whole.reach
    back = joined.on_host()
    np.testing.assert_array_equal(back.points, whole.points)
    np.testing.assert_array_equal(back.scores, whole.scores)
    np.testing.assert_array_equal(back.rays, whole.rays)


def test_a_stage_takes_candidates_where_they_lie() -> None:
    frame, core = Frame((), (400, 400), 1, "uint8"), Box((0, 0), (200, 200))
    here = cells(3, side=400)
    there = DeviceObjects.of(here, "cpu")
    stage, place = Instances(frame, 0.4, 32), Place((), Launch("cpu", "float32", 1))
    found = [stage.run({"candidates": c}, {"objects": core}, place) for c in (here, there)]
    one, two = (made.products["objects"] for made in found)
    assert len(one) > 20
    assert found[0].notes == found[1].notes
    assert found[0].notes["objects"] < len(one)
    for name in ("points", "scores", "rays"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_sums_are_divided_on_a_device_as_by_numpy() -> None:
    """The mean at candidates is the mean of the band, to the last bit."""
    lattice = Lattice((96, 128), Tiling(64, 32, 0, 8, 1, "average"))
    plan = BlendPlan(lattice, Box((0, 0), (96, 128)))
    sums = BandSums(plan, 3, torch.device("cpu"))
    rng = np.random.default_rng(0)
    for row in plan.rows():
        values = rng.random((len(row.tiles), 64, 64, 3), dtype=np.float32)
        sums.add(row.tiles, torch.from_numpy(values))
        mean = sums.mean(row)
        rows, columns = np.nonzero(rng.random(mean.shape[:2]) < 0.3)
        assert len(np.unique(sums.weight(row)[rows, columns])) > 1
        np.testing.assert_array_equal(sums.mean_at(rows, columns).numpy(), mean[rows, columns])
        sums.move_past(row)


def test_suppression_is_projected_on_a_gpu_only() -> None:
    frame, wanted = Frame((), (4096, 4096), 1, "uint8"), {"objects": Box((0, 0), (2048, 2048))}
    on_cpu, on_gpu = (Instances(frame, 0.4, 64, d) for d in ("cpu", "cuda"))
    assert on_cpu.device_memory(wanted) == 0
    # A quarter of the places of the grid, 1.5 kB each, beside blocks of 0.6 GB.
    candidates = 2112**2 // 16
    assert on_gpu.device_memory(wanted) > 0.6e9 + candidates * 1500
    assert on_gpu.device_memory(wanted) < 0.6e9 + candidates * 2000
