"""Flags: nearest objects, votes, early stop and merging, against slow and obvious references."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom

from engine.methods.flag_extras import covered, merge_extras, share_of
from engine.methods.flag_matching import compare, features, pair
from engine.methods.flag_votes import Votes, chances, votes_needed
from engine.methods.starconvex import StarObjects, render
from tiling import Box

RAYS = 32
SEEDS = st.integers(0, 2**32 - 1)


def blobs(seed: int, *, most: int = 12, side: int = 120, start: int = 40) -> StarObjects:
    """Up to `most` smooth star-convex objects, in the order of `suppress`; scores have ties."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, most + 1))
    points = rng.integers(start, start + side, (count, 2))
    points = np.unique(points, axis=0) if count else points.reshape(0, 2)
    count = len(points)
    angle = 2 * np.pi * np.arange(RAYS) / RAYS
    waves = rng.uniform(-0.2, 0.2, (count, 2, 1)) * np.stack([np.cos(angle), np.sin(2 * angle)])
    rays = rng.uniform(4, 14, (count, 1)) * (1 + waves.sum(axis=1))
    scores = np.round(rng.uniform(0.5, 1, count), int(rng.choice([1, 6])))
    objects = StarObjects(
        points.astype(np.int64), scores.astype(np.float32), rays.astype(np.float32)
    )
    return objects.take(np.lexsort((points[:, 1], points[:, 0], -scores)))


def disc(y: int, x: int, radius: float, score: float = 1) -> StarObjects:
    """One round object."""
    return StarObjects(
        np.array([[y, x]]), np.full(1, score, np.float32), np.full((1, RAYS), radius, np.float32)
    )


def joined(*parts: StarObjects) -> StarObjects:
    """Objects of several parts in the order of `suppress`."""
    every = StarObjects.concatenate(list(parts), RAYS)
    y, x = every.points.T
    return every.take(np.lexsort((x, y, -every.scores)))


def moved(objects: StarObjects, by: tuple[int, int]) -> StarObjects:
    """The same objects elsewhere."""
    return StarObjects(objects.points + np.array(by), objects.scores, objects.rays)


def painted_features(objects: StarObjects) -> np.ndarray:
    """Boxes and centroids of painted masks, as Algorithm 1 takes them: (n, 6)."""
    rows = []
    for k, edges in enumerate(objects.boxes().tolist()):
        box = Box(tuple(edges[:2]), tuple(edges[2:]))
        y, x = np.nonzero(render(objects.take(np.array([k])), box))
        y, x = y + box.start[0], x + box.start[1]
        rows.append([x.min(), y.min(), x.max(), y.max(), x.mean(), y.mean()])
    return np.array(rows, np.float64).reshape(-1, 6)


def obvious_compare(a: np.ndarray, b: np.ndarray, tau: float) -> tuple[list[bool], list[bool]]:
    """Algorithm 1's flags from the whole matrix of distances: missing and extra."""
    table = np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))

    def flags(table: np.ndarray) -> list[bool]:
        found = []
        for i in range(table.shape[0]):
            if table.shape[1] == 0:
                found.append(True)
                continue
            j = int(table[i].argmin())
            found.append(int(table[:, j].argmin()) != i or table[i, j] > tau)
        return found

    return flags(table), flags(table.T)


def obvious_merge(
    parts: list[tuple[int, StarObjects]], share: float
) -> list[tuple[tuple[int, int], set[int]]]:
    """One candidate after the other: place of each cluster's best, and its defenses."""
    loose = [(k, o.take(np.array([i]))) for k, o in parts for i in range(len(o))]
    loose.sort(key=lambda p: (-p[1].scores[0], *p[1].points[0], *p[1].rays[0]))
    clusters: list[tuple[StarObjects, set[int]]] = []
    for number, one in loose:
        x0, y0, x1, y1 = features(one)[0, :4]
        for head, numbers in clusters:
            u0, v0, u1, v1 = features(head)[0, :4]
            common = max(0, min(x1, u1) - max(x0, u0)) * max(0, min(y1, v1) - max(y0, v0))
            if common >= share * min((x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0)) and common:
                numbers.add(number)
                break
        else:
            clusters.append((one, {number}))
    return [(tuple(head.points[0].tolist()), numbers) for head, numbers in clusters]


# Features


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_polygons_have_the_boxes_and_centroids_of_their_masks(seed: int) -> None:
    objects = blobs(seed)
    difference = np.abs(features(objects) - painted_features(objects))
    # A mask ends at the last pixel inside the polygon; a pointed tip may reach past it.
    assert (difference[:, :4] < 2).all()
    assert (difference[:, 4:] < 0.35).all()


def test_the_centroid_is_that_of_the_area_and_not_of_the_centre() -> None:
    objects = disc(50, 60, 5)
    rays = objects.rays.copy()
    rays[:, np.r_[0:9, 24:32]] *= 2  # longer towards +x
    x0, y0, x1, y1, cx, cy = features(StarObjects(objects.points, objects.scores, rays))[0]
    assert x1 == 70
    assert 62 < cx < 64
    assert cy == pytest.approx(50, abs=0.3)
    assert y0 == pytest.approx(40)
    assert y1 == pytest.approx(60)
    assert x0 == pytest.approx(55, abs=0.2)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, y=st.integers(-30, 100_000), x=st.integers(-30, 100_000))
def test_a_shift_by_pixels_changes_no_comparison(seed: int, y: int, x: int) -> None:
    a, b = blobs(seed), blobs(seed + 1)
    here = compare(features(a), features(b), 15)
    there = compare(features(moved(a, (y, x))), features(moved(b, (y, x))), 15)
    assert (here.missing == there.missing).all()
    assert (here.extra == there.extra).all()
    np.testing.assert_allclose(here.distance, there.distance, rtol=1e-6, atol=1e-6)


# Comparison


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, other=SEEDS, tau=st.sampled_from([0.0, 7.3, 15.0, 60.0]))
def test_flags_are_those_of_the_whole_matrix(seed: int, other: int, tau: float) -> None:
    a = features(blobs(seed))
    b = features(blobs(other))
    rng = np.random.default_rng(seed)
    b = np.concatenate([b, a[rng.random(len(a)) < 0.6] + rng.normal(0, 2, 6)])
    found = compare(a, b, tau)
    missing, extra = obvious_compare(a, b, tau)
    assert found.missing.tolist() == missing
    assert found.extra.tolist() == extra


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_distances_go_to_the_first(data: st.DataObject) -> None:
    places = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=8)

    def squares(at: list[tuple[int, int]]) -> np.ndarray:
        rows = [[x, y, x + 4, y + 4, x + 2, y + 2] for y, x in at]
        return np.array(rows, np.float64).reshape(-1, 6)

    a, b = squares(data.draw(places)), squares(data.draw(places))
    found = compare(a, b, 2)
    missing, extra = obvious_compare(a, b, 2)
    assert found.missing.tolist() == missing
    assert found.extra.tolist() == extra


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_the_same_objects_are_not_flagged(seed: int) -> None:
    seen = features(blobs(seed))
    found = compare(seen, seen, 0)
    assert not found.missing.any()
    assert not found.extra.any()
    assert (found.distance == 0).all()


def test_no_object_on_either_side() -> None:
    some, none = features(disc(50, 50, 8)), features(StarObjects.none(RAYS))
    lost = compare(some, none, 15)
    assert lost.missing.tolist() == [True]
    assert lost.distance.tolist() == [np.inf]
    assert lost.extra.shape == (0,)
    gained = compare(none, some, 15)
    assert gained.missing.shape == gained.distance.shape == (0,)
    assert gained.extra.tolist() == [True]
    neither = compare(none, none, 15)
    assert neither.missing.shape == neither.extra.shape == (0,)


def test_tau_is_a_largest_distance_and_includes_itself() -> None:
    one = features(disc(50, 50, 8))
    shift = np.array([3.0, 0, 0, 4, 0, 0])
    assert not compare(one, one + shift, 5).missing[0]
    beyond = compare(one, one + shift, np.nextafter(5, 0))
    assert beyond.missing[0]
    assert beyond.extra[0]
    assert beyond.distance[0] == np.inf
    assert pair(one, one + shift).distance[0] == 5


def test_the_nearest_must_be_mutually_nearest() -> None:
    a = np.zeros((2, 6))
    a[1, 0] = 3  # two reference objects, both nearest to the only variant object
    found = compare(a, np.full((1, 6), 0.5), 15)
    assert found.missing.tolist() == [False, True]
    assert found.extra.tolist() == [False]


@pytest.mark.parametrize("tau", [-1.0, float("nan")])
def test_a_tau_that_is_no_distance_is_refused(tau: float) -> None:
    with pytest.raises(ValueError, match="tau must be >= 0"):
        compare(np.zeros((1, 6)), np.zeros((1, 6)), tau)


# Votes


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, order=st.permutations(range(6)))
def test_the_order_of_the_defenses_changes_no_vote(seed: int, order: list[int]) -> None:
    reference = blobs(seed)
    variants = [blobs(seed + k + 1) for k in range(6)]
    known = features(reference)

    def count(numbers: list[int]) -> Votes:
        votes = Votes.none(len(reference))
        for k in numbers:
            votes = votes.add(compare(known, features(variants[k]), 15))
        return votes

    first, second = count(list(range(6))), count(order)
    assert (first.votes == second.votes).all()
    assert (first.seen == 6).all()
    assert (first.distance == second.distance).all()


def test_a_vote_is_for_what_a_defense_does_not_show() -> None:
    known = np.zeros((2, 6))
    known[1] = 100
    votes = Votes.none(2)
    for variant in (np.zeros((0, 6)), known[:1], known + np.array([[0], [1]])):
        votes = votes.add(compare(known, variant, 15))
    assert votes.votes.tolist() == [1, 2]
    assert votes.seen.tolist() == [3, 3]
    np.testing.assert_allclose(votes.distance, [0, np.sqrt(6)], rtol=1e-6)
    assert votes.votes.dtype == votes.seen.dtype == np.int32
    assert votes.distance.dtype == np.float32


@pytest.mark.parametrize(
    ("total", "share", "needed"),
    [(280, 0, 1), (280, 1 / 280, 1), (49, 1 / 49, 1), (100, 0.07, 7), (7, 0.5, 4), (5, 1, 5)],
)
def test_votes_that_are_needed(total: int, share: float, needed: int) -> None:
    assert votes_needed(total, share) == needed


@pytest.mark.parametrize(("total", "share"), [(0, 0.5), (3, -0.1), (3, 1.1), (3, float("nan"))])
def test_shares_of_votes_outside_0_to_1_are_refused(total: int, share: float) -> None:
    with pytest.raises(ValueError, match="min_votes"):
        votes_needed(total, share)


# Early stop


@pytest.mark.parametrize(("total", "needed"), [(1, 1), (12, 3), (280, 1), (280, 280)])
def test_after_all_defenses_the_votes_decide(total: int, needed: int) -> None:
    counts = np.arange(total + 1, dtype=np.int32)
    votes = Votes(counts, np.full_like(counts, total), np.zeros(total + 1, np.float32))
    table = chances(total, needed)
    assert (votes.chance(table) == (counts >= needed)).all()
    assert (votes.doubt(table) == 0).all()


@pytest.mark.parametrize("prior", [(1.0, 1.0), (0.02, 1.0)])
def test_chances_are_those_of_the_beta_binomial(prior: tuple[float, float]) -> None:
    total, needed = 40, 6
    table = chances(total, needed, prior)
    for k in range(total + 1):
        votes = np.arange(k + 1)
        others = betabinom(total - k, prior[0] + votes, prior[1] + k - votes)
        expected = np.where(needed <= votes, 1, others.sf(needed - 1 - votes))
        np.testing.assert_allclose(table[k, : k + 1], expected, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 300), needed=st.integers(1, 300))
def test_chances_are_certain_only_where_nothing_can_change(total: int, needed: int) -> None:
    needed = min(needed, total)
    table = chances(total, needed)
    for k in {0, total // 3, total - 1, total}:
        votes = np.arange(k + 1)
        assert ((table[k, : k + 1] == 1) == (votes >= needed)).all()
        assert ((table[k, : k + 1] == 0) == (votes + total - k < needed)).all()
        assert (np.diff(table[k, : k + 1]) >= -1e-12).all()


def test_the_doubt_of_a_field_is_the_share_of_flags_that_differ() -> None:
    total, needed, prior = 100, 20, (0.1, 1.0)
    table = chances(total, needed, prior)
    rng = np.random.default_rng(0)
    draws = rng.random((20000, total)) < rng.beta(*prior, 20000)[:, None]
    seen = np.full(20000, 15, np.int32)
    votes = Votes(draws[:, :15].sum(axis=1).astype(np.int32), seen, np.zeros(20000, np.float32))
    differ = (votes.chance(table) >= 0.5) != (draws.sum(axis=1) >= needed)
    assert votes.doubt(table).mean() == pytest.approx(differ.mean(), abs=0.003)
    assert votes.doubt(table).max() <= 0.5


@pytest.mark.parametrize(
    ("total", "needed", "prior", "words"),
    [(5, 0, (1, 1), "needed"), (5, 6, (1, 1), "needed"), (5, 1, (0, 1), "prior")],
)
def test_tables_of_nonsense_are_refused(
    total: int, needed: int, prior: tuple[float, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        chances(total, needed, prior)


# Merging


def as_sets(parts: list[tuple[int, StarObjects]], share: float) -> list[object]:
    """What `merge_extras` says, in the form of the reference."""
    merged = merge_extras(parts, share, RAYS)
    assert [len(own) for own in merged.defenses] == merged.votes.tolist()
    places = [tuple(p) for p in merged.objects.points.tolist()]
    return list(zip(places, (set(own.tolist()) for own in merged.defenses), strict=True))


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, share=st.floats(0.05, 1))
def test_clusters_are_those_of_one_candidate_after_the_other(seed: int, share: float) -> None:
    parts = [(k, blobs(seed + k, side=60)) for k in range(4)]
    assert as_sets(parts, share) == obvious_merge(parts, share)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS)
def test_merging_does_not_depend_on_the_order(seed: int) -> None:
    parts = [(k, blobs(seed + k, side=40, most=6)) for k in range(4)]
    parts.append((1, blobs(seed, side=40, most=6)))
    rng = np.random.default_rng(seed)
    expected = merge_extras(parts, share_of(1.7), RAYS)
    for order in list(permutations(range(5)))[:: int(rng.integers(7, 12))]:
        shuffled = []
        for k in order:
            number, objects = parts[k]
            shuffled.append((number, objects.take(rng.permutation(len(objects)))))
        found = merge_extras(shuffled, share_of(1.7), RAYS)
        assert (found.objects.points == expected.objects.points).all()
        assert (found.objects.rays == expected.objects.rays).all()
        assert (found.votes == expected.votes).all()


def test_equal_places_and_scores_are_told_apart_by_their_rays() -> None:
    small, large = disc(50, 50, 5, 0.5), disc(50, 50, 9, 0.5)
    one = merge_extras([(0, small), (1, large)], 0.37, RAYS)
    two = merge_extras([(1, large), (0, small)], 0.37, RAYS)
    assert one.objects.rays[0, 0] == two.objects.rays[0, 0] == 5
    assert one.votes.tolist() == two.votes.tolist() == [2]


def test_a_candidate_joins_the_best_of_those_it_overlaps() -> None:
    left, right = disc(50, 40, 10, 0.9), disc(50, 66, 10, 0.8)
    between = disc(50, 53, 10, 0.7)  # shares 7 of 20 columns with either
    merged = merge_extras([(0, right), (1, left), (2, between)], 0.3, RAYS)
    assert merged.objects.points[:, 1].tolist() == [40, 66]
    assert [own.tolist() for own in merged.defenses] == [[1, 2], [0]]
    apart = merge_extras([(0, right), (1, left), (2, between)], 0.4, RAYS)
    assert apart.votes.tolist() == [1, 1, 1]


def test_a_defense_votes_once_for_a_cluster() -> None:
    twice = joined(disc(50, 50, 10, 0.9), disc(52, 50, 10, 0.8))
    merged = merge_extras([(3, twice), (5, disc(50, 51, 10, 0.7))], 0.37, RAYS)
    assert merged.votes.tolist() == [2]
    assert merged.defenses[0].tolist() == [3, 5]


def test_boxes_that_only_touch_are_two() -> None:
    merged = merge_extras([(0, disc(50, 40, 10)), (1, disc(50, 60, 10))], 1e-9, RAYS)
    assert len(merged.objects) == 2


def test_objects_without_area_are_not_merged() -> None:
    merged = merge_extras([(0, disc(50, 40, 0)), (1, disc(90, 60, 0))], 0.37, RAYS)
    assert len(merged.objects) == 2


def test_nothing_merges_to_nothing() -> None:
    for parts in ([], [(0, StarObjects.none(RAYS))]):
        merged = merge_extras(parts, 0.37, RAYS)
        assert len(merged.objects) == len(merged.votes) == len(merged.defenses) == 0
        assert merged.objects.rays.shape == (0, RAYS)


def test_clusters_are_taken_by_mask_and_by_index() -> None:
    merged = merge_extras([(0, disc(50, 40, 9, 0.9)), (4, disc(50, 80, 9, 0.8))], 0.37, RAYS)
    by_mask = merged.take(np.array([False, True]))
    by_index = merged.take(np.array([1]))
    for one in (by_mask, by_index):
        assert one.objects.points.tolist() == [[50, 80]]
        assert one.votes.tolist() == [1]
        assert [own.tolist() for own in one.defenses] == [[4]]


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan")])
def test_shares_outside_0_to_1_are_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        merge_extras([], share, RAYS)


@pytest.mark.parametrize("merge", [-0.1, float("nan")])
def test_an_r_below_0_is_refused(merge: float) -> None:
    with pytest.raises(ValueError, match="merge"):
        share_of(merge)


# Cover


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS)
def test_cover_is_that_of_whole_painted_planes(seed: int) -> None:
    objects, reference = blobs(seed, most=5), blobs(seed + 1)
    plane = Box((0, 0), (220, 220))
    under = render(reference, plane) > 0
    for k, share in enumerate(covered(objects, reference)):
        own = render(objects.take(np.array([k])), plane) > 0
        assert share == (own & under).sum() / own.sum()


@pytest.mark.parametrize(("y", "x"), [(32, 50), (68, 50), (50, 32), (50, 68)])
def test_cover_by_the_last_pixels_of_a_neighbour(y: int, x: int) -> None:
    share = covered(disc(50, 50, 10), disc(y, x, 10))[0]
    assert 0 < share < 0.1


def test_cover_of_the_same_of_nothing_and_beyond_the_edge() -> None:
    one = disc(50, 50, 10)
    assert covered(one, one).tolist() == [1]
    assert covered(one, StarObjects.none(RAYS)).tolist() == [0]
    assert covered(StarObjects.none(RAYS), one).shape == (0,)
    assert covered(one, disc(50, 90, 10)).tolist() == [0]
    assert covered(disc(2, 2, 10), disc(2, 2, 20)).tolist() == [1]
