"""Objects joined over the seams of cells are those of the whole plane."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from engine.methods.components import (
    Parts,
    cell_edges,
    measure_parts,
    number_parts,
)
from engine.methods.joining import Components, join_block, open_cell

if TYPE_CHECKING:
    from engine.methods.components import Connectivity


def _joined(
    children: dict[tuple[int, int], Components], connectivity: Connectivity, fan: int
) -> tuple[list[Components], dict[tuple[int, int], list[tuple[int, int]]]]:
    """Join level by level: all whole objects, and where each component of each cell ended.

    An end is the number of the list of objects and the index there.
    """
    whole: list[Components] = []
    ends = {place: [(-1, i) for i in range(len(c.pieces))] for place, c in children.items()}
    above = {place: place for place in children}
    while True:
        blocks = {(y // fan, x // fan) for y, x in children}
        last, opened, targets = len(blocks) == 1, {}, {}
        for block in sorted(blocks):
            inside = {p: c for p, c in children.items() if (p[0] // fan, p[1] // fan) == block}
            joint = join_block(inside, connectivity, last=last)
            for place, target in zip(sorted(inside), joint.target, strict=True):
                targets[place] = (len(whole), target)
            whole.append(joint.closed)
            opened[block] = joint.open
        for place, found in ends.items():
            at, target = targets[above[place]]
            for k, (table, index) in enumerate(found):
                if table < 0:
                    to = int(target[index])
                    found[k] = (at, to) if to >= 0 else (-1, -1 - to)
            above[place] = (above[place][0] // fan, above[place][1] // fan)
        if last:
            assert all(len(o.pieces) == 0 for o in opened.values())
            return whole, ends
        children = opened


@given(
    st.integers(0, 10**6),
    st.sampled_from([4, 8]),
    st.floats(0.2, 0.8),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.integers(2, 3),
)
def test_joined_parts_are_the_components_of_the_plane(
    seed: int, connectivity: Connectivity, density: float, cell: tuple[int, int], fan: int
) -> None:
    rng = np.random.default_rng(seed)
    classes = rng.integers(1, 4, (23, 19)) * (rng.random((23, 19)) < density)
    classes, entropy = classes.astype(np.uint8), rng.integers(0, 256, (23, 19)).astype(np.uint8)
    structure = ndimage.generate_binary_structure(2, 1 if connectivity == 4 else 2)
    plane, count = ndimage.label(classes > 0, structure)
    cells: dict[tuple[int, int], Components] = {}
    alone, names, pieces = [], {}, np.zeros(count, np.int64)
    for i, top in enumerate(range(0, 23, cell[0])):
        for j, left in enumerate(range(0, 19, cell[1])):
            place = (slice(top, top + cell[0]), slice(left, left + cell[1]))
            numbers = number_parts(classes[place] > 0, connectivity)
            parts = measure_parts(numbers, classes[place], entropy[place], (top, left), 4)
            edges = cell_edges(numbers)
            touching = edges.touching()
            cells[i, j] = open_cell(edges, parts.take(touching), (i, j))
            alone.append(parts.take(np.setdiff1d(np.arange(len(parts)), touching)))
            names[i, j] = [int(plane[tuple(p)]) for p in parts.first]
            np.add.at(pieces, np.array(names[i, j], int) - 1, 1)
    whole, ends = _joined(dict(cells), connectivity, fan)
    for place, found in ends.items():
        for head, (table, index) in zip(cells[place].heads.tolist(), found, strict=True):
            row, column, part = whole[table].heads[index].tolist()
            assert names[row, column][part] == names[place][head[2]]
    for objects in whole:
        for first, (row, column, part), n in zip(
            objects.parts.first, objects.heads.tolist(), objects.pieces.tolist(), strict=True
        ):
            name = int(plane[tuple(first)])
            assert names[row, column][part] == name
            assert n == pieces[name - 1]
            assert tuple(first) == tuple(np.argwhere(plane == name)[0])
    united = Parts.concatenate([*alone, *(objects.parts for objects in whole)])
    truth = measure_parts(plane.astype(np.int32), classes, entropy, (0, 0), 4)
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
