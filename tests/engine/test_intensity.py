"""Counted percentiles equal NumPy's, whatever the cut and the outliers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.methods.intensity import (
    between,
    count,
    count_within,
    counted_dtype,
    interpolate_cells,
    keys_of,
    normalise,
    place_of,
    ranks,
    value_of,
    wide,
)

counted = st.sampled_from(
    ["uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32"]
)


def finite(dtype: str) -> st.SearchStrategy[np.ndarray]:
    """Arrays of finite values."""
    kind = np.dtype(dtype)
    if kind.kind != "f":
        return hnp.arrays(kind, st.integers(1, 300))
    numbers = st.floats(width=8 * kind.itemsize, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]
    return hnp.arrays(kind, st.integers(1, 300), elements=numbers)


def percentile(values: np.ndarray, q: float) -> float:
    """Percentile from counts, as pass 0 takes it."""
    found = count(values)
    total = np.zeros(2**16, np.int64)
    total[found.bins] = found.counts
    below, above, part = ranks(int(total.sum()), q)
    neighbours = []
    for rank in (below, above):
        key, rest = place_of(total, rank)
        if wide(values.dtype.name):
            keys, counts = count_within(values, np.array([key]))
            key = int(keys[place_of(counts, rest)[0]])
        neighbours.append(value_of(key, counted_dtype(values.dtype.name)))
    return between(neighbours[0], neighbours[1], part)


@given(counted.flatmap(finite), st.floats(0, 100))
def test_percentiles_are_exact(values: np.ndarray, q: float) -> None:
    assert percentile(values, q) == np.percentile(values.astype(np.float64), q)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64"])
def test_types_of_64_bits_are_counted_as_float32(dtype: str) -> None:
    values = (np.random.default_rng(0).random(1000) * 1e12).astype(dtype)
    expected = np.percentile(values.astype(np.float32).astype(np.float64), 37.3)
    assert percentile(values, 37.3) == expected


def test_an_outlier_does_not_move_percentiles() -> None:
    values = np.random.default_rng(1).random(10**6).astype(np.float32)
    values[77] = 1e6
    for q in (1, 99.8):
        assert percentile(values, q) == np.percentile(values.astype(np.float64), q)


@given(counted.flatmap(finite), st.integers(0, 300))
def test_counts_add_up(values: np.ndarray, cut: int) -> None:
    whole, parts = count(values), [count(values[:cut]), count(values[cut:])]
    total = np.zeros(2**16, np.int64)
    for part in parts:
        total[part.bins] += part.counts
    assert np.array_equal(np.flatnonzero(total), whole.bins)
    assert np.array_equal(total[whole.bins], whole.counts)
    assert min(p.least for p in parts) == whole.least
    assert max(p.most for p in parts) == whole.most


@given(counted.flatmap(finite))
def test_keys_are_in_the_order_of_the_values(values: np.ndarray) -> None:
    keys = keys_of(values)
    assert np.array_equal(values[np.argsort(keys, kind="stable")], np.sort(values))
    assert [value_of(int(key), values.dtype) for key in keys] == values.tolist()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_what_is_not_finite_is_counted_apart(dtype: str) -> None:
    values = np.array([np.nan, 1, np.inf, 2, -np.inf, 3], dtype)
    assert count(values).nonfinite == 3
    assert count(values).counts.sum() == 3
    assert percentile(values, 50) == 2


def test_what_float32_cannot_hold_is_not_finite() -> None:
    assert count(np.array([1e300, 5.0])).nonfinite == 1


def test_a_constant_image_becomes_zero() -> None:
    flat = np.full((1, 4, 4), 7, np.uint16)
    level = np.array([7], np.float32)
    assert np.array_equal(normalise(flat, level, level), np.zeros((1, 4, 4), np.float32))


@given(
    hnp.arrays(
        np.float32, (1, 2, 5), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
)
def test_normalised_values_are_finite(values: np.ndarray) -> None:
    low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
    for top in (high, low):
        result = normalise(values, low, top)
        assert np.isfinite(result).all()
        assert np.abs(result).max() <= 1e6


def test_levels_map_to_zero_and_one() -> None:
    image = np.array([[[10, 20, 30]]], np.uint8)
    result = normalise(image, np.array([10.0]), np.array([30.0]))
    assert result.dtype == np.float32
    assert result.ravel().tolist() == [0.0, 0.5, 1.0]


def test_opposite_extremes_of_float32_keep_their_distance() -> None:
    ends = np.array([-3e38, 0, 3e38], np.float32)
    result = normalise(ends.reshape(1, 1, 3), ends[:1], ends[2:])
    assert result.ravel().tolist() == [0.0, 0.5, 1.0]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 60), st.integers(1, 40))
def test_interpolation_depends_on_the_place_alone(n: int, m: int, start: int, size: int) -> None:
    cells = np.random.default_rng(2).random((2, n, m)).astype(np.float32)
    rows, columns = np.arange(100), np.arange(100)
    whole = interpolate_cells(cells, 32, rows, columns)
    part = interpolate_cells(cells, 32, rows[start : start + size], columns[:7])
    assert np.array_equal(part, whole[:, start : start + size, :7])
    assert whole.min() >= cells.min() - 1e-6
    assert whole.max() <= cells.max() + 1e-6


def test_cell_centres_keep_their_value() -> None:
    cells = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    at = interpolate_cells(cells, 9, np.array([4, 13]), np.array([4, 13, 22]))
    assert np.allclose(at, cells)
