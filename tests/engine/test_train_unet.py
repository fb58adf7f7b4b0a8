"""Training of ensembles learns, resumes exactly, varies its members, and refuses bad data."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from journeys import save_image
from numpy.typing import NDArray
from safetensors.numpy import load_file
from typer.testing import CliRunner

from engine.cli.train import app
from engine.errors import InputError, ModelError, OutputError, TilewrightError
from engine.networks.ensemble import open_ensemble
from engine.networks.unet import UNet
from engine.networks.unet_config import UNetConfig
from engine.training.augment import Augmentation, draw_crop
from engine.training.data import Sample
from engine.training.unet.data import read_class_data, subset
from engine.training.unet.loss import (
    IGNORED,
    ClassBatch,
    ClassBatches,
    class_loss,
    class_weights,
    collate_classes,
)
from engine.training.unet.options import UNetOptions, UNetProgress
from engine.training.unet.scoring import score_ensemble
from engine.training.unet.training import train_unet

NAMES = ("background", "rim", "core")
PLAIN = Augmentation(orientation=False, zoom_share=0, scale=(1, 1), shift=(0, 0), gamma=(1, 1),
                     noise=0)  # fmt: skip


def _scene(seed: int, shape: tuple[int, int] = (40, 48)) -> tuple[NDArray[np.uint8], ...]:
    """Bright squares with a grey rim."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    for y in range(2, shape[0] - 12, 13):
        for x in range(2, shape[1] - 12, 13):
            dy, dx = rng.integers(0, 3, 2)
            labels[y + dy : y + dy + 9, x + dx : x + dx + 9] = 1
            labels[y + dy + 2 : y + dy + 7, x + dx + 2 : x + dx + 7] = 2
    image = np.array([20, 90, 170])[labels] + rng.normal(0, 8, shape)
    return image.clip(0, 255).astype(np.uint8), labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
    for i in range(5):
        image, labels = _scene(i)
        tifffile.imwrite(root / f"images/s{i}.tif", image)
        tifffile.imwrite(root / f"labels/s{i}.tif", labels)
    return root


def _options(data: Path, out: str, **changes: object) -> UNetOptions:
    small = UNetOptions(
        images=str(data / "images"), labels=str(data / "labels"), out=data.parent / out,
        classes=NAMES, val_fraction=0.2, members=2, share=0.5, widths=(4, 8), groups=2, epochs=2,
        steps=3, batch=2, size=32, learning_rate=1e-2, seed=3,
    )  # fmt: skip
    return replace(small, **changes)


def _weights(out: Path) -> list[dict[str, NDArray[np.generic]]]:
    return [load_file(member.weights) for member in open_ensemble(str(out)).members]


def _equal(a: dict[str, NDArray[np.generic]], b: dict[str, NDArray[np.generic]]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_members_learn_and_differ(data: Path) -> None:
    seen: list[UNetProgress] = []
    options = _options(data, "e", epochs=3, steps=25, augmentation=PLAIN)
    out = train_unet(options, seen.append)
    assert [(p.member, p.epoch) for p in seen] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]
    assert all(b.val_loss < 0.75 * a.val_loss for a, b in ((seen[0], seen[2]), (seen[3], seen[5])))
    assert (seen[2].done, seen[2].members) == (1, 2)
    made = open_ensemble(str(out))
    assert (made.classes, made.n_channel_in, len(made.members)) == (NAMES, 1, 2)
    assert made.members[0].network == UNetConfig(1, 3, (4, 8), groups=2)
    first, second = _weights(out)
    assert not _equal(first, second)
    card = (out / "README.md").read_text()
    (mean,) = (line for line in card.splitlines() if line.startswith("| mean |"))
    assert min(float(dice) for dice in mean.split("|")[2:5]) > 0.85
    assert "| 0 | 2 | 75 |" in card
    assert {p.name for p in data.parent.iterdir()} == {"data", "e"}


def test_members_begin_with_other_weights_the_same_each_time(data: Path) -> None:
    still = _options(data, "a", epochs=1, steps=1, learning_rate=1e-12)
    a, b = (train_unet(replace(still, out=data.parent / n), lambda _: None) for n in "ab")
    (first, second), again = _weights(a), _weights(b)
    name = "blocks.down_0_1.conv.weight"
    assert np.abs(first[name] - second[name]).max() > 0.1
    assert _equal(first, again[0])
    assert _equal(second, again[1])


class _StopError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [(0, 1), (0, 2), (1, 1)])
def test_resumed_equals_uninterrupted(data: Path, stop_at: tuple[int, int]) -> None:
    whole = train_unet(_options(data, "whole"), lambda _: None)

    def stop(progress: UNetProgress) -> None:
        if (progress.member, progress.epoch) == stop_at:
            raise _StopError

    options = _options(data, "parts")
    with pytest.raises(_StopError):
        train_unet(options, stop)
    assert not options.out.exists()
    seen: list[tuple[int, int]] = []
    parts = train_unet(options, lambda p: seen.append((p.member, p.epoch)))
    assert seen == [step for step in [(0, 1), (0, 2), (1, 1), (1, 2)] if step > stop_at]
    assert all(_equal(a, b) for a, b in zip(_weights(whole), _weights(parts), strict=True))
    texts = [(p / "README.md").read_text().split("## Dice")[1] for p in (whole, parts)]
    assert texts[0] == texts[1]


def test_other_options_do_not_resume(data: Path) -> None:
    def stop(_: UNetProgress) -> None:
        raise _StopError

    with pytest.raises(_StopError):
        train_unet(_options(data, "e"), stop)
    with pytest.raises(InputError, match="option members: expected 2"):
        train_unet(_options(data, "e", members=3), stop)


@pytest.mark.parametrize("place", ["images", "labels", "val_images"])
def test_other_images_under_the_same_path_do_not_resume(data: Path, place: str) -> None:
    def stop(progress: UNetProgress) -> None:
        if progress.member == 1:
            raise _StopError

    for folder in ("images", "labels"):
        shutil.copytree(data / folder, data / f"val_{folder}")
    options = _options(
        data, "e", val_images=str(data / "val_images"), val_labels=str(data / "val_labels")
    )
    with pytest.raises(_StopError):
        train_unet(options, stop)
    file = data / place / "s2.tif"
    pixels = tifffile.imread(file)
    pixels[0, 0] ^= 1
    tifffile.imwrite(file, pixels)
    name = "validation image s2" if place == "val_images" else "image s2"
    with pytest.raises(InputError) as caught:
        train_unet(options, stop)
    work = data.parent / "e.training"
    assert caught.value.where == f"{work / 'member_0.pt'}: {name}"
    (data / place / "s2.tif").unlink()
    (data / place.replace("images", "labels") / "s2.tif").unlink(missing_ok=True)
    (data / place.replace("labels", "images") / "s2.tif").unlink(missing_ok=True)
    with pytest.raises(InputError, match=f"{name}: .* when this training began, found none"):
        train_unet(options, stop)


def test_the_budget_ends_the_schedule_of_each_member(data: Path) -> None:
    seen: list[UNetProgress] = []
    train_unet(_options(data, "e", epochs=10**6, budget_minutes=0.005), seen.append)
    assert [p.member for p in seen if p.done == 1] == [0, 1]


def test_patience_ends_a_member(data: Path) -> None:
    seen: list[UNetProgress] = []
    train_unet(_options(data, "e", epochs=60, patience=1, learning_rate=1e-12), seen.append)
    assert {p.member for p in seen} == {0, 1}
    assert len(seen) < 60


def test_half_stores_convolutions_rounded(data: Path) -> None:
    half = train_unet(_options(data, "half", half=True, norm="group"), lambda _: None)
    full = train_unet(_options(data, "full", norm="group"), lambda _: None)
    for a, b in zip(_weights(half), _weights(full), strict=True):
        for name, value in a.items():
            kind = np.float16 if value.ndim == 4 else np.float32
            assert value.dtype == kind
            assert np.array_equal(value, b[name].astype(kind))
    sizes = [open_ensemble(str(out)).weights_bytes for out in (half, full)]
    assert sizes[0] < 0.7 * sizes[1]
    assert "stored as float16" in (half / "README.md").read_text()


def test_ids_of_objects_are_one_class_and_stardist_may_join(data: Path) -> None:
    for file in (data / "labels").iterdir():
        labels = tifffile.imread(file).astype(np.uint16)
        tifffile.imwrite(file, np.where(labels > 0, labels + 700, 0).astype(np.uint16))
    options = _options(
        data, "e", classes=("background", "object"), foreground=True, stardist="nuclei-fluo"
    )
    assert {int(v) for s in read_class_data(options).train for v in np.unique(s.labels)} == {0, 1}
    made = open_ensemble(str(train_unet(options, lambda _: None)))
    assert [m.architecture for m in made.members] == ["unet", "unet", "stardist"]
    with pytest.raises(ModelError, match="nowhere"):
        train_unet(replace(options, out=data.parent / "f", stardist="nowhere"), lambda _: None)


def test_out_that_exists_is_refused(data: Path) -> None:
    (data.parent / "e").mkdir()
    with pytest.raises(OutputError):
        train_unet(_options(data, "e"), lambda _: None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 33}, "size: expected a multiple of 2"),
        ({"members": 0}, "members: expected >= 1"),
        ({"members": 5}, "an image for each of 5 members, found 4 to train on"),
        ({"share": 0.0}, "share: expected in (0, 1]"),
        ({"widths": (4, 0)}, "widths: expected integers"),
        ({"norm": "layer"}, "norm: expected group | batch"),
        ({"precision": "float16"}, "float32 or bfloat16"),
        ({"classes": ("a", "a")}, "classes: expected at least 2 different names"),
        ({"classes": ("bg", "1", "2")}, "classes: expected plain names"),
        ({"foreground": True}, "classes: expected 2 names"),
        ({"stardist": "nuclei-fluo"}, "classes: expected 2 names"),
        ({"val_images": "x"}, "both or neither"),
        ({"slices": (3, 3)}, "slices: expected 0 <= first < last"),
        ({"slices": (3, 9)}, "images 3 to 9, found only 2"),
        ({"classes": ("a", "b")}, "s0.tif: expected labels 0 to 1: a, b, found the value 2"),
        ({"images": "nowhere"}, "nowhere"),
    ],
)
def test_wrong_options_are_refused(data: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(TilewrightError) as caught:
        train_unet(_options(data, "e", **change), lambda _: None)
    assert message in str(caught.value)
    assert not (data.parent / "e.training").exists()


def _stacks(root: Path, axes: str = "ZYX") -> tuple[str, str, NDArray[np.uint8]]:
    images, labels = (np.stack(part) for part in zip(*map(_scene, range(4)), strict=True))
    pixels = images if axes == "ZYX" else np.stack([images, images // 2], axis=axes.index("C"))
    tifffile.imwrite(root / "raw.tif", pixels, photometric="minisblack", metadata={"axes": axes})
    tifffile.imwrite(
        root / "classes.tif", labels, photometric="minisblack", metadata={"axes": "ZYX"}
    )
    return str(root / "raw.tif"), str(root / "classes.tif"), pixels


@pytest.mark.parametrize(("axes", "channels"), [("ZYX", 1), ("ZCYX", 2), ("CZYX", 2)])
def test_stacks_are_split_by_slice(data: Path, axes: str, channels: int) -> None:
    images, labels, _ = _stacks(data, axes)
    read = read_class_data(_options(data, "e", images=images, labels=labels, slices=(1, 4)))
    assert (len(read.train), len(read.val)) == (2, 1)
    assert {s.stack for s in (*read.train, *read.val)} == {images}
    slices = [int(s.name.rsplit(" ", 1)[1]) for s in (*read.train, *read.val)]
    assert slices == [1, 2, 3]  # the last one apart
    for place, sample in zip(slices, (*read.train, *read.val), strict=True):
        image, truth = _scene(place)
        assert sample.image.shape == (channels, *image.shape)
        assert np.array_equal(sample.labels, truth)
        assert np.corrcoef(sample.image[0].ravel(), image.ravel())[0, 1] > 0.999


def test_files_are_split_at_random_whatever_they_are_called(data: Path) -> None:
    """Only slices of one file are neighbours; a space in a name does not make a stack."""
    plain = read_class_data(_options(data, "e", seed=0))
    for folder in ("images", "labels"):
        for file in (data / folder).iterdir():
            file.rename(file.with_name(f"cell {file.name[1:]}"))
    spaced = read_class_data(_options(data, "e", seed=0))
    assert [s.name for s in plain.val] != ["s4"]
    assert [s.name[1:] for s in plain.val] == [s.name[5:] for s in spaced.val]


def test_omezarr_is_read_plane_by_plane(data: Path) -> None:
    images, labels, pixels = _stacks(data)
    zarr = save_image(data / "image.zarr", pixels, "zyx")
    truth = save_image(data / "truth.zarr", tifffile.imread(labels), "zyx")
    options = _options(data, "e", images=images, labels=labels)
    a, b = (
        read_class_data(o) for o in (options, replace(options, images=str(zarr), labels=str(truth)))
    )
    for one, two in zip(a.train, b.train, strict=True):
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.labels, two.labels)


def test_stacks_that_do_not_fit_are_refused(data: Path) -> None:
    images, labels, _ = _stacks(data)
    truth = tifffile.imread(labels)
    for wrong, message in (
        (truth[:3], "expected 4 slices"),
        (truth[:, :-1], "slice 0: expected shape"),
        (truth.astype(np.float32), "integer labels"),
        (np.where(truth == 2, 9, truth), "0: expected labels 0 to 2: background, rim, core, found"),
    ):  # fmt: skip
        tifffile.imwrite(labels, wrong, photometric="minisblack", metadata={"axes": "ZYX"})
        with pytest.raises(InputError) as caught:
            read_class_data(_options(data, "e", images=images, labels=labels))
        assert message in str(caught.value)
    Path(images).write_bytes(b"no TIFF")
    with pytest.raises(InputError, match="a readable TIFF"):
        read_class_data(_options(data, "e", images=images, labels=labels))


def _samples(count: int) -> list[Sample]:
    return [Sample(f"s{k}", np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.int32))
            for k in range(count)]  # fmt: skip


@pytest.mark.parametrize(("count", "members", "share"), [(4, 4, 0.65), (48, 4, 0.65), (9, 6, 0.1)])
def test_members_see_different_images_and_none_is_left_out(
    data: Path, count: int, members: int, share: float
) -> None:
    options = _options(data, "e", members=members, share=share)
    sets = [{s.name for s in subset(_samples(count), options, k)} for k in range(members)]
    assert len(set(map(frozenset, sets))) == members
    assert len(set.union(*sets)) == count
    expected = max(-(-count // members), min(count - 1, round(count * share)))
    assert {len(names) for names in sets} == {expected}
    whole = replace(options, share=1.0)
    assert len(subset(_samples(count), whole, 0)) == count


def _batch() -> ClassBatch:
    image, labels = _scene(0, (32, 32))
    classes = torch.from_numpy(labels.astype(np.int64))[None].clone()
    classes[0, :4] = IGNORED
    return ClassBatch(torch.from_numpy(image.astype(np.float32))[None, None], classes)


def test_loss_is_weighted_cross_entropy_and_dice() -> None:
    batch, weights = _batch(), torch.tensor([0.5, 2.0, 1.0])
    logits = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    counts = batch.classes[0] != IGNORED
    p = torch.softmax(logits[0].double(), dim=0)[:, counts].numpy()
    truth = batch.classes[0][counts].numpy()
    w = weights.double().numpy()[truth]
    cross = -(np.log(p[truth, np.arange(truth.size)]) * w).sum() / w.sum()
    one = np.eye(3)[truth].T
    dice = (2 * (p * one).sum(1) + 1) / (p.sum(1) + one.sum(1) + 1)
    assert float(class_loss(logits, batch, weights)) == pytest.approx(cross + 1 - dice.mean(), 1e-5)


def test_beyond_the_image_nothing_counts() -> None:
    batch, weights = _batch(), torch.ones(3)
    logits = torch.randn(1, 3, 32, 32)
    changed = logits.clone()
    changed[:, :, :4] += 5
    assert torch.equal(class_loss(logits, batch, weights), class_loss(changed, batch, weights))
    small = Sample("s", np.zeros((1, 20, 40), np.float32), np.full((20, 40), 2, np.int32))
    made = collate_classes([draw_crop(small, 32, PLAIN, np.random.default_rng(0))])
    assert set(made.classes.unique().tolist()) == {IGNORED, 2}
    assert int((made.classes == 2).sum()) == 20 * 32


def test_rare_classes_weigh_more() -> None:
    labels = np.zeros((10, 10), np.int32)
    labels[0, :4] = 1
    weights = class_weights([Sample("s", np.zeros((1, 10, 10), np.float32), labels)], 2)
    assert weights[1] / weights[0] == pytest.approx(np.sqrt(96 / 4), rel=1e-5)
    assert 0.96 * weights[0] + 0.04 * weights[1] == pytest.approx(1, rel=1e-5)
    absent = class_weights([Sample("s", np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), int))], 3)
    assert np.isfinite(absent).all()


def test_a_batch_depends_on_seed_member_and_number_alone(data: Path) -> None:
    options = _options(data, "e")
    samples = read_class_data(options).train
    batches = ClassBatches(samples, options, 1)
    again = ClassBatches(samples, options, 1)
    again.make(0)
    assert torch.equal(batches.make(7).image, again.make(7).image)
    other = ClassBatches(samples, options, 0)
    assert not torch.equal(batches.make(7).image, other.make(7).image)


def _crop_of(how: Augmentation, image: NDArray[np.float32]) -> NDArray[np.float32]:
    sample = Sample("s", image, np.ones(image.shape[1:], np.int32))
    return draw_crop(sample, image.shape[1], how, np.random.default_rng(2)).image


def test_exposure_is_smooth_and_within_its_range() -> None:
    flat = np.ones((1, 65, 65), np.float32)
    fields = _crop_of(replace(PLAIN, exposure=0.3), flat)[0]
    assert 0.7 <= fields.min() < fields.max() <= 1.3
    assert fields.max() - fields.min() > 0.05
    assert max(np.abs(np.diff(fields, axis=k)).max() for k in (0, 1)) <= 0.6 / 32 + 1e-6
    assert np.array_equal(_crop_of(PLAIN, flat), flat)


def test_blur_lowers_contrast_and_keeps_the_mean() -> None:
    noise = np.random.default_rng(0).standard_normal((1, 64, 64)).astype(np.float32)
    sample = Sample("s", noise, np.ones((64, 64), np.int32))
    how = replace(PLAIN, blur=2.0)
    crops = [draw_crop(sample, 64, how, np.random.default_rng(k)).image for k in range(12)]
    blurred = [crop for crop in crops if not np.array_equal(crop, noise)]
    assert 2 <= len(blurred) <= 10
    assert all(crop.std() < noise.std() for crop in blurred)
    assert all(abs(crop.mean() - noise.mean()) < 0.02 for crop in blurred)


@pytest.mark.parametrize("change", [{"blur": -1.0}, {"exposure": 1.5}, {"noise": -0.1}])
def test_wrong_changes_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"augmentation.{next(iter(change))}"):
        replace(PLAIN, **change)


def test_scores_count_pixels() -> None:
    """Two networks that each name one class: their mean is split evenly, the first class wins."""

    class Fixed(UNet):
        def __init__(self, chosen: int, margin: float) -> None:
            super().__init__(UNetConfig(1, 3, (4,), groups=2))
            self._chosen, self._margin = chosen, margin

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(len(x), 3, *x.shape[2:])
            logits[:, self._chosen] = self._margin
            return logits

    batch = _batch()
    counts = batch.classes[batch.classes != IGNORED]
    share = [float((counts == k).float().mean()) for k in range(3)]
    score = score_ensemble([Fixed(0, 5), Fixed(2, 1)], [batch, batch], bfloat16=False)
    assert score.members[0] == pytest.approx((2 * share[0] / (1 + share[0]), 0, 0))
    assert score.members[1] == pytest.approx((0, 0, 2 * share[2] / (1 + share[2])))
    assert score.mean == score.members[0]
    assert score.disagreeing == 1
    assert score.wrong == pytest.approx(1 - share[0])
    assert score.wrong_found == 1
    same = score_ensemble([Fixed(1, 5), Fixed(1, 1)], [batch], bfloat16=False)
    assert (same.disagreeing, same.wrong_found) == (0, 0)


@pytest.fixture
def command(data: Path) -> Callable[..., object]:
    def run(*words: str) -> object:
        base = ["unet", "--images", str(data / "images"), "--labels", str(data / "labels"),
                "--out", str(data.parent / "e"), "--classes", "background, rim, core",
                "--members", "2", "--widths", "4,8", "--epochs", "1", "--steps", "2",
                "--size", "32", "--batch", "2"]  # fmt: skip
        return CliRunner().invoke(app, [*base, *words], catch_exceptions=False)

    return run


def test_the_command_trains(data: Path, command: Callable[..., object]) -> None:
    result = command("--half", "--norm", "group")
    assert "member 2 of 2, epoch    1, 100% done" in result.output
    assert open_ensemble(str(data.parent / "e")).classes == NAMES


@pytest.mark.parametrize(
    ("words", "message"),
    [(("--widths", "4,x"), "--widths"), (("--slices", "3"), "--slices: expected FIRST:LAST")],
)
def test_the_command_refuses(
    command: Callable[..., object], words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TilewrightError, match=message):
        command(*words)
