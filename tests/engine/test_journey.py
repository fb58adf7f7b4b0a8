"""From image to labels: the cut never shows, the whole image is the measure."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from journeys import Runner, read, revoke, save_image
from rich.console import Console
from skimage.transform import resize

from engine.device import Launch
from engine.errors import OutputError
from engine.ledger import Ledger
from engine.methods.starconvex import StarObjects, render, suppress
from engine.networks.model_folder import open_model
from engine.networks.runtime import open_network
from engine.recipe import load_settings
from engine.report import show_status
from engine.result import open_result
from engine.store import Location, write_label_metadata
from tiling import Box

FLOAT = "segment.precision=float32"


def mosaic(nuclei: np.ndarray, extent: tuple[int, int]) -> np.ndarray:
    pad = [(0, n - have) for n, have in zip(extent, nuclei.shape, strict=True)]
    return np.pad(nuclei, pad, mode="symmetric")


def table(out: Path) -> dict[str, list[float]]:
    """Rows of the table of nuclei, sorted by id."""
    return pq.read_table(out / "tables" / "nuclei.parquet").sort_by("id").to_pydict()


def same(first: Path, second: Path) -> None:
    """Every pixel of every level, and every row of the table, are equal."""
    names = [str(p.parent.relative_to(first)) for p in first.glob("*/*/*/zarr.json")]
    assert {"maps/probability/0", "labels/nuclei/0", "labels/nuclei/1"} <= set(names)
    for name in names:
        assert np.array_equal(read(first, name), read(second, name)), name
    assert table(first) == table(second)


@pytest.mark.parametrize(
    ("blend", "precision"), [("average", "float32"), ("crop", "float32"), ("average", "bfloat16")]
)
def test_any_cut_equals_no_cut(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner, blend: str, precision: str
) -> None:
    image = save_image(tmp_path / "image.zarr", mosaic(nuclei, (700, 900)))
    settings = [f"segment.precision={precision}", f"tiling.blend={blend}"]
    results = []
    for region in (256, 512, 1024):
        out = tmp_path / f"{region}.ome.zarr"
        outcome = run_recipe(image, out, *settings, f"resources.region={region}")
        assert outcome.complete
        assert outcome.report["seams"]["ghosts"] == outcome.report["seams"]["missed"] == 0
        results.append(out)
    assert outcome.report["objects"] > 200
    same(results[0], results[1])
    same(results[0], results[2])


def bare_network(image: np.ndarray, name: str) -> tuple[np.ndarray, StarObjects]:
    """The network and the suppression on the whole image at once: probability and objects."""
    folder = open_model(name)
    low, high = np.percentile(image, [1, 99.8])
    pixels = (image.astype("f4") - np.float32(low)) / np.float32(high - low + 1e-20)
    step, grid = max(folder.config.divisor), folder.config.grid[0]
    padded = np.pad(pixels, [(0, -n % step) for n in pixels.shape], mode="reflect")
    network = open_network(folder, Launch("cpu", "float32", 1))
    prob, rays = (t[0].numpy() for t in network.predict(padded[None, None]))
    rows, columns = (-(-n // grid) for n in image.shape)
    prob, rays = prob[:rows, :columns], rays[:rows, :columns]
    inner = np.zeros(prob.shape, bool)
    inner[2:-2, 2:-2] = True
    points = np.argwhere(inner & (prob > folder.thresholds.prob))
    found = StarObjects(points * grid, prob[tuple(points.T)], rays[tuple(points.T)])
    return prob, suppress(found, folder.thresholds.nms)


def test_cropped_tiles_equal_the_bare_network(
    tmp_path: Path, nuclei: np.ndarray, model: str, run_recipe: Runner
) -> None:
    pixels = mosaic(nuclei, (731, 901))
    image = save_image(tmp_path / "image.zarr", pixels)
    out = tmp_path / "out.ome.zarr"
    settings = ["tiling.tile=512", "tiling.overlap=192", "tiling.margin=96", "tiling.blend=crop"]
    assert run_recipe(image, out, FLOAT, *settings, "resources.region=256").complete
    prob, objects = bare_network(pixels, model)
    stored = read(out, "maps/probability/0")
    assert np.array_equal(stored, np.rint(np.clip(prob, 0, 1) * 255))
    labels, whole = read(out, "labels/nuclei/0"), render(objects, Box.of_shape(pixels.shape))
    assert np.array_equal(labels > 0, whole > 0)
    pairs = np.unique(np.stack([labels[whole > 0], whole[whole > 0]]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    assert pairs.shape[1] == len(objects)


def test_ids_are_dense_and_the_table_tells_the_labels(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", np.stack([nuclei, nuclei[::-1]]), "zyx")
    out = tmp_path / "out.ome.zarr"
    assert run_recipe(image, out, FLOAT).complete
    labels, rows = read(out, "labels/nuclei/0"), table(out)
    assert labels.dtype == np.uint32
    assert rows["id"] == list(range(1, labels.max() + 1))
    assert sorted(set(rows["z"])) == [0, 1]
    for k in range(0, len(rows["id"]), 17):
        z, y, x = np.nonzero(labels == rows["id"][k])
        assert set(z) == {rows["z"][k]}
        assert rows["area"][k] == len(y)
        assert rows["area_um2"][k] == pytest.approx(len(y) * 0.25)
        assert (rows["y"][k], rows["x"][k]) == pytest.approx((y.mean(), x.mean()))
        assert rows["x_um"][k] == pytest.approx(x.mean() * 0.5)
        box = [rows[name][k] for name in ("y0", "x0", "y1", "x1")]
        assert box == [y.min(), x.min(), y.max() + 1, x.max() + 1]
        assert 0 < rows["probability"][k] <= 1
        place = rows["key"][k] - 1
        anchor = np.unravel_index(place, labels.shape)
        assert labels[anchor] == rows["id"][k]


def test_a_halo_that_is_too_small_shows_at_the_seams(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    large = resize(nuclei, (1024, 1024), order=1, preserve_range=True).astype(np.uint16)
    image = save_image(tmp_path / "image.zarr", large)
    wide = run_recipe(image, tmp_path / "wide.ome.zarr", FLOAT, "resources.region=256")
    narrow = run_recipe(
        image,
        tmp_path / "narrow.ome.zarr",
        FLOAT,
        "resources.region=256",
        "instances.halo=16",
        "instances.halo_rays=0",
    )
    assert wide.report["seams"]["crossing"] > 20
    assert wide.report["seams"]["ghosts"] + wide.report["seams"]["missed"] == 0
    assert narrow.report["seams"]["ghosts"] + narrow.report["seams"]["missed"] > 5


def test_a_halo_is_widened_where_objects_are_larger(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", mosaic(nuclei, (600, 600)))
    settings = [FLOAT, "resources.region=256"]
    narrow = run_recipe(
        image, tmp_path / "a.ome.zarr", *settings, "instances.halo=16", "instances.halo_rays=2"
    )
    assert narrow.report["halo"] >= 2 * narrow.report["longest_ray"]
    run_recipe(image, tmp_path / "b.ome.zarr", *settings)
    same(tmp_path / "a.ome.zarr", tmp_path / "b.ome.zarr")


@pytest.mark.parametrize("over", ["image", "local"])
def test_brightness_makes_no_seam(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner, over: str
) -> None:
    dim = np.concatenate([nuclei, nuclei // 8], axis=1)
    image = save_image(tmp_path / "image.zarr", dim)
    counts = []
    for region in (256, 1024):
        out = tmp_path / f"{region}.ome.zarr"
        settings = [f"normalise.over={over}", "normalise.cell=256", f"resources.region={region}"]
        assert run_recipe(image, out, FLOAT, *settings).complete
        labels = read(out, "labels/nuclei/0")
        counts.append([len(np.unique(half)) - 1 for half in (labels[:, :512], labels[:, 512:])])
    same(tmp_path / "256.ome.zarr", tmp_path / "1024.ome.zarr")
    bright, faint = counts[0]
    # One scale for the whole image loses dim nuclei; a local one finds about as many as beside.
    assert (faint > 0.8 * bright) == (over == "local")


def test_planes_are_normalised_each_by_itself(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", np.stack([nuclei, nuclei // 8]), "tyx")
    out = tmp_path / "out.ome.zarr"
    assert run_recipe(image, out, FLOAT, "normalise.over=plane").complete
    first, second = (len(np.unique(p)) for p in read(out, "labels/nuclei/0"))
    assert abs(first - second) < 0.15 * first


def test_a_run_continues_with_other_regions_and_only_what_is_left(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", mosaic(nuclei, (600, 800)))
    whole, out = tmp_path / "whole.ome.zarr", tmp_path / "out.ome.zarr"
    run_recipe(image, whole, FLOAT)
    run_recipe(image, out, FLOAT, "resources.region=256")
    lost = revoke(out, regions=slice(1, 4), labels=slice(None), pyramid_nuclei_1=slice(None))
    assert len(lost) > 3
    shards = sorted((out / "maps/probability/0").rglob("c/*/*"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    outcome = run_recipe(image, out, FLOAT, "resources.region=512")
    assert outcome.complete
    assert outcome.report["objects"] > 100
    assert outcome.report["reasons"]["missing"] >= 3
    written = [path for path in shards if path.stat().st_mtime_ns != before[path]]
    assert len(written) == 3
    same(whole, out)


def test_other_settings_are_refused_on_the_same_out(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", nuclei)
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, recipe="identity")
    before = read(out, "0")
    with pytest.raises(OutputError, match=r"method: \"identity\" -> \"stardist\""):
        run_recipe(image, out, FLOAT)
    assert np.array_equal(before, read(out, "0"))


@pytest.mark.parametrize("region", [256, 512])
def test_identity_copies_every_channel_and_plane(
    tmp_path: Path, run_recipe: Runner, region: int
) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 60000, (2, 3, 300, 400), dtype=np.uint16)
    image = save_image(tmp_path / "image.zarr", pixels, "tcyx")
    out = tmp_path / "out.ome.zarr"
    assert run_recipe(image, out, f"resources.region={region}", recipe="identity").complete
    assert np.array_equal(read(out, "0"), pixels)
    mean = pixels.reshape(2, 3, 150, 2, 200, 2).astype(np.int64).sum(axis=(3, 5))
    assert np.array_equal(read(out, "1"), (mean + 2) // 4)


def test_a_last_row_of_one_pixel_has_a_pyramid(tmp_path: Path, run_recipe: Runner) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (2, 129, 300), dtype=np.uint8)
    image = save_image(tmp_path / "image.zarr", pixels, "zyx")
    out = tmp_path / "out.ome.zarr"
    assert run_recipe(
        image, out, "storage.chunk=32", "storage.shard=64", recipe="identity"
    ).complete
    assert np.array_equal(read(out, "0"), pixels)
    whole = np.pad(pixels, [(0, 0), (0, 1), (0, 0)], mode="edge")
    mean = whole.reshape(2, 65, 2, 150, 2).astype(np.int64).sum(axis=(2, 4))
    assert np.array_equal(read(out, "1"), (mean + 2) // 4)


def test_a_part_of_the_image_is_as_in_the_whole(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", mosaic(nuclei, (800, 800)))
    whole, part = tmp_path / "whole.ome.zarr", tmp_path / "part.ome.zarr"
    run_recipe(image, whole, FLOAT)
    run_recipe(image, part, FLOAT, within=Box((260, 10), (500, 400)))
    all_labels, labels = read(whole, "labels/nuclei/0"), read(part, "labels/nuclei/0")
    box = Box((256, 0), (512, 512))
    assert not np.delete(labels, np.s_[256:512], axis=0).any()
    prob = [read(out, "maps/probability/0") for out in (whole, part)]
    inside = box.coarsen(2).slices()
    assert np.array_equal(prob[0][inside], prob[1][inside])
    inner = box.grow(-60).slices()
    assert np.array_equal(all_labels[inner] > 0, labels[inner] > 0)


def test_a_result_opens_with_names_and_places(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", nuclei)
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, FLOAT, "storage.with_image=true")
    tree = open_result(out)
    labels = tree["labels/nuclei/0/labels"]
    assert labels.dims == ("y", "x")
    assert labels.chunks is not None
    assert float(labels.x[3]) == 1.5
    assert labels.x.attrs["units"] == "micrometer"
    assert np.array_equal(tree["0/image"].values, nuclei)
    assert float(tree["maps/probability/0/probability"].y[1]) == 1.0


def test_the_bundled_recipe_is_what_the_defaults_say() -> None:
    recipe = load_settings("nuclei").recipe
    assert recipe == type(recipe)(method="stardist")


def test_another_image_at_the_same_place_is_refused(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner
) -> None:
    image = save_image(tmp_path / "image.zarr", nuclei)
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, recipe="identity")
    save_image(tmp_path / "image.zarr", nuclei[::-1].copy())
    with pytest.raises(OutputError, match="objects looked at have changed"):
        run_recipe(image, out, recipe="identity")
    assert np.array_equal(read(out, "0"), nuclei)


def test_labels_that_are_copied_are_never_averaged(tmp_path: Path, run_recipe: Runner) -> None:
    labels = np.kron(np.arange(1, 5, dtype=np.uint32).reshape(2, 2), np.ones((151, 151), np.uint32))
    image = save_image(tmp_path / "labels.zarr", labels)
    write_label_metadata(image)
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, recipe="identity")
    assert set(np.unique(read(out, "1"))) == {1, 2, 3, 4}


def test_a_run_that_is_not_finished_is_not_called_complete(
    tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    image = save_image(tmp_path / "image.zarr", nuclei)
    out = tmp_path / "out.ome.zarr"
    run_recipe(image, out, recipe="identity")
    show_status(Console(), str(out))
    assert "  complete" in capsys.readouterr().out
    revoke(out, copy=slice(0, 1))
    again = run_recipe(image, out, recipe="identity")
    assert again.report["pixels_computed_now"] == 256 * 256
    assert run_recipe(image, out, recipe="identity").report == again.report
    Ledger(Location.parse(out)).path("report.json").delete()
    show_status(Console(), str(out))
    assert "not complete" in capsys.readouterr().out
