"""Pyramids average images and never average labels."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.planning.elements import BAND
from engine.pyramid import mean_of_four

sides = st.tuples(st.integers(1, 12), st.integers(1, 12))


def expected(pixels: np.ndarray) -> list[list[int]]:
    """Means rounded to the nearest, halves up, in Python's unbounded integers."""
    height, width = pixels.shape
    result = []
    for y in range(0, height, 2):
        rows = (y, min(y + 1, height - 1))
        quads = [
            sum(int(pixels[r, c]) for r in rows for c in (x, min(x + 1, width - 1)))
            for x in range(0, width, 2)
        ]
        result.append([(total + 2) // 4 for total in quads])
    return result


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@given(st.sampled_from(INTEGERS), sides, st.integers(0, 2**31))
def test_integers_are_rounded_means(dtype: str, shape: tuple[int, int], seed: int) -> None:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    pixels[rng.random(shape) < 0.3] = info.max
    pixels[rng.random(shape) < 0.3] = info.min
    reduced = mean_of_four(pixels)
    assert reduced.dtype == pixels.dtype
    assert reduced.tolist() == expected(pixels)


def test_the_majority_of_bools_wins_with_ties_up() -> None:
    pixels = np.array([[1, 0, 1, 0, 1], [0, 0, 1, 0, 0]], bool)
    assert mean_of_four(pixels).tolist() == [[False, True, True]]


def test_bands_do_not_show() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4 * BAND + 3, 5), dtype=np.uint8)
    assert mean_of_four(pixels).tolist() == expected(pixels)


def test_temporaries_are_a_part_of_the_image() -> None:
    pixels = np.zeros((8192, 2048), np.int64)
    tracemalloc.start()
    mean_of_four(pixels)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * pixels.nbytes


@given(hnp.arrays(np.float32, sides, elements=st.floats(-1e6, 1e6, width=32)))
def test_floats_are_means(pixels: np.ndarray) -> None:
    reduced = mean_of_four(pixels)
    assert reduced.dtype == np.float32
    assert reduced[0, 0] == pytest.approx(pixels[:2, :2].mean(dtype=np.float64), rel=1e-5, abs=1e-3)


def test_large_floats_do_not_overflow() -> None:
    assert mean_of_four(np.full((2, 2), 1.7e308)).tolist() == [[1.7e308]]
