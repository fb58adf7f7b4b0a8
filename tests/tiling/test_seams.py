"""Labels joined over seams equal the labels of the whole image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.measure import label
from skimage.segmentation import relabel_sequential

from tiling import Grid, Joins, disagreement, touching_pairs

masks = hnp.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24)))


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two label images name the same objects, by whatever ids."""
    first = [relabel_sequential(_by_first_pixel(x))[0] for x in (a, b)]
    return np.array_equal(*first)


def _by_first_pixel(labels: np.ndarray) -> np.ndarray:
    out = np.zeros(labels.shape, np.int64)
    for k in np.unique(labels[labels > 0]):
        out[labels == k] = 1 + np.flatnonzero(labels.ravel() == k)[0]
    return out


@given(masks, st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2]))
def test_joined_equals_whole(mask: np.ndarray, cy: int, cx: int, connectivity: int) -> None:
    ids = np.zeros(mask.shape, np.uint64)
    for number, region in enumerate(Grid((), mask.shape, (cy, cx))):
        local = label(mask[region.core.slices()], connectivity=connectivity).astype(np.uint64)
        ids[region.core.slices()] = np.where(local > 0, local + np.uint64(1000 * number), 0)
    diagonal = connectivity == 2
    tables = [Joins.of_pairs(np.empty((0, 2), np.uint64))]
    faces = [(ids[y - 1], ids[y]) for y in range(cy, mask.shape[0], cy)]
    faces += [(ids[:, x - 1], ids[:, x]) for x in range(cx, mask.shape[1], cx)]
    tables += [Joins.of_pairs(touching_pairs(a, b, diagonal=diagonal)) for a, b in faces]
    while len(tables) > 1:
        tables = [*tables[2:], tables[0].merge(tables[1])]
    assert same_partition(tables[0].apply(ids), label(mask, connectivity=connectivity))


pairs = st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), max_size=12)


@given(pairs, pairs)
def test_merging_does_not_depend_on_the_order(first: list, second: list) -> None:
    a = Joins.of_pairs(np.array(first, np.uint64).reshape(-1, 2))
    b = Joins.of_pairs(np.array(second, np.uint64).reshape(-1, 2))
    at_once = Joins.of_pairs(np.array(first + second, np.uint64).reshape(-1, 2))
    for joined in (a.merge(b), b.merge(a)):
        assert np.array_equal(joined.ids, at_once.ids)
        assert np.array_equal(joined.roots, at_once.roots)


def test_ids_beyond_32_bits_stay_apart() -> None:
    big = np.array([2**40 + 1, 2**40 + 2], np.uint64)
    joins = Joins.of_pairs(np.array([[2**40 + 2, 2**40 + 3]], np.uint64))
    assert joins.apply(big).tolist() == big.tolist()
    assert joins.apply(np.array([2**40 + 3], np.uint64)).tolist() == [2**40 + 2]


def test_faces_must_be_as_long() -> None:
    with pytest.raises(ValueError, match="as long"):
        touching_pairs(np.zeros(3, np.uint8), np.zeros(4, np.uint8))


def test_disagreement_counts_both_ways() -> None:
    seen, owned = np.array([1, 2, 3], np.uint64), np.array([2, 3, 4, 5], np.uint64)
    assert disagreement(seen, owned) == (1, 2)
