"""Objects joined over the seams of cells are those of the whole plane."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from engine.methods.components import (
    Edges,
    Parts,
    cell_edges,
    join_over_seams,
    measure_parts,
    number_parts,
)


@given(
    st.integers(0, 10**6),
    st.sampled_from([4, 8]),
    st.floats(0.2, 0.8),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_joined_parts_are_the_components_of_the_plane(
    seed: int, connectivity: int, density: float, cell: tuple[int, int]
) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(1, 4, (23, 19)) * (rng.random((23, 19)) < density)
    classes, entropy = classes.astype(np.uint8), rng.integers(0, 256, (23, 19)).astype(np.uint8)
    edges: dict[int, dict[int, Edges]] = {}
    parts, rows = [], []
    for i, top in enumerate(range(0, 23, cell[0])):
        for j, left in enumerate(range(0, 19, cell[1])):
            place = (slice(top, top + cell[0]), slice(left, left + cell[1]))
            numbers = number_parts(classes[place] > 0, connectivity)  # type: ignore[arg-type]
            found = measure_parts(numbers, classes[place], entropy[place], (top, left), 4)
            edges.setdefault(i, {})[j] = cell_edges(numbers)
            rows += [(i, j, k) for k in range(len(found))]
            parts.append(found)
    joined, group = join_over_seams(edges.items(), connectivity)  # type: ignore[arg-type]
    assert [tuple(row) for row in joined.tolist()] == sorted(set(map(tuple, joined.tolist())))
    number = {tuple(row): g for row, g in zip(joined.tolist(), group.tolist(), strict=True)}
    # Parts that touch no side are objects by themselves.
    alone = iter(range(len(joined), len(joined) + len(rows)))
    groups = np.array([number[row] if row in number else next(alone) for row in rows], np.int64)
    _, groups = np.unique(groups, return_inverse=True)
    united = Parts.concatenate(parts).united(groups, int(groups.max(initial=-1)) + 1)
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    whole, count = ndimage.label(classes > 0, structure)
    truth = measure_parts(whole.astype(np.int32), classes, entropy, (0, 0), 4)
    assert len(united) == count
    order, expected = (np.lexsort((p.first[:, 1], p.first[:, 0])) for p in (united, truth))
    for name in ("first", "area", "sums", "boxes", "classes", "entropy"):
        np.testing.assert_array_equal(getattr(united, name)[order], getattr(truth, name)[expected])


def test_measures_are_those_of_the_pixels() -> None:
    classes = np.zeros((6, 8), np.uint8)
    classes[1:3, 2:5] = 2
    classes[3, 4] = 1
    entropy = np.full((6, 8), 10, np.uint8)
    numbers = number_parts(classes > 0, 4)
    parts = measure_parts(numbers, classes, entropy, (100, 200), 3)
    assert parts.area.tolist() == [7]
    assert parts.first.tolist() == [[101, 202]]
    assert parts.boxes.tolist() == [[101, 202, 104, 205]]
    assert parts.classes.tolist() == [[0, 1, 6]]
    assert parts.entropy.tolist() == [70]
    assert (parts.sums[0] / 7).tolist() == pytest.approx(
        [(6 * 101.5 + 103) / 7, (6 * 203 + 204) / 7]
    )
