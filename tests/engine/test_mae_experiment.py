"""The experiment with repair measures what it says, by the engine, and goes on where it was."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from semantics import make_ensemble, make_mae

from engine.device import Launch
from engine.errors import ModelError
from engine.methods.patches import cut_patches, join_patches
from engine.networks.ensemble import open_ensemble
from engine.networks.mae_folder import MaeConfig, open_mae
from engine.phantom import CLASSES, SEEN, Scene, make_scene

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(BENCHMARKS / "experiments")
    return importlib.import_module


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {
        "ensemble": make_ensemble(place / "ensemble", CLASSES, 2),
        "mae": make_mae(place / "mae", CLASSES),
    }


def test_intervals_are_of_scenes(scripts: Any) -> None:
    measures = scripts("mae_measures")
    same = np.array([[1, 2]] * 5)
    assert measures.interval(same, measures.ratio) == [0.5, 0.5, 0.5]
    value, low, high = measures.interval(np.array([[0, 2], [2, 2]] * 4), measures.ratio)
    assert low < value == 0.5 < high
    assert measures.interval(same[:1], measures.ratio) == [0.5, None, None]
    assert measures.interval(np.zeros((3, 2)), measures.ratio) == [None, None, None]


def test_harm_counts_groups_and_patches(scripts: Any) -> None:
    measures = scripts("mae_measures")
    entropy = np.zeros((16, 22), np.uint8)
    entropy[:4, :8] = 200  # two patches that touch
    entropy[8:12, 12:16] = 200
    entropy[12:16, 20:22] = 200  # cut by the edge
    areas = measures.uncertain(entropy, 0.4)
    np.testing.assert_array_equal(areas.where, entropy > 0)
    true = np.zeros((16, 22), np.uint8)
    before, after = true.copy(), true.copy()
    before[0, :3] = 1  # three pixels won in the first patch, one lost in the second
    after[0, 5] = 1
    after[9, 13:15] = 1  # two lost
    found = measures.harm([areas], [(before, after, true)])
    assert found["groups"] == [3]
    assert found["groups_helped"][0] == found["groups_harmed"][0] == pytest.approx(1 / 3, abs=1e-4)
    assert found["patches"] == [4]
    assert found["patches_harmed"][0] == 0.5
    assert found["patches_helped"][0] == 0.25
    assert found["right_pixels_gained_of_uncertain"][0] == 0
    assert found["changed_of_uncertain"][0] == pytest.approx(6 / 56, abs=1e-4)


def test_neighbours_do_not_see_what_is_doubtful(scripts: Any) -> None:
    measures = scripts("mae_measures")
    true = np.repeat(np.array([[1, 2]], np.uint8), 12, axis=1).repeat(24, axis=0)
    doubtful = np.zeros(true.shape, bool)
    doubtful[8:12, 2:6] = doubtful[8:12, 18:22] = True
    seen = np.where(doubtful, 3, true).astype(np.uint8)
    np.testing.assert_array_equal(measures.fill_by_neighbours(seen, doubtful, 4), true)
    everywhere = np.ones(true.shape, bool)
    np.testing.assert_array_equal(measures.fill_by_neighbours(seen, everywhere, 4), seen)


def test_each_mitochondrion_is_spoiled_in_one_place(scripts: Any) -> None:
    work = scripts("mae_phantom").Work.draw(1, 1, 192)
    assert work.stack.shape == (4, 192, 192)
    normal, plain, noisy, validation = work.stack
    for name, image in (("plain", plain), ("noisy", noisy)):
        (spoiled,) = work.spoiled[name]
        assert 1 <= len(spoiled.regions) <= work.test[0].instances.max()
        together = np.sum(spoiled.regions, axis=0)
        assert together.max() == 1
        assert (image != normal).any()
        assert not (image != normal)[together == 0].any()
        for region, owner in zip(spoiled.regions, spoiled.owners, strict=True):
            assert (work.test[0].instances[region] == owner).any()
    np.testing.assert_array_equal(work.stack[work.planes("validation")[0]], validation)
    np.testing.assert_array_equal(work.stack[work.planes("noisy")[0]], noisy)


def test_places_that_would_overlap_are_left_out(scripts: Any) -> None:
    phantom = scripts("mae_phantom")
    instances = np.zeros((64, 160), np.int32)
    for label, x in enumerate((30, 40, 120), start=1):
        instances[28:36, x : x + 6] = label
    image = np.where(instances > 0, 900, 100).astype(np.uint16)
    scene = Scene(image, (instances > 0).astype(np.uint8), instances, instances < 0)
    spoiled = phantom.spoil(scene, phantom.VARIANTS["plain"], 0)
    assert spoiled.owners == (1, 3)
    assert len(spoiled.regions) == 2


def test_a_share_of_the_near_patches_is_masked(scripts: Any, models: dict[str, Path]) -> None:
    reconstruction = scripts("mae_reconstruction")
    config = open_mae(str(models["mae"])).config
    true = np.zeros((128, 300), np.uint8)
    true[:, :64] = 1
    windows, scenes = reconstruction.cut_windows([true, true], config)
    assert len(windows) == 2  # the second of each has no foreground
    assert scenes.tolist() == [0, 1]
    masked = reconstruction.mask_windows(windows, config, 0.25)
    near = 32 * (16 + 4)
    assert masked.sum(axis=(1, 2)).tolist() == [near // 4] * 2
    assert not masked[:, :, 20:].any()
    assert (masked[0] != masked[1]).any()


def test_the_convolutional_autoencoder_sees_trusted_pixels_alone(
    scripts: Any, tmp_path: Path
) -> None:
    module = scripts("mae_autoencoder")
    opened = module.open_autoencoder(_save_autoencoder(scripts, tmp_path), CLASSES, "cpu")
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (70, 90)).astype(np.uint8)
    doubtful = np.zeros(classes.shape, bool)
    doubtful[20:40, 30:50] = doubtful[66:, 86:] = True  # the last is cut by the edge
    filled = opened.fill(classes, doubtful)
    assert (filled == classes)[~doubtful].all()
    assert (filled != classes)[20:40, 30:50].any()
    other = np.where(doubtful, (classes + 1) % 4, classes).astype(np.uint8)
    np.testing.assert_array_equal(opened.fill(other, doubtful), filled)
    around = classes.copy()
    around[40:60, 30:50] = 3
    assert (opened.fill(around, doubtful) != filled)[20:40, 30:50].any()


def test_the_convolutional_autoencoder_answers_for_its_classes_alone(
    scripts: Any, tmp_path: Path
) -> None:
    module, file = scripts("mae_autoencoder"), _save_autoencoder(scripts, tmp_path)
    with pytest.raises(ModelError, match="expected the classes background,object, found backgro"):
        module.open_autoencoder(file, ("background", "object"), "cpu")
    file.write_bytes(b"none")
    with pytest.raises(ModelError, match="expected readable safetensors"):
        module.open_autoencoder(file, CLASSES, "cpu")


def test_patches_of_the_convolutional_autoencoder_lie_where_they_belong(scripts: Any) -> None:
    torch.manual_seed(0)
    network = scripts("mae_autoencoder").OfPatches(MaeConfig(CLASSES, window=32)).eval()
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 4, (2, 32, 32)).astype(np.uint8)
    patches = torch.from_numpy(cut_patches(classes, 4))
    visible = torch.from_numpy(rng.random((2, 64)) < 0.5)
    wanted = visible | torch.from_numpy(rng.random((2, 64)) < 0.5)
    with torch.no_grad():
        found = network(patches, visible, wanted, (64, 64))
        masked = (wanted & ~visible)[..., None].expand(patches.shape).numpy()
        whole = network.network(
            torch.from_numpy(classes), torch.from_numpy(join_patches(masked, 32, 4))
        )
    for k in range(4):
        np.testing.assert_array_equal(
            join_patches(found.logits[..., k].numpy(), 32, 4), whole[:, k].numpy()
        )
    assert torch.equal(found.valid, wanted)


def test_training_of_the_convolutional_autoencoder_goes_on_where_it_was(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = scripts("mae_autoencoder_training")
    for k, name in enumerate(("train", "val")):
        (tmp_path / name).mkdir()
        scene = make_scene(replace(SEEN, size=192), 3, k)
        tifffile.imwrite(tmp_path / name / "scene.tif", scene.classes)

    def run(out: Path) -> None:
        training.main([
            f"--labels={tmp_path / 'train'}", f"--val-labels={tmp_path / 'val'}", f"--out={out}",
            "--epochs=2", "--steps=2", "--batch=2", "--precision=float32",
        ])  # fmt: skip

    straight, stopped = tmp_path / "straight.safetensors", tmp_path / "stopped.safetensors"
    run(straight)
    follow = training.follow

    def stop(fitting: Any, options: Any, origin: Any, _tell: Callable[..., None]) -> None:
        def interrupt(_loss: float, _scores: Any) -> None:
            raise KeyboardInterrupt

        follow(fitting, options, origin, interrupt)

    with monkeypatch.context() as patched:
        patched.setattr(training, "follow", stop)
        with pytest.raises(KeyboardInterrupt):
            run(stopped)
    assert not stopped.exists()
    run(stopped)
    assert stopped.read_bytes() == straight.read_bytes()
    assert scripts("mae_autoencoder").open_autoencoder(stopped, CLASSES, "cpu").network
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {straight.name, stopped.name, "train", "val"}


def test_maps_are_those_of_the_engine_and_kept(
    scripts: Any, models: dict[str, Path], cluster_address: str, tmp_path: Path,
    nuclei: np.ndarray,
) -> None:  # fmt: skip
    maps_of = scripts("mae_maps")
    opened = open_ensemble(str(models["ensemble"])), open_mae(str(models["mae"]))
    launch = Launch("cpu", "float32", 4)
    networks = maps_of.Networks(*opened, launch, tmp_path, cluster_address)
    stack = np.stack([nuclei[:130, :140], nuclei[100:230, 100:240]])
    maps = networks.segment(stack)
    # The run repairs at the threshold of the source; the stage alone does the same.
    repaired, _ = networks.repair(maps, range(2), maps_of.THRESHOLD)
    np.testing.assert_array_equal(repaired, maps.repaired)
    assert (repaired != maps.initial).any()
    # Weighed so heavily, the prior decides alone; with the ensemble's word it decides otherwise.
    alone, joined = (networks.repair(maps, range(2), maps_of.THRESHOLD, w)[0] for w in (1e9, 0.25))
    np.testing.assert_array_equal(alone, repaired)
    assert (joined != repaired).any()
    assert (joined != maps.initial).any()
    mean = maps.mean(1)
    chosen = np.take_along_axis(mean, maps.initial[1][None].astype(int), axis=0)[0]
    np.testing.assert_array_equal(chosen, mean.max(axis=0))
    assert abs(mean.sum(axis=0) - 1).max() < 0.02  # rounded to 1 / 255
    files = sorted(tmp_path.iterdir())
    nobody = maps_of.Networks(*opened, launch, tmp_path, "tcp://127.0.0.1:1")
    again = nobody.segment(stack)
    np.testing.assert_array_equal(again.entropy, maps.entropy)
    assert sorted(tmp_path.iterdir()) == files


def test_the_whole_experiment_on_the_smallest_scenes(
    scripts: Any, models: dict[str, Path], cluster_address: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(scripts("mae_measures"), "RESAMPLES", 20)
    rng = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "raw.tif", rng.integers(0, 255, (12, 128, 128), np.uint8))
    tifffile.imwrite(tmp_path / "classes.tif", rng.integers(0, 4, (12, 128, 128), np.uint8))
    _script(scripts).main([
        f"--ensemble={models['ensemble']}", f"--mae={models['mae']}", "--scenes=2",
        f"--em-ensemble={models['ensemble']}", f"--em-mae={models['mae']}", f"--data={tmp_path}",
        "--validation=1", "--size=192", "--slices=1", f"--cluster={cluster_address}",
        "--device=cpu", f"--cache={tmp_path / 'cache'}", f"--out={tmp_path / 'found.json'}",
        f"--autoencoder={_save_autoencoder(scripts, tmp_path)}",
    ])  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    scores = found["phantom"]["scores"]
    assert scores.keys() == {"normal", "plain", "noisy"}
    control = scores["normal"]["table_2"]["control"]
    assert control["background_ratio"][0] == 0
    assert control["objects"] == [found["phantom"]["entropy_rise"]["soft"]["plain"]["mitochondria"]]
    # All fill the same patches; of electron micrographs the autoencoder knows no class.
    mae, other = (scores["plain"][f"inside, {title}"] for title in ("mae", "cnn-ae"))
    assert other["before"] == mae["before"]
    assert other["after"] != mae["after"]
    assert scores["plain"]["table_2"]["cnn-ae"] != scores["plain"]["table_2"]["initial"]
    assert found["phantom"]["table_1"]["cnn-ae"].keys() == found["asked"]["table_1"].keys()
    assert "cnn-ae" not in found["em"]["table_1"]
    assert "inside, cnn-ae" not in found["em"]["scores"]
    assert found["em"]["test_slices"] == [11]
    assert all(k < 11 for k in found["em"]["validation_slices"])
    assert found["targets_met"]["table_1"]["0.1"] is False  # random weights
    assert "phantom, noisy" in found["targets_met"]


def test_the_benchmark_of_repair_runs_what_it_says(
    scripts: Any, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, case_of = scripts("inpaint"), scripts("inpaint_case")
    monkeypatch.setattr(case_of, "SCENES", 1)
    options = bench.arguments([
        f"--mae={models['mae']}", f"--ensemble={models['ensemble']}", "--side=512", "--image=128",
        "--sample=3", "--launch=2", "--precision=float32",
    ])  # fmt: skip
    case = case_of.Case(options)
    patches = {
        kind: case.entropy(kind)[::4, ::4] > 0 for kind in ("nothing", "aligned", "anywhere", "all")
    }
    assert not patches["nothing"].any()
    for kind in ("aligned", "anywhere"):
        assert 0.05 <= patches[kind].mean() < 0.055
    assert patches["aligned"].reshape(16, 8, 16, 8).any(axis=(1, 3)).mean() < 0.055
    notes = {kind: case.inpaint(case.given(kind)) for kind in patches}
    assert notes["all"]["windows_run"] == notes["all"]["windows"] == 7**2
    assert notes["nothing"]["windows_run"] == 0
    assert 0 < notes["aligned"]["windows_run"] < 7**2
    labels, masked = case.windows(case.given("all"))
    assert labels.shape == (3, 128, 128)
    assert masked[:, 8:24, 8:24].any(axis=(1, 2)).all()
    ladder = bench.time_ladder(case)
    assert ladder.pop("pixels that differ alone") == 0
    assert ladder.keys() == {"batched", "one, ladder", "one, whole"}
    assert bench.time_ensemble(case).keys() == {"bare", "ensemble"}
    rows = {"aligned": 1.0, "all": 4.0, "anywhere": 2.0, "batched": 1.0, "one, ladder": 2.0,
            "one, whole": 6.0, "bare": 9.0, "ensemble": 10.0}  # fmt: skip
    memory = {"memory of inpaint": {"bytes": 1, "projected": 2}}
    found = bench.ratios(rows, memory)
    assert found["aligned / all"] == 0.25
    assert found["one, whole / batched"] == 6
    assert found["bare / ensemble"] == 0.9
    assert found["memory of inpaint"] == 0.5


def _save_autoencoder(scripts: Any, place: Path) -> Path:
    """A convolutional autoencoder whose answers vary."""
    module = scripts("mae_autoencoder")
    torch.manual_seed(0)
    network = module.ConvolutionalAutoencoder(len(CLASSES))
    for part in network.modules():
        if isinstance(part, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(part.weight)
    torch.nn.init.zeros_(network.decoder[-1].bias)
    module.save_autoencoder(network, CLASSES, place / "autoencoder.safetensors")
    return place / "autoencoder.safetensors"


def _script(scripts: Any) -> Any:
    """The script that shares its name with a module of the engine's."""
    spec = importlib.util.spec_from_file_location("mae", BENCHMARKS / "experiments" / "mae.py")
    assert spec is not None
    assert spec.loader is not None
    scripts("mae_maps")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
