"""The bundled ensembles and autoencoders, through their recipes."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from journeys import Runner, read, save_image

from engine.device import Launch, Precision
from engine.evaluation.classes import count_classes
from engine.networks.ensemble import open_ensemble
from engine.networks.mae_folder import open_mae
from engine.networks.mae_runtime import open_inpainter
from engine.phantom import CLASSES, UNSEEN, make_scene
from engine.store import Location, image_groups

#: Bytes that the issue grants the recipe's models together.
MOST_BYTES = 8e6


def test_the_models_of_mitochondria_are_small_and_go_together() -> None:
    ensemble, mae = open_ensemble("mitochondria"), open_mae("mitochondria")
    assert 4 <= len(ensemble.members) <= 6
    assert ensemble.classes == mae.config.classes == CLASSES
    assert ensemble.weights_bytes + mae.weights_bytes <= MOST_BYTES
    for folder in (ensemble.path, mae.path):
        card = (folder / "README.md").read_text()
        assert "tilewright train" in card
        assert "tilewright phantom" in card


def test_mitochondria_of_an_unseen_scene(tmp_path: Path, run_recipe: Runner) -> None:
    scene = make_scene(UNSEEN, 77, 0)
    image, out = save_image(tmp_path / "image.zarr", scene.image), tmp_path / "out.ome.zarr"
    assert run_recipe(image, out, recipe="mitochondria").complete
    counts = count_classes(read(out, "labels/classes/0"), scene.classes, len(CLASSES))
    # Far above what a map of the wrong classes or of noise reaches.
    assert [
        d is not None and d > least
        for d, least in zip(counts.dice, (0.97, 0.75, 0.5, 0.8), strict=True)
    ] == [True] * 4
    table = pq.read_table(out / "tables/mitochondria.parquet").to_pandas()
    assert len(table) == pytest.approx(scene.instances.max(), abs=3)
    repairs = pq.read_table(out / "tables/repairs.parquet").to_pandas()
    assert 0 < repairs.changed.sum() < 0.05 * scene.classes.size


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nuclei_refined_makes_everything_and_the_same_nuclei(
    tmp_path: Path, run_recipe: Runner, nuclei: np.ndarray
) -> None:
    image = save_image(tmp_path / "image.zarr", nuclei[:300, :280])
    out, plain = tmp_path / "out.ome.zarr", tmp_path / "plain.ome.zarr"
    settings = ("tiling.tile=256", "segment.precision=float32")
    more = ("flags.defenses=9", "flags.stop=never")
    assert run_recipe(image, out, *settings, *more, recipe="nuclei-refined").complete
    assert run_recipe(image, plain, *settings).complete
    assert image_groups(Location.parse(out)) == [
        "labels/classes", "labels/classes_initial", "labels/nuclei", "maps/entropy",
        "maps/flag_votes", "maps/probability",
    ]  # fmt: skip
    for name in ("labels/nuclei/0", "maps/probability/0"):
        np.testing.assert_array_equal(read(out, name), read(plain, name), err_msg=name)
    mask, labels = read(out, "labels/classes/0") == 1, read(out, "labels/nuclei/0") > 0
    assert 2 * (mask & labels).sum() / (mask.sum() + labels.sum()) > 0.8
    assert read(out, "maps/entropy/0").any()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_window_answers_alone_as_among_others(precision: Precision) -> None:
    truth = make_scene(UNSEEN, 78, 0).classes
    labels = np.stack([truth[y : y + 128, x : x + 128] for y in (0, 192) for x in (0, 192, 384)])
    masked = np.zeros((6, 32, 32), bool)
    masked[:, 4:22, 6:25] = np.random.default_rng(0).random((6, 18, 19)) < 0.5
    many = open_inpainter(open_mae("mitochondria"), Launch("cpu", precision, 6))
    single = open_inpainter(open_mae("mitochondria"), Launch("cpu", precision, 1))
    together = many.fill(labels, masked)
    alone = [single.fill(labels[k : k + 1], masked[k : k + 1])[0] for k in range(6)]
    np.testing.assert_array_equal(together, np.stack(alone))
    assert (together != labels).any()
