"""Entropy of ensembles, and the patches that cannot be trusted."""

import numpy as np
import pytest

from engine.methods.entropy import (
    patch_sums,
    soft_entropy,
    store_entropy,
    uncertain_patches,
    vote_entropy,
)


# Values of METHODS 004 for six members and five classes.
@pytest.mark.parametrize(
    ("votes", "expected"),
    [((5, 1), 0.280), ((4, 2), 0.395), ((3, 3), 0.431), ((4, 1, 1), 0.539), ((2, 2, 2), 0.683),
     ((2, 1, 1, 1, 1), 0.970), ((6,), 0.0)],
)  # fmt: skip
def test_votes_give_the_published_entropies(votes: tuple[int, ...], expected: float) -> None:
    counts = np.zeros((5, 1, 1), np.uint8)
    counts[: len(votes), 0, 0] = votes
    assert float(vote_entropy(counts)[0, 0]) == pytest.approx(expected, abs=6e-4)


def test_all_classes_count_even_those_that_nobody_chose() -> None:
    even = np.full((2, 3, 3), 0.5, np.float32)
    four = np.concatenate([even, np.zeros_like(even)])
    assert soft_entropy(even) == pytest.approx(1)
    assert soft_entropy(four) == pytest.approx(0.5)


def test_soft_entropy_is_that_of_the_definition() -> None:
    prob = np.random.default_rng(0).dirichlet(np.ones(4), (7, 9)).transpose(2, 0, 1)
    expected = -(prob * np.log(prob)).sum(0) / np.log(4)
    found = soft_entropy(prob.astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_soft_entropy_does_not_depend_on_the_cut() -> None:
    prob = np.random.default_rng(1).dirichlet(np.ones(3), (31, 53)).transpose(2, 0, 1)
    prob = np.ascontiguousarray(prob, np.float32)
    whole = soft_entropy(prob)
    for x in (0, 1, 5, 17):
        np.testing.assert_array_equal(soft_entropy(prob[:, 3:20, x : x + 13]),
                                      whole[3:20, x : x + 13])  # fmt: skip


def test_certainty_is_zero_and_values_round_to_the_nearest() -> None:
    certain = np.zeros((3, 2, 2), np.float32)
    certain[1] = 1
    assert not soft_entropy(certain).any()
    values = np.array([0, 0.4, 0.5 / 255, 1.5 / 255, 1], np.float32)
    assert store_entropy(values).tolist() == [0, 102, 0, 2, 255]


def test_a_patch_is_uncertain_above_the_threshold_and_not_at_it() -> None:
    stored = np.full((8, 8), 102, np.uint8)  # 0.4 exactly
    stored[4, 4] += 1
    stored[0, 4] = 0
    sums = patch_sums(stored)
    assert sums.tolist() == [[1632, 1530], [1632, 1633]]
    assert uncertain_patches(stored, 0.4).tolist() == [[False, False], [False, True]]
    assert patch_sums(np.full((2, 4, 4), 255, np.uint8)).tolist() == [[[4080]], [[4080]]]


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 classes"):
        soft_entropy(np.ones((1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="at least one vote"):
        vote_entropy(np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(ValueError, match="multiples of 4"):
        patch_sums(np.zeros((6, 8), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        patch_sums(np.zeros((8, 8), np.float32))
