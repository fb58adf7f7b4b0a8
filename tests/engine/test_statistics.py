"""Pass 0 through the pipeline: its levels are NumPy's percentiles, whatever the cut."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from journeys import Runner, read, save_image

from engine.errors import InputError
from engine.ledger import Record
from engine.planning import Job, make_plan
from engine.recipe import load_settings
from engine.stages.normalise import Levels
from engine.statistics import check_finite, freeze, save_bins, sweeps
from engine.tasks import compute
from tiling import Grid

RNG = np.random.default_rng(3)


def job_of(tmp_path: Path, pixels: np.ndarray, axes: str, *overrides: str) -> Job:
    """Job on an image, as a run would make it."""
    image = save_image(tmp_path / "image.ome.zarr", pixels, axes)
    settings = load_settings("nuclei", ["resources.workers=1", *overrides])
    return make_plan(str(image), tmp_path / "OUT.ome.zarr", settings).job


def levels_of(job: Job, side: int) -> Levels:
    """Levels as the driver freezes them, from regions of a size."""
    grid = Grid(job.frame.planes, job.frame.extent, (side, side))
    for name in sweeps(job):
        step = job.statistics_pass(name)
        done = [(region, compute(job, step, region)) for region in grid]
        records = [
            Record(name, region, step.digest, 0.0, 0, "", notes=d.notes) for region, d in done
        ]
        if name == sweeps(job)[0]:
            check_finite(job, records)
        if name == "coarse":
            save_bins(job, [record.region for record in records])
    return freeze(job, [record.region for record in records])


def pixels_of(dtype: str) -> np.ndarray:
    """Two planes of different brightness, the second with an outlier."""
    values = RNG.gamma(2.0, 20.0, (2, 90, 70))
    values[1] += 50
    values[1, 3, 4] = 1e6 if np.dtype(dtype).itemsize > 2 else 120
    return (values if np.dtype(dtype).kind == "f" else np.clip(values, 0, 2e9)).astype(dtype)


@pytest.mark.parametrize("over", ["image", "plane"])
@pytest.mark.parametrize("dtype", ["uint16", "float16", "int32", "uint32", "float32", "float64"])
def test_levels_are_percentiles_whatever_the_cut(tmp_path: Path, dtype: str, over: str) -> None:
    pixels = pixels_of(dtype)
    job = job_of(tmp_path, pixels, "zyx", f"normalise.over={over}")
    planes = [pixels] if over == "image" else list(pixels)
    exact = [p.astype("f4" if dtype == "float64" else dtype).astype("f8") for p in planes]
    expected = np.array([np.percentile(p, [1, 99.8]) for p in exact]).astype(np.float32)
    for side in (25, 4096):
        levels = levels_of(job, side)
        found = np.stack([levels.low.ravel(), levels.high.ravel()], axis=1)
        assert np.array_equal(found, expected), side


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_local_levels_are_percentiles_of_cells(tmp_path: Path, dtype: str) -> None:
    pixels = RNG.gamma(2.0, 20.0, (160, 100)).astype(dtype)
    job = job_of(tmp_path, pixels, "yx", "normalise.over=local", "normalise.cell=64")
    levels = levels_of(job, 128)
    assert levels.cell == 64
    assert levels.low.shape == (1, 1, 3, 2)
    low, high = np.percentile(pixels[64:128, 64:], [1, 99.8])
    assert levels.low[0, 0, 1, 1] == np.float32(low)
    assert levels.high[0, 0, 1, 1] == np.float32(high)


@pytest.mark.parametrize("over", ["image", "plane", "local"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_what_is_not_finite_is_refused_by_name_or_left_out(
    tmp_path: Path, dtype: str, over: str
) -> None:
    pixels = RNG.gamma(2.0, 20.0, (96, 96)).astype(dtype)
    if dtype == "float32":
        pixels[70, 10], pixels[80, 90] = np.nan, np.inf
    words = (f"normalise.over={over}", "normalise.cell=64")[: 1 + (over == "local")]
    job = job_of(tmp_path, pixels, "yx", *words)
    if dtype == "float32":
        with pytest.raises(InputError, match=r"first in .*64.*2 that are NaN or infinite"):
            levels_of(job, 64)
    recipe = job.stardist.model_copy(
        update={"input": job.stardist.input.model_copy(update={"nonfinite": "zero"})}
    )
    levels = levels_of(replace(job, recipe=recipe), 64)
    assert np.isfinite(levels.low).all()
    if over == "image":
        kept = pixels[np.isfinite(pixels)].astype(np.float64)
        assert levels.high[0] == np.float32(np.percentile(kept, 99.8))


def flat_with_square(dtype: str) -> np.ndarray:
    """A plane of noise, one of exact zeros with a bright square, and one of zeros."""
    pixels = np.zeros((3, 300, 300), dtype)
    pixels[0] = RNG.integers(0, 200, (300, 300))
    pixels[1, 100:110, 60:70] = 200
    return pixels


@pytest.mark.parametrize("over", ["image", "plane", "local"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_bright_objects_on_exact_zero(
    tmp_path: Path, run_recipe: Runner, dtype: str, over: str
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", flat_with_square(dtype)[1:], "zyx")
    out = tmp_path / "OUT.ome.zarr"
    words = (f"normalise.over={over}", "normalise.cell=64")[: 1 + (over == "local")]
    assert run_recipe(image, out, *words, "resources.retries=0").complete
    labels = read(out, "labels/nuclei/0")
    assert labels[0, 105, 65] > 0
    assert labels[0].astype(bool).sum() < 500
    assert not labels[1].any()


def test_equal_percentiles_fall_back_to_the_extremes(tmp_path: Path) -> None:
    pixels = flat_with_square("float32")
    dark = np.full((1, 300, 300), 7, np.float32)
    dark[0, 5, 5] = 2
    job = job_of(tmp_path, np.concatenate([pixels, dark]), "zyx", "normalise.over=plane")
    levels = levels_of(job, 128)
    assert levels.low[1:].ravel().tolist() == [0, 0, 2]
    assert levels.high[1:].ravel().tolist() == [200, 0, 7]


def test_a_damaged_chunk_of_a_float_image_is_a_failed_region(
    tmp_path: Path, run_recipe: Runner
) -> None:
    pixels = RNG.random((300, 300)).astype(np.float32)
    image = save_image(tmp_path / "image.ome.zarr", pixels)
    (image / "0" / "c" / "0" / "0").write_bytes(b"no shard")
    out = tmp_path / "OUT.ome.zarr"
    outcome = run_recipe(image, out, "resources.retries=1")
    assert not outcome.complete
    (failure,) = outcome.failures
    assert failure.pass_name == "coarse"
    assert failure.attempts == 2
    assert out.is_dir()


def test_a_part_that_is_gone_is_counted_again(
    tmp_path: Path, run_recipe: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", RNG.random((300, 300)).astype(np.float32))
    out = tmp_path / "OUT.ome.zarr"
    with monkeypatch.context() as broken:
        broken.setattr("engine.running.driver.freeze", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run_recipe(image, out)
    (part,) = (out / ".tilewright" / "statistics" / "parts").glob("*/coarse-*.npz")
    part.unlink()
    assert run_recipe(image, out).complete
