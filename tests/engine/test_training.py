"""Training learns, resumes exactly, and refuses what it cannot use."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from skimage.draw import disk
from skimage.io import imread, imsave

from engine.errors import InputError, ModelError, OutputError
from engine.methods.star_targets import star_targets
from engine.networks.model_folder import StarDistConfig, Thresholds, open_model
from engine.networks.star_unet import StarDistUNet
from engine.training.augment import Augmentation, cut, draw_crop
from engine.training.batches import Batches, collate, validation_batches
from engine.training.checkpoint import Origin, read_checkpoint
from engine.training.data import Sample, find_pairs, normalise, read_samples, split_pairs
from engine.training.options import Progress, TrainOptions
from engine.training.star_loss import star_loss
from engine.training.stardist import train_stardist
from engine.training.thresholds import optimise_thresholds
from engine.training.whole_image import Maps, find_objects

PLAIN = Augmentation(orientation=False, zoom_share=0, scale=(1, 1), shift=(0, 0), gamma=(1, 1),
                     noise=0)  # fmt: skip


def _scene(seed: int, shape: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint16]]:
    """Bright discs that do not touch."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint16)
    for y in range(10, shape[0] - 9, 20):
        for x in range(10, shape[1] - 9, 20):
            centre = (y + rng.integers(-2, 3), x + rng.integers(-2, 3))
            labels[disk(centre, rng.uniform(4, 7), shape=shape)] = labels.max() + 1
    image = 20 + 150 * (labels > 0) + rng.normal(0, 5, shape)
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for i, shape in enumerate([(64, 64), (80, 72), (64, 96), (48, 64)]):
        image, labels = _scene(i, shape)
        if i % 2:
            imsave(root / f"images/s{i}.png", image, check_contrast=False)
        else:
            tifffile.imwrite(root / f"images/s{i}.tif", image)
        tifffile.imwrite(root / f"labels/s{i}.tif", labels)
    return root


def _options(data: Path, out: str, **changes: object) -> TrainOptions:
    small = TrainOptions(
        images=data / "images", labels=data / "labels", out=data.parent / out, n_rays=8,
        n_filter_base=4, n_depth=1, epochs=3, steps=4, batch=2, size=48, learning_rate=1e-2,
        val_fraction=0.25, seed=3,
    )  # fmt: skip
    return replace(small, **changes)


def _sample(seed: int = 0, shape: tuple[int, int] = (64, 80)) -> Sample:
    image, labels = _scene(seed, shape)
    return Sample("s", normalise(image[None]), labels.astype(np.int32))


def test_training_learns_discs(data: Path) -> None:
    seen: list[Progress] = []
    options = _options(data, "m", epochs=12, steps=25, score_every=12, augmentation=PLAIN)
    out = train_stardist(options, seen.append)
    assert [p.epoch for p in seen] == list(range(1, 13))
    assert seen[-1].val_loss < 0.35 * seen[0].val_loss
    assert seen[-1].learning_rate < 0.01 * options.learning_rate
    assert seen[-1].f1 is not None
    assert seen[-1].f1[0] > 0.8
    model = open_model(str(out))
    assert (model.config.n_rays, model.config.unet_batch_norm) == (8, False)
    assert "| 0.75 |" in (out / "README.md").read_text()
    assert not (data.parent / "m.training").exists()


class _StopError(Exception):
    pass


def test_resumed_equals_uninterrupted(data: Path) -> None:
    whole = train_stardist(_options(data, "whole"), lambda _: None)

    def stop(progress: Progress) -> None:
        if progress.epoch == 2:
            raise _StopError

    options = _options(data, "parts")
    with pytest.raises(_StopError):
        train_stardist(options, stop)
    seen: list[int] = []
    parts = train_stardist(options, lambda p: seen.append(p.epoch))
    assert seen == [3]
    a, b = (load_file(p / "weights.safetensors") for p in (whole, parts))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert open_model(str(whole)).thresholds == open_model(str(parts)).thresholds


def test_other_options_do_not_resume(data: Path) -> None:
    def stop(_: Progress) -> None:
        raise _StopError

    with pytest.raises(_StopError):
        train_stardist(_options(data, "m"), stop)
    with pytest.raises(InputError, match="option seed: expected 3"):
        train_stardist(_options(data, "m", seed=4), stop)
    checkpoint = data.parent / "m.training" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="expected a checkpoint"):
        train_stardist(_options(data, "m"), stop)


def test_other_images_under_the_same_path_do_not_resume(data: Path) -> None:
    whole = train_stardist(_options(data, "whole"), lambda _: None)

    def stop(_: Progress) -> None:
        raise _StopError

    options = _options(data, "m")
    with pytest.raises(_StopError):
        train_stardist(options, stop)
    for file, change in (("images/s1.png", 1), ("labels/s3.tif", 99)):
        before = (data / file).read_bytes()
        pixels = imread(data / file)
        pixels[:4, :4] = change
        (imsave if file.endswith("png") else tifffile.imwrite)(data / file, pixels)
        name = f"image {Path(file).stem}"
        with pytest.raises(InputError) as caught:
            train_stardist(options, stop)
        assert str(caught.value) == (
            f"{data.parent}/m.training/checkpoint.pt: {name}: expected what it was when this "
            "training began, found other contents under its name. Bring back what it began with, "
            "or train anew into another --out."
        )
        (data / file).write_bytes(before)
    for folder in ("images", "labels"):
        tifffile.imwrite(data / folder / "s9.tif", tifffile.imread(data / folder / "s0.tif"))
    with pytest.raises(InputError, match=r"image s9: expected none, .*, found a new one"):
        train_stardist(options, stop)
    for folder in ("images", "labels"):
        (data / folder / "s9.tif").unlink()
    again = train_stardist(options, lambda _: None)
    assert open_model(str(again)).sha256 == open_model(str(whole)).sha256


def test_another_model_to_start_from_does_not_resume(data: Path) -> None:
    def stop(_: Progress) -> None:
        raise _StopError

    first = train_stardist(_options(data, "first", epochs=1), lambda _: None)
    options = _options(data, "m", init=str(first))
    with pytest.raises(_StopError):
        train_stardist(options, stop)
    shutil.rmtree(first)
    train_stardist(_options(data, "first", epochs=1, seed=5), lambda _: None)
    with pytest.raises(InputError, match="model to start from: expected what it was"):
        train_stardist(options, stop)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    torch.save({"epoch": Path}, tmp_path / "c.pt")
    with pytest.raises(InputError, match="expected a checkpoint"):
        read_checkpoint(tmp_path / "c.pt", Origin({}, {}))


def test_the_budget_ends_the_schedule(data: Path) -> None:
    seen: list[Progress] = []
    train_stardist(_options(data, "m", epochs=10**6, budget_minutes=0.01), seen.append)
    assert seen[-1].done == 1
    assert seen[-1].learning_rate < 1e-3


def test_patience_stops_early(data: Path) -> None:
    seen: list[Progress] = []
    train_stardist(_options(data, "m", epochs=99, patience=1, learning_rate=1e-12), seen.append)
    assert len(seen) < 99


def test_starting_from_a_model(data: Path) -> None:
    first = train_stardist(_options(data, "first"), lambda _: None)
    seen: list[Progress] = []
    options = _options(data, "second", init=str(first), learning_rate=1e-9, epochs=1)
    train_stardist(options, seen.append)
    a, b = (load_file(data.parent / n / "weights.safetensors") for n in ("first", "second"))
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)
    with pytest.raises(ModelError):
        train_stardist(_options(data, "third", init="nowhere"), seen.append)


def test_out_that_exists_is_refused(data: Path) -> None:
    (data.parent / "m").mkdir()
    with pytest.raises(OutputError):
        train_stardist(_options(data, "m"), lambda _: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 50}, "multiple of (4, 4)"),
        ({"epochs": 0}, "option epochs: expected >= 1"),
        ({"precision": "float16"}, "float32 or bfloat16"),
        ({"val_images": Path("x")}, "both or neither"),
        ({"images": Path("nowhere")}, "expected a folder"),
        ({"val_fraction": 1.0}, "in (0, 1)"),
    ],
)
def test_wrong_options_are_refused(data: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        train_stardist(_options(data, "m", **change), lambda _: None)
    assert message in str(caught.value)
    assert not (data.parent / "m.training").exists()


def test_names_that_do_not_pair_are_refused(data: Path) -> None:
    (data / "labels/s1.tif").unlink()
    with pytest.raises(InputError, match="a file named s1"):
        find_pairs(data / "images", data / "labels")
    for file in (data / "labels").iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"files ending in \.png"):
        find_pairs(data / "images", data / "labels")


def _rewrite(data: Path, image: NDArray[np.generic] | None, labels: NDArray[np.generic]) -> None:
    tifffile.imwrite(data / "labels/s0.tif", labels)
    if image is not None:
        tifffile.imwrite(data / "images/s0.tif", image)


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (None, np.ones((64, 63), np.uint16), "expected shape (64, 64)"),
        (None, np.ones((64, 64), np.float32), "integer labels"),
        (None, np.full((64, 64), -1, np.int16), "integer labels"),
        (np.ones((64, 64, 3), np.uint8), np.ones((64, 64), np.uint8), "expected 3 channels"),
        (np.ones((2, 2, 64, 64), np.uint8), np.ones((64, 64), np.uint8), "axes (y, x)"),
        (np.full((64, 64), np.nan, np.float32), np.ones((64, 64), np.uint8), "finite"),
        (np.ones((64, 64), np.complex64), np.ones((64, 64), np.uint8), "a real type"),
    ],
)
def test_data_that_cannot_be_used_is_refused(
    data: Path, image: NDArray[np.generic] | None, labels: NDArray[np.generic], message: str
) -> None:
    _rewrite(data, image, labels)
    with pytest.raises(InputError) as caught:
        read_samples(find_pairs(data / "images", data / "labels"))
    assert message in str(caught.value)


def test_labels_without_objects_and_truncated_files_are_refused(data: Path) -> None:
    pairs = find_pairs(data / "images", data / "labels")
    for pair in pairs:
        tifffile.imwrite(pair.labels, np.zeros_like(tifffile.imread(pair.labels)))
    with pytest.raises(InputError, match="objects in at least one"):
        read_samples(pairs)
    for pair in pairs:
        pair.image.write_bytes(pair.image.read_bytes()[:40])
        with pytest.raises(InputError, match="a readable image"):
            read_samples([pair])


def test_the_split_is_by_image_and_repeatable(data: Path) -> None:
    pairs = find_pairs(data / "images", data / "labels")
    train, val = split_pairs(pairs, 0.25, seed=1)
    assert (len(train), len(val)) == (3, 1)
    assert set(train) | set(val) == set(pairs)
    assert split_pairs(pairs, 0.25, seed=1) == (train, val)
    with pytest.raises(InputError):
        split_pairs(pairs[:1], 0.25, seed=1)


def test_targets_of_a_square() -> None:
    labels = np.zeros((20, 24), np.int64)
    labels[4:13, 6:15] = 70_000  # beyond uint16, which stardist's C++ casts to
    targets = star_targets(labels, 4, (2, 2))
    assert targets.prob.shape == (10, 12)
    assert targets.dist.shape == (4, 10, 12)
    assert targets.prob.max() == 1
    assert np.array_equal(targets.prob > 0, labels[::2, ::2] > 0)
    np.testing.assert_allclose(targets.dist[:, 4, 5], 5, atol=0.6)  # centre (8, 10), four rays
    assert not targets.dist[:, labels[::2, ::2] == 0].any()


def test_targets_of_an_image_inside_one_object() -> None:
    targets = star_targets(np.ones((9, 9), np.int32), 4, (1, 1))
    assert targets.prob[4, 4] == 1
    assert targets.prob[0, 0] < 0.5


def test_crops_keep_image_and_labels_together() -> None:
    sample = _sample()
    together = Sample("s", sample.labels[None].astype(np.float32), sample.labels)
    how = replace(PLAIN, orientation=True)
    for seed in range(8):
        crop = draw_crop(together, 48, how, np.random.default_rng(seed))
        assert np.array_equal(crop.image[0], crop.labels)
        assert crop.valid.all()


def test_zoomed_labels_are_only_ids_that_were_there() -> None:
    sample = _sample()
    how = replace(PLAIN, zoom=(1.5, 1.5), zoom_share=1)
    crop = draw_crop(sample, 48, how, np.random.default_rng(0))
    assert set(np.unique(crop.labels)) <= set(np.unique(sample.labels))
    inside, outside = crop.image[0][crop.labels > 0], crop.image[0][crop.labels == 0]
    assert inside.mean() > outside.mean() + 0.5


def test_beyond_the_image_nothing_counts() -> None:
    sample = _sample(shape=(40, 80))
    crop = cut(sample, (-8, 10), 64)
    assert crop.image.shape == (1, 64, 64)
    assert crop.valid.sum() == 40 * 64
    assert not crop.labels[~crop.valid].any()
    assert np.array_equal(crop.image[:, 8:48], sample.image[:, :, 10:74])
    batch = collate([crop], 4, (2, 2))
    zeros = torch.zeros_like(batch.prob), torch.zeros_like(batch.dist)
    before = star_loss(*zeros, batch).total
    noise = torch.randn_like(batch.prob) * (1 - batch.valid)
    assert torch.equal(star_loss(zeros[0] + noise, zeros[1] + noise, batch).total, before)


def test_a_batch_depends_on_seed_and_number_alone() -> None:
    batches = Batches([_sample(0), _sample(1)], 48, 3, 4, (2, 2), Augmentation(), seed=5)
    again = replace(batches)
    again.make(0)
    a, b = batches.make(7), again.make(7)
    assert torch.equal(a.image, b.image)
    assert torch.equal(a.dist, b.dist)
    assert not torch.equal(a.image, batches.make(8).image)


def test_validation_crops_cover_the_image() -> None:
    (batch,) = validation_batches([_sample(shape=(64, 80))], 48, 8, 4, (1, 1))
    assert batch.image.shape == (4, 1, 48, 48)


def test_loss_is_that_of_the_paper() -> None:
    batch = collate([cut(_sample(), (0, 0), 48)], 4, (2, 2))
    logits, dist = torch.randn_like(batch.prob), torch.randn_like(batch.dist)
    loss = star_loss(logits, dist, batch)
    p, d = torch.sigmoid(logits).double(), (dist - batch.dist).abs().double().mean(1, keepdim=True)
    y = batch.prob.double()
    cross = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    mae = (d * y).mean() / y.mean()
    background = (dist.double().abs().mean(1, keepdim=True) * (1 - y)).mean()
    assert float(loss.total) == pytest.approx(float(cross + 0.2 * (mae + 1e-4 * background)), 1e-5)


def test_a_higher_threshold_is_a_prefix_of_a_lower_one() -> None:
    rng = np.random.default_rng(0)
    prob = rng.random((32, 32), dtype=np.float32)
    dist = rng.uniform(2, 6, (32, 32, 8)).astype(np.float32)
    maps = Maps(prob, dist, (64, 64), (2, 2))
    low = find_objects(maps, Thresholds(0.3, 0.3)).above(0.7)
    high = find_objects(maps, Thresholds(0.7, 0.3))
    assert np.array_equal(low.points, high.points)
    assert np.array_equal(low.labels(), high.labels())


def test_thresholds_are_chosen_by_their_score() -> None:
    """A network that is right about candidates above 0.6 only must be given such a threshold."""

    class Oracle(StarDistUNet):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            dist = torch.from_numpy(targets.dist)[None].clone()
            prob = torch.from_numpy(targets.prob)[None, None].clone()
            dist[:, :, prob[0, 0] == 0] = 4.0
            return prob.clamp_min(0.6), dist

    sample = _sample(shape=(64, 64))
    targets = star_targets(sample.labels, 32, (1, 1))
    network = Oracle(StarDistConfig(grid=(1, 1), unet_n_depth=1, unet_n_filter_base=1)).eval()
    optimum = optimise_thresholds(network, [sample])
    assert optimum.thresholds.prob > 0.6
    assert optimum.f1[0] == 1
