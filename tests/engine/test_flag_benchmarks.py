"""The benchmark of flags compares like with like, and the experiments keep what they computed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.io import imsave
from stardist.data import test_image_nuclei_2d as nuclei_image

from engine.device import Launch
from engine.errors import InputError
from engine.methods.defenses import Layout, evaluate
from engine.methods.starconvex import StarObjects, render
from engine.networks.defense_bank import DefenseBank
from engine.networks.model_folder import open_model
from engine.recipe import FlagSettings
from engine.stages.base import Frame, Pipeline, Place, Raster
from engine.stages.flags import Flags
from engine.stages.stardist import Candidates, Instances
from engine.training.data import normalise
from engine.training.defenses.pieces import Piece
from engine.training.flags.judging import judge
from engine.training.flags.options import FlagSetting
from engine.training.flags.variants import Segmenter
from tiling import Box, Tiling

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MODEL = "nuclei-fluo"
PLACE = Place((), Launch("cpu", "float32", 1))


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "experiments")
    return importlib.import_module


@pytest.fixture(scope="module")
def bank() -> DefenseBank:
    layout = Layout(5, 4)
    coefficients = np.random.default_rng(0).normal(size=(3, *layout.shape)).astype(np.float32)
    for one in coefficients:
        one *= 0.24 / np.abs(evaluate(one, layout)).max()
    half = np.full(3, 0.5, np.float32)
    sha256 = open_model(MODEL).sha256
    return DefenseBank("some", layout, coefficients, sha256, half, half, "global", ("a", "b", "c"))


def test_the_naive_loop_flags_what_the_stage_flags(scripts: Any, bank: DefenseBank) -> None:
    image = normalise(nuclei_image()[None, 80:400, 60:480])
    model = open_model(MODEL)
    settings = FlagSettings(strength=1, tau=12)
    frame = Frame((), (image.shape[1], image.shape[2]), 1, "float32")
    tiles = [Tiling(256, 96, 32, 16, 2, blend) for blend in ("average", "crop")]
    prob, nms = model.thresholds.prob, model.thresholds.nms
    segmentation = Pipeline(
        (Candidates(frame, model, tiles[0], prob, 1), Instances(frame, nms, 64))
    )
    given: dict[str, Any] = {"normalised": Raster(frame.bounds, image)}
    made = segmentation.run_from(given, {"objects": frame.bounds}, PLACE)
    given["reference"] = made.products["objects"]
    stage = Flags(frame, segmentation, bank, settings, given["reference"].reach)
    flagged = stage.run(given, {"flags": frame.bounds}, PLACE).products["flags"]
    loop = scripts("naive_flags").Loop(model, PLACE.launch, tiles[1], settings)
    votes = loop.run(image, bank)
    names = [f"{y},{x}" for y, x in flagged.objects.points.tolist()]
    both = [k for k, name in enumerate(names) if name in votes]
    assert len(both) >= 0.9 * len(names)
    here, there = flagged.votes.votes[both], np.array([votes[names[k]] for k in both])
    assert here.any()
    assert np.mean(here == there) >= 0.9  # boxes of masks end at pixels, those of polygons do not


def test_objects_of_variants_are_kept(scripts: Any, bank: DefenseBank, tmp_path: Path) -> None:
    cache_of = scripts("flag_cache")
    pixels = normalise(nuclei_image()[None, 100:356, 100:356])
    piece = Piece("one", (0, 0), pixels, np.ones((256, 256), np.int32))
    segmenter = Segmenter(open_model(MODEL), PLACE.launch)
    cache = cache_of.Cache(tmp_path, segmenter, bank.fields())
    first = {}
    for kind in cache_of.KINDS:
        what = cache_of.Pass(kind, 0.7, (2, 0))
        first[kind] = cache.variants(what, [piece])
        assert [len(row) for row in first[kind]] == [2]
    files = sorted(tmp_path.iterdir())
    assert len(files) == len(cache_of.KINDS)
    for kind in cache_of.KINDS:
        again = cache.variants(cache_of.Pass(kind, 0.7, (2, 0)), [piece])
        for one, other in zip(first[kind][0], again[0], strict=True):
            np.testing.assert_array_equal(one.points, other.points)
            np.testing.assert_array_equal(one.rays, other.rays)
    assert sorted(tmp_path.iterdir()) == files
    other = cache_of.Cache(tmp_path, segmenter, bank.fields()[::-1].copy())
    other.variants(cache_of.Pass("pd", 0.7, (2, 0)), [piece])
    assert len(list(tmp_path.iterdir())) == len(files) + 1


def test_fair_noises_have_the_energy_of_the_defense(scripts: Any, bank: DefenseBank) -> None:
    cache_of = scripts("flag_cache")
    pixels = np.full((1, 256, 256), 0.5, np.float32)  # far from 0: nothing is cut off
    piece = Piece("one", (0, 0), pixels, np.ones((256, 256), np.int32))
    energies = {}
    for kind in ("pd", "fair_gaussian", "fair_poisson"):
        (change,) = cache_of.Pass(kind, 0.7, (1,)).changes(bank.fields(), piece)
        energies[kind] = float(np.sqrt(np.mean((change(pixels) - pixels) ** 2)))
    assert energies["fair_gaussian"] == pytest.approx(energies["pd"], rel=1e-3)
    assert energies["fair_poisson"] == pytest.approx(energies["pd"], rel=0.02)


def test_images_of_other_channels_are_refused(scripts: Any, tmp_path: Path) -> None:
    for name, shape in (("images", (256, 256, 3)), ("labels", (256, 256))):
        (tmp_path / "val" / name).mkdir(parents=True)
        pixels = np.full(shape, 7, np.uint8)
        imsave(tmp_path / "val" / name / "a.png", pixels, check_contrast=False)
    with pytest.raises(InputError, match=r"val: expected 1 channel\(s\), as model .*, found 3"):
        _experiments(scripts).pieces_of(tmp_path, "val", open_model(MODEL))


def _experiments(scripts: Any) -> Any:
    """The script that shares its name with another one."""
    spec = importlib.util.spec_from_file_location(
        "experiments", BENCHMARKS / "experiments" / "defenses.py"
    )
    assert spec is not None
    assert spec.loader is not None
    scripts("flag_cache")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_claim_holds_where_intervals_lie_apart(scripts: Any) -> None:
    def row(*interval: float | None) -> dict[str, Any]:
        return {"tuned": {"ratios": {"precision": list(interval)}}}

    claim = scripts("flag_scores").claim
    rows = {
        "pd": row(0.8, 0.6, 0.9), "gaussian": row(0.5, 0.4, 0.59), "poisson": row(0.4, 0.1, 0.61),
        "fair_gaussian": row(None, None, None), "fair_poisson": {"paper": {}},
        "probability": {},
    }  # fmt: skip
    told = claim(rows, "tuned", 0.73)
    assert told["as_asked"]
    assert told["beyond"] == {"gaussian": True, "poisson": False, "fair_gaussian": None}
    assert not claim(rows, "tuned", 0.81)["as_asked"]
    assert claim({"pd": row(None, None, None)}, "tuned", 0.73) is None
    assert claim(rows, "precise", 0.73) is None


def test_reasons_tell_good_objects_from_candidates_in_the_void(scripts: Any) -> None:
    def discs(*places: tuple[int, int]) -> StarObjects:
        rays = np.full((len(places), 32), 8, np.float32)
        scores = np.linspace(0.9, 0.8, len(places), dtype=np.float32)
        return StarObjects(np.array(places, np.int64).reshape(-1, 2), scores, rays)

    labels = render(discs((30, 30), (90, 90)), Box((0, 0), (256, 256)))
    piece = Piece("one", (0, 0), np.zeros((1, 256, 256), np.float32), labels)
    reference = discs((30, 30), (200, 30))
    # One variant loses the invention, and shows the missed object and one where nothing is.
    variants = [discs((30, 30), (90, 90), (200, 200)), reference]
    judged = judge("one", labels, reference, variants, 1)
    told = scripts("flag_reasons").reasons([piece], [reference], [judged], FlagSetting(1, 9, 1, 0))
    rows = {low: (objects, flagged) for low, _, objects, flagged in told["objects"]}
    assert rows == {0.0: (1, 1), 0.3: (0, 0), 0.5: (0, 0), 0.8: (1, 0)}
    assert told["wrong_candidates"] == told["without_a_true_pixel"] == 1
