"""Counted percentiles equal NumPy's, whatever the cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.methods.intensity import Binning, interpolate_cells, normalise

integers = st.sampled_from(["uint8", "int8", "uint16", "int16"])


@given(integers.flatmap(lambda d: hnp.arrays(d, st.integers(1, 300))), st.floats(0, 100))
def test_integer_percentiles_are_exact(values: np.ndarray, q: float) -> None:
    binning = Binning.for_dtype(values.dtype.name)
    assert binning is not None
    cut = len(values) // 3
    counts = binning.count(values[:cut]) + binning.count(values[cut:])
    assert np.array_equal(counts, binning.count(values))
    expected = np.percentile(values.astype(np.float64), q)
    assert binning.percentile(counts, q) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("q", [0, 1, 37, 99.8, 100])
def test_float_percentiles_are_within_a_bin(q: float) -> None:
    values = np.random.default_rng(1).gamma(2.0, 1000.0, 100_000).astype(np.float32)
    binning = Binning.for_range(values.min(), values.max())
    error = binning.percentile(binning.count(values), q) - np.percentile(values, q)
    assert abs(error) <= binning.width


def test_wide_integers_need_their_range_first() -> None:
    assert Binning.for_dtype("uint32") is None
    assert Binning.for_dtype("float32") is None


def test_a_constant_image_becomes_zero() -> None:
    flat = np.full((1, 4, 4), 7, np.uint16)
    level = np.array([7], np.float32)
    assert np.array_equal(normalise(flat, level, level), np.zeros((1, 4, 4), np.float32))


def test_levels_map_to_zero_and_one() -> None:
    image = np.array([[[10, 20, 30]]], np.uint8)
    result = normalise(image, np.array([10.0]), np.array([30.0]))
    assert result.dtype == np.float32
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
