"""Stages pull: what is wanted decides what is read."""

import numpy as np

from engine.device import Launch
from engine.networks.model_folder import open_model
from engine.stages.base import Frame, Pipeline, Place, Raster
from engine.stages.normalise import Levels, Normalise
from engine.stages.stardist import Candidates, Instances
from tiling import Box, Tiling


def pipeline(frame: Frame, halo: int = 64) -> Pipeline:
    levels = Levels(np.array([0.0], np.float32), np.array([255.0], np.float32))
    model = open_model("nuclei-fluo")
    tiling = Tiling(256, 64, 24, 16, 2)
    stages = (
        Normalise(frame, levels, "refuse"),
        Candidates(frame, model, tiling, 0.5, 4),
        Instances(frame, 0.4, halo),
    )
    return Pipeline(stages)


def test_halos_are_derived_from_the_last_stage_to_the_first() -> None:
    frame = Frame((), (4000, 4000), 1, "uint8")
    core = Box((1024, 1024), (2048, 2048))
    boxes = pipeline(frame).fold({"objects": core, "probability": core})
    assert boxes["candidates"] == core.grow(64)
    assert boxes["image"].contains(boxes["candidates"].grow(24))
    assert boxes["image"].shape[0] <= 1024 + 2 * (64 + 256)
    assert all(n % 192 == 0 for n in boxes["image"].start)


def test_what_is_not_finite_is_as_dark_as_the_low_percentile() -> None:
    frame = Frame((), (2, 3), 1, "float32")
    pixels = np.array([[[-20.0, np.nan, 80.0], [np.inf, -np.inf, 30.0]]], np.float32)
    levels = Levels(np.array([-20.0], np.float32), np.array([80.0], np.float32))
    given = Raster(frame.bounds, pixels.copy())
    place = Place((), Launch("cpu", "float32", 1))
    stage = Normalise(frame, levels, "zero")
    made = stage.run({"image": given}, {"normalised": frame.bounds}, place)
    found = made.products["normalised"].data
    np.testing.assert_allclose(found, [[[0, 0, 1], [0, 0, 0.5]]], atol=1e-6)
    np.testing.assert_array_equal(given.data, pixels)


def test_nothing_is_read_beyond_the_image() -> None:
    frame = Frame((), (500, 300), 1, "uint8")
    boxes = pipeline(frame).fold({"objects": frame.bounds, "probability": frame.bounds})
    assert boxes["image"] == frame.bounds


def test_an_image_smaller_than_a_tile_is_padded_to_one() -> None:
    frame = Frame((), (37, 21), 1, "uint8")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 37, 21), dtype=np.uint8)
    made = pipeline(frame).run(
        Raster(frame.bounds, pixels),
        {"objects": frame.bounds, "probability": frame.bounds},
        Place((), Launch("cpu", "float32", 4)),
    )
    probability = made.products["probability"]
    assert probability.cut(frame.bounds).shape == (1, 19, 11)
    assert made.notes["network.tiles"] == 1


def test_the_bits_do_not_depend_on_the_launch() -> None:
    frame = Frame((), (300, 700), 1, "uint8")
    pixels = np.random.default_rng(0).integers(0, 255, (1, 300, 700), dtype=np.uint8)
    wanted = {"objects": frame.bounds, "probability": frame.bounds}
    results = [
        pipeline(frame).run(
            Raster(frame.bounds, pixels), wanted, Place((), Launch("cpu", "float32", tiles))
        )
        for tiles in (1, 3, 8)
    ]
    first = results[0].products["probability"].data
    assert all(np.array_equal(first, r.products["probability"].data) for r in results[1:])


def test_memory_grows_with_what_is_wanted() -> None:
    frame = Frame((), (9000, 9000), 1, "uint8")
    sizes = [
        pipeline(frame).memory({"objects": core, "probability": core})
        for core in (Box((0, 0), (n, n)) for n in (1024, 2048, 4096))
    ]
    assert sizes[0] < sizes[1] < sizes[2]
