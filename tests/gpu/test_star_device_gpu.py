"""On a GPU the host's survivors, features and nearest objects come out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from star_shapes import cells
from stardist import data

from engine.device import Launch
from engine.methods.flag_matching import compare, features
from engine.methods.star_device import DeviceObjects
from engine.methods.starconvex import StarObjects, suppress
from engine.networks.model_folder import open_model
from engine.stages.base import Frame, Place, Raster
from engine.stages.stardist import Candidates, Instances
from engine.training.data import normalise
from tiling import Tiling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.3])
@pytest.mark.parametrize("origin", [0, 5000, 4_000_000])
def test_survivors_are_those_of_the_host(threshold: float, noise: float, origin: int) -> None:
    for seed in range(10):
        objects = cells(seed, side=300, noise=noise, origin=origin)
        here, there = suppress(objects, threshold), suppress(objects, threshold, "cuda")
        np.testing.assert_array_equal(here.points, there.points)
        np.testing.assert_array_equal(here.rays, there.rays)


def test_comparisons_are_those_of_the_host() -> None:
    one, other = (suppress(cells(seed, side=600, origin=100), 0.3) for seed in (1, 2))
    both = StarObjects.concatenate([other, one.take(np.arange(0, len(one), 2))], 32)
    np.testing.assert_allclose(features(one, "cuda"), features(one), atol=1e-9, rtol=0)
    here = compare(features(one), features(both), 15)
    there = compare(features(one, "cuda"), features(both, "cuda"), 15, "cuda")
    np.testing.assert_array_equal(here.missing, there.missing)
    np.testing.assert_array_equal(here.extra, there.extra)
    np.testing.assert_allclose(here.distance, there.distance, atol=1e-6)


def test_candidates_stay_on_the_device_until_they_are_suppressed() -> None:
    image = normalise(np.asarray(data.test_image_nuclei_2d())[None])
    frame = Frame((), (512, 512), 1, "float32")
    model = open_model("nuclei-fluo")
    tiling = Tiling(256, 64, 24, max(model.config.divisor), 2, "average")
    place, wanted = Place((), Launch("cuda", "float32", 2)), {"candidates": frame.bounds}
    given = {"normalised": Raster(frame.bounds, image)}
    made = Candidates(frame, model, tiling, 0.4, 2, "cuda").run(given, wanted, place)
    candidates = made.products["candidates"]
    assert isinstance(candidates, DeviceObjects)
    assert candidates.rays.device.type == "cuda"
    stage = Instances(frame, 0.4, 64, "cuda")
    kept = stage.run({"candidates": candidates}, {"objects": frame.bounds}, place)
    there, here = kept.products["objects"], suppress(candidates.on_host(), 0.4)
    assert len(here) > 20
    np.testing.assert_array_equal(here.points, there.points)
    np.testing.assert_array_equal(here.rays, there.rays)
