"""Scores against stardist.matching, monai and numbers worked out by hand."""

from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from monai.metrics import compute_hausdorff_distance
from stardist.matching import matching, matching_dataset

from engine import evaluation
from engine.errors import InputError
from engine.evaluation import InstanceScores, evaluate, scoring
from engine.evaluation.overlap import count_overlap, merge_overlaps
from engine.evaluation.scores import Evaluation, PlaneScores

FIELDS = (
    "tp",
    "fp",
    "fn",
    "n_true",
    "n_pred",
    "f1",
    "precision",
    "recall",
    "accuracy",
    "panoptic_quality",
    "mean_matched_score",
)


def scatter(seed: int, shape: tuple[int, int], n: int, size: int) -> np.ndarray:
    """Rectangles that cover one another, as objects of uneven overlap."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for k in range(1, n + 1):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1])
        h, w = rng.integers(1, size + 1, 2)
        labels[y : y + h, x : x + w] = k
    return labels


def assert_equals_stardist(found: Evaluation, oracle: tuple[Any, ...]) -> None:
    assert len(found.instances) == len(oracle)
    for ours, theirs in zip(found.instances, oracle, strict=True):
        assert ours.iou == theirs.thresh
        for field in FIELDS:
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field), abs=1e-6), field


@given(
    arrays(np.int32, st.shared(array_shapes(min_dims=2, max_dims=2, max_side=7), key="s"),
           elements=st.integers(0, 4)),
    arrays(np.int32, st.shared(array_shapes(min_dims=2, max_dims=2, max_side=7), key="s"),
           elements=st.integers(0, 4)),
)  # fmt: skip
@settings(max_examples=200, deadline=None)
def test_small_images_full_of_ties_score_as_stardist_scores_them(
    pred: np.ndarray, truth: np.ndarray
) -> None:
    oracle = matching(truth, pred, thresh=scoring.THRESHOLDS)
    assert_equals_stardist(evaluate(pred, truth), oracle)


@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 14), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_overlapping_objects_score_as_stardist_scores_them(
    seed: int, n: int, size: int, shift: int
) -> None:
    truth = scatter(seed, (40, 50), n, size)
    pred = np.roll(scatter(seed, (40, 50), max(0, n - 1), size), shift, axis=1)
    oracle = matching(truth, pred, thresh=scoring.THRESHOLDS)
    assert_equals_stardist(evaluate(pred, truth), oracle)


def test_two_halves_of_an_object_match_once_at_exactly_half() -> None:
    truth = np.ones((2, 4), np.uint8)
    pred = np.array([[1, 1, 2, 2]] * 2, np.uint8)
    (at,) = evaluate(pred, truth, (0.5,)).instances
    assert (at.tp, at.fp, at.fn, at.mean_matched_score) == (1, 1, 0, 0.5)
    assert_equals_stardist(evaluate(pred, truth, (0.5,)), matching(truth, pred, thresh=(0.5,)))


def test_scores_worked_out_by_hand() -> None:
    truth = np.zeros((10, 10), np.uint16)
    truth[0:4, 0:4] = 1  # 16 px
    truth[6:10, 6:10] = 2  # 16 px, missed
    pred = np.zeros((10, 10), np.uint16)
    pred[0:4, 1:4] = 5  # 12 of the 16 px: IoU 0.75
    pred[0:2, 8:10] = 6  # 4 px of nothing
    found = evaluate(pred, truth, (0.75, 0.8))
    at, above = found.instances
    assert (at.tp, at.fp, at.fn, at.n_true, at.n_pred) == (1, 1, 1, 2, 2)
    assert (at.f1, at.precision, at.recall) == (0.5, 0.5, 0.5)
    assert at.accuracy == pytest.approx(1 / 3)
    assert at.mean_matched_score == 0.75
    assert at.panoptic_quality == 0.375
    assert (above.tp, above.f1, above.panoptic_quality) == (0, 0, 0)
    assert found.dice == pytest.approx(2 * 12 / (16 + 32))
    assert found.iou_pixels == pytest.approx(12 / 36)


def test_an_image_equals_itself() -> None:
    labels = scatter(3, (60, 70), 25, 12)
    found = evaluate(labels, labels.astype(np.uint64))
    for at in found.instances:
        ratios = at.f1, at.precision, at.recall, at.accuracy, at.panoptic_quality
        assert (*ratios, at.mean_matched_score) == (1.0,) * 6
        assert (at.fp, at.fn) == (0, 0)
    assert (found.dice, found.iou_pixels, found.hd95, found.hd95_note) == (1.0, 1.0, 0.0, None)


def test_ids_beyond_32_bits_and_close_to_the_limit_are_kept_apart() -> None:
    small = scatter(5, (40, 40), 12, 9)
    ids = np.array([0, *(2**64 - 1 - np.arange(12, dtype=np.uint64) * 2**33)], np.uint64)
    truth = np.roll(small, 1, axis=0)
    assert evaluate(ids[small], truth) == evaluate(small, truth)
    assert evaluate(truth, ids[small]) == evaluate(truth, small)


@given(st.integers(0, 10**6), st.integers(1, 70))
@settings(max_examples=40, deadline=None)
def test_the_cell_never_changes_a_score(seed: int, cell: int) -> None:
    truth = scatter(seed, (37, 61), 20, 15)
    pred = np.roll(truth, 1, axis=0)
    assert evaluate(pred, truth, cell=cell) == evaluate(pred, truth)


def test_parts_of_an_overlap_table_merge_in_any_order() -> None:
    pred, truth = scatter(1, (30, 30), 9, 9), scatter(2, (30, 30), 9, 9)
    whole = count_overlap(pred, truth)
    parts = [count_overlap(pred[k : k + 7], truth[k : k + 7]) for k in range(0, 30, 7)]
    merged = merge_overlaps(reversed(parts))
    for name in ("pred", "truth", "pixels"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))


def test_planes_are_images_of_their_own_and_pooled() -> None:
    truth = np.stack([scatter(k, (40, 40), 10, 12) for k in range(6)]).reshape(2, 3, 40, 40)
    pred = np.roll(truth, 1, axis=-1)
    found = evaluate(pred, truth)
    flat = truth.reshape(6, 40, 40), pred.reshape(6, 40, 40)
    oracle = matching_dataset(*flat, thresh=scoring.THRESHOLDS, show_progress=False)
    assert_equals_stardist(found, oracle)
    each = [evaluate(p, t).hd95 for t, p in zip(*flat, strict=True)]
    assert found.hd95 == pytest.approx(np.mean(each))


def test_leading_axes_of_length_one_do_not_count() -> None:
    truth = scatter(1, (20, 20), 5, 8)
    assert evaluate(truth[None, None], truth).instances == evaluate(truth, truth).instances


def monai95(pred: np.ndarray, truth: np.ndarray) -> float:
    masks = ((a != 0)[None, None] for a in (pred, truth))
    return float(compute_hausdorff_distance(*masks, include_background=True, percentile=95)[0, 0])


# monai warns about a deprecated argument that only its own call passes.
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(6))
def test_hd95_is_that_of_monai(seed: int) -> None:
    truth = scatter(seed, (64, 80), 12, 20)
    pred = np.roll(scatter(seed, (64, 80), 11, 20), 2, axis=0)
    found = evaluate(pred, truth, cell=17)
    assert found.hd95 == pytest.approx(monai95(pred, truth), rel=1e-6)
    assert found.hd95 > 0


def test_an_empty_side_has_no_distance_and_says_why() -> None:
    labels = scatter(0, (20, 20), 3, 9)
    none = np.zeros_like(labels)
    found = evaluate(none, labels)
    assert (found.hd95, found.dice, found.iou_pixels) == (None, 0.0, 0.0)
    assert found.hd95_note == "hd95 leaves out 1 of 1 planes: prediction without objects"
    assert (found.instances[0].tp, found.instances[0].fn) == (0, len(np.unique(labels)) - 1)
    assert "truth without objects" in str(evaluate(labels, none).hd95_note)
    assert_equals_stardist(found, matching(labels, none, thresh=scoring.THRESHOLDS))


def test_two_empty_images_score_zero_as_in_stardist_and_have_no_pixel_scores() -> None:
    none = np.zeros((5, 5), np.uint8)
    found = evaluate(none, none)
    assert_equals_stardist(found, matching(none, none, thresh=scoring.THRESHOLDS))
    assert (found.instances[0].f1, found.dice, found.iou_pixels, found.hd95) == (
        0,
        None,
        None,
        None,
    )
    assert "prediction and truth without objects" in str(found.hd95_note)


def test_planes_without_distance_are_left_out_and_named() -> None:
    truth = np.stack([scatter(0, (20, 20), 3, 9)] * 3)
    pred = truth.copy()
    pred[1] = 0
    found = evaluate(pred, truth)
    assert found.hd95 == 0
    assert (
        found.hd95_note == "hd95 leaves out 1 of 3 planes: plane (1,): prediction without objects"
    )


def test_an_outline_beyond_the_limit_gives_no_distance_but_all_other_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = scatter(0, (40, 40), 9, 9)
    whole = evaluate(labels, labels)
    monkeypatch.setattr(scoring, "OUTLINE_LIMIT", 20)
    found = evaluate(labels, labels, cell=8)
    assert found.hd95 is None
    assert "outline pixels, more than the 20" in str(found.hd95_note)
    assert found.instances == whole.instances


def test_json_has_one_object_per_threshold_with_the_pixel_scores_beside() -> None:
    labels = scatter(0, (20, 20), 3, 9)
    rows = evaluate(np.roll(labels, 1), labels).as_json()
    assert [row["iou"] for row in rows] == list(scoring.THRESHOLDS)
    wanted = [
        "iou",
        "f1",
        "precision",
        "recall",
        "accuracy",
        "panoptic_quality",
        "dice",
        "iou_pixels",
        "hd95",
    ]
    assert set(wanted) <= set(rows[0])
    assert {(row["dice"], row["iou_pixels"], row["hd95"]) for row in rows} == {
        (rows[0]["dice"], rows[0]["iou_pixels"], rows[0]["hd95"])
    }


def test_zarr_arrays_are_read_cell_by_cell(tmp_path: Path) -> None:
    class Watched:
        """Remembers the largest part that was asked for."""

        def __init__(self, array: zarr.Array) -> None:
            self.array, self.shape, self.dtype = array, array.shape, array.dtype
            self.largest = 0

        def __getitem__(self, index: Any) -> Any:
            part = self.array[index]
            self.largest = max(self.largest, part.size)
            return part

    truth = scatter(7, (200, 300), 40, 30)
    store = zarr.create_array(tmp_path / "a.zarr", shape=truth.shape, chunks=(32, 32), dtype="u4")
    store[:] = truth
    watched = Watched(store)
    assert evaluate(watched, np.roll(truth, 1), cell=32) == evaluate(truth, np.roll(truth, 1))
    assert watched.largest == 34 * 34


@pytest.mark.parametrize(
    ("pred", "truth", "found"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), r"\(4, 5\) and \(5, 4\)"),
        (np.zeros((4, 5), np.float32), np.zeros((4, 5), np.uint8), "dtype float32"),
        (np.zeros((4, 5), np.uint8), np.zeros((4, 5), bool), "dtype bool"),
        (np.zeros((4, 5), np.uint8), np.full((4, 5), -3, np.int16), "id -3"),
        (np.zeros(5, np.uint8), np.zeros(5, np.uint8), r"shape \(5,\)"),
        (np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), r"shape \(0, 5\)"),
    ],
)
def test_what_cannot_be_scored_is_refused(pred: np.ndarray, truth: np.ndarray, found: str) -> None:
    with pytest.raises(InputError, match=found):
        evaluate(pred, truth)


@pytest.mark.parametrize("thresholds", [(), (0.4,), (0.5, 1.01), (float("nan"),)])
def test_thresholds_out_of_range_are_refused(thresholds: tuple[float, ...]) -> None:
    labels = np.ones((2, 2), np.uint8)
    with pytest.raises(InputError, match="thresholds"):
        evaluate(labels, labels, thresholds)


def test_a_cell_of_nothing_is_refused() -> None:
    labels = np.ones((2, 2), np.uint8)
    with pytest.raises(InputError, match="cell"):
        evaluate(labels, labels, cell=0)


def test_values_are_frozen_and_validated() -> None:
    scores = InstanceScores(0.5, 1, 0, 0, 0.9)
    with pytest.raises(FrozenInstanceError):
        scores.tp = 2
    with pytest.raises(ValueError, match="iou must lie"):
        InstanceScores(0.4, 1, 0, 0, 0.9)
    with pytest.raises(ValueError, match="iou must be equal"):
        scores.add(InstanceScores(0.6, 1, 0, 0, 0.9))
    with pytest.raises(ValueError, match="reason of its absence"):
        PlaneScores((scores,), scoring.PixelCounts(1, 1, 1), None, None)


def test_the_public_names_are_those_listed() -> None:
    assert all(hasattr(evaluation, name) for name in evaluation.__all__)
    assert evaluation.__all__ == sorted(evaluation.__all__)
