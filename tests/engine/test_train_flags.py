"""Flags against the truth, and the search of their settings."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import disk
from skimage.io import imsave
from stardist.matching import matching
from typer.testing import CliRunner

from engine.cli.train_flags import flags
from engine.device import Launch
from engine.errors import InputError, OutputError, RecipeError, ResourceError
from engine.methods.defenses import Layout, evaluate
from engine.methods.flag_extras import covered, merge_extras, share_of
from engine.methods.flag_matching import compare, features
from engine.methods.starconvex import StarObjects, render
from engine.networks.defense_bank import DefenseBank, save_bank
from engine.networks.model_folder import open_model
from engine.networks.stardist import load_network
from engine.training.data import normalise
from engine.training.flags.document import document, most_right
from engine.training.flags.judging import judge
from engine.training.flags.options import FlagOptions, FlagSetting
from engine.training.flags.searching import (
    FlagRow,
    average_precision,
    search_flags,
)
from engine.training.flags.variants import Segmenter, bank_changes
from engine.training.whole_image import find_objects, predict_maps
from tiling import Box

RAYS = 32
MODEL = "nuclei-fluo"
SIDE = 96


def discs(*rows: tuple[int, int, float]) -> StarObjects:
    """Round objects (y, x, radius), better ones first."""
    points = np.array([row[:2] for row in rows], np.int64).reshape(-1, 2)
    radii = np.array([row[2] for row in rows], np.float32)
    scores = np.linspace(0.9, 0.6, len(rows), dtype=np.float32)
    return StarObjects(points, scores, np.repeat(radii[:, None], RAYS, axis=1))


def drawn(objects: StarObjects) -> np.ndarray:
    """Truth that is just these objects."""
    return render(objects, Box((0, 0), (SIDE, SIDE)))


def some_objects(rng: np.random.Generator, most: int) -> StarObjects:
    """Objects at random that overlap little."""
    rows: list[tuple[int, int, float]] = []
    for _ in range(int(rng.integers(0, most + 1))):
        y, x = rng.integers(8, SIDE - 8, 2).tolist()
        if all((y - v) ** 2 + (x - u) ** 2 > 15**2 for v, u, _ in rows):
            rows.append((y, x, float(rng.uniform(5, 9))))
    return discs(*rows)


def jittered(objects: StarObjects, rng: np.random.Generator) -> StarObjects:
    """What a variant might show: some objects lost, some moved or resized."""
    kept = objects.take(rng.random(len(objects)) < 0.8)
    points = kept.points + rng.integers(-3, 4, kept.points.shape)
    rays = kept.rays * rng.uniform(0.7, 1.3, (len(kept), 1)).astype(np.float32)
    return StarObjects(points, kept.scores, rays)


# Judging


def test_flags_of_a_scene_that_can_be_told_by_hand() -> None:
    good, invented, missed, phantom = (20, 20, 8), (20, 70, 8), (70, 20, 8), (70, 70, 8)
    truth = drawn(discs(good, missed))
    reference = discs(good, invented)
    # The first variant loses the invention, and shows the missed object and a phantom.
    variants = [discs(good, missed, phantom), discs(good, invented, missed)]
    judged = judge("scene", truth, reference, variants, 1)
    assert judged.partner.tolist() == [1, 0]
    assert judged.missed == 1
    assert judged.f1 == 0.5
    voted = judged.vote(15, 0.37, 0.5)
    one, two = voted.counts(1), voted.counts(2)
    assert (one.fp_right, one.fp_wrong, one.fp_all) == (1, 0, 1)
    assert (one.fn_right, one.fn_wrong, one.fn_found, one.fn_all) == (1, 1, 1, 1)
    assert one.f1_deleted == pytest.approx(2 / 3)
    assert one.f1_added == pytest.approx(4 / 6)
    assert (two.fp_right, two.fn_right, two.fn_wrong) == (0, 1, 0)
    assert two.f1_deleted == 0.5
    assert two.f1_added == pytest.approx(4 / 5)


def test_a_true_object_that_is_flagged_is_wrong() -> None:
    good = discs((20, 20, 8), (60, 60, 8))
    judged = judge("scene", drawn(good), good, [discs((20, 20, 8))], 1)
    counts = judged.vote(15, 0.37, 0.5).counts(1)
    assert (counts.fp_right, counts.fp_wrong) == (0, 1)
    assert counts.f1 == 1
    assert counts.f1_deleted == pytest.approx(2 / 3)


def test_candidates_under_the_reference_are_dropped() -> None:
    reference = discs((40, 40, 20))
    inside = discs((40, 40, 8))
    judged = judge("scene", drawn(inside), reference, [inside], 1)
    assert judged.covered.tolist() == [1]
    assert judged.vote(15, 0.37, 1).counts(1).fn_right == 1
    assert judged.vote(15, 0.37, 0.5).counts(1).fn_right == 0


def test_a_candidate_of_an_object_that_is_found_is_wrong() -> None:
    found = discs((40, 40, 8))
    judged = judge("scene", drawn(found), found, [discs((43, 40, 8))], 1)
    counts = judged.vote(1, 0.37, 1).counts(1)
    assert (counts.fn_right, counts.fn_wrong, counts.fn_all) == (0, 1, 0)


def test_two_candidates_of_one_missed_object_find_it_once() -> None:
    missed = drawn(discs((60, 60, 10)))
    judged = judge("scene", missed, discs(), [discs((58, 60, 10)), discs((62, 60, 10))], 1)
    counts = judged.vote(15, 1, 0.5).counts(1)
    assert (counts.fn_right, counts.fn_found) == (2, 1)
    assert counts.f1_added == pytest.approx(2 / 3)


def test_images_without_objects_or_truth() -> None:
    none, one = discs(), discs((40, 40, 8))
    empty = np.zeros((SIDE, SIDE), np.int32)
    for truth, reference, variant in [
        (empty, none, none), (empty, one, none), (empty, none, one), (drawn(one), none, none),
        (drawn(one), none, one), (drawn(one), one, none),
    ]:  # fmt: skip
        judged = judge("scene", truth, reference, [variant], 1)
        counts = judged.vote(15, 0.37, 0.5).counts(1)
        assert counts.fp_right + counts.fp_wrong == len(reference)
        assert counts.fn_right + counts.fn_wrong == len(variant)
        assert counts.fn_right == int(len(variant) and truth.any())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tau=st.sampled_from([3.0, 9.3, 20.0]))
def test_counts_are_those_of_painted_labels_and_stardist(seed: int, tau: float) -> None:
    rng = np.random.default_rng(seed)
    real = some_objects(rng, 6)
    truth = drawn(real)
    reference = jittered(StarObjects.concatenate([real, some_objects(rng, 3)], RAYS), rng)
    y, x = reference.points.T
    reference = reference.take(np.lexsort((x, y, -reference.scores)))
    variants = [jittered(reference, rng), some_objects(rng, 5), jittered(real, rng)]
    judged = judge("scene", truth, reference, variants, 3)
    counts = judged.vote(tau, share_of(1.7), 0.5).counts(2)
    known = features(reference)
    found = [compare(known, features(v), tau) for v in variants]
    votes = np.sum([c.missing for c in found], axis=0)
    parts = [(k, v.take(c.extra)) for k, (v, c) in enumerate(zip(variants, found, strict=True))]
    extras = merge_extras(parts, share_of(1.7), RAYS)
    extras = extras.take(extras.votes >= 2)
    extras = extras.take(covered(extras.objects, reference) <= 0.5)
    painted = drawn(reference)
    score = matching(truth, painted, thresh=0.5, report_matches=True)
    right = {p - 1 for (_, p), ok in zip(score.matched_pairs, score.matched_scores, strict=True)
             if ok >= 0.5}  # fmt: skip
    flagged = np.flatnonzero(votes >= 2)
    visible = np.isin(np.arange(len(reference)) + 1, painted)
    assert counts.fp_wrong == sum(int(k in right) for k in flagged)
    assert counts.fp_right == sum(int(k not in right) for k in flagged)
    assert counts.fn_right + counts.fn_wrong == len(extras.votes)
    if visible.all():
        assert counts.f1 == pytest.approx(score.f1)
        kept = np.where(np.isin(painted - 1, flagged), 0, painted)
        assert counts.f1_deleted == pytest.approx(matching(truth, kept, thresh=0.5).f1)
    best = [_best_missed(extras.objects.take(np.array([k])), truth, judged.partner)
            for k in range(len(extras.votes))]  # fmt: skip
    assert counts.fn_right == sum(b > 0 for b in best)
    assert counts.fn_found == len({b for b in best if b})


def _best_missed(one: StarObjects, truth: np.ndarray, partner: np.ndarray) -> int:
    """Missed true object that a polygon reaches IoU 0.5 with, by painting; 0 for none."""
    own = drawn(one) > 0
    for label in range(1, truth.max() + 1):
        other = truth == label
        if label not in partner and (own & other).sum() / (own | other).sum() >= 0.5:
            return label
    return 0


# Average precision


def test_average_precision_of_votes() -> None:
    right = np.array([True, True, False, False])
    assert average_precision(np.array([9, 8, 1, 0]), right) == 1
    assert average_precision(np.array([0, 1, 8, 9]), right) == pytest.approx(1 / 3 / 2)
    assert average_precision(np.array([2, 2, 2, 2]), right) == 0.5
    assert average_precision(np.zeros(4, int), right) == 0
    assert average_precision(np.arange(4), np.zeros(4, bool)) == 0


# Variants


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright and faint discs, uint8, and truth that lacks one and has one too many."""
    rng = np.random.default_rng(seed)
    image = rng.normal(30, 4, (SIDE, SIDE))
    truth = np.zeros((SIDE, SIDE), np.uint16)
    places = [(y, x) for y in (14, 40, 66) for x in (14, 40, 66)]
    for k, at in enumerate(places):
        pixels = disk(at, rng.uniform(5, 9), shape=image.shape)
        image[pixels] += 90 if k % 2 else 14
        if k != 3:
            truth[pixels] = k + 1
    truth[disk((85, 85), 6, shape=image.shape)] = 20
    return image.clip(0, 255).astype(np.uint8), truth


def make_bank(path: Path, **changes: object) -> Path:
    """Three smooth fields at random."""
    layout = Layout(4, 8)
    rng = np.random.default_rng(1)
    coefficients = rng.normal(size=(3, *layout.shape)).astype(np.float32)
    for one in coefficients:
        one *= 0.24 / np.abs(evaluate(one, layout)).max()
    half = np.full(3, 0.5, np.float32)
    bank = DefenseBank(
        "some", layout, coefficients, open_model(MODEL).sha256, half, half, "global",
        ("a", "b", "c"),
    )  # fmt: skip
    save_bank(replace(bank, **changes), path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for k in range(2):
        image, truth = scene(k)
        imsave(tmp_path / f"images/s{k}.png", image, check_contrast=False)
        imsave(tmp_path / f"labels/s{k}.png", truth, check_contrast=False)
    return tmp_path


def options(folders: Path, **changes: object) -> FlagOptions:
    if not (folders / "bank.safetensors").exists():
        make_bank(folders / "bank.safetensors")
    given = FlagOptions(
        MODEL, str(folders / "bank.safetensors"), folders / "images", folders / "labels",
        strengths=(0.0, 1.0), taus=(5.0, 15.0), merges=(1.7,), min_votes=(0.0, 0.5, 1.0),
        device="cpu",
    )  # fmt: skip
    return replace(given, **changes)


def test_variants_of_strength_0_are_the_reference_and_batches_change_nothing() -> None:
    image = normalise(scene(0)[0][None])
    segmenter = Segmenter(open_model(MODEL), Launch("cpu", "float32", 1))
    fields = np.random.default_rng(0).uniform(-0.2, 0.2, (3, 256, 256)).astype(np.float32)
    reference = segmenter.objects([image])[0]
    assert len(reference) > 3
    for variant in segmenter.variants(image, bank_changes(fields, 0)):
        assert (variant.points == reference.points).all()
        assert (variant.rays == reference.rays).all()
    together = segmenter.variants(image, bank_changes(fields, 1))
    for k, change in enumerate(bank_changes(fields, 1)):
        alone = segmenter.objects([change(image)])[0]
        assert (alone.points == together[k].points).all()
        assert not np.array_equal(alone.scores, reference.scores)


@pytest.mark.parametrize("shape", [(96, 96), (83, 91)])
def test_objects_are_those_of_whole_image_prediction(shape: tuple[int, int]) -> None:
    model = open_model(MODEL)
    # Cut through the discs at the edges, where stardist takes no candidates.
    image = normalise(scene(0)[0][None, 12 : 12 + shape[0], 12 : 12 + shape[1]])
    found = Segmenter(model, Launch("cpu", "float32", 1)).objects([image])[0]
    expected = find_objects(predict_maps(load_network(model), image), model.thresholds)
    assert len(found) > 3
    assert {tuple(p) for p in found.points} == {tuple(p) for p in expected.points}


# Search


def test_the_search_finds_what_helps_most(folders: Path) -> None:
    seen: list[tuple[int, int]] = []
    choice = search_flags(options(folders), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
    assert len(choice.rows) == 2 * 2 * 1 * 3
    assert choice.images == choice.counted == 2
    assert choice.best.objective == max(row.objective for row in choice.rows)
    for row in choice.rows:
        if row.setting.strength == 0:  # nothing is changed: no flag, nothing gained or lost
            assert row.objective == pytest.approx(choice.before)
            assert row.fp_right + row.fp_wrong + row.fn_right + row.fn_wrong == 0
            assert row.precision == 0
    assert any(row.fp_right + row.fp_wrong + row.fn_right + row.fn_wrong for row in choice.rows)
    assert set(choice.average_precision) == {(x, t) for x in (0.0, 1.0) for t in (5.0, 15.0)}
    text = document(choice, 0.5)
    assert json.loads(json.dumps(text)) == text
    assert len(text["rows"][0]) == len(text["columns"])


def test_what_is_missing_takes_votes_of_its_own(folders: Path) -> None:
    def rows(**changes: object) -> dict[FlagSetting, FlagRow]:
        some = options(folders, strengths=(1.0,), taus=(5.0,), **changes)
        return {row.setting: row for row in search_flags(some, lambda *_: None).rows}

    one, both = rows(), rows(min_votes_missing=(0.0, 1.0))
    assert len(both) == 2 * len(one)
    few, all_of_them = (FlagSetting(1, 5, 1.7, share) for share in (0.0, 1.0))
    apart = both[replace(few, min_votes_missing=1.0)]
    assert (apart.fp_right, apart.fp_wrong) == (one[few].fp_right, one[few].fp_wrong)
    assert (apart.fn_right, apart.fn_wrong) == (
        one[all_of_them].fn_right,
        one[all_of_them].fn_wrong,
    )
    assert one[few].fn_right + one[few].fn_wrong > apart.fn_right + apart.fn_wrong
    assert one[few].fp_right + one[few].fp_wrong > one[all_of_them].fp_right


def test_a_sampler_tries_between_the_ends_of_the_lists(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    seen: list[float] = []
    segment = Segmenter.variants

    def variants(self: Segmenter, *given: Any) -> list[StarObjects]:
        seen.append(1)
        return segment(self, *given)

    monkeypatch.setattr(Segmenter, "variants", variants)
    asked = options(folders, trials=12, merges=(1.0, 3.0))
    choice = search_flags(asked, lambda *_: None)
    assert len(seen) == 2 * 2  # images and strengths, whatever is tried
    assert len(choice.rows) == 12
    points = [row.setting for row in choice.rows]
    assert {at.strength for at in points} <= {0.0, 1.0}
    assert all(5 <= at.tau <= 15 and 1 <= at.merge <= 3 for at in points)
    assert len({at.tau for at in points}) > 8
    assert len({at.min_votes_missing for at in points}) > 8
    assert any(at.min_votes != at.min_votes_missing for at in points)
    best = choice.best
    assert best.objective == max(row.objective for row in choice.rows)
    assert (best.setting.strength, best.setting.tau) in choice.average_precision
    assert search_flags(asked, lambda *_: None).rows == choice.rows
    other = search_flags(replace(asked, seed=1), lambda *_: None)
    assert other.rows != choice.rows


def test_a_sampler_that_is_not_installed_is_told(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ResourceError, match=r"pip install 'tilewright\[tune\]'"):
        search_flags(options(folders, trials=1), lambda *_: None)


def test_the_most_right_flags_among_precise_settings() -> None:
    def row(right: int, wrong: int) -> FlagRow:
        return FlagRow(FlagSetting(0.5, 5, 1, right / 100), 0.9, right, wrong, 0, 0)

    rows = [row(9, 1), row(20, 6), row(40, 30), row(20, 5)]
    assert most_right(rows, 0.73) is rows[1]
    assert most_right(rows, 0.78) is rows[3]
    assert most_right(rows, 0.5) is rows[2]
    assert most_right(rows, 0.95) is None
    assert most_right([row(0, 0)], 0.5) is None


def test_a_bank_of_another_model_is_refused(folders: Path) -> None:
    make_bank(folders / "bank.safetensors", model_sha256="0" * 64)
    with pytest.raises(InputError, match="made for this model"):
        search_flags(options(folders), lambda *_: None)


def test_a_bank_of_another_scaling_is_refused(folders: Path) -> None:
    make_bank(folders / "bank.safetensors", mode="field")
    with pytest.raises(InputError, match="global"):
        search_flags(options(folders), lambda *_: None)


def test_colour_images_are_refused(folders: Path) -> None:
    for path in (folders / "images").iterdir():
        imsave(path, np.repeat(scene(0)[0][..., None], 3, axis=2), check_contrast=False)
    with pytest.raises(InputError, match=r"1 channel\(s\), found 3"):
        search_flags(options(folders), lambda *_: None)


def test_images_without_errors_are_refused(folders: Path) -> None:
    segmenter = Segmenter(open_model(MODEL), Launch("cpu", "bfloat16", 1))
    for k in range(2):
        found = segmenter.objects([normalise(scene(k)[0][None])])[0]
        truth = drawn(found).astype(np.uint16)
        imsave(folders / f"labels/s{k}.png", truth, check_contrast=False)
    with pytest.raises(InputError, match="F1 below"):
        search_flags(options(folders, strengths=(0.0,)), lambda *_: None)


def test_images_without_errors_do_not_count(folders: Path) -> None:
    segmenter = Segmenter(open_model(MODEL), Launch("cpu", "bfloat16", 1))
    before = search_flags(options(folders, strengths=(0.0,)), lambda *_: None)
    found = segmenter.objects([normalise(scene(0)[0][None])])[0]
    imsave(folders / "labels/s0.png", drawn(found).astype(np.uint16), check_contrast=False)
    (folders / "bank.safetensors").unlink()
    after = search_flags(options(folders, strengths=(0.0,)), lambda *_: None)
    assert (before.counted, after.counted, after.images) == (2, 1, 2)
    assert after.before < 0.95
    assert after.best.objective == pytest.approx(after.before)


@pytest.mark.parametrize(
    "changes",
    [
        {"strengths": (1.5,)}, {"strengths": ()}, {"taus": (-1.0,)}, {"taus": (float("inf"),)},
        {"merges": (float("nan"),)}, {"min_votes": (2.0,)}, {"min_votes_missing": (-0.1,)},
    ],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="numbers"):
        FlagOptions(MODEL, "some", tmp_path, tmp_path, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("changes", [{"trials": 0}, {"seed": -1}])
def test_counts_out_of_range_are_refused(tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match=">="):
        FlagOptions(MODEL, "some", tmp_path, tmp_path, **changes)  # type: ignore[arg-type]


# Command


@pytest.fixture
def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(flags)
    return app


def arguments(folders: Path, *more: str) -> list[str]:
    make_bank(folders / "bank.safetensors")
    return [
        "--images", str(folders / "images"), "--labels", str(folders / "labels"),
        "--bank", str(folders / "bank.safetensors"), "--strengths", "1", "--taus", "5,15",
        "--rs", "1.7", "--min-votes", "0,0.5", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_the_command_prints_and_writes_settings(
    folders: Path, command: typer.Typer, suffix: str
) -> None:
    out = folders / f"found{suffix}"
    done = CliRunner().invoke(command, arguments(folders, "--out", str(out)))
    assert done.exit_code == 0, done.output
    read = json.loads if suffix == ".json" else yaml.safe_load
    found = read(out.read_text())
    assert set(found["settings"]) == {
        "flags.strength", "flags.tau", "flags.merge", "flags.min_votes",
        "flags.min_votes_missing",
    }  # fmt: skip
    assert found["settings"].pop("flags.min_votes_missing") is None
    assert "--set flags.min_votes_missing=null" in done.output
    for name, value in found["settings"].items():
        assert f"--set {name}={value:g}" in done.output


def test_the_command_tries_what_a_sampler_proposes(folders: Path, command: typer.Typer) -> None:
    pytest.importorskip("optuna")
    words = arguments(folders, "--trials", "5", "--min-votes-missing", "0.4,0.6", "--seed", "3")
    done = CliRunner().invoke(command, [*words, "--out", str(folders / "found.json")])
    assert done.exit_code == 0, done.output
    found = json.loads((folders / "found.json").read_text())
    assert len(found["rows"]) == 5
    assert 0.4 <= found["settings"]["flags.min_votes_missing"] <= 0.6
    for name, value in found["settings"].items():
        assert f"--set {name}={value}" in done.output.replace("=1 ", "=1.0 ")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (("--taus", "5;6"), RecipeError),
        (("--precision", "0"), RecipeError),
        (("--out", "somewhere.txt"), RecipeError),
        (("--out", "missing/folder.json"), OutputError),
    ],
)
def test_the_command_refuses_before_it_works(
    folders: Path, command: typer.Typer, more: tuple[str, ...], error: type[Exception]
) -> None:
    done = CliRunner().invoke(command, arguments(folders, *more))
    assert isinstance(done.exception, error)
