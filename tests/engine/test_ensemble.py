"""Ensembles are read with one clear error for each fault; members answer alike in any launch."""

import json
import math
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from engine.device import Launch
from engine.errors import InputError, ModelError
from engine.networks import launching, lookup
from engine.networks.ensemble import Ensemble, bundled_ensembles, open_ensemble
from engine.networks.ensemble_runtime import open_member, release_member
from engine.networks.ensemble_writing import write_ensemble, write_member, write_stardist_member
from engine.networks.model_folder import StarDistConfig, Thresholds
from engine.networks.runtime import open_network
from engine.networks.star_unet import StarDistUNet
from engine.networks.stardist import save_folder
from engine.networks.states import stored_state
from engine.networks.unet import UNet, load_unet
from engine.networks.unet_config import UNetConfig
from tiling import BlendPlan, Box, Lattice, Tiling

SMALL = UNetConfig(n_channel_in=1, n_classes=2, widths=(4, 8, 12), groups=2)
CPU = Launch("cpu", "float32", 4)


def _network(config: UNetConfig, seed: int = 0) -> UNet:
    """A network whose statistics are not those of a fresh one, in eval mode."""
    torch.manual_seed(seed)
    network = UNet(config)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.bias, -1, 1)
    return network.eval().requires_grad_(requires_grad=False)


def _write_unet(path: Path, config: UNetConfig = SMALL, seed: int = 0) -> Path:
    state = stored_state(_network(config, seed))
    write_member(path, config, {name: value.numpy() for name, value in state.items()})
    return path


def _write_model(path: Path, grid: tuple[int, int] = (2, 2)) -> Path:
    torch.manual_seed(5)
    network = StarDistUNet(StarDistConfig(n_rays=4, grid=grid, unet_n_depth=1,
                                          unet_n_filter_base=4, net_conv_after_unet=4))  # fmt: skip
    save_folder(network, Thresholds(0.5, 0.4), "", path)
    return path


@pytest.fixture
def made(tmp_path: Path) -> Ensemble:
    """Two U-Nets of different depth, and a StarDist model beside the ensemble."""
    _write_model(tmp_path / "star")
    members = [
        _write_unet(tmp_path / "parts/a"),
        _write_unet(tmp_path / "parts/b", replace(SMALL, widths=(4, 6, 8, 8), norm="group"), 1),
    ]
    write_stardist_member(tmp_path / "parts/c", "../../star")
    members.append(tmp_path / "parts/c")
    return write_ensemble(tmp_path / "e", ("background", "object"), 1, members, "# e\n")


def _edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tiles(extent: tuple[int, int], tile: int) -> tuple[object, ...]:
    plan = BlendPlan(Lattice(extent, Tiling(tile, 0, 0, 8, 1, "average")), Box((0, 0), extent))
    return tuple(place for row in plan.rows() for place in row.tiles)


def test_an_ensemble_opens_with_its_values(made: Ensemble, tmp_path: Path) -> None:
    assert (made.classes, made.n_channel_in, made.name) == (("background", "object"), 1, "e")
    assert [(m.name, m.architecture) for m in made.members] == [
        ("a", "unet"), ("b", "unet"), ("c", "stardist"),
    ]  # fmt: skip
    assert made.members[0].network == SMALL
    assert [m.divisor for m in made.members] == [4, 8, 4]
    assert made.divisor == 8
    assert made.weights_bytes == sum(m.weights.stat().st_size for m in made.members)
    assert (made.path / "README.md").read_text() == "# e\n"
    assert {p.name for p in tmp_path.iterdir()} == {"e", "parts", "star"}


def test_the_digest_covers_all_that_decides(made: Ensemble) -> None:
    file = made.path / "ensemble.json"

    def digest() -> str:
        return open_ensemble(str(made.path)).sha256

    found = [digest()]
    assert found == [made.sha256]
    _edit(file, members=["b", "a", "c"])
    found.append(digest())
    _edit(file, members=["b", "a"])
    found.append(digest())
    _edit(file, classes=["background", "nucleus"])
    found.append(digest())
    weights = made.members[0].weights
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    found.append(digest())
    assert len(set(found)) == 5


def test_an_ensemble_may_be_one(made: Ensemble) -> None:
    _edit(made.path / "ensemble.json", members=["a"])
    assert len(open_ensemble(str(made.path)).members) == 1


def test_the_divisor_is_the_least_common_multiple(made: Ensemble) -> None:
    star = made.members[2]
    assert not isinstance(star.network, UNetConfig)
    config = replace(star.network.config, unet_pool=(3, 3))
    changed = replace(star, network=replace(star.network, config=config))
    assert changed.divisor == 6
    assert replace(made, members=(made.members[1], changed)).divisor == math.lcm(8, 6)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("ensemble.json", {"version": 2}, "version: expected at most 1, found 2"),
        ("ensemble.json", {"members": []}, "members: expected a list of at least 1"),
        ("ensemble.json", {"members": ["a", "a"]}, "different names"),
        ("ensemble.json", {"members": ["../parts/a"]}, "members: expected a list"),
        ("ensemble.json", {"members": ["a", "z"]}, "z/config.json: expected a file"),
        ("ensemble.json", {"classes": ["object"]}, "classes: expected a list of at least 2"),
        ("ensemble.json", {"classes": ["background", "1"]}, "classes: expected plain names"),
        ("ensemble.json", {"classes": ["background", "a b"]}, "not digits alone, found ['back"),
        ("ensemble.json", {"classes": ["x", "y", "z"]}, "expected 3 classes, as the ensemble has"),
        ("ensemble.json", {"channels": 3}, "expected 3 input channels, as the ensemble has"),
        ("ensemble.json", {"channels": True}, "channels: expected an integer"),
        ("a/config.json", {"architecture": "vit"}, "expected unet or stardist, found 'vit'"),
        ("a/config.json", {"n_classes": 4}, "expected 2 classes, as the ensemble has, found 4"),
        ("a/config.json", {"widths": [4, 0]}, "widths: expected integers >= 1"),
        ("a/config.json", {"depth": 3}, "depth: expected only"),
        ("b/config.json", {"groups": 3}, "groups: expected a divisor of each width"),
        ("c/config.json", {"model": 3}, "model: expected a bundled model"),
        ("c/config.json", {"model": "nuclei-flou"}, "Did you mean 'nuclei-fluo'?"),
    ],
)
def test_a_wrong_document_is_refused(
    made: Ensemble, file: str, changes: dict[str, object], message: str
) -> None:
    _edit(made.path / file, **changes)
    with pytest.raises(ModelError) as caught:
        open_ensemble(str(made.path))
    assert message in str(caught.value)


def test_stardist_answers_for_two_classes_only(made: Ensemble) -> None:
    _edit(made.path / "ensemble.json", members=["c"], classes=["background", "x", "y"])
    with pytest.raises(ModelError, match=r"member 'c': expected 3 classes.*found 2 \(stardist\)"):
        open_ensemble(str(made.path))


def test_missing_and_damaged_weights_are_refused(made: Ensemble) -> None:
    weights = made.members[0].weights
    whole = weights.read_bytes()
    weights.write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match=r"expected a \.safetensors file"):
        open_ensemble(str(made.path))
    weights.unlink()
    with pytest.raises(ModelError, match="expected one of"):
        open_ensemble(str(made.path))
    (weights.parent / "weights.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(ModelError, match="a pickle"):
        open_ensemble(str(made.path))
    weights.write_bytes(whole[:-8])
    with pytest.raises(ModelError, match="readable safetensors"):
        open_member(open_ensemble(str(made.path)).members[0], CPU)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("head.bias", None, "found no such layer"),
        ("extra", np.ones(1, np.float32), "that the config does not have"),
        ("head.bias", np.ones(3, np.float32), "expected (2,), found (3,)"),
        ("head.bias", np.full(2, np.nan, np.float32), "finite values"),
    ],
)
def test_weights_that_do_not_fit_name_the_layer(
    made: Ensemble, name: str, value: np.ndarray | None, message: str
) -> None:
    member = made.members[0]
    state = load_file(member.weights)
    if value is None:
        del state[name]
    else:
        state[name] = value
    save_file(state, member.weights)
    with pytest.raises(ModelError) as caught:
        load_unet(SMALL, member.weights)
    assert caught.value.where.endswith(name)
    assert message in str(caught.value)


def test_names_are_suggested_and_files_are_no_ensembles(
    made: Ensemble, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "bundled_ensembles"
    shutil.copytree(made.path, root / "mitochondria")
    _edit(root / "mitochondria/ensemble.json", members=["a", "b"])
    (root / "no-ensemble").mkdir()
    monkeypatch.setattr(lookup, "package_path", tmp_path.joinpath)
    assert bundled_ensembles() == ("mitochondria",)
    assert open_ensemble("mitochondria").path == root / "mitochondria"
    with pytest.raises(ModelError, match=r"ensembles: mitochondria\. Did you mean 'mitochondria'"):
        open_ensemble("mitochondira")
    with pytest.raises(ModelError, match=r"'no-ensemble': .* found neither"):
        open_ensemble("no-ensemble")
    with pytest.raises(ModelError, match="found a file"):
        open_ensemble(str(made.path / "ensemble.json"))
    with pytest.raises(ModelError, match=r"with ensemble\.json, found none"):
        open_ensemble(str(made.members[0].path))


def test_writing_refuses_what_does_not_go_together(made: Ensemble, tmp_path: Path) -> None:
    other = _write_unet(tmp_path / "parts/d", replace(SMALL, n_classes=3))
    names = ("background", "object")
    with pytest.raises(ModelError, match="expected 2 classes"):
        write_ensemble(tmp_path / "f", names, 1, [made.members[0].path, other], "")
    assert not (tmp_path / "f").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]
    for write in (
        lambda: write_ensemble(made.path, names, 1, [other], ""),
        lambda: _write_unet(other),
        lambda: write_stardist_member(other, "nuclei-fluo"),
    ):
        with pytest.raises(ModelError, match="no such folder yet"):
            write()


def test_reading_imports_no_torch(made: Ensemble) -> None:
    code = (
        "import sys; from engine.networks.ensemble import open_ensemble; "
        f"open_ensemble({str(made.path)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        replace(SMALL, norm="group", n_channel_in=3, n_classes=5),
        replace(SMALL, widths=(4,), convs=1),
        replace(SMALL, widths=(3, 5), convs=3),
    ],
)
def test_logits_have_the_size_of_the_image(config: UNetConfig) -> None:
    image = torch.rand(2, config.n_channel_in, 24, 8)
    assert _network(config)(image).shape == (2, config.n_classes, 24, 8)


@pytest.mark.parametrize("shape", [(1, 1, 10, 12), (1, 2, 12, 12), (1, 12, 12)])
def test_an_input_that_does_not_fit_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        UNet(SMALL)(torch.zeros(shape))


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_folding_changes_nothing(norm: str) -> None:
    network = _network(replace(SMALL, norm=norm))
    fused = network.fuse()
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in fused.modules())
    image = torch.rand(1, 1, 16, 24)
    torch.testing.assert_close(fused(image), network(image), rtol=1e-4, atol=1e-4)


def test_the_skips_keep_full_resolution() -> None:
    """What only the finest level can tell, a single pixel's place, reaches the logits."""
    network = _network(SMALL)
    image = torch.zeros(1, 1, 16, 16)
    image[0, 0, 5, 6] = 1
    moved = torch.roll(image, (4, 4), dims=(2, 3))
    zero = network(torch.zeros_like(image))
    a, b = (network(x) - zero for x in (image, moved))
    # Equal shifts by the divisor give equal answers: nothing depends on the place but the border.
    torch.testing.assert_close(a[..., 5, 6], b[..., 9, 10], rtol=0.3, atol=0.1)
    assert a.abs().amax(dim=(0, 1))[5, 6] > 5 * a.abs().amax(dim=(0, 1))[15, 0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_tile_answers_alike_in_any_launch(made: Ensemble, precision: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.random((1, 48, 64), dtype=np.float32)
    tiles = _tiles((48, 64), 16)
    for member in made.members:
        found = []
        for most in (5, 1):
            launch = Launch("cpu", precision, most)
            opened = open_member(member, launch)
            sizes, parts = [], []
            for places, logits in opened.launches(image, (0, 0), tiles):
                assert logits.shape == (len(places), 2, 16, 16)
                assert logits.dtype == torch.float32
                sizes.append(len(places))
                parts.append(logits)
            assert sizes == ([4, 4, 4] if most == 5 else [1] * 12)
            found.append(torch.cat(parts))
        assert torch.equal(found[0], found[1])


def test_bfloat16_is_near_float32(made: Ensemble) -> None:
    batch = np.random.default_rng(0).random((2, 1, 16, 16), dtype=np.float32)
    for member in made.members:
        a, b = (open_member(member, Launch("cpu", p, 2)).predict(batch)
                for p in ("float32", "bfloat16"))  # fmt: skip
        assert not torch.equal(a, b)
        torch.testing.assert_close(a, b, atol=0.1, rtol=0.05)


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (4, 1)])
def test_stardist_answers_with_its_probability(tmp_path: Path, grid: tuple[int, int]) -> None:
    _write_model(tmp_path / "star", grid)
    write_stardist_member(tmp_path / "parts/c", str(tmp_path / "star"))
    made = write_ensemble(tmp_path / "e", ("b", "o"), 1, [tmp_path / "parts/c"], "")
    batch = np.random.default_rng(0).random((2, 1, 16, 16), dtype=np.float32)
    logits = open_member(made.members[0], CPU).predict(batch)
    assert logits.shape == (2, 2, 16, 16)
    assert not logits[:, 0].any()
    network = made.members[0].network
    assert not isinstance(network, UNetConfig)
    prob, _ = open_network(network, CPU).predict(batch)
    soft = torch.softmax(logits, dim=1)[:, 1]
    torch.testing.assert_close(soft[:, :: grid[0], :: grid[1]], prob)
    # In between: the mean of its neighbours' logits; after the last: that one.
    if grid == (2, 2):
        middle = (logits[:, 1, :-2:2] + logits[:, 1, 2::2]) / 2
        torch.testing.assert_close(logits[:, 1, 1:-2:2], middle)
        assert torch.equal(logits[:, 1, -1], logits[:, 1, -2])


def test_members_take_turns(made: Ensemble) -> None:
    launching._HELD.clear()
    batch = np.zeros((1, 1, 16, 16), np.float32)
    star = made.members[2]
    assert not isinstance(star.network, UNetConfig)
    for member in made.members:
        opened = open_member(member, CPU)
        assert opened._module is open_member(member, CPU)._module
        before = opened.predict(batch)
        assert len(launching._HELD) == 1
        release_member(member)
        release_member(member)
        assert not launching._HELD
        again = open_member(member, CPU)
        assert again._module is not opened._module
        assert torch.equal(again.predict(batch), before)
        release_member(member)
    # The detector and the member share one network.
    assert open_network(star.network, CPU)._module is open_member(star, CPU)._module


def test_a_process_holds_so_many_networks(made: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    launching._HELD.clear()
    monkeypatch.setattr(launching, "MOST_HELD", 2)
    for member in made.members:
        open_member(member, CPU)
    assert len(launching._HELD) == 2
    assert made.members[0] not in {key[0] for key in launching._HELD}
