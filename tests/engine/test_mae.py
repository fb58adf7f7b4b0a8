"""Masked autoencoders: folders, what masks mean, and answers that no neighbour changes."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter

from engine.device import Launch
from engine.errors import ModelError
from engine.methods.patches import cut_patches, join_patches, near_patches
from engine.networks.mae import MaskedAutoencoder, chosen
from engine.networks.mae_folder import (
    MaeConfig,
    MaeFolder,
    config_values,
    open_mae,
    parse_mae_config,
)
from engine.networks.mae_runtime import Inpainter, ladder, open_inpainter
from engine.networks.mae_weights import initialise_mae, load_mae, save_mae
from engine.networks.transformer import rotary_angles, turned

CLASSES = ("background", "shell", "core")
SMALL = MaeConfig(
    classes=CLASSES, encoder_dim=16, encoder_depth=2, encoder_heads=2, decoder_dim=16,
    decoder_depth=1, decoder_heads=2, class_input="onehot", near_patches=2,
)  # fmt: skip
PAPER_LIKE = replace(SMALL, encoder_heads=1, class_input="index", near_patches=None)
TURNED = replace(SMALL, positions="rotary")


def _folder(path: Path, config: MaeConfig, *, half: bool = False) -> MaeFolder:
    network = MaskedAutoencoder(config)
    initialise_mae(network, 7)
    with torch.no_grad():  # stronger than at the start of a training: answers vary
        for module in network.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.mul_(2)
    save_mae(network, "# card\n", path, half=half)
    return open_mae(str(path))


def _windows(count: int, seed: int = 0) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).standard_normal((count, 128, 128))
    smooth = gaussian_filter(noise, (0, 9, 9), mode="wrap")
    level = smooth - np.linspace(-0.02, 0.06, count)[:, None, None]
    classes: NDArray[np.uint8] = (level > 0).astype(np.uint8) + (level > 0.02).astype(np.uint8)
    return classes


def _masks(count: int, seed: int = 0) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    return rng.random((count, 32, 32)) < rng.uniform(0.02, 0.9, (count, 1, 1))


def _pixels(patches: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return patches.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module", params=["paper", "onehot", "rotary"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MaeFolder:
    config = {"paper": PAPER_LIKE, "onehot": SMALL, "rotary": TURNED}[request.param]
    return _folder(tmp_path_factory.mktemp("mae") / request.param, config)


@pytest.fixture(scope="module")
def inpainter(folder: MaeFolder) -> Inpainter:
    return open_inpainter(folder, Launch("cpu", "float32", 4))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_other_windows_of_a_batch_change_no_bit(
    folder: MaeFolder, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels, masked = _windows(8), _masks(8)
    seen: dict[bytes, set[bytes]] = {}
    forward = MaskedAutoencoder.forward

    def watched(self: MaskedAutoencoder, *args: object) -> object:
        prediction = forward(self, *args)  # type: ignore[arg-type]
        for key, logits in zip(args[0], prediction.logits, strict=True):  # type: ignore[call-overload]
            raw = logits.contiguous().view(torch.uint8).numpy().tobytes()
            seen.setdefault(key.numpy().tobytes(), set()).add(raw)
        return prediction

    monkeypatch.setattr(MaskedAutoencoder, "forward", watched)
    answers = []
    for tiles in (1, 5, 40):
        network = open_inpainter(folder, Launch("cpu", precision, tiles))  # type: ignore[arg-type]
        for order in (np.arange(8), np.roll(np.arange(8)[::-1], 3)):
            filled = np.empty_like(labels)
            filled[order] = network.fill(labels[order], masked[order])
            answers.append(filled)
    answers.append(np.concatenate([network.fill(labels[i : i + 1], masked[i : i + 1])
                                   for i in range(8)]))  # fmt: skip
    assert all(np.array_equal(answers[0], other) for other in answers)
    assert (answers[0] != labels).any()
    assert len(seen) == 8
    assert {len(found) for found in seen.values()} == {1}


def test_only_masked_patches_near_foreground_change(inpainter: Inpainter) -> None:
    labels, masked = _windows(6), _masks(6)
    filled = inpainter.fill(labels, masked)
    near = near_patches(labels, 4, inpainter.config.near_patches)
    free = _pixels(masked & near)
    assert np.array_equal(filled[~free], labels[~free])
    assert (filled[free] != labels[free]).any()
    assert filled.dtype == np.uint8
    assert filled.max() < len(CLASSES)


def test_what_a_mask_hides_has_no_influence(inpainter: Inpainter) -> None:
    labels, masked = _windows(4), _masks(4)
    other = np.where(_pixels(masked) & (labels > 0), 3 - labels, labels).astype(np.uint8)
    assert not np.array_equal(labels, other)
    hidden = _pixels(masked & near_patches(labels, 4, inpainter.config.near_patches))
    assert np.array_equal(inpainter.fill(labels, masked)[hidden],
                          inpainter.fill(other, masked)[hidden])  # fmt: skip


def test_what_is_seen_has_influence(inpainter: Inpainter) -> None:
    labels, masked = _windows(4), _masks(4) & False
    masked[:, 10:14, 10:14] = True
    other = np.where(_pixels(masked) | (labels == 0), labels, 3 - labels).astype(np.uint8)
    hidden = _pixels(masked)
    first, second = inpainter.fill(labels, masked), inpainter.fill(other, masked)
    assert (first[hidden] != second[hidden]).any()


def test_nothing_masked_and_all_masked_come_back_without_running(
    folder: MaeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        pytest.fail("the network ran")

    network = open_inpainter(folder, Launch("cpu", "float32", 4))
    monkeypatch.setattr(MaskedAutoencoder, "forward", never)
    labels, masked = _windows(3), np.zeros((3, 32, 32), np.bool_)
    masked[1] = True
    filled = network.fill(labels, masked)
    assert np.array_equal(filled, labels)
    assert filled is not labels
    assert network.blind(labels, masked).tolist() == [False, True, False]
    empty = network.fill(labels[:0], masked[:0])
    assert empty.shape == (0, 128, 128)


def test_near_foreground_only_is_masked_is_blind_too(tmp_path: Path) -> None:
    network = open_inpainter(_folder(tmp_path / "m", SMALL), Launch("cpu", "float32", 4))
    labels = np.zeros((2, 128, 128), np.uint8)
    labels[:, 40:60, 40:60] = 1
    masked = near_patches(labels, 4, 2)
    masked[1, 8, 8] = False
    assert network.blind(labels, masked).tolist() == [True, False]
    assert np.array_equal(network.fill(labels, masked)[0], labels[0])
    far = np.zeros((1, 32, 32), np.bool_)
    far[0, 30:, 30:] = True
    assert np.array_equal(network.fill(labels[:1], far), labels[:1])


@pytest.mark.parametrize(
    ("labels", "masked", "message"),
    [
        (np.zeros((1, 64, 128), np.uint8), np.zeros((1, 32, 32), np.bool_), "128"),
        (np.zeros((1, 128, 128), np.int32), np.zeros((1, 32, 32), np.bool_), "uint8"),
        (np.zeros((1, 128, 128), np.uint8), np.zeros((2, 32, 32), np.bool_), "masked"),
        (np.zeros((1, 128, 128), np.uint8), np.zeros((1, 32, 32), np.uint8), "bool"),
        (np.full((1, 128, 128), 3, np.uint8), np.zeros((1, 32, 32), np.bool_), "below 3"),
    ],
)
def test_other_windows_are_refused(
    inpainter: Inpainter, labels: NDArray[np.uint8], masked: NDArray[np.bool_], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        inpainter.fill(labels, masked)


def test_padding_changes_nothing_that_matters() -> None:
    torch.manual_seed(0)
    for config in (PAPER_LIKE, TURNED):
        network = MaskedAutoencoder(config).eval()
        initialise_mae(network, 1)
        patches = torch.from_numpy(cut_patches(_windows(1), 4))
        visible = torch.rand(1, 1024) < 0.2
        wanted = visible | (torch.rand(1, 1024) < 0.2)
        counts = int(visible.sum()), int(wanted.sum())
        with torch.no_grad():
            tight = network(patches, visible, wanted, counts)
            loose = network(patches, visible, wanted, (counts[0] + 30, counts[1] + 77))
        assert torch.equal(tight.index, loose.index[:, : counts[1]])
        assert int(loose.valid.sum()) == counts[1]
        torch.testing.assert_close(tight.logits, loose.logits[:, : counts[1]], atol=1e-5, rtol=1e-4)


def test_equal_masked_patches_differ_by_their_place() -> None:
    for config in (PAPER_LIKE, TURNED):
        network = MaskedAutoencoder(config).eval()
        initialise_mae(network, 1)
        patches = torch.zeros(1, 1024, 16, dtype=torch.uint8)
        patches[0, :300] = 1
        visible = torch.arange(1024)[None] % 3 > 0
        with torch.no_grad():
            logits = network(patches, visible, torch.ones_like(visible), (683, 1024)).logits
        assert (logits[0, 0] - logits[0, 999]).abs().max() > 1e-3


def test_rotary_attention_sees_differences_of_places() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 16)
    scores = []
    for y, x in ((0, 0), (20, 7), (3, 25)):
        places = torch.tensor([[[y, x], [y + 5, x + 2], [y + 2, x + 5]]], dtype=torch.float32)
        angles = rotary_angles(places, 16)[:, None]
        rows = (t.expand(1, 1, 3, 16) for t in (q, k))
        a, b = (turned(row, (angles.cos(), angles.sin())) for row in rows)
        scores.append(a @ b.transpose(-1, -2))
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(scores[0], scores[2], atol=1e-4, rtol=1e-4)
    assert (scores[0][..., 0, 1] - scores[0][..., 0, 2]).abs() > 1e-3


def test_heads_look_beside_their_own_patch_at_first() -> None:
    network = MaskedAutoencoder(replace(TURNED, encoder_dim=64)).eval()
    initialise_mae(network, 0)
    bias = network.encoder.blocks[1].qkv.bias.detach().view(3, 2, 32)
    angles = rotary_angles(network.places, 32)
    turns = angles.cos(), angles.sin()
    q, k = (turned(bias[i, 1].expand(1, 1, 1024, 32), turns)[0, 0] for i in (0, 1))
    at = 16 * 32 + 16
    scores = (q[at] @ k.T).view(32, 32)
    found = divmod(int(scores.argmax()), 32)
    turn = np.pi * (3 - 5**0.5) * 3
    beside = (16 + 1.2 * np.sin(turn), 16 + 1.2 * np.cos(turn))
    assert np.hypot(found[0] - beside[0], found[1] - beside[1]) < 0.75
    assert scores[16, 16] - scores[4, 4] > 1


def test_chosen_lists_what_is_present_first() -> None:
    present = torch.tensor([[False, True, True, False], [True, False, False, False]])
    index, valid = chosen(present, 3)
    assert index[0, :2].tolist() == [1, 2]
    assert index[1, 0] == 0
    assert valid.tolist() == [[True, True, False], [True, False, False]]


def test_patches_are_cut_and_joined() -> None:
    windows = _windows(2)
    patches = cut_patches(windows, 4)
    assert patches.shape == (2, 1024, 16)
    assert np.array_equal(patches[1, 33].reshape(4, 4), windows[1, 4:8, 4:8])
    assert np.array_equal(join_patches(patches, 128, 4), windows)


def test_near_patches_reach_so_far() -> None:
    windows = np.zeros((2, 128, 128), np.uint8)
    windows[0, 40, 43] = 2
    assert near_patches(windows, 4, None).all()
    found = near_patches(windows, 4, 3)
    assert not found[1].any()
    assert np.argwhere(found[0]).min(axis=0).tolist() == [7, 7]
    assert np.argwhere(found[0]).max(axis=0).tolist() == [13, 13]
    assert near_patches(windows, 4, 0).sum() == 1


def test_the_ladder_ends_with_all_patches() -> None:
    rungs = ladder(1024)
    assert rungs[0] == 63
    assert rungs[-2:] == (1023, 1024)
    assert ladder(16) == (16,)


def test_a_folder_is_written_and_read(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "whole", TURNED)
    assert folder.config == TURNED
    assert folder.name == "whole"
    assert folder.weights_bytes == folder.weights.stat().st_size
    half = _folder(tmp_path / "half", TURNED, half=True)
    assert half.weights_bytes < 0.6 * folder.weights_bytes
    assert half.sha256 != folder.sha256
    first, second = (load_mae(f).state_dict() for f in (folder, half))
    assert all(torch.equal(first[k].half().float(), second[k]) for k in first)
    with pytest.raises(ModelError, match="no such folder yet"):
        save_mae(MaskedAutoencoder(TURNED), "", folder.path, half=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half", "whole"]


def test_the_paper_s_sizes_are_the_default() -> None:
    network = MaskedAutoencoder(MaeConfig(classes=tuple("abcde")))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(2.1e6, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("background",)}, "classes"),
        ({"classes": ("a", "a")}, "classes"),
        ({"classes": ("background", "2")}, "classes: expected plain names"),
        ({"classes": ("background", "inner/outer")}, "classes: expected plain names"),
        ({"window": 130}, "window"),
        ({"window": 4}, "window: expected at least two patches of 4 pixels, found 4"),
        ({"encoder_heads": 3}, "encoder_dim"),
        ({"decoder_dim": 18, "decoder_heads": 1}, "decoder_dim"),
        ({"encoder_depth": 0}, "encoder_depth"),
        ({"class_input": "text"}, "class_input"),
        ({"positions": "learned"}, "positions"),
        ({"position_scale": 0}, "position_scale"),
        ({"near_patches": -1}, "near_patches"),
        ({"near_patches": True}, "near_patches"),
    ],
)
def test_wrong_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        MaeConfig(**{**asdict(SMALL), **change})


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "m", SMALL)
    config, weights = folder.path / "config.json", folder.weights
    values = config_values(SMALL)
    assert parse_mae_config(values | {"classes": list(CLASSES)}, "x") == SMALL
    for changed, message in (
        ({**values, "architecture": "unet"}, "architecture"),
        ({**values, "depth": 3}, "depth: expected no such key"),
        ({k: v for k, v in values.items() if k != "patch"}, "patch: expected a value"),
        ({**values, "patch": 0}, r"config\.json: patch: expected an integer"),
    ):
        config.write_text(json.dumps(changed))
        with pytest.raises(ModelError, match=message):
            open_mae(str(folder.path))
    config.write_text(json.dumps({**values, "encoder_depth": 1}))
    with pytest.raises(ModelError, match="a layer that the config does not have"):
        load_mae(open_mae(str(folder.path)))
    config.write_text(json.dumps({**values, "mlp_ratio": 1}))
    with pytest.raises(ModelError, match="fc1"):
        load_mae(open_mae(str(folder.path)))
    config.write_text(json.dumps(values))
    state = load_file(weights)
    save_file(state | {"mask_token": torch.full_like(state["mask_token"], torch.nan)}, weights)
    with pytest.raises(ModelError, match="finite"):
        load_mae(open_mae(str(folder.path)))
    weights.rename(folder.path / "weights.pt")
    with pytest.raises(ModelError, match="pickle"):
        open_mae(str(folder.path))


def test_names_that_are_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="neither"):
        open_mae("no-such-mae")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"config\.json"):
        open_mae(str(tmp_path / "empty"))
    (tmp_path / "file.json").write_text("{}")
    with pytest.raises(ModelError, match="found a file"):
        open_mae(str(tmp_path / "file.json"))
