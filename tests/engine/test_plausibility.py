"""Plausibility of mitochondria, Dice of classes, entropy as a detector, the degradation test."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import InputError, RecipeError
from engine.evaluation.classes import ClassCounts, ErrorCounts, count_classes, count_errors
from engine.evaluation.plausibility import Plausibility, measure_plausibility
from engine.phantom import Span
from engine.phantom.degrade import Degraded, DegradeSettings, degrade

BACKGROUND, SPACE, CRISTAE, MATRIX = range(4)


def rod(*, cristae: int = 0) -> np.ndarray:
    """Inner region of 7 x 30 pixels in a closed space 2 pixels thick; cristae of 2 x 4 pixels."""
    classes = np.zeros((20, 44), np.uint8)
    classes[4:15, 5:39] = SPACE
    classes[6:13, 7:37] = MATRIX
    for k in range(cristae):
        classes[6:10, 10 + 6 * k : 12 + 6 * k] = CRISTAE
    return classes


def test_rod_by_hand() -> None:
    (found,) = measure_plausibility(rod(cristae=3)).objects
    rim = 2 * 30 + 2 * 5
    assert found.label == 1
    assert (found.end_points, found.cycles) == (2, 0)
    assert found.boundary_to_area == pytest.approx(rim / (7 * 30))
    assert found.cristae_ratio == pytest.approx(3 * 2 / rim)
    assert found.background_ratio == 0


def test_bare_inner_membrane_is_a_share_of_the_outer_boundary() -> None:
    classes = rod()
    # No space along the upper side: the inner region is bare on 30 pixels, and its corners too.
    classes[4:6] = BACKGROUND
    (found,) = measure_plausibility(classes).objects
    outer = 2 * 34 + 2 * 7
    assert found.background_ratio == pytest.approx(30 / outer)


def test_ring_has_a_cycle_and_a_cross_four_end_points() -> None:
    ring = np.zeros((40, 40), np.uint8)
    ring[5:35, 5:35], ring[14:26, 14:26] = MATRIX, BACKGROUND
    cross = np.zeros((60, 60), np.uint8)
    cross[27:33, 5:55] = cross[5:55, 27:33] = MATRIX
    (one,) = measure_plausibility(ring).objects
    (other,) = measure_plausibility(cross).objects
    assert one.cycles == 1
    assert (other.end_points, other.cycles) == (4, 0)


def test_cycle_counts_where_the_skeleton_is_in_parts() -> None:
    # One object with two rings: components of the inner region count apart, 2 - 0 = 2 cycles.
    classes = np.full((40, 80), SPACE, np.uint8)
    for x in (5, 45):
        classes[5:35, x : x + 30], classes[14:26, x + 9 : x + 21] = MATRIX, SPACE
    (found,) = measure_plausibility(np.pad(classes, 2)).objects
    assert found.cycles == 2


def test_objects_are_components_or_instances() -> None:
    two = np.concatenate([rod(), rod()], axis=1)
    assert [one.label for one in measure_plausibility(two).objects] == [1, 2]
    # Touching objects are one component, but two instances; neither is a boundary of the other.
    touching = np.concatenate([rod()[:, :39], rod()[:, 5:]], axis=1)
    instances = np.where(np.arange(touching.shape[1]) < 39, 3, 7) * (touching > 0)
    assert len(measure_plausibility(touching).objects) == 1
    apart = measure_plausibility(touching, instances)
    assert [one.label for one in apart.objects] == [3, 7]
    (alone,) = measure_plausibility(rod()).objects
    assert {(one.boundary_to_area, one.background_ratio) for one in apart.objects} == {
        (alone.boundary_to_area, alone.background_ratio)
    }


def test_means_leave_out_objects_without_inner_region_and_those_too_small() -> None:
    classes = np.pad(rod(cristae=2), 12)
    classes[2:5, 2:5] = SPACE
    classes[2:4, 20:22] = MATRIX
    found = measure_plausibility(classes)
    assert (found.mean.count, found.without_inner) == (2, 1)
    large = measure_plausibility(classes, smallest=10)
    assert (large.mean.count, large.without_inner) == (1, 0)
    assert large.mean.end_points == 2
    assert large.add(found).mean.count == 3
    nothing = Plausibility((), 0).mean
    assert (nothing.count, nothing.end_points, nothing.cristae_ratio) == (0, None, None)


def test_object_that_fills_the_image_has_no_boundary() -> None:
    (found,) = measure_plausibility(np.full((9, 9), MATRIX, np.uint8)).objects
    assert (found.boundary_to_area, found.cristae_ratio, found.background_ratio) == (0, None, None)


@pytest.mark.parametrize(
    ("classes", "instances", "message"),
    [
        (np.full((4, 4), 4, np.uint8), None, "also 4"),
        (np.full((4, 4), -1), None, "also -1"),
        (np.zeros((2, 4, 4), np.uint8), None, "axes y, x"),
        (np.zeros((4, 4)), None, "float64"),
        (np.zeros((4, 4), np.uint8), np.zeros((4, 5), int), r"\(4, 5\)"),
    ],
)
def test_what_is_no_class_map_is_refused(
    classes: np.ndarray, instances: np.ndarray | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        measure_plausibility(classes, instances)


def test_dice_pools_pixels_over_images() -> None:
    true = np.array([[0, 0, 1, 1, 2]])
    predicted = np.array([[0, 1, 1, 1, 1]])
    one = count_classes(predicted, true, 4)
    assert one == ClassCounts((1, 2, 0, 0), (1, 4, 0, 0), (2, 2, 1, 0))
    assert one.dice == (pytest.approx(2 / 3), pytest.approx(4 / 6), 0, None)
    assert one.mean == pytest.approx((2 / 3 + 2 / 3 + 0) / 3)
    assert one.mean_foreground == pytest.approx(1 / 3)
    assert one.micro == pytest.approx(3 / 5)
    both = one.add(count_classes(true, true, 4))
    assert both.dice[2] == pytest.approx(2 / 3)
    within = count_classes(predicted, true, 4, where=true == 1)
    assert within.micro == 1
    assert count_classes(true, true, 4, where=true > 5).mean is None


def test_dice_refuses_other_classes_and_shapes() -> None:
    with pytest.raises(InputError, match="classes of the truth: expected 0 to 1, found 0 to 2"):
        count_classes(np.array([0, 1]), np.array([0, 2]), 2)
    with pytest.raises(InputError, match="same shape"):
        count_classes(np.zeros((2, 2), int), np.zeros((2, 3), int), 2)


def test_auprc_is_the_average_precision() -> None:
    rng = np.random.default_rng(0)
    wrong = rng.random((40, 50)) < 0.1
    entropy = np.where(wrong, rng.integers(60, 256, wrong.shape), rng.integers(0, 200, wrong.shape))
    entropy = entropy.astype(np.uint8)
    found = count_errors(entropy, wrong)
    expected, recall = 0.0, 0.0
    for threshold in range(255, -1, -1):
        called = entropy >= threshold
        if called.any():
            now = (called & wrong).sum() / wrong.sum()
            expected += (now - recall) * (called & wrong).sum() / called.sum()
            recall = now
    assert found.auprc == pytest.approx(expected, rel=1e-12)
    assert found.base_rate == pytest.approx(wrong.mean())
    halves = count_errors(entropy[:20], wrong[:20]).add(count_errors(entropy[20:], wrong[20:]))
    assert halves == found == count_errors(entropy, wrong, where=np.ones(wrong.shape, bool))


def test_auprc_at_its_limits() -> None:
    flat, wrong = np.zeros((2, 5), np.uint8), np.zeros((2, 5), bool)
    assert count_errors(flat, wrong).auprc is None
    wrong[0, :3] = True
    # An entropy that says nothing finds errors at the base rate.
    assert count_errors(flat, wrong).auprc == pytest.approx(0.3)
    empty = ErrorCounts((0,) * 256, (0,) * 256)
    assert (empty.auprc, empty.base_rate) == (None, None)
    with pytest.raises(InputError, match="expected uint8"):
        count_errors(flat.astype(float), wrong)


def spoiled(settings: DegradeSettings, seed: int = 1) -> tuple[np.ndarray, np.ndarray, Degraded]:
    """A rod of 3000 on 1000 (with some spread), the ellipse and the answer."""
    classes = np.pad(rod(), 20)
    image = np.where(classes > 0, 3000, 1000).astype(np.uint16)
    image[::2] += np.uint16(20)
    mitochondrion = classes > 0
    answer = degrade(image, mitochondrion, ~mitochondrion, settings, np.random.default_rng(seed))
    return image, mitochondrion, answer


def test_degradation_fades_to_the_background_in_its_ellipse_only() -> None:
    image, mitochondrion, answer = spoiled(DegradeSettings())
    assert mitochondrion[answer.centre]
    assert answer.image.dtype == np.uint16
    np.testing.assert_array_equal(answer.image[~answer.region], image[~answer.region])
    # At the centre d = 1: 0.8 of the background and 0.2 of the stain.
    expected = 0.8 * image[~mitochondrion].mean() + 0.2 * image[answer.centre]
    assert answer.image[answer.centre] == round(expected)
    rows, cols = np.nonzero(answer.region)
    assert 17 <= np.ptp(rows) + 1 <= 37
    assert 17 <= np.ptp(cols) + 1 <= 37
    # Less towards the rim, and there nearly nothing.
    loss = (image.astype(float) - answer.image)[mitochondrion & answer.region]
    assert loss.max() > 1500
    assert loss.min() < 1000


def test_degradation_falls_with_the_root_of_the_depth() -> None:
    image = np.full((60, 200), 2000, np.uint16)
    mitochondrion = np.zeros(image.shape, bool)
    mitochondrion[:, 60:140] = True
    image[~mitochondrion] = 0
    settings = DegradeSettings(Span(16, 16))
    answer = degrade(image, mitochondrion, ~mitochondrion, settings, np.random.default_rng(3))
    y, x = answer.centre
    halfway = 1 - answer.image[y + 8 - 16 * (y > 30), x] / 2000
    assert halfway == pytest.approx(0.8 * np.sqrt(0.5), abs=0.04)


def test_degradation_is_seeded_and_may_be_noisy() -> None:
    image, _, answer = spoiled(DegradeSettings())
    np.testing.assert_array_equal(answer.image, spoiled(DegradeSettings())[2].image)
    assert spoiled(DegradeSettings(), seed=2)[2].centre != answer.centre
    _, _, noisy = spoiled(DegradeSettings(noisy=True))
    # The same place; the mean of the background is added before fading, so it is brighter.
    np.testing.assert_array_equal(noisy.region, answer.region)
    np.testing.assert_array_equal(noisy.image[~noisy.region], image[~noisy.region])
    added = noisy.image[noisy.region].astype(float) - answer.image[noisy.region]
    assert added.min() > 150
    assert added.max() < 1100


def test_degradation_at_the_rim_of_the_image() -> None:
    image = np.full((12, 12), 200, np.uint8)
    mitochondrion = np.zeros((12, 12), bool)
    mitochondrion[:3, :3] = True
    answer = degrade(
        image, mitochondrion, ~mitochondrion, DegradeSettings(Span(8, 8)), np.random.default_rng(0)
    )
    assert answer.region[answer.centre]
    assert answer.image.shape == image.shape


def test_degradation_refuses_what_it_cannot_do() -> None:
    rng, image = np.random.default_rng(0), np.zeros((8, 8), np.uint8)
    some, none = np.ones((8, 8), bool), np.zeros((8, 8), bool)
    with pytest.raises(InputError, match="mitochondrion of an image to degrade"):
        degrade(image, none, some, DegradeSettings(), rng)
    with pytest.raises(InputError, match="background of an image to degrade"):
        degrade(image, some, none, DegradeSettings(), rng)
    with pytest.raises(InputError, match="same shape"):
        degrade(image, some[:4], some, DegradeSettings(), rng)
    with pytest.raises(RecipeError, match=r"at most 1, found 1\.5"):
        DegradeSettings(strength=1.5)
    with pytest.raises(RecipeError, match="half_axes"):
        DegradeSettings(half_axes=Span(0, 3))
