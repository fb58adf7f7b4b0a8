"""Model folders are refused for one clear reason each, and found by path or name."""

import io
import json
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from engine.errors import ModelError
from engine.networks.model_folder import (
    StarDistConfig,
    Thresholds,
    bundled_models,
    open_model,
    parse_config,
)
from engine.networks.stardist import StarDistUNet, load_network, official_config, save_folder

SMALL = StarDistConfig(n_rays=4, grid=(2, 2), unet_n_depth=1, unet_n_filter_base=4,
                       net_conv_after_unet=4)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "small"
    save_folder(StarDistUNet(SMALL), Thresholds(0.5, 0.4), "# small\n", path)
    return path


def _edit(path: Path, **changes: object) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | changes))


def test_a_saved_folder_opens_with_its_values(folder: Path) -> None:
    model = open_model(str(folder))
    assert model.config == SMALL
    assert model.thresholds == Thresholds(0.5, 0.4)
    assert (model.name, model.weights.name) == ("small", "weights.safetensors")
    assert {p.name for p in folder.parent.iterdir()} == {"small"}  # no temporary folder is left


def test_the_digest_covers_weights_and_thresholds(folder: Path) -> None:
    first = open_model(str(folder)).sha256
    assert open_model(str(folder)).sha256 == first
    _edit(folder / "thresholds.json", prob=0.6)
    second = open_model(str(folder)).sha256
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert len({first, second, open_model(str(folder)).sha256}) == 3


def test_divisor_is_grid_times_pooling() -> None:
    config = StarDistConfig(grid=(4, 2), unet_pool=(2, 3), unet_n_depth=2)
    assert config.divisor == (16, 18)


def test_official_config_is_read_back() -> None:
    config = StarDistConfig(n_channel_in=3, grid=(1, 4), unet_kernel_size=(5, 3))
    values = json.loads(json.dumps(official_config(config)))
    assert parse_config(values, "x") == config
    assert values["axes"] == "YXC"
    assert values["n_channel_out"] == 33


def test_older_configs_lack_expansion_and_prefix() -> None:
    values = official_config(SMALL)
    del values["unet_expansion"], values["unet_prefix"], values["n_classes"]
    assert parse_config(values, "x") == SMALL


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("n_dim", 3, "3"),
        ("n_classes", 2, "2"),
        ("backbone", "resnet", "'resnet'"),
        ("n_rays", 2, "2"),
        ("grid", [3, 3], "(3, 3)"),
        ("grid", 2, "2"),
        ("unet_kernel_size", [3, 3, 3], "(3, 3, 3)"),
        ("unet_activation", "swish", "'swish'"),
        ("unet_batch_norm", 1, "1"),
        ("unet_n_filter_base", True, "True"),
        ("unet_expansion", "2", "'2'"),
        ("n_channel_in", 1.5, "1.5"),
    ],
)
def test_unsupported_config_values_are_named(
    folder: Path, key: str, value: object, found: str
) -> None:
    _edit(folder / "config.json", **{key: value})
    with pytest.raises(ModelError) as caught:
        open_model(str(folder))
    assert caught.value.where == f"{folder / 'config.json'}: {key}"
    assert caught.value.found == found


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "config.json: expected a file, found none"),
        ("thresholds.json", None, "thresholds.json: expected a file, found none"),
        ("weights.safetensors", None, "weights_best.h5, found neither"),
        ("config.json", b"{", "expected readable JSON"),
        ("config.json", b"\xff\xfe", "expected readable JSON"),
        ("config.json", b"[]", "expected a JSON object, found list"),
        ("config.json", b"{}", "n_rays: expected a value, found no such key"),
        ("thresholds.json", b'{"prob": 1.5, "nms": 0.3}', "prob: expected a number in"),
        ("thresholds.json", b'{"prob": 0.5}', "nms: expected a number in"),
        ("weights.safetensors", b"not weights at all", "expected a .safetensors file"),
        ("weights.safetensors", b"", "expected a .safetensors file"),
        ("weights.safetensors", pickle.dumps([1]), "found a pickle"),
        ("weights.safetensors", _zip(), "found a pickle"),
        ("weights_best.h5", b"\x89HDF\r\n\x1a\n", "found both"),
    ],
)
def test_damage_is_named(folder: Path, name: str, content: bytes | None, message: str) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_model(str(folder))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.pkl"])
def test_a_pickle_is_refused_inside_and_as_the_model(folder: Path, name: str) -> None:
    (folder / "weights.safetensors").unlink()
    torch.save({"a": torch.zeros(1)}, folder / name)
    for path in (folder, folder / name):
        with pytest.raises(ModelError, match="can run any code"):
            open_model(str(path))


def test_an_unknown_name_lists_all_and_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = {name: Path(name) for name in ("nuclei-fluo", "cells")}
    monkeypatch.setattr("engine.networks.model_folder._bundled", lambda: shelf)
    with pytest.raises(
        ModelError, match=r"models: nuclei-fluo, cells\. Did you mean 'nuclei-fluo'"
    ):
        open_model("nuclei-fluor")


@pytest.mark.parametrize("name", bundled_models())
def test_bundled_models_open_and_load(name: str) -> None:
    model = open_model(name)
    network = load_network(model)
    assert (model.name, model.weights.suffix) == (name, ".safetensors")
    assert (model.path / "README.md").read_text().startswith(f"# {name}")
    assert model.weights.stat().st_size <= 6e6
    assert not any(p.requires_grad for p in network.parameters())


def test_opening_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from engine.networks.model_folder import open_model;"
        f"open_model({str(folder)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
