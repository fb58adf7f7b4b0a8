"""Training of masked autoencoders learns, resumes exactly, and refuses what it cannot use."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from skimage.io import imsave
from typer.testing import CliRunner

from engine.cli.train import app
from engine.device import Launch
from engine.errors import InputError, OutputError, RecipeError
from engine.methods.patches import near_patches
from engine.networks.mae import MaskedAutoencoder
from engine.networks.mae_folder import MaeConfig, open_mae
from engine.networks.mae_runtime import open_inpainter
from engine.networks.mae_weights import initialise_mae
from engine.training import course
from engine.training.mae.batches import MaeBatch, MaeBatches, mask_windows, validation_windows
from engine.training.mae.data import ClassMap, class_shares, read_class_maps, split_maps
from engine.training.mae.loss import mae_loss
from engine.training.mae.options import SCORED_RATIOS, MaeProgress, MaeTrainOptions
from engine.training.mae.scoring import score_mae, scored_batches
from engine.training.mae.training import class_weights, train_mae

CLASSES = ("background", "shell", "core")
TINY = MaeConfig(
    classes=CLASSES, window=32, encoder_dim=16, encoder_depth=1, encoder_heads=2, decoder_dim=16,
    decoder_depth=1, decoder_heads=2, class_input="onehot", positions="rotary", near_patches=1,
)  # fmt: skip


def _bands(seed: int, shape: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """Straight bands of background, shell, core and shell, 8 px each."""
    start = int(np.random.default_rng(seed).integers(32))
    rows = np.array([0, 1, 2, 1], np.uint8)[(np.arange(shape[0]) + start) // 8 % 4]
    return np.repeat(rows[:, None], shape[1], axis=1)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "maps"
    root.mkdir()
    for i in range(3):
        tifffile.imwrite(root / f"m{i}.tif", _bands(i))
    imsave(root / "m3.png", _bands(3), check_contrast=False)
    return root


def _options(labels: Path, name: str = "m", **changes: object) -> MaeTrainOptions:
    small = MaeTrainOptions(
        labels=labels, out=labels.parent / name, config=TINY, epochs=3, steps=3, batch=2, piece=16,
        piece_share=0.5, precision="float32", val_fraction=0.25, seed=3, learning_rate=1e-2,
    )  # fmt: skip
    return replace(small, **changes)


def _map(labels: NDArray[np.uint8], name: str = "m", file: str = "m") -> ClassMap:
    return ClassMap(name, file, labels, np.ones(labels.shape, np.bool_))


def test_training_learns_bands_and_writes_a_folder_that_fills_them(data: Path) -> None:
    seen: list[MaeProgress] = []
    config = replace(TINY, encoder_dim=32, encoder_depth=2, decoder_dim=32)
    options = _options(data, config=config, epochs=2, steps=40, batch=4, piece=0, half=True)
    folder = open_mae(str(train_mae(options, seen.append)))
    assert [p.epoch for p in seen] == [1, 2]
    assert min(seen[-1].scores.dice[:3]) > 0.7  # by chance a half
    assert folder.config == config
    card = (folder.path / "README.md").read_text()
    assert "float16" in card
    assert all(f"| {ratio:g} | " in card for ratio in SCORED_RATIOS)
    assert not (data.parent / "m.training").exists()
    labels = np.stack([_bands(i)[:32, :32] for i in range(20, 28)])
    masked = np.random.default_rng(0).random((8, 8, 8)) < 0.2
    hidden = masked.repeat(4, axis=1).repeat(4, axis=2)
    spoiled = np.where(hidden, (labels + 1) % 3, labels).astype(np.uint8)
    filled = open_inpainter(folder, Launch("cpu", "float32", 1)).fill(spoiled, masked)
    assert (filled == labels)[hidden].mean() > 0.65


class _Stopped(Exception):
    pass


def test_a_stopped_training_ends_as_if_it_had_not_been(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_mae(_options(data, "whole"), lambda _: None)

    def stop(progress: MaeProgress) -> None:
        if progress.epoch == 2:
            raise _Stopped

    with pytest.raises(_Stopped):
        train_mae(_options(data, "stopped"), stop)
    work = data.parent / "stopped.training"
    assert torch.load(work / course.CHECKPOINT_FILE, weights_only=True)["epoch"] == 2
    with pytest.raises(InputError, match="blobs"):
        train_mae(_options(data, "stopped", blobs=0.5), lambda _: None)
    rest: list[int] = []
    again = train_mae(_options(data, "stopped"), lambda p: rest.append(p.epoch))
    assert rest == [3]
    assert open_mae(str(again)).sha256 == open_mae(str(whole)).sha256
    with pytest.raises(OutputError, match="no such folder yet"):
        train_mae(_options(data, "stopped"), lambda _: None)


@pytest.mark.parametrize("place", ["maps", "entropy"])
def test_other_maps_under_the_same_path_do_not_resume(data: Path, place: str) -> None:
    entropy = data.parent / "entropy"
    entropy.mkdir()
    for path in data.iterdir():
        tifffile.imwrite(entropy / f"{path.stem}.tif", np.zeros((48, 64), np.uint8))

    def stop(_: MaeProgress) -> None:
        raise _Stopped

    options = _options(data, entropy=entropy)
    with pytest.raises(_Stopped):
        train_mae(options, stop)
    file = data.parent / place / "m1.tif"
    pixels = tifffile.imread(file)
    pixels[0, 0] = 255 if place == "entropy" else (pixels[0, 0] + 1) % 3
    tifffile.imwrite(file, pixels)
    with pytest.raises(InputError, match=r"class map m1: expected what it was .* found other"):
        train_mae(options, stop)


def test_a_training_goes_on_from_another_model(data: Path) -> None:
    longer = {"epochs": 2, "steps": 40, "batch": 4, "piece": 0}
    first = train_mae(_options(data, "first", **longer), lambda _: None)
    begun: dict[str, float] = {}

    def note(name: str) -> Callable[[MaeProgress], None]:
        return lambda progress: begun.setdefault(name, progress.val_loss)

    still = {"epochs": 1, "steps": 1, "learning_rate": 1e-6}
    train_mae(_options(data, "fresh", **still), note("fresh"))
    more = train_mae(_options(data, "more", init=str(first), **still), note("more"))
    assert begun["more"] < 0.8 * begun["fresh"]
    assert f"begun with the weights of {first}" in (more / "README.md").read_text()


def test_another_model_to_start_from_does_not_resume(data: Path) -> None:
    def stop(_: MaeProgress) -> None:
        raise _Stopped

    first = train_mae(_options(data, "first"), lambda _: None)
    options = _options(data, init=str(first))
    with pytest.raises(_Stopped):
        train_mae(options, stop)
    shutil.rmtree(first)
    train_mae(_options(data, "first", seed=5), lambda _: None)
    with pytest.raises(InputError, match="model to start from: expected what it was"):
        train_mae(options, stop)


def test_a_model_of_another_shape_is_not_started_from(data: Path) -> None:
    first = train_mae(_options(data, "first", epochs=1), lambda _: None)
    for change in ({"encoder_dim": 32}, {"classes": ("background", "core", "shell")}):
        options = _options(data, init=str(first), config=replace(TINY, **change))
        with pytest.raises(InputError, match=next(iter(change))):
            train_mae(options, lambda _: None)
    command = ["mae", "--labels", str(data), "--classes", ",".join(CLASSES), "--out", "o"]
    result = CliRunner().invoke(app, [*command, "--init", str(first), "--encoder", "32,1,2"])
    assert isinstance(result.exception, RecipeError)
    assert "--encoder: expected none beside --init" in str(result.exception)


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    maps = [_map(_bands(i)) for i in range(2)]
    batches = MaeBatches(maps, TINY, 3, 16, 0.5, 5)
    first, again = (batches.make(4, pieces=True) for _ in range(2))
    assert all(torch.equal(getattr(first, f), getattr(again, f)) for f in MaeBatch.__slots__)
    assert not torch.equal(first.patches, batches.make(5, pieces=True).patches)
    other = replace(batches, seed=6).make(4, pieces=True)
    assert not torch.equal(first.patches, other.patches)


def test_pieces_are_more_and_smaller_and_stand_at_any_place() -> None:
    batches = MaeBatches([_map(_bands(0))], TINY, 8, 16, 0.0, 1)
    pieces, whole = batches.make(0, pieces=True), batches.make(0, pieces=False)
    assert (len(pieces.patches), len(whole.patches)) == (32, 8)
    inside = pieces.counts.any(2)
    assert set(inside.sum(1).tolist()) == {16}
    assert not (pieces.wanted & ~inside).any()
    assert inside.any(0).all()
    assert whole.counts.all()


def test_a_share_of_near_patches_is_masked_and_never_all() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([_bands(i)[:32, :32] for i in range(6)])
    labels[5, :, 8:] = 0
    windows = labels, np.ones(labels.shape, np.bool_), np.ones((6, 8, 8), np.bool_)
    near = near_patches(labels, 4, 1).reshape(6, -1)
    for ratio in (0.001, 0.3, 0.9, 0.999):
        batch = mask_windows(windows, TINY, ratio, np.arange(6) % 2 == 0, rng)
        assert np.array_equal(batch.wanted.numpy(), near)
        assert not (batch.visible & ~batch.wanted).any()
        total = near.sum(1)
        expected = np.clip(np.rint(total * ratio), 1, total - 1)
        masked = (batch.wanted & ~batch.visible).sum(1).numpy()
        assert np.array_equal(masked, expected)
        assert batch.lengths == (int((total - expected).max()), int(total.max()))


def test_blobs_are_more_compact_than_single_patches() -> None:
    rng = np.random.default_rng(0)
    labels = np.ones((40, 32, 32), np.uint8)
    windows = labels, labels > 0, np.ones((40, 8, 8), np.bool_)
    blobs = np.arange(40) < 20
    batch = mask_windows(windows, TINY, 0.3, blobs, rng)
    masked = (batch.wanted & ~batch.visible).numpy().reshape(40, 8, 8)
    edges = (masked[:, 1:] != masked[:, :-1]).sum((1, 2))
    assert edges[blobs].mean() < 0.7 * edges[~blobs].mean()


def _batch(counts: NDArray[np.bool_] | None = None) -> MaeBatch:
    labels = np.stack([_bands(i)[:32, :32] for i in range(2)])
    labels[1, :, 12:] = 0  # fewer near patches: its list is padded
    counts = np.ones(labels.shape, np.bool_) if counts is None else counts
    inside = np.ones((2, 8, 8), np.bool_)
    return mask_windows(
        (labels, counts, inside), TINY, 0.5, np.zeros(2, np.bool_), np.random.default_rng(1)
    )


def test_the_loss_is_that_of_masked_pixels_that_count() -> None:
    network = MaskedAutoencoder(TINY).eval()
    initialise_mae(network, 0)
    weights = torch.tensor([1.0, 2.0, 3.0])
    rng = np.random.default_rng(2)
    batch = _batch(rng.random((2, 32, 32)) < 0.6)
    with torch.no_grad():
        found = network(batch.patches, batch.visible, batch.wanted, batch.lengths)
        loss = float(mae_loss(network, batch, weights, half=False))
    total = norm = 0.0
    for n in range(2):
        for row, patch in enumerate(found.index[n].tolist()):
            if not found.valid[n, row] or batch.visible[n, patch]:
                continue
            log = torch.log_softmax(found.logits[n, row], -1)
            for pixel, cls in enumerate(batch.patches[n, patch].tolist()):
                if batch.counts[n, patch, pixel]:
                    total -= float(weights[cls] * log[pixel, cls])
                    norm += float(weights[cls])
    assert loss == pytest.approx(total / norm, rel=1e-4)


def test_scores_are_shares_of_masked_pixels_near_foreground() -> None:
    labels = np.zeros((1, 32, 32), np.uint8)
    labels[0, :4] = 1
    config = replace(TINY, near_patches=None)
    batches = scored_batches((labels, np.ones(labels.shape, np.bool_)), config, 0)
    assert [int(b.counts.sum()) for b in batches] == [14 * 32] * len(SCORED_RATIOS)
    network = MaskedAutoencoder(config).eval()
    initialise_mae(network, 0)
    with torch.no_grad():  # background everywhere
        network.head.weight.zero_()
        network.head.bias.copy_(torch.tensor([5.0, 0, 0]).repeat(16))
    scores = score_mae(network, batches, torch.ones(3), half=False)
    for batch, dice, mean in zip(batches, scores.dice, scores.class_dice, strict=True):
        hidden = (batch.wanted & ~batch.visible)[..., None] & batch.counts
        truth = batch.patches[hidden]
        share = float((truth == 0).float().mean())
        assert dice == pytest.approx(share)
        own = 2 * share / (1 + share)
        assert mean == pytest.approx(own / 2 if share < 1 else 1)  # of the classes that occur


def test_uncertain_pixels_do_not_count(data: Path) -> None:
    maps = data.parent / "entropy"
    maps.mkdir()
    for path in data.iterdir():
        values = np.zeros((48, 64), np.uint8)
        values[:, 10], values[:, 20] = 25, 26  # 0.1 is 25.5
        tifffile.imwrite(maps / f"{path.stem}.tif", values)
    train, val = read_class_maps(_options(data, entropy=maps))
    assert len(train) == 3
    for part in (*train, *val):
        assert part.counts.sum() == 48 * 63
        assert not part.counts[:, 20].any()
    (maps / "m1.tif").unlink()
    with pytest.raises(InputError, match="an entropy map named m1"):
        read_class_maps(_options(data, entropy=maps))
    tifffile.imwrite(maps / "m1.tif", np.zeros((48, 63), np.uint8))
    with pytest.raises(InputError, match="shape"):
        read_class_maps(_options(data, entropy=maps))


def test_stacks_are_split_by_slice_and_files_by_file(tmp_path: Path) -> None:
    stack = np.stack([_bands(i) for i in range(5)])
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    train, val = read_class_maps(_options(tmp_path / "a.tif", val_fraction=0.4))
    assert [m.name for m in train] == ["a[0]", "a[1]", "a[2]"]
    assert [m.name for m in val] == ["a[3]", "a[4]"]
    tifffile.imwrite(tmp_path / "b.tif", stack[:2], photometric="minisblack")
    train, val = read_class_maps(_options(tmp_path))
    assert {m.file for m in train}.isdisjoint({m.file for m in val})
    assert len(train) + len(val) == 7
    with pytest.raises(InputError, match="at least 2"):
        split_maps(train[:1], 0.5, 0)


def test_ids_of_objects_become_two_classes(tmp_path: Path) -> None:
    labels = _bands(0).astype(np.uint16) * 400
    tifffile.imwrite(tmp_path / "a.tif", labels)
    tifffile.imwrite(tmp_path / "b.tif", labels)
    two = replace(TINY, classes=("background", "object"))
    train, _ = read_class_maps(_options(tmp_path, config=two, foreground=True))
    assert np.array_equal(train[0].labels, labels > 0)
    with pytest.raises(InputError, match="--foreground"):
        read_class_maps(_options(tmp_path))
    with pytest.raises(InputError, match="2 classes"):
        _options(tmp_path, foreground=True)


def test_rare_classes_weigh_more(data: Path) -> None:
    labels = np.zeros((32, 32), np.uint8)
    labels[:, :16], labels[:, 30:] = 1, 2
    shares = class_shares([_map(labels)], replace(TINY, near_patches=None))
    assert shares == pytest.approx((14 / 32, 16 / 32, 2 / 32))
    weights = class_weights(_options(data), (_map(labels),))
    assert weights[2] / weights[1] == pytest.approx(8**0.5)
    near = class_shares([_map(labels)], TINY)
    assert sum(w * s for w, s in zip(weights, near, strict=True)) == pytest.approx(1)
    assert class_weights(_options(data, class_weights=(1.0, 2.0, 3.0)), ()) == (1, 2, 3)


def test_windows_with_foreground_are_preferred() -> None:
    labels = np.zeros((64, 320), np.uint8)
    labels[:, 200:260] = 1
    batches = MaeBatches([_map(labels)], TINY, 64, 0, 0.0, 1)
    shares = (batches.make(0, pieces=False).patches > 0).float().mean((1, 2))
    assert (shares > 0.3).float().mean() > 0.6
    windows, _ = validation_windows([_map(labels)], TINY, 4)
    assert len(windows) == 4
    assert ((windows > 0).mean((1, 2)) > 0.3).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 0}, "batch"),
        ({"blobs": 1.5}, "blobs"),
        ({"piece": 18}, "piece"),
        ({"piece": 64}, "piece"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"budget_minutes": 0}, "budget_minutes"),
        ({"precision": "half"}, "precision"),
        ({"class_weights": (1.0, 2.0)}, "class_weights"),
        ({"val_fraction": 1.0}, "val_fraction"),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        _options(tmp_path, **change)


def test_wrong_maps_are_refused(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    with pytest.raises(InputError, match="no folder"):
        read_class_maps(_options(maps))
    maps.mkdir()
    with pytest.raises(InputError, match="none of them"):
        read_class_maps(_options(maps))
    for pixels, message in (
        (_bands(0)[:20], "at least 32 by 32"),
        (_bands(0) + 1, "0 to 2"),
        (_bands(0).astype(np.float32), "integers"),
        (np.zeros((48, 64), np.uint8), "foreground"),
    ):
        for name in ("a.tif", "b.tif"):
            tifffile.imwrite(maps / name, pixels)
        with pytest.raises(InputError, match=message):
            read_class_maps(_options(maps))
    (maps / "a.tif").write_bytes(b"no image")
    with pytest.raises(InputError, match="readable"):
        read_class_maps(_options(maps))


def test_the_command_trains(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for i in range(2):
        tifffile.imwrite(maps / f"m{i}.tif", _bands(i, (128, 128)))
    out = tmp_path / "made"
    words = ["mae", "--labels", str(maps), "--classes", ",".join(CLASSES), "--out", str(out)]
    words += ["--encoder", "16,1,2", "--decoder", "16,1,2", "--epochs", "1", "--steps", "1"]
    result = CliRunner().invoke(app, [*words, "--batch", "1", "--near", "-1", "--half"])
    assert result.exit_code == 0, result.output
    assert "epoch    1, 100% done" in result.output
    assert open_mae(str(out)).config.near_patches is None
    more = ["mae", "--labels", str(maps), "--classes", ",".join(CLASSES), "--init", str(out)]
    more += ["--out", str(tmp_path / "more"), "--epochs", "1", "--steps", "1", "--batch", "1"]
    result = CliRunner().invoke(app, more)
    assert result.exit_code == 0, result.output
    assert open_mae(str(tmp_path / "more")).config == open_mae(str(out)).config
    for sizes in ("16,1", "inf,1,2", "16,1.5,2"):
        wrong = CliRunner().invoke(app, [*words[:-2], "--encoder", sizes])
        assert wrong.exit_code != 0
        assert "width,blocks,heads" in str(wrong.exception)
