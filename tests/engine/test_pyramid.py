"""Pyramids average images and never average labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from engine.pyramid import mean_of_four

sides = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(st.sampled_from(["uint8", "int16", "uint32"]), sides, st.integers(0, 2**31))
def test_integers_are_rounded_means(dtype: str, shape: tuple[int, int], seed: int) -> None:
    info = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)
    reduced = mean_of_four(pixels)
    assert reduced.dtype == pixels.dtype
    assert reduced.shape == tuple(-(-n // 2) for n in shape)
    for y in range(reduced.shape[0]):
        for x in range(reduced.shape[1]):
            quad = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].astype(np.float64)
            assert reduced[y, x] == np.floor(quad.mean() + 0.5)


@given(hnp.arrays(np.float32, sides, elements=st.floats(-1e6, 1e6, width=32)))
def test_floats_are_means(pixels: np.ndarray) -> None:
    reduced = mean_of_four(pixels)
    assert reduced.dtype == np.float32
    assert reduced[0, 0] == pytest.approx(pixels[:2, :2].mean(dtype=np.float64), rel=1e-5, abs=1e-3)
