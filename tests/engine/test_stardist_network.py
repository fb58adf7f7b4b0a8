"""The network's shapes, its padding, its weights files and the folding of batch normalisation."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.device import Launch
from engine.errors import InputError, ModelError
from engine.networks.launching import with_company
from engine.networks.model_folder import StarDistConfig, Thresholds, open_model
from engine.networks.runtime import open_network
from engine.networks.star_unet import ConvBlock, StarDistUNet
from engine.networks.stardist import load_network, save_folder

SMALL = StarDistConfig(n_rays=5, grid=(2, 2), unet_n_depth=2, unet_n_filter_base=4,
                       net_conv_after_unet=6)  # fmt: skip


def _filled(config: StarDistConfig) -> StarDistUNet:
    """A network whose statistics are not those of a fresh one, in eval mode."""
    torch.manual_seed(1)
    network = StarDistUNet(config)
    for _, block in network.conv_blocks():
        if block.norm is not None and block.norm.running_var is not None:
            block.norm.running_mean.uniform_(-1, 1)
            block.norm.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(block.norm.weight, 0.5, 2)
            torch.nn.init.uniform_(block.norm.bias, -1, 1)
    return network.eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, grid=(1, 1)),
        replace(SMALL, grid=(4, 1), n_channel_in=3),
        replace(SMALL, unet_kernel_size=(2, 5), unet_n_conv_per_depth=1),
        replace(SMALL, unet_pool=(2, 3), unet_n_conv_per_depth=3, unet_expansion=1.5),
        replace(SMALL, unet_n_depth=0, net_conv_after_unet=0),
        replace(SMALL, unet_batch_norm=True, unet_activation="elu", unet_last_activation="linear"),
    ],
)
def test_shapes_and_ranges(config: StarDistConfig) -> None:
    (dy, dx), (gy, gx) = config.divisor, config.grid
    image = torch.rand(2, config.n_channel_in, 2 * dy, dx)
    prob, dist = _filled(config)(image)
    assert prob.shape == (2, 1, 2 * dy // gy, dx // gx)
    assert dist.shape == (2, config.n_rays, 2 * dy // gy, dx // gx)
    assert prob.min() >= 0
    assert prob.max() <= 1
    assert dist.min() >= 1e-3


@pytest.mark.parametrize("shape", [(1, 1, 12, 16), (1, 2, 16, 16), (1, 16, 16)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of 8 and 8"):
        StarDistUNet(SMALL)(torch.zeros(shape))


def test_an_even_kernel_pads_more_at_the_end() -> None:
    block = ConvBlock((1, 1), (2, 4), "linear")
    torch.nn.init.ones_(block.conv.weight)
    torch.nn.init.zeros_(block.conv.bias)
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    padded = torch.nn.functional.pad(image, (1, 2, 0, 1))
    windows = padded.unfold(2, 2, 1).unfold(3, 4, 1).sum(dim=(-2, -1))
    assert torch.equal(block(image), windows)


def test_folding_changes_nothing() -> None:
    network = _filled(replace(SMALL, unet_batch_norm=True))
    fused = network.fuse()
    assert not fused.config.unet_batch_norm
    image = torch.rand(1, 1, 16, 24)
    for before, after in zip(network.raw(image), fused.raw(image), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_heads_stay_float32_under_bfloat16() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        maps = _filled(SMALL)(torch.rand(1, 1, 16, 16))
    assert [m.dtype for m in maps] == [torch.float32, torch.float32]
    assert not torch.equal(maps[1], maps[1].bfloat16().float())


def test_saved_and_loaded_gives_the_same(tmp_path: Path) -> None:
    network = _filled(replace(SMALL, unet_batch_norm=True))
    save_folder(network, Thresholds(0.5, 0.4), "card", tmp_path / "m")
    loaded = load_network(open_model(str(tmp_path / "m")))
    image = torch.rand(1, 1, 16, 16)
    for a, b in zip(network.fuse()(image), loaded(image), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ModelError, match="no such folder yet"):
        save_folder(network, Thresholds(0.5, 0.4), "card", tmp_path / "m")


def _as_keras(network: StarDistUNet, folder: Path, first_stem: int) -> None:
    """Write weights as Keras does: groups by layer, their order in an attribute, HWIO kernels."""
    config = network.config
    layers: dict[str, dict[str, Tensor]] = {}
    norms = 0
    for name, block in network.conv_blocks():
        if name.startswith("stem_"):
            layer = f"conv2d_{first_stem}" if first_stem else "conv2d"
            first_stem += 1
        else:
            layer = name if name == "features" else config.unet_prefix + name
        layers[layer] = {"kernel": block.conv.weight, "bias": block.conv.bias}
        if block.norm is not None:
            n = block.norm
            layers[f"batch_normalization_{norms}"] = {
                "gamma": n.weight, "beta": n.bias,
                "moving_mean": n.running_mean, "moving_variance": n.running_var,
            }  # fmt: skip
            norms += 1
    for name, head in (("prob", network.prob), ("dist", network.dist)):
        layers[name] = {"kernel": head.weight, "bias": head.bias}
    with h5py.File(folder / "weights_best.h5", "w") as file:
        file.attrs["layer_names"] = ["input", *layers]
        file.create_group("input").attrs["weight_names"] = np.array([], "S1")
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{layer}/{w}:0" for w in weights]
            for w, tensor in weights.items():
                array = tensor.numpy()
                group[f"{layer}/{w}:0"] = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


@pytest.mark.parametrize(
    "config",
    [
        # More than ten stems: groups sorted by name would put conv2d_10 before conv2d_9.
        replace(SMALL, grid=(4, 4), unet_n_conv_per_depth=3),
        replace(SMALL, unet_batch_norm=True, unet_prefix="net_", n_channel_in=2),
    ],
)
def test_keras_files_are_read_in_their_order(tmp_path: Path, config: StarDistConfig) -> None:
    network = _filled(config)
    folder = tmp_path / "m"
    save_folder(network, Thresholds(0.5, 0.4), "card", folder)
    (folder / "weights.safetensors").unlink()
    text = (folder / "config.json").read_text()
    if config.unet_batch_norm:
        text = text.replace('"unet_batch_norm": false', '"unet_batch_norm": true')
    (folder / "config.json").write_text(text)
    _as_keras(network, folder, first_stem=7)
    loaded = load_network(open_model(str(folder)))
    dy, dx = config.divisor
    image = torch.rand(1, config.n_channel_in, dy, 2 * dx)
    for a, b in zip(network.fuse()(image), loaded(image), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_keras_file_with_a_missing_or_foreign_layer_is_refused(tmp_path: Path) -> None:
    network = _filled(SMALL)
    folder = tmp_path / "m"
    save_folder(network, Thresholds(0.5, 0.4), "card", folder)
    (folder / "weights.safetensors").unlink()
    _as_keras(network, folder, first_stem=0)
    model = open_model(str(folder))
    with h5py.File(model.weights, "a") as file:
        names = list(file.attrs["layer_names"])
        file.attrs["layer_names"] = [n for n in names if n != "middle_0"]
    with pytest.raises(ModelError, match="middle_0"):
        load_network(model)
    with h5py.File(model.weights, "a") as file:
        del file.attrs["layer_names"]
    with pytest.raises(ModelError, match="layer_names"):
        load_network(model)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("blocks.middle_0.conv.weight", lambda t: t[:, :1], "expected (16, 8, 3, 3)"),
        ("dist.bias", lambda _: None, "found no such layer"),
        ("prob.bias", lambda t: t * float("nan"), "found NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_name_the_layer(
    tmp_path: Path, name: str, change: object, message: str
) -> None:
    assert callable(change)
    save_folder(_filled(SMALL), Thresholds(0.5, 0.4), "card", tmp_path / "m")
    model = open_model(str(tmp_path / "m"))
    state = load_file(model.weights)
    changed = change(state.pop(name))
    if changed is not None:
        state[name] = changed.contiguous()
    save_file(state, model.weights)
    with pytest.raises(ModelError) as caught:
        load_network(model)
    assert caught.value.where.endswith(name)
    assert message in str(caught.value)


@pytest.mark.parametrize("side", [64, 128, 192, 224])
def test_a_tile_answers_alike_alone_and_among_others(side: int) -> None:
    network = open_network(open_model("nuclei-fluo"), Launch("cpu", "float32", 2))
    batch = np.random.default_rng(0).random((2, 1, side, side), dtype=np.float32)
    together = network.predict(batch)
    for k in range(2):
        alone = network.predict(batch[k : k + 1])
        for one, both in zip(alone, together, strict=True):
            assert one.shape == (1, *both.shape[1:])
            assert torch.equal(one[0], both[k])


def test_only_a_small_lone_tile_gets_company() -> None:
    """A copy doubles the work: it must not come with what torch answers alike anyway."""
    model, launch = open_model("nuclei-fluo"), Launch("cpu", "float32", 2)
    module = load_network(model)

    def given(count: int, side: int, launch: Launch = launch) -> int:
        return len(with_company(np.zeros((count, 1, side, side), np.float32), module, launch))

    assert [given(1, side) for side in (16, 192, 208, 224)] == [2, 2, 1, 1]
    assert given(2, 16) == 2
    assert given(1, 16, Launch("cpu", "bfloat16", 1)) == 1
