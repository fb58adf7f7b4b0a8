"""Class maps, entropy, repairs and objects are those of the image, whatever the cut."""

import gc
import json
import shutil
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from journeys import Runner, read, save_image
from scipy import ndimage
from semantics import make_ensemble, make_mae

from engine.device import Launch
from engine.errors import RefusedError
from engine.evaluation import evaluate_classes
from engine.methods.entropy import uncertain_patches
from engine.networks.ensemble import Member
from engine.networks.ensemble_runtime import OpenMember, open_member
from engine.recipe import TilingSettings
from engine.stages.base import Made
from engine.stages.semantic import Entropy
from engine.store import ImageReader, Location, image_groups
from tiling import Box

CLASSES = ("background", "membrane", "inside")
MAPS = ("labels/classes/0", "labels/classes_initial/0", "maps/entropy/0", "labels/cells/0")

RECIPE = """
method: semantic
tiling: {{tile: 64, overlap: 24, margin: 8}}
classes:
  ensemble: {ensemble}
  precision: float32
  keep: [inside]
  repair: {{model: {mae}, threshold: 0.6}}
  objects: {{name: cells, classes: [inside], connectivity: 4, min_area: 4}}
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("networks")
    return {
        "ensemble": make_ensemble(place / "ensemble", CLASSES, 3),
        "mae": make_mae(place / "mae", CLASSES),
    }


@pytest.fixture(scope="module")
def recipe(networks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("recipe") / "cells.yaml"
    path.write_text(RECIPE.format(**networks))
    return str(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray) -> Path:
    # Two planes, and sides that are multiples of nothing.
    pixels = np.stack([nuclei[:250, :391], nuclei[200:450, 100:491]])
    return save_image(tmp_path_factory.mktemp("image") / "image.zarr", pixels, "zyx")


def run(run_recipe: Runner, image: Path, out: Path, recipe: str, *more: str, **kwargs: Any) -> None:
    settings = ("storage.chunk=32", "storage.shard=64", *more)
    assert run_recipe(image, out, *settings, recipe=recipe, **kwargs).complete


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, image: Path, run_recipe: Runner, recipe: str
) -> Path:
    out = tmp_path_factory.mktemp("whole") / "whole.ome.zarr"
    run(run_recipe, image, out, recipe, "resources.region=448")
    return out


def test_no_cut_changes_a_pixel_or_a_row(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path
) -> None:
    out = tmp_path / "cut.ome.zarr"
    run(run_recipe, image, out, recipe, "resources.region=64", "resources.launch=3")
    for name in (*MAPS, "maps/probability/inside/0", "labels/classes/1"):
        np.testing.assert_array_equal(read(whole, name), read(out, name), err_msg=name)
    cells = [pq.read_table(o / "tables/cells.parquet").sort_by("id") for o in (whole, out)]
    assert cells[0].equals(cells[1])
    keys = [("z", "ascending"), ("y0", "ascending"), ("x0", "ascending")]
    repairs = [pq.read_table(o / "tables/repairs.parquet").sort_by(keys) for o in (whole, out)]
    assert repairs[0].equals(repairs[1])
    assert len(repairs[0]) > 10
    assert sum(repairs[0]["changed"].to_pylist()) > 100


def test_both_sides_of_a_seam_say_what_they_saw(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def seams(out: Path, region: int) -> dict[str, int]:
        run(run_recipe, image, out, recipe, f"resources.region={region}")
        found: dict[str, int] = json.loads((out / ".tilewright" / "report.json").read_text())
        return dict(found["class_seams"])

    report = json.loads((whole / ".tilewright" / "report.json").read_text())
    assert report["class_seams"] == {"pixels": 0, "differing": 0}
    assert set(report["stage_seconds"]) == {"normalise", "ensemble", "entropy", "inpaint"}
    spent, passes = report["stage_seconds"], report["task_seconds"]
    assert 0 < spent["inpaint"] <= passes["repair"]
    assert 0 < sum(spent.values()) - spent["inpaint"] <= passes["regions"]
    # Two lines down and two across, of two planes, before repair and after; corners count twice.
    lines = 2 * 2 * (391 + 2 * 250) + 2 * 2 * 2
    assert seams(tmp_path / "sound.ome.zarr", 192) == {"pixels": lines, "differing": 0}

    honest = Entropy.run

    def otherwise(stage: Entropy, given: Any, wanted: Any, place: Any) -> Made:
        made = honest(stage, given, wanted, place)
        if given["class_probability"].box.start == (0, 192):
            data = made.products["classes_initial"].data
            data[...] = (data + 1) % 3
        return made

    monkeypatch.setattr(Entropy, "run", otherwise)
    broken = seams(tmp_path / "broken.ome.zarr", 192)
    assert broken["pixels"] == lines
    assert 50 < broken["differing"] < lines


def test_only_uncertain_patches_change(whole: Path) -> None:
    before, after = read(whole, MAPS[1]), read(whole, MAPS[0])
    entropy = read(whole, MAPS[2])
    padded = np.pad(entropy, [(0, 0), (0, -250 % 4), (0, -391 % 4)], mode="symmetric")
    doubt = uncertain_patches(padded, 0.6).repeat(4, axis=1).repeat(4, axis=2)[:, :250, :391]
    changed = before != after
    assert 0 < changed.sum() < doubt.sum() < 0.8 * doubt.size
    assert not changed[~doubt].any()
    repairs = pq.read_table(whole / "tables/repairs.parquet").to_pandas()
    assert repairs.changed.sum() == changed.sum()
    counts = [repairs[f"after_{name}"].sum() for name in CLASSES]
    assert counts == [((after == k) & doubt).sum() for k in range(3)]


def test_objects_are_the_components_of_the_final_map(whole: Path) -> None:
    classes, labels = read(whole, MAPS[0]), read(whole, MAPS[3])
    table = pq.read_table(whole / "tables/cells.parquet").to_pandas().set_index("id")
    ids = np.unique(labels)
    assert (ids == np.arange(len(ids))).all()
    assert list(table.index) == ids[1:].tolist()
    total = 0
    for z in range(2):
        found, count = ndimage.label(classes[z] == 2)
        sizes = np.bincount(found.ravel(), minlength=count + 1)
        kept = np.flatnonzero(sizes >= 4)[1:] if sizes[0] >= 4 else np.flatnonzero(sizes >= 4)
        total += len(kept)
        np.testing.assert_array_equal(labels[z] > 0, np.isin(found, kept) & (found > 0))
        for k in kept[:40]:
            (one,) = np.unique(labels[z][found == k])
            row = table.loc[one]
            assert row["z"] == z
            assert row["area"] == sizes[k] == row["pixels_inside"]
            y, x = np.nonzero(found == k)
            assert row["y"] == pytest.approx(y.mean())
            assert (row["x0"], row["x1"]) == (x.min(), x.max() + 1)
    assert total == len(table) > 20


def test_objects_are_joined_over_blocks_of_cells(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path
) -> None:
    out = tmp_path / "fine.ome.zarr"
    # 8 x 13 cells and so 1 x 2 blocks, which one more joins.
    settings = ("storage.chunk=32", "storage.shard=32", "resources.region=64")
    assert run_recipe(image, out, *settings, recipe=recipe).complete
    report = json.loads((out / ".tilewright" / "report.json").read_text())
    assert (report["regions"]["join-1"], report["regions"]["join-2"]) == (4, 2)
    np.testing.assert_array_equal(read(out, MAPS[3]), read(whole, MAPS[3]))
    tables = [pq.read_table(o / "tables/cells.parquet").sort_by("id") for o in (out, whole)]
    assert tables[0].equals(tables[1])
    found = tables[0].to_pandas()
    assert ((found.x0 < 256) & (found.x1 > 256)).any()
    crossing = (found.x0 // 32 != (found.x1 - 1) // 32) | (found.y0 // 32 != (found.y1 - 1) // 32)
    assert report["components"] == {"objects": len(found), "crossing": crossing.sum()}


def test_scores_are_of_both_maps_and_of_what_changed(whole: Path, tmp_path: Path) -> None:
    before, after = read(whole, MAPS[1]), read(whole, MAPS[0])
    truth = after.copy()
    truth[:, :40] = 1
    tifffile.imwrite(tmp_path / "truth.tif", truth, metadata={"axes": "ZYX"})
    scores = evaluate_classes(str(whole), str(tmp_path / "truth.tif"))
    assert scores.names == CLASSES
    assert scores.before is not None
    assert scores.changed_after is not None
    assert scores.changed_before is not None
    assert scores.after.micro == pytest.approx((after == truth).mean())
    assert scores.before.micro == pytest.approx((before == truth).mean())
    changed = before != after
    assert sum(scores.changed_after.true) == changed.sum()
    assert scores.changed_after.micro == pytest.approx((after == truth)[changed].mean())
    assert (scores.changed_after.micro or 0) > (scores.changed_before.micro or 0)
    assert scores.errors is not None
    assert scores.errors.base_rate == pytest.approx((before != truth).mean())
    tifffile.imwrite(tmp_path / "more.tif", truth + 2, metadata={"axes": "ZYX"})
    with pytest.raises(RefusedError, match="classes 0 to 2: background, membrane, inside"):
        evaluate_classes(str(whole), str(tmp_path / "more.tif"))


def test_another_threshold_keeps_the_ensemble_and_publishes_its_table(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe, "classes.repair.threshold=0.9")
    few = pq.read_table(out / "tables/repairs.parquet")
    with pytest.raises(RefusedError, match=r"classes\.repair\.threshold: 0\.9 -> 0\.6.*repair"):
        run(run_recipe, image, out, recipe)
    outcome = run_recipe(
        image, out, "storage.chunk=32", "storage.shard=64", recipe=recipe, recompute="changed"
    )
    assert outcome.complete
    assert outcome.report["reasons"]["new"] > 0
    np.testing.assert_array_equal(read(whole, MAPS[1]), read(out, MAPS[1]))
    repairs = pq.read_table(out / "tables/repairs.parquet")
    assert len(few) < len(repairs) == len(pq.read_table(whole / "tables/repairs.parquet"))
    assert not (out / ".tilewright/tables").exists()


def test_nothing_uncertain_is_a_result(
    image: Path, tmp_path: Path, run_recipe: Runner, networks: dict[str, Path], recipe: str
) -> None:
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe, "classes.repair.threshold=0.999")
    np.testing.assert_array_equal(read(out, MAPS[0]), read(out, MAPS[1]))
    assert len(pq.read_table(out / "tables/repairs.parquet")) == 0


def test_where_nothing_can_be_trusted_nothing_is_changed(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str
) -> None:
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe, "classes.repair.threshold=0.001")
    np.testing.assert_array_equal(read(out, MAPS[0]), read(out, MAPS[1]))
    repairs = pq.read_table(out / "tables/repairs.parquet").to_pandas()
    assert repairs.left.any()
    assert repairs.changed.sum() == 0


def test_a_prior_that_weighs_little_leaves_what_the_ensemble_saw(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path
) -> None:
    keep = f"classes.keep=[{','.join(CLASSES)}]"
    out, cut = tmp_path / "out.ome.zarr", tmp_path / "cut.ome.zarr"
    run(run_recipe, image, out, recipe, keep, "classes.repair.prior_weight=0.0001")
    # But for ties of rounded probabilities.
    assert np.mean(read(out, MAPS[0]) != read(out, MAPS[1])) < 0.001
    settings = (keep, "classes.repair.prior_weight=0.3")
    run(run_recipe, image, out, recipe, *settings, recompute="changed")
    run(run_recipe, image, cut, recipe, *settings, "resources.region=64")
    shown = ImageReader(out / "labels/classes", 0)
    for z in range(2):
        joined = shown.read((z,), (0,), Box((0, 0), (250, 391)))[0]
        np.testing.assert_array_equal(joined, read(cut, MAPS[0])[z])
    differing = read(cut, MAPS[0]) != read(whole, MAPS[0])
    assert 0 < differing.sum() < (read(whole, MAPS[0]) != read(whole, MAPS[1])).sum()
    with pytest.raises(RefusedError, match=r"prior_weight.*classes\.keep of all classes"):
        run(run_recipe, image, cut, recipe, "classes.repair.prior_weight=0.3")


def test_what_another_recipe_does_not_make_is_removed(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str
) -> None:
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe)
    settings = ("classes.keep=[]", "classes.repair=null", "classes.objects=null")
    run(run_recipe, image, out, recipe, *settings, restart=True)
    assert image_groups(Location.parse(out)) == ["labels/classes", "maps/entropy"]
    assert not (out / "tables/repairs.parquet").exists()
    assert not (out / "tables/cells.parquet").exists()
    assert read(out, "labels/classes/e2/0").any()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("classes.keep=[outside]", r"classes\.keep.*background, membrane, inside.*outside"),
        ("classes.objects.classes=[x]", r"classes\.objects\.classes.*membrane"),
        ("classes.objects.name=classes", r"no other array"),
        ("classes.objects.name=probability-inside", r"no other array"),
        ("classes.objects.name=statistics", r"no other array"),
        ("classes.objects.classes=[inside,inside]", r"each class once"),
        ("input.channels=[0,0]", r"1 input channels"),
        ("tiling.tile=62", r"multiple of the phase"),
        ("classes.repair.treshold=1", r"Did you mean 'threshold'"),
        ("classes.ensemble=mitochondira", r"ensemble 'mitochondira'"),
    ],
)
def test_what_does_not_fit_is_refused(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, setting: str, words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        run(run_recipe, image, tmp_path / "out.ome.zarr", recipe, setting)


def test_a_tile_that_is_all_reflection_is_refused() -> None:
    with pytest.raises(RefusedError, match="at least 32"):
        TilingSettings(tile=16, overlap=0, margin=0).with_network(16, 1)


def test_an_autoencoder_of_other_classes_is_refused(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str
) -> None:
    other = make_mae(tmp_path / "mae", ("background", "inside", "membrane"))
    with pytest.raises(RefusedError, match="background, membrane, inside"):
        run(run_recipe, image, tmp_path / "o.ome.zarr", recipe, f"classes.repair.model={other}")


def test_an_ensemble_of_one_has_the_entropy_of_its_softmax(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str
) -> None:
    one = make_ensemble(tmp_path / "one", CLASSES, 1)
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe, f"classes.ensemble={one}")
    assert len(np.unique(read(out, MAPS[2]))) > 50
    with pytest.raises(RefusedError, match="ensemble of one"):
        run(
            run_recipe, image, tmp_path / "v.ome.zarr", recipe, f"classes.ensemble={one}",
            "classes.entropy=vote",
        )  # fmt: skip


def test_votes_have_few_values(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str
) -> None:
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe, "classes.entropy=vote")
    # 3-0, 2-1 and 1-1-1 of three members.
    assert set(np.unique(read(out, MAPS[2]))) == {0, 148, 255}


def test_members_in_turn_give_the_same_one_at_a_time(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    most = [0]

    def opened(member: Member, launch: Launch) -> OpenMember:
        gc.collect()
        most[0] = max(most[0], len(alive) + 1)
        network = open_member(member, launch)
        alive.add(network._module)
        return network

    monkeypatch.setattr("engine.networks.ensemble_runtime.open_member", opened)
    monkeypatch.setattr("engine.planning.cost._fits", lambda job, _: job.in_turn)
    out = tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe, "resources.threads=1", "resources.region=448")
    np.testing.assert_array_equal(read(whole, MAPS[2]), read(out, MAPS[2]))
    assert most == [1]


def test_members_take_turns_where_the_device_has_no_memory_for_all(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    alive: weakref.WeakSet[object] = weakref.WeakSet()
    refused: list[int] = []

    def opened(member: Member, launch: Launch) -> OpenMember:
        gc.collect()
        if len(alive) > 1:
            refused.append(launch.tiles)
            msg = "CUDA out of memory. Tried to allocate 2.00 GiB"
            raise torch.OutOfMemoryError(msg)
        network = open_member(member, launch)
        alive.add(network._module)
        return network

    monkeypatch.setattr("engine.networks.ensemble_runtime.open_member", opened)
    out = tmp_path / "out.ome.zarr"
    settings = ("resources.threads=1", "resources.region=448", "resources.launch=2")
    run(run_recipe, image, out, recipe, *settings)
    np.testing.assert_array_equal(read(whole, MAPS[2]), read(out, MAPS[2]))
    # As planned, once more alone, then one tile; of two planes.
    assert refused == [2, 2, 1] * 2
    report = json.loads((out / ".tilewright" / "report.json").read_text())
    assert len(report["smaller_launches"]) == 2
    assert all(one.endswith(": 1 tiles, members in turn") for one in report["smaller_launches"])


@pytest.mark.parametrize("setting", ["min_area=40", "connectivity=8"])
def test_other_objects_of_the_same_map_are_those_of_a_fresh_run(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path, setting: str
) -> None:
    out, fresh = tmp_path / "out.ome.zarr", tmp_path / "fresh.ome.zarr"
    shutil.copytree(whole, out)
    changed = f"classes.objects.{setting}"
    run(run_recipe, image, out, recipe, changed, recompute="changed")
    run(run_recipe, image, fresh, recipe, changed)
    shown = ImageReader(out / "labels/cells", 0)
    for z in range(2):
        labels = shown.read((z,), (0,), Box((0, 0), (250, 391)))[0]
        np.testing.assert_array_equal(labels, read(fresh, MAPS[3])[z])
    tables = [pq.read_table(o / "tables/cells.parquet").sort_by("id") for o in (out, fresh)]
    assert tables[0].equals(tables[1])


def test_a_part_does_not_depend_on_what_stood_around_it(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path
) -> None:
    out, fresh = tmp_path / "out.ome.zarr", tmp_path / "fresh.ome.zarr"
    shutil.copytree(whole, out)
    part = Box((0, 64), (128, 256))
    run(run_recipe, image, out, recipe, within=part, recompute="changed")
    run(run_recipe, image, fresh, recipe, within=part)
    for name in ("classes", "cells"):
        found = [
            ImageReader(o / "labels" / name, 0).read((1,), (0,), part)[0] for o in (out, fresh)
        ]
        np.testing.assert_array_equal(*found, err_msg=name)
        assert found[0].any(), name
    for name in ("cells", "repairs"):
        tables = [pq.read_table(o / f"tables/{name}.parquet") for o in (out, fresh)]
        keys = [(key, "ascending") for key in ("z", "y0", "x0")]
        assert tables[0].sort_by(keys).equals(tables[1].sort_by(keys))


def test_what_somebody_else_put_into_a_result_stays(
    image: Path, tmp_path: Path, run_recipe: Runner, recipe: str, whole: Path
) -> None:
    out = tmp_path / "out.ome.zarr"
    shutil.copytree(whole, out)
    shutil.copytree(out / "labels/cells", out / "labels/mine")
    shutil.copytree(out / "maps/entropy", out / "maps/probability/mine")
    run(run_recipe, image, out, recipe)
    run(run_recipe, image, out, recipe, restart=True)
    for place in ("labels/mine", "maps/probability/mine"):
        assert (out / place / "0/zarr.json").is_file()


def test_an_image_smaller_than_a_window(
    tmp_path: Path, run_recipe: Runner, recipe: str, nuclei: np.ndarray
) -> None:
    image, out = save_image(tmp_path / "image.zarr", nuclei[:50, :37]), tmp_path / "out.ome.zarr"
    run(run_recipe, image, out, recipe)
    assert read(out, MAPS[0]).shape == (50, 37)
    cut = tmp_path / "cut.ome.zarr"
    settings = ("storage.chunk=32", "storage.shard=32", "resources.region=32")
    assert run_recipe(image, cut, *settings, recipe=recipe).complete
    for name in MAPS:
        np.testing.assert_array_equal(read(out, name), read(cut, name))


STARS = """
method: stardist
tiling: {{tile: 224, overlap: 56, margin: 20}}
segment: {{model: {model}, precision: bfloat16}}
classes:
  ensemble: {ensemble}
  entropy: vote
  keep: [background, object]
  repair: {{model: {mae}, threshold: 0.5, prior_weight: 0.5}}
  objects: {{name: parts, min_area: 9}}
"""


def test_stars_and_classes_of_one_read_do_not_depend_on_the_cut(
    tmp_path: Path, run_recipe: Runner, nuclei: np.ndarray, model: str
) -> None:
    names = ("background", "object")
    networks = {
        "ensemble": make_ensemble(tmp_path / "ensemble", names, 2, stardist=model),
        "mae": make_mae(tmp_path / "mae", names),
        "model": model,
    }
    recipe = tmp_path / "both.yaml"
    recipe.write_text(STARS.format(**networks))
    image = save_image(tmp_path / "image.zarr", nuclei[:311, :391])
    outs = [tmp_path / f"{region}.ome.zarr" for region in (448, 128)]
    for out, region in zip(outs, (448, 128), strict=True):
        settings = ("storage.chunk=64", "storage.shard=64", f"resources.region={region}")
        assert run_recipe(image, out, *settings, recipe=str(recipe)).complete
    groups = image_groups(Location.parse(outs[0]))
    assert len(groups) > 6
    for group in groups:
        first, second = (read(out, f"{group}/0" if group else "0") for out in outs)
        assert first.any()
        np.testing.assert_array_equal(first, second, err_msg=group)
    for name in ("nuclei", "parts", "repairs"):
        tables = [pq.read_table(o / f"tables/{name}.parquet") for o in outs]
        keys = ["y0", "x0"] if name == "repairs" else ["id"]
        first, second = (t.sort_by([(key, "ascending") for key in keys]) for t in tables)
        assert first.equals(second), name
        assert len(first) > 10
    report = json.loads((outs[1] / ".tilewright" / "report.json").read_text())
    assert report["class_seams"]["pixels"] > 2000
    assert report["class_seams"]["differing"] == 0
    assert report["seams"]["ghosts"] == report["seams"]["missed"] == 0
