"""Calibration of defenses finds gains, goes on after a stop, and refuses what it cannot use."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import commands_in
from numpy.typing import NDArray
from skimage.draw import disk
from skimage.filters import gaussian
from skimage.io import imsave
from stardist.matching import matching
from tifffile import imwrite

from engine.errors import (
    InputError,
    InterruptedRunError,
    ModelError,
    OutputError,
    StoppedRunError,
)
from engine.methods.defenses import CAP, Layout, evaluate, perturb_field
from engine.networks.defense_bank import DefenseBank, open_bank
from engine.networks.model_folder import open_model
from engine.networks.stardist import load_network
from engine.running import calibrating
from engine.running.calibrating import RETRIES, calibrate_on
from engine.training.data import Sample, find_pairs, normalise, read_samples
from engine.training.defenses.making import make_bank
from engine.training.defenses.options import DefenseOptions, DefenseProgress
from engine.training.defenses.parts import Part
from engine.training.defenses.pieces import Piece, cut_pieces
from engine.training.defenses.routes import Case, Found, bounded, descend, search
from engine.training.defenses.scoring import Judge, Score, scaled_variants, score_labels
from engine.training.defenses.work import Doing, PieceWork, calibrate, storable
from engine.training.whole_image import find_objects, predict_maps

LAYOUT = Layout(degree=3, blocks=2)


def _scene(
    seed: int, shape: tuple[int, int] = (256, 256), fog: float = 0.4, brightest: float = 0.2
) -> tuple[np.ndarray, np.ndarray]:
    """Discs: dim ones behind fog, which a defense can take away; bright ones without."""
    rng = np.random.default_rng(seed)
    labels, light, haze = np.zeros(shape, np.uint16), np.zeros(shape), np.zeros(shape)
    for y in range(24, shape[0] - 20, 44):
        for x in range(24, shape[1] - 20, 44):
            pixels = disk((y, x), rng.uniform(8, 12), shape=shape)
            light[pixels] = rng.uniform(0.08, brightest) if fog else rng.uniform(0.3, 1)
            labels[pixels] = labels.max() + 1
    light[24:40, 24:40] = 1
    haze[:, 80:] = fog
    image = 20 + 120 * gaussian(light, 2) + 255 * gaussian(haze, 12) + rng.normal(0, 2, shape)
    return image.clip(0, 255).astype(np.uint8), labels


def _write(root: Path, scenes: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for name, (image, labels) in scenes.items():
        imsave(root / f"images/{name}.png", image, check_contrast=False)
        imwrite(root / f"labels/{name}.tif", labels)
    return root


@pytest.fixture
def data(tmp_path: Path) -> Path:
    scenes = {
        "a": _scene(1),
        "b": _scene(2, (256, 300), brightest=0.3),
        "c": _scene(3, fog=0),
        "d": _scene(3, (200, 256)),
    }
    return _write(tmp_path / "data", scenes)


def _options(data: Path, out: str, **changes: object) -> DefenseOptions:
    options = DefenseOptions(
        model="nuclei-fluo", images=data / "images", labels=data / "labels",
        out=data.parent / f"{out}.safetensors", degree=3, blocks=2, steps=3, evaluations=4,
    )  # fmt: skip
    return replace(options, **changes)


def _piece() -> Piece:
    image, labels = _scene(1)
    return Piece("s", (0, 0), normalise(image[None]), labels.astype(np.int32))


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.set_num_threads(1)
    return Judge(open_model("nuclei-fluo"), "cpu", "float32", "global")


class _Distance:
    """Scores a field by how near it lies to another one, and counts."""

    def __init__(self) -> None:
        rng = np.random.default_rng(5)
        self.target = bounded(rng.normal(0, 0.1, LAYOUT.shape), LAYOUT)
        self.asked = 0

    def scores(self, _: Piece, fields: NDArray[np.float32], *, exact: bool = False) -> list[Score]:
        assert not exact
        self.asked += len(fields)
        wanted = evaluate(self.target, LAYOUT)
        return [Score(0.5, 1 - 4 * float(np.abs(f - wanted).mean())) for f in fields]


def _zero(distance: _Distance, piece: Piece) -> Found:
    zero = np.zeros(LAYOUT.shape)
    score = distance.scores(piece, evaluate(zero, LAYOUT)[None])[0]
    return Found(zero, score, "zero")


def test_search_improves_within_its_budget() -> None:
    piece, distance = _piece(), _Distance()
    start = _zero(distance, piece)
    found = search(Case(distance, piece, LAYOUT), start, 200, (0, 1))
    assert distance.asked <= 201
    assert found[0].score.total > start.score.total + 0.01
    assert [f.score.total for f in found] == sorted((f.score.total for f in found), reverse=True)
    # Each is worth what it says: nothing that was worse is left in it.
    for f in found:
        again = distance.scores(piece, evaluate(f.coefficients, LAYOUT)[None])[0]
        assert again.total == pytest.approx(f.score.total, abs=1e-9)
    twice = search(Case(_Distance(), piece, LAYOUT), start, 200, (0, 1))
    assert np.array_equal(twice[0].coefficients, found[0].coefficients)
    other = search(Case(_Distance(), piece, LAYOUT), start, 200, (0, 2))
    assert not np.array_equal(other[0].coefficients, found[0].coefficients)


def test_search_rolls_back_what_is_worse() -> None:
    piece = _piece()
    distance = _Distance()
    best = Found(distance.target, Score(0.5, 1.0), "gradient")
    found = search(Case(distance, piece, LAYOUT), best, 40, (0, 1))
    assert found == [best]


def test_search_stops_at_1() -> None:
    piece, distance = _piece(), _Distance()
    done = Found(distance.target, Score(1.0, 0.75), "gradient")
    assert search(Case(distance, piece, LAYOUT), done, 40, (0, 1)) == [done]
    assert distance.asked == 0


def test_gradient_lowers_what_it_descends(judge: Judge) -> None:
    piece = _piece()
    found = descend(Case(judge, piece, LAYOUT), 3)
    start = judge.scores(piece, np.zeros((1, 256, 256), np.float32))[0]
    assert found[0].score.total > start.total
    assert found[0].route == "gradient"
    for f in found:
        field = evaluate(f.coefficients, LAYOUT)
        assert np.abs(field).max() <= CAP + 1e-6
        again = judge.scores(piece, field[None])[0]
        assert again.total == pytest.approx(f.score.total, abs=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_stardists(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(rng.integers(0, 9, (6, 6)), 5, 0), 5, 1).astype(np.int32)
    truth = np.unique(truth, return_inverse=True)[1].reshape(truth.shape).astype(np.int32)
    found = np.where(rng.random(truth.shape) < 0.1 * seed, 0, truth * 3).astype(np.int32)
    expected = matching(truth, found, thresh=0.75)
    score = score_labels(truth, found)
    assert score.f1 == pytest.approx(expected.f1, abs=1e-12)
    best = [
        max((np.sum((truth == t) & (found == f)) / np.sum((truth == t) | (found == f)))
            for f in np.unique(found))
        for t in range(1, truth.max() + 1)
    ]  # fmt: skip
    assert score.fine == pytest.approx(np.mean(np.minimum(best, 0.75)), abs=1e-6)


def test_nothing_found_scores_0() -> None:
    truth = np.ones((4, 4), np.int32)
    assert score_labels(truth, np.zeros_like(truth)) == Score(0.0, 0.0)


def test_bounds_hold_after_rounding() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.normal(0, 0.3, (2, *LAYOUT.shape))
    drawn[0, 1, 1] *= 0.01
    inside = bounded(drawn, LAYOUT)
    assert np.abs(evaluate(inside, LAYOUT)).max() == pytest.approx(CAP, rel=1e-6)
    assert np.array_equal(inside[0, 1, 1], drawn[0, 1, 1])
    for one in inside:
        stored = storable(one, LAYOUT)
        assert np.abs(evaluate(stored, LAYOUT)).max() <= CAP
        np.testing.assert_allclose(stored, one, atol=2e-3)


def test_field_mode_scales_as_the_paper() -> None:
    pixels = np.random.default_rng(0).normal(size=(2, 256, 256)).astype(np.float32)
    field = evaluate(bounded(np.random.default_rng(1).normal(size=LAYOUT.shape), LAYOUT), LAYOUT)
    fields = np.stack([field, np.zeros_like(field)])
    variants = scaled_variants(torch.from_numpy(pixels), torch.from_numpy(fields))
    for variant, one in zip(variants.numpy(), fields, strict=True):
        np.testing.assert_allclose(variant, perturb_field(pixels, one, 1.0), atol=1e-6)
    assert not scaled_variants(torch.ones(1, 256, 256), torch.zeros(1, 256, 256)).any()


def test_pieces_lie_on_the_fields() -> None:
    labels = np.zeros((600, 300), np.int32)
    labels[10:20, 10:20], labels[300:310, 200:210], labels[590:, 290:] = 1, 2, 3
    image = np.arange(600 * 300, dtype=np.float32).reshape(1, 600, 300)
    pieces = cut_pieces([Sample("big", image, labels)], seed=0)
    assert sorted(p.place for p in pieces) == [(0, 0), (256, 0)]
    below = next(p for p in pieces if p.place == (256, 0))
    assert below.labels.max() == 1  # ids without gaps
    assert below.pixels[0, 0, 0] == image[0, 256, 0]
    assert below.origin == "big at (256, 0)"


class _StopError(Exception):
    pass


def _check_gains(bank: DefenseBank, options: DefenseOptions, judge: Judge) -> None:
    """The bank's scores are those of the values in it, in float32."""
    samples = read_samples(find_pairs(options.images, options.labels))
    pieces = {p.origin: p for p in cut_pieces(samples, options.seed)}
    for k, origin in enumerate(bank.origins):
        fields = np.stack([np.zeros((256, 256), np.float32), bank.fields()[k]])
        before, after = judge.scores(pieces[origin], fields, exact=True)
        assert bank.f1_before[k] == pytest.approx(before.f1, abs=1e-6)
        assert bank.f1_after[k] == pytest.approx(after.f1, abs=1e-6)
        assert after.f1 > before.f1


def test_a_stopped_calibration_goes_on(data: Path, judge: Judge) -> None:
    whole = make_bank(_options(data, "whole"), lambda _: None)
    seen: list[DefenseProgress] = []

    def stop(progress: DefenseProgress) -> None:
        seen.append(progress)
        raise _StopError

    options = _options(data, "parts")
    with pytest.raises(_StopError):
        make_bank(options, stop)
    again: list[DefenseProgress] = []
    parts = make_bank(options, again.append)
    assert [progress.done for progress in again] == [2, 3]
    assert len(seen) == 1
    one, two = open_bank(str(whole)), open_bank(str(parts))
    assert (one.sha256, one.origins) == (two.sha256, two.origins)
    assert len(one) >= 1
    assert one.model_sha256 == open_model("nuclei-fluo").sha256
    _check_gains(one, options, judge)
    assert not parts.with_name("parts.safetensors.parts").exists()
    card = whole.with_suffix(".md").read_text()
    assert "3 pieces were looked at" in card
    assert f"{len(one)} polynomial defenses" in card
    with pytest.raises(OutputError, match="no such file yet"):
        make_bank(options, again.append)


def test_other_options_do_not_go_on(data: Path) -> None:
    def stop(_: DefenseProgress) -> None:
        raise _StopError

    options = _options(data, "b", route="gradient", steps=1, limit=1)
    with pytest.raises(_StopError):
        make_bank(options, stop)
    with pytest.raises(InputError, match="steps 1, as when this bank was begun, found 2"):
        make_bank(replace(options, steps=2), stop)
    part = next(options.out.with_name("b.safetensors.parts").iterdir())
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(InputError, match="a finished piece of this version"):
        make_bank(options, stop)


def test_time_is_kept(data: Path) -> None:
    """No piece begins when the time is over; what is left can be made later."""
    options = _options(data, "b", route="gradient", steps=3, seed=1)  # one with a gain comes first
    first: list[DefenseProgress] = []
    bank = make_bank(replace(options, minutes=1e-6), first.append)
    assert len(first) == 1
    bank.unlink()
    rest: list[DefenseProgress] = []
    make_bank(options, rest.append)
    assert [progress.done for progress in rest] == [2, 3]


def test_a_cluster_does_the_same(data: Path, cluster_address: str) -> None:
    options = _options(data, "b", route="gradient")
    seen: list[DefenseProgress] = []
    there = calibrate_on(cluster_address, None, options, seen.append)
    assert [progress.done for progress in seen] == [1, 2, 3]
    assert not there.with_name("b.safetensors.parts").exists()
    here = make_bank(replace(options, out=options.out.with_name("c.safetensors")), lambda _: None)
    one, two = open_bank(str(there)), open_bank(str(here))
    assert one.origins == two.origins
    np.testing.assert_array_equal(one.coefficients, two.coefficients)


def test_a_calibration_on_a_cluster_stops_on_request(data: Path, cluster_address: str) -> None:
    options = _options(data, "b", route="gradient")

    def stop(_: DefenseProgress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(InterruptedRunError, match="Finished pieces are kept"):
        calibrate_on(cluster_address, None, options, stop)
    again: list[DefenseProgress] = []
    calibrate_on(cluster_address, None, options, again.append)
    assert [progress.done for progress in again] == [2, 3]


def test_what_the_workers_would_refuse_is_said_once(
    data: Path, cluster_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def refuse(work: PieceWork) -> Part:
        asked.append(work.name)
        raise ModelError(where="weights", expected="some", found="none", remedy="Make some.")

    monkeypatch.setattr(PieceWork, "do", refuse)
    with pytest.raises(ModelError, match="weights: expected some"):
        calibrate_on(cluster_address, None, _options(data, "b"), lambda _: None)
    assert 1 <= len(asked) <= 2  # threads of the cluster


def test_a_piece_that_fails_is_tried_again_and_stops_only_itself(
    data: Path, cluster_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fails once, one always; the next call does what is left."""
    monkeypatch.setattr(calibrating, "PAUSE_S", 0.01)
    asked: dict[str, int] = {}
    good = PieceWork.do

    def fail(work: PieceWork) -> Part:
        asked[work.name] = asked.get(work.name, 0) + 1
        if work.piece.image == "a" or (work.piece.image == "b" and asked[work.name] == 1):
            raise OSError("it burns")
        return good(work)

    monkeypatch.setattr(PieceWork, "do", fail)
    options, seen = _options(data, "b", route="gradient"), list[DefenseProgress]()
    with pytest.raises(StoppedRunError, match=r"found a at \(0, 0\): OSError: it burns"):
        calibrate_on(cluster_address, None, options, seen.append)
    assert asked == {"a at (0, 0)": 1 + RETRIES, "b at (0, 0)": 2, "c at (0, 0)": 1}
    assert len(seen) == 2
    monkeypatch.setattr(PieceWork, "do", good)
    again: list[DefenseProgress] = []
    calibrate_on(cluster_address, None, options, again.append)
    assert [progress.origin for progress in again] == ["a at (0, 0)"]


@pytest.mark.cluster
@pytest.mark.timeout(90)
def test_the_piece_of_a_worker_that_dies_is_done_by_another(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, came = tmp_path / "mark", []

    def die_once() -> str:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return "done"

    def bank(_: DefenseOptions, __: object, doing: Doing) -> Path:
        # Not of a class of this file, which a worker would have to import.
        unit = SimpleNamespace(name="deadly", do=die_once)
        came.extend(doing(iter([unit]), 1))  # type: ignore[list-item]
        return tmp_path

    monkeypatch.setattr(calibrating, "make_bank", bank)
    calibrate_on("local", 1, _options(data, "b"), lambda _: None)
    assert mark.exists()
    assert [part for _, part in came] == ["done"]


def test_a_calibration_needs_a_worker(data: Path) -> None:
    with pytest.raises(InputError, match="--workers: expected >= 1, found 0"):
        calibrate_on("local", 0, _options(data, "b"), lambda _: None)


def test_margin_is_asked(judge: Judge, data: Path) -> None:
    options = _options(data, "b", route="gradient")
    part = calibrate(judge, _piece(), options)
    assert part.f1_after > part.f1_before
    gain = part.f1_after - part.f1_before
    strict = calibrate(judge, _piece(), replace(options, margin=gain + 0.01))
    assert strict.f1_after == strict.f1_before
    assert not strict.coefficients.any()


def test_nothing_to_learn_is_refused(tmp_path: Path) -> None:
    """A model that is good everywhere, or that nothing helps, makes no bank."""
    image, _ = _scene(4, fog=0)
    piece = Piece("x", (0, 0), normalise(image[None]), np.ones((256, 256), np.int32))
    model = open_model("nuclei-fluo")
    network = load_network(model)
    own = find_objects(predict_maps(network, piece.pixels), model.thresholds).labels()
    good = _write(tmp_path / "good", {"a": (image, own.astype(np.uint16))})
    with pytest.raises(InputError, match=r"expected a piece with F1 below 0\.9"):
        make_bank(_options(good, "g"), lambda _: None)
    odd = np.zeros((256, 256), np.uint16)
    odd[:, :3] = 1
    hopeless = _write(tmp_path / "odd", {"a": (image, odd)})
    with pytest.raises(InputError, match="found none for 1 pieces"):
        make_bank(_options(hopeless, "h", steps=1, evaluations=1), lambda _: None)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    image, labels = _scene(1)

    def refused(
        name: str, scene: tuple[np.ndarray, np.ndarray]
    ) -> pytest.ExceptionInfo[InputError]:
        root = _write(tmp_path / name, {"a": scene})
        with pytest.raises(InputError) as caught:
            make_bank(_options(root, f"{name}-bank"), lambda _: None)
        assert not list(tmp_path.glob(f"{name}/{name}-bank*"))
        return caught

    refused("rgb", (np.stack([image] * 3, axis=-1), labels)).match("expected 1 channel")
    refused("cut", (image, labels[:-1])).match(r"expected shape \(256, 256\)")
    refused("small", (image[:255], labels[:255])).match("at least one piece of 256 by 256")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"route": "walk"}, "route: expected search, gradient or both, found walk"),
        ({"mode": "local"}, "global or field"),
        ({"blocks": 3}, "1, 2, 4, 8, 16 or 32"),
        ({"degree": 0}, "1 to 32"),
        ({"steps": 0}, ">= 1"),
        ({"minutes": 0}, "> 0"),
        ({"margin": 1.0}, r"in \[0, 1\)"),
        ({"out": Path("bank.npz")}, "NAME.safetensors"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(_options(tmp_path / "data", "b"), **change)


def test_command_line(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run: Callable[..., object] = commands_in(data, monkeypatch, capsys)
    words = ["train", "defenses", "--model", "nuclei-fluo", "--images", "images", "--labels",
             "labels", "--out", "b.safetensors"]  # fmt: skip
    run(*words, "--route", "walk").refuses("route", "walk")  # type: ignore[attr-defined]
    run(*words, "--images", "nowhere").refuses("nowhere")  # type: ignore[attr-defined]
