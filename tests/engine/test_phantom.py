"""Phantom mitochondria: seeded, plausible by construction, like the source's control group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import commands_in
from scipy import ndimage

from engine.errors import RecipeError
from engine.evaluation.plausibility import Plausibility, measure_plausibility
from engine.phantom import (
    SEEN,
    UNSEEN,
    VERSION,
    SceneParameters,
    Span,
    make_scene,
    make_truth,
    write_scenes,
)
from engine.phantom.cristae import draw_cristae

EIGHT = np.ones((3, 3), int)


@pytest.fixture(scope="module", params=[SEEN, UNSEEN], ids=lambda parameters: parameters.name)
def measured(request: pytest.FixtureRequest) -> Plausibility:
    """About 45 mitochondria."""
    found = Plausibility((), 0)
    for index in range(3):
        truth = make_truth(request.param, 2025, index)
        found = found.add(measure_plausibility(truth.classes, truth.instances))
    return found


def test_truth_is_like_the_control_group(measured: Plausibility) -> None:
    # Table 2 of the source; the package states the means of 600 mitochondria, within 4 %.
    mean = measured.mean
    assert mean.count > 30
    assert mean.end_points == pytest.approx(3.55, rel=0.2)
    assert mean.cycles == pytest.approx(0.26, abs=0.18)
    assert mean.boundary_to_area == pytest.approx(0.1214, rel=0.1)
    assert mean.cristae_ratio == pytest.approx(0.1009, rel=0.2)
    assert mean.background_ratio == 0


@pytest.mark.parametrize("parameters", [SEEN, UNSEEN])
def test_each_mitochondrion_obeys_its_constraints(parameters: SceneParameters) -> None:
    truth = make_truth(replace(parameters, size=256), 7)
    # Mitochondria do not touch: the components of the map are the instances.
    components, count = ndimage.label(truth.classes > 0, EIGHT)
    assert count == truth.instances.max() > 1
    for label in range(1, count + 1):
        own = np.where(truth.instances == label, truth.classes, 0)
        assert len(np.unique(components[own > 0])) == 1
        inner = own > 1
        assert ndimage.label(inner)[1] == 1
        # Not even a corner of the inner region meets the background.
        assert np.all(own[ndimage.binary_dilation(inner, EIGHT)] > 0)
        cristae, n_cristae = ndimage.label(own == 2, EIGHT)
        space = ndimage.binary_dilation(own == 1)
        assert n_cristae > 0
        assert all(np.any(space[cristae == k]) for k in range(1, n_cristae + 1))
        # Folds end in the matrix: none is an island, and there is matrix in each mitochondrion.
        assert np.any(own == 3)


@pytest.mark.parametrize("thick", [1, 2, 3])
def test_cristae_of_a_thin_inner_region_are_drawn_and_end(thick: int) -> None:
    inner = np.zeros((40, 60), bool)
    inner[20 : 20 + thick, 4:56] = True
    for seed in range(5):
        cristae = draw_cristae(inner, SEEN.cristae, np.random.default_rng(seed))
        assert not np.any(cristae & ~inner)
        rim = inner & ~ndimage.binary_erosion(inner)
        found, count = ndimage.label(cristae, EIGHT)
        assert set(range(1, count + 1)) <= set(found[rim].tolist())


def test_scene_depends_on_its_seed_and_index_only() -> None:
    small = replace(SEEN, size=192)
    scene, again = make_scene(small, 3, 1), make_scene(small, 3, 1)
    assert scene.image.dtype == np.uint16
    assert scene.classes.dtype == np.uint8
    for name in ("image", "classes", "instances", "spots"):
        np.testing.assert_array_equal(getattr(scene, name), getattr(again, name))
    assert np.any(make_scene(small, 3, 2).classes != scene.classes)
    assert np.any(make_scene(small, 4, 1).classes != scene.classes)


def test_image_shows_the_truth_and_spots_hide_it() -> None:
    # Without spots the stain of a mitochondrion stands out; with them, less so where they are.
    spoiled = make_scene(replace(SEEN, size=256), 5)
    clean = make_scene(replace(SEEN, size=256, image=replace(SEEN.image, spots=Span(0, 0))), 5)
    np.testing.assert_array_equal(spoiled.classes, clean.classes)
    background, inside = clean.classes == 0, clean.classes == 1
    level = np.median(clean.image[background])
    assert np.median(clean.image[inside]) > 1.5 * level
    assert not clean.spots.any()
    hidden = inside & spoiled.spots
    assert hidden.any()
    assert np.median(spoiled.image[hidden]) < np.median(clean.image[hidden])
    assert np.median(spoiled.image[hidden]) < 1.4 * level


def test_parameters_are_checked() -> None:
    with pytest.raises(RecipeError, match="0 <= low <= high, found 2 to 1"):
        Span(2, 1)
    with pytest.raises(RecipeError, match="at least 192 pixels"):
        replace(SEEN, size=100)
    with pytest.raises(RecipeError, match=r"shape\.intermembrane"):
        replace(SEEN.shape, intermembrane=Span(1, 3))


def test_command_writes_scenes_that_the_same_words_write_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tilewright = commands_in(tmp_path, monkeypatch, capsys)
    words = ("--scenes", "2", "--seed", "9", "--size", "192", "--unseen")
    answer = tilewright("phantom", "a", *words)
    assert (answer.code, answer.err) == (0, "")
    assert "a: 2 scenes of 192 x 192 pixels" in answer.out
    assert tilewright("phantom", "b", *words).code == 0
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert [file.as_posix() for file in files] == [
        "README.md",
        "images/scene-0000.tif",
        "images/scene-0001.tif",
        "labels/scene-0000.tif",
        "labels/scene-0001.tif",
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    expected = make_scene(replace(UNSEEN, size=192), 9, 1)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a" / files[2]), expected.image)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a" / files[4]), expected.classes)
    card = (tmp_path / "a" / "README.md").read_text()
    assert "--scenes 2 --seed 9 --size 192 --unseen" in card
    assert f"version {VERSION}" in card
    tilewright("phantom", "a", *words).refuses("a folder that is new or empty")
    tilewright("phantom", "c", "--size", "100").refuses("at least 192 pixels")


@pytest.mark.parametrize(("count", "seed", "word"), [(0, 0, "scenes"), (1, -1, "seed")])
def test_folder_refuses_numbers_that_cannot_be(
    tmp_path: Path, count: int, seed: int, word: str
) -> None:
    with pytest.raises(RecipeError, match=f"{word} of a phantom"):
        next(write_scenes(tmp_path / "x", SEEN, count, seed))
    assert not (tmp_path / "x").exists()
