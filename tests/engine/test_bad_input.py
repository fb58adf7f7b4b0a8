"""Bad input at the command line: one message, exit code 2, and nothing half written.

Sources that an ingest refuses are tested in `test_sources_refusals`, metadata of OME-Zarr in
`test_store_image`, model folders in `test_model_folder`; here stands what a user sees of them.
"""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from command_line import Command, commands_in
from journeys import read, save_image

from engine.networks.model_folder import bundled_models, open_model
from engine.store import ImageReader
from engine.store.sources import open_source
from tiling import Box

RNG = np.random.default_rng(7)
GREY = RNG.integers(0, 255, (300, 280), dtype=np.uint8)


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """The command, in a folder with a sound image and a sound TIFF."""
    save_image(tmp_path / "image.ome.zarr", GREY)
    save_image(tmp_path / "two.ome.zarr", np.stack([GREY, GREY]), "cyx")
    tifffile.imwrite(tmp_path / "image.tif", GREY)
    return commands_in(tmp_path, monkeypatch, capsys)


@pytest.fixture(autouse=True)
def foreign_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close what tasks read from: here they run in a process that goes on after them."""
    opened = []

    def open_foreign(path: str, _digest: str) -> Any:
        opened.append(open_source(path, verify=False))
        return opened[-1]

    monkeypatch.setattr("engine.pixels.open_foreign", open_foreign)
    yield
    for source in opened:
        source.close()


def edit_json(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


# --- the image ---------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_image_that_is_not_there(tilewright: Command, command: str) -> None:
    tilewright(command, "absent.ome.zarr", "OUT.ome.zarr").refuses("absent.ome.zarr", "typing")


@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_tiff_names_the_ingest_to_type(tilewright: Command, tmp_path: Path, command: str) -> None:
    answer = tilewright(command, "image.tif", "OUT.ome.zarr")
    answer.refuses("tilewright ingest /", "/image.tif /", "/image.ome.zarr")
    shutil.rmtree(tmp_path / "image.ome.zarr")
    words = answer.err.split("tilewright ")[1].split()
    assert tilewright("ingest", words[1], "image.ome.zarr", "--workers", "10000").code == 2


def truncated(d: Path) -> None:
    path = d / "bad.tif"
    path.write_bytes((d / "image.tif").read_bytes()[:5000])


def text(d: Path) -> None:
    (d / "bad.tif").write_text("no image at all")


def empty(d: Path) -> None:
    (d / "bad.tif").touch()


def of(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda d: tifffile.imwrite(d / "bad.tif", pixels)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "expected a file"),
        (truncated, "complete TIFF"),
        (text, "a file that begins with"),
        (empty, "empty file"),
        (of(np.ones((30, 30), np.complex64)), "complex64"),
        (of(np.ones((1, 1), np.uint8)), "1 x 1 pixels"),
        (of(np.ones((1, 90), np.uint8)), "1 x 90 pixels"),
        (of(np.ones(90, np.uint8)), "axes"),
    ],
)
def test_a_source_that_cannot_be_ingested(
    tilewright: Command, tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    make(tmp_path)
    tilewright("ingest", "bad.tif", "OUT.ome.zarr").refuses("bad.tif", message)


def test_a_zarr_without_multiscales(tilewright: Command, tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "bare.zarr", mode="w")
    tilewright("run", "bare.zarr", "OUT.ome.zarr").refuses("bare.zarr", "without multiscales")
    tilewright("run", "image.ome.zarr/0", "OUT.ome.zarr").refuses("a zarr array", "group above")


def multiscale(document: dict[str, object]) -> dict[str, list[object]]:
    return document["attributes"]["ome"]["multiscales"][0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["axes"].__setitem__(0, {"name": "q", "type": "space"}), "t, c, z, y, x"),
        (lambda m: m.pop("axes"), "a list of axes"),
        (lambda m: m["axes"].reverse(), "y and x as the last two"),
    ],
)
def test_axes_that_are_unknown_missing_or_in_another_order(
    tilewright: Command, tmp_path: Path, change: Callable[[object], None], message: str
) -> None:
    edit_json(tmp_path / "image.ome.zarr" / "zarr.json", lambda d: change(multiscale(d)))
    tilewright("run", "image.ome.zarr", "OUT.ome.zarr").refuses("image.ome.zarr", message)


@pytest.mark.parametrize("dtype", ["<c8", "|O", "|S4", "<M8[s]"])
def test_pixels_of_a_type_that_is_not_taken(
    tilewright: Command, tmp_path: Path, dtype: str
) -> None:
    place = tmp_path / "image.ome.zarr" / "0"
    shutil.rmtree(place)
    place.mkdir()
    document = {"zarr_format": 2, "shape": [30, 30], "chunks": [30, 30], "dtype": dtype}
    rest = {"compressor": None, "fill_value": None, "order": "C", "filters": None}
    (place / ".zarray").write_text(json.dumps(document | rest))
    tilewright("run", "image.ome.zarr", "OUT.ome.zarr").refuses("image.ome.zarr/0", "integers")


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1)])
def test_an_image_of_one_pixel(tilewright: Command, tmp_path: Path, shape: tuple[int, int]) -> None:
    save_image(tmp_path / "dot.ome.zarr", np.ones(shape, np.uint8))
    tilewright("run", "dot.ome.zarr", "OUT.ome.zarr").refuses("at least 2 pixels")


def test_an_image_without_pixels(tilewright: Command, tmp_path: Path) -> None:
    place = tmp_path / "image.ome.zarr" / "0"
    shutil.rmtree(place)
    zarr.create_array(place, shape=(0, 30), dtype="uint8", chunks=(30, 30))
    tilewright("run", "image.ome.zarr", "OUT.ome.zarr").refuses("at least one pixel")


@pytest.mark.parametrize("channel", ["5", "-1", "2", "GFP"])
def test_a_channel_that_is_not_there(tilewright: Command, channel: str) -> None:
    answer = tilewright(
        "run", "two.ome.zarr", "OUT.ome.zarr", "--set", f"input.channels=[{channel}]"
    )
    answer.refuses("input.channels", "0 (channel 0), 1 (channel 1)", channel)


@pytest.mark.parametrize(("option", "value"), [("input.level", "3"), ("input.level", "-1")])
def test_a_level_that_is_not_there(tilewright: Command, option: str, value: str) -> None:
    answer = tilewright("plan", "image.ome.zarr", "OUT.ome.zarr", "--set", f"{option}={value}")
    answer.refuses(option, value)


# --- the place of the result -------------------------------------------------------------------


def foreign_file(d: Path) -> str:
    (d / "OUT.ome.zarr").write_text("mine")
    return "a file"


def foreign_folder(d: Path) -> str:
    (d / "OUT.ome.zarr").mkdir()
    (d / "OUT.ome.zarr" / "notes.txt").write_text("mine")
    return "a folder that tilewright did not start"


def foreign_zarr(d: Path) -> str:
    save_image(d / "OUT.ome.zarr", GREY)
    return "a folder that tilewright did not start"


def link_to_a_folder(d: Path) -> str:
    (d / "elsewhere").mkdir()
    (d / "elsewhere" / "notes.txt").write_text("mine")
    (d / "OUT.ome.zarr").symlink_to(d / "elsewhere")
    return "a folder that tilewright did not start"


@pytest.mark.parametrize("make", [foreign_file, foreign_folder, foreign_zarr, link_to_a_folder])
@pytest.mark.parametrize(
    "words",
    [
        ("run", "image.ome.zarr", "OUT.ome.zarr"),
        ("plan", "image.ome.zarr", "OUT.ome.zarr"),
        ("ingest", "image.tif", "OUT.ome.zarr"),
        ("ingest", "image.tif", "OUT.ome.zarr", "--overwrite"),
    ],
)
def test_out_that_is_not_ours(
    tilewright: Command, tmp_path: Path, make: Callable[[Path], str], words: tuple[str, ...]
) -> None:
    found = make(tmp_path)
    tilewright(*words).refuses("OUT.ome.zarr", found, "nothing there was touched")


@pytest.mark.parametrize(
    ("image", "out"),
    [
        ("image.ome.zarr", "image.ome.zarr"),
        ("image.ome.zarr", "image.ome.zarr/"),
        ("image.ome.zarr/", "./image.ome.zarr"),
        ("image.ome.zarr", "sub/../image.ome.zarr"),
        ("image.ome.zarr", "image.ome.zarr/labels.zarr"),
        ("image.ome.zarr", "link.ome.zarr"),
        ("link.ome.zarr", "image.ome.zarr"),
        ("image.ome.zarr", "link.ome.zarr/labels.zarr"),
        ("link.ome.zarr", "image.ome.zarr/labels.zarr"),
        ("image.ome.zarr", "."),
        ("image.ome.zarr", ".."),
        ("sub/../image.ome.zarr", "sub/.."),
    ],
)
def test_out_in_around_or_equal_to_the_image(
    tilewright: Command, tmp_path: Path, image: str, out: str
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.ome.zarr").symlink_to("image.ome.zarr")
    tilewright("run", image, out).refuses("neither holds the image nor lies inside it")


def test_out_by_an_absolute_path_is_the_same_place(tilewright: Command, tmp_path: Path) -> None:
    answer = tilewright("run", "image.ome.zarr", tmp_path / "image.ome.zarr" / "OUT.zarr")
    answer.refuses("neither holds the image nor lies inside it")


@pytest.mark.parametrize("out", ["OUT", "OUT.tif", "OUT.zarr.old", ".zarr"])
def test_out_by_a_name_that_viewers_do_not_look_for(tilewright: Command, out: str) -> None:
    tilewright("run", "image.ome.zarr", out).refuses(f"'{out}'", "ends in .ome.zarr")


def test_out_where_nothing_can_be_made(tilewright: Command) -> None:
    tilewright("run", "image.ome.zarr", "image.tif/OUT.zarr").refuses("the file", "image.tif")
    tilewright("run", "image.ome.zarr", "two.ome.zarr/OUT.zarr").refuses("inside the Zarr")
    tilewright("run", "image.ome.zarr", "s3://bucket/OUT.zarr").refuses("no credentials")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_out_in_a_folder_without_permission(tilewright: Command, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    tilewright("run", "image.ome.zarr", "closed/OUT.zarr").refuses("cannot write")


@pytest.mark.parametrize(
    "words", [("plan", "image.ome.zarr"), ("run", "image.ome.zarr"), ("ingest", "image.tif")]
)
def test_not_enough_disk(
    tilewright: Command, monkeypatch: pytest.MonkeyPatch, words: tuple[str, str]
) -> None:
    monkeypatch.setattr("engine.planning.places.free_bytes", lambda _: 1000)
    tilewright(*words, "OUT.ome.zarr").refuses("disk of", "GB free", "Make space")


# --- models ------------------------------------------------------------------------------------


def no_config(model: Path) -> None:
    (model / "config.json").unlink()


def no_thresholds(model: Path) -> None:
    (model / "thresholds.json").unlink()


def no_weights(model: Path) -> None:
    next(model.glob("weights*")).unlink()


def pickled(model: Path) -> None:
    no_weights(model)
    (model / "weights_best.pt").write_bytes(pickle.dumps({"weight": 1}))


def pickled_under_our_name(model: Path) -> None:
    next(model.glob("weights*")).write_bytes(pickle.dumps({"weight": 1}))


def damaged(model: Path) -> None:
    weights = next(model.glob("weights*"))
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])


def other_filters(model: Path) -> None:
    edit_json(model / "config.json", lambda d: d.update(unet_n_filter_base=16))


def other_rays(model: Path) -> None:
    edit_json(model / "config.json", lambda d: d.update(n_rays=64))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_config, "config.json"),
        (no_thresholds, "thresholds.json"),
        (no_weights, "found neither"),
        (pickled, "pickle"),
        (pickled_under_our_name, "pickle"),
        (damaged, "weights"),
        (other_filters, "expected (16, 1, 3, 3), found (32, 1, 3, 3)"),
        (other_rays, "expected (64,"),
    ],
)
def test_a_model_folder_that_cannot_be_used(
    tilewright: Command,
    tmp_path: Path,
    model: str,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    shutil.copytree(open_model(model).path, tmp_path / "model")
    damage(tmp_path / "model")
    settings = ["--set", "segment.model=model"]
    tilewright("run", "image.ome.zarr", "OUT.ome.zarr", *settings).refuses("model", message)


def test_a_model_that_is_not_there(tilewright: Command) -> None:
    words = ("plan", "image.ome.zarr", "OUT.ome.zarr", "--set")
    tilewright(*words, "segment.model=nucli-fluo").refuses("nucli-fluo", "nuclei-fluo")
    tilewright(*words, "segment.model=image.tif").refuses("image.tif", "a model folder")
    tilewright(*words, "segment.model=mitochondria").refuses(
        "the name of a bundled ensemble and a bundled masked autoencoder",
        f"Bundled models: {', '.join(bundled_models())}.",
    )


def test_a_model_for_another_number_of_channels(tilewright: Command, shared_data: Path) -> None:
    color = f"segment.model={shared_data / 'stardist_keras' / 'nuclei_color'}"
    words = ("plan", "two.ome.zarr", "OUT.ome.zarr", "--set")
    tilewright(*words, color).refuses("3 input channels", "found 1", "[0,1,2]")
    tilewright(*words, "input.channels=[0,1]").refuses("1 input channels", "found 2", "[0]")


# --- settings and options ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (["tiling.overlap=512"], ["tiling", "overlap 512, tile 512"]),
        (["tiling.tile=250"], ["tiling", "multiple of the phase, got 250 and 16"]),
        (["tiling.margin=40"], ["tiling", "margin 40, overlap 64"]),
        (["tiling.margin=23"], ["tiling", "multiple of scale, got 23 and 2"]),
        (["storage.shard=1000"], ["storage", "multiple of chunk", "1000 and 512"]),
        (["storage.chunk=513", "storage.shard=513"], ["storage.shard", "grid, 2", "513"]),
        (["storage.chunk=16"], ["storage.chunk", "at least 32", "16"]),
        (["tiling.overlp=3"], ["tiling.overlp", "Did you mean 'overlap'?"]),
        (["tiling.tile=null"], ["tiling.tile", "a whole number", "null"]),
        (["tiling"], ["key=value"]),
        (["resources.launch=1000000"], ["memory", "GiB projected", "resources.launch"]),
        (["resources.memory_gib=0.1"], ["memory", "at most 0.1 GiB"]),
    ],
)
def test_settings_that_cannot_be(
    tilewright: Command, settings: list[str], messages: list[str]
) -> None:
    words = [word for setting in settings for word in ("--set", setting)]
    tilewright("plan", "image.ome.zarr", "OUT.ome.zarr", *words).refuses(*messages)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (["--workers", "100000"], ["memory", "--workers 100000"]),
        (["--region", "100"], ["--region", "multiple of the shard, 2048", "Use 2048"]),
        (["--region", "5000"], ["--region", "multiple of the shard, 2048", "Use 4096"]),
        (["--region", "0"], ["resources.region", "at least 32"]),
        (["--device", "tpu"], ["resources.device", "'auto', 'cpu' or 'cuda'", "tpu"]),
        (["--within", ""], ["--within", "y0:y1,x0:x1"]),
        (["--within", "0:10"], ["--within", "y0:y1,x0:x1"]),
        (["--within", "0:10,5:5"], ["--within", "y0:y1,x0:x1"]),
        (["--within", "9:3,0:5"], ["--within", "y0:y1,x0:x1"]),
        (["--within=-5:10,0:100"], ["--within", "y0:y1,x0:x1"]),
        (["--within", "0:301,0:100"], ["--within", "inside the image, 0:300,0:280"]),
        (["--within", "900:901,900:901"], ["--within", "inside the image, 0:300,0:280"]),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_options_that_cannot_be(
    tilewright: Command, command: str, options: list[str], messages: list[str]
) -> None:
    tilewright(command, "image.ome.zarr", "OUT.ome.zarr", *options).refuses(*messages)


def test_a_gpu_that_is_not_there(tilewright: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.device._has_cuda", lambda: False)
    answer = tilewright("run", "image.ome.zarr", "OUT.ome.zarr", "--device", "cuda")
    answer.refuses("--device cuda", "NVIDIA", "--device cpu")


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf"])
def test_a_pixel_size_that_cannot_be(tilewright: Command, size: str) -> None:
    answer = tilewright("ingest", "image.tif", "OUT.ome.zarr", f"--pixel-size={size}")
    answer.refuses("--pixel-size", "above 0")


@pytest.mark.parametrize(
    ("address", "messages"),
    [
        ("nonsense", ["--cluster nonsense", "tcp://host:8786"]),
        ("tcp://127.0.0.1:1", ["--cluster tcp://127.0.0.1:1", "a Dask scheduler that answers"]),
    ],
)
@pytest.mark.parametrize("words", [("run", "image.ome.zarr"), ("ingest", "image.tif")])
def test_a_cluster_that_is_none(
    tilewright: Command,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, str],
    address: str,
    messages: list[str],
) -> None:
    monkeypatch.setattr("engine.cluster.configuration.CONNECT_TIMEOUT_S", 1)
    tilewright(*words, "OUT.ome.zarr", "--cluster", address).refuses(*messages)


# --- what pass 0 finds -------------------------------------------------------------------------


def with_holes() -> np.ndarray:
    pixels = RNG.random((300, 280)).astype(np.float32)
    pixels[5, 5], pixels[200, 100], pixels[299, 279] = np.nan, np.inf, -np.inf
    return pixels


def test_nan_and_infinity_are_refused_or_taken_for_zero(
    tilewright: Command, tmp_path: Path, cluster_address: str, model: str
) -> None:
    save_image(tmp_path / "holes.ome.zarr", with_holes())
    words = ("run", "holes.ome.zarr", "OUT.ome.zarr", "--cluster", cluster_address)
    words = (*words, "--set", f"segment.model={model}")
    tilewright(*words).refuses("3 that are NaN or infinite", "--set input.nonfinite=zero")
    assert tilewright(*words, "--set", "input.nonfinite=zero").code == 0


@pytest.mark.cluster
def test_a_worker_that_refuses_prints_nothing_of_its_own(tmp_path: Path) -> None:
    save_image(tmp_path / "holes.ome.zarr", with_holes())
    words = ["run", "holes.ome.zarr", "OUT.ome.zarr", "--workers", "1"]
    call = [sys.executable, "-m", "engine.cli", *words]
    done = subprocess.run(call, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert not (tmp_path / "OUT.ome.zarr").exists()
    assert "3 that are NaN or infinite" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "bool"])
def test_a_constant_image_is_refused(
    tilewright: Command, tmp_path: Path, cluster_address: str, dtype: str
) -> None:
    save_image(tmp_path / "flat.ome.zarr", np.ones((300, 280), dtype))
    answer = tilewright("run", "flat.ome.zarr", "OUT.ome.zarr", "--cluster", cluster_address)
    answer.refuses("flat.ome.zarr', channel 0: ", "some contrast", "found the value 1 everywhere.")


def test_planes_of_one_value_each_are_refused_as_such(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    planes = np.arange(4, dtype=np.uint8).repeat(60 * 70).reshape(4, 60, 70)
    save_image(tmp_path / "flat.ome.zarr", planes, "zyx")
    words = ("run", "flat.ome.zarr", "OUT.ome.zarr", "--cluster", cluster_address)
    answer = tilewright(*words, "--set", "normalise.over=plane")
    answer.refuses("channel 0: ", "found one value in each plane and channel, from 0 to 3.")


@pytest.mark.parametrize("shape", [(100, 130), (40, 40), (2, 300)])
def test_an_image_smaller_than_a_tile_is_padded(
    tilewright: Command, tmp_path: Path, cluster_address: str, shape: tuple[int, int]
) -> None:
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    save_image(tmp_path / "small.ome.zarr", pixels)
    answer = tilewright("run", "small.ome.zarr", "OUT.ome.zarr", "--cluster", cluster_address)
    assert answer.code == 0, answer
    assert read(tmp_path / "OUT.ome.zarr", "labels/nuclei/0").shape == shape


# --- runs that stand ---------------------------------------------------------------------------


@pytest.fixture
def copied(tilewright: Command, cluster_address: str) -> Command:
    """The command, with a result of the identity recipe in OUT and an ingested image."""
    copying = ("--recipe", "identity", "--set", "storage.chunk=128", "--set", "storage.shard=256")
    done = tilewright(
        "run", "image.ome.zarr", "OUT.ome.zarr", *copying, "--cluster", cluster_address
    )
    assert done.code == 0, done
    done = tilewright("ingest", "image.tif", "DEST.ome.zarr", "--cluster", cluster_address)
    assert done.code == 0, done
    return tilewright


def test_another_recipe_is_refused_with_the_difference(copied: Command) -> None:
    words = ("image.ome.zarr", "OUT.ome.zarr", "--recipe", "identity", "--set", "storage.chunk=64")
    for command in ("plan", "run"):
        answer = copied(command, *words, "--set", "storage.shard=256")
        answer.refuses("storage.chunk: 128 -> 64", "another OUT")
    copied("run", "image.ome.zarr", "OUT.ome.zarr").refuses('method: "identity" -> "stardist"')


def test_another_image_is_refused_with_the_difference(copied: Command, tmp_path: Path) -> None:
    copying = ("--recipe", "identity", "--set", "storage.chunk=128", "--set", "storage.shard=256")
    answer = copied("run", "two.ome.zarr", "OUT.ome.zarr", *copying)
    answer.refuses("image.path: ", "image.ome.zarr -> ", "image.axes: yx -> cyx")
    shutil.rmtree(tmp_path / "image.ome.zarr")
    save_image(tmp_path / "image.ome.zarr", GREY[:200])
    answer = copied("run", "image.ome.zarr", "OUT.ome.zarr", *copying)
    answer.refuses("image.shape: (300, 280) -> (200, 280)")


def test_the_same_image_by_another_path_is_the_same(copied: Command, tmp_path: Path) -> None:
    (tmp_path / "link.ome.zarr").symlink_to("image.ome.zarr")
    copying = ("--recipe", "identity", "--set", "storage.chunk=128", "--set", "storage.shard=256")
    answer = copied("plan", f"{tmp_path}/./link.ome.zarr/", "OUT.ome.zarr", *copying)
    assert (answer.code, answer.touched) == (0, ()), answer
    assert "all done" in answer.out


def test_an_ingest_of_another_source_is_refused_with_the_difference(
    copied: Command, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "other.tif", GREY[:99])
    copied("ingest", "other.tif", "DEST.ome.zarr").refuses("source.path: ", "source.bytes: ")
    tifffile.imwrite(tmp_path / "image.tif", GREY + 1)
    copied("ingest", "image.tif", "DEST.ome.zarr").refuses("source.stamps: ")


def test_overwrite_replaces_an_ingested_image(
    copied: Command, tmp_path: Path, cluster_address: str
) -> None:
    tifffile.imwrite(tmp_path / "other.tif", GREY[:99])
    words = ("ingest", "other.tif", "DEST.ome.zarr", "--overwrite", "--cluster", cluster_address)
    assert copied(*words).code == 0
    reader = ImageReader(tmp_path / "DEST.ome.zarr")
    assert np.array_equal(reader.read((), (0,), Box.of_shape(reader.extent))[0], GREY[:99])
    assert not (tmp_path / "DEST.ome.zarr" / "0").exists()


def test_overwrite_looks_before_it_removes(copied: Command) -> None:
    again = ("DEST.ome.zarr", "--overwrite")
    copied("ingest", "absent.tif", *again).refuses("absent.tif")
    copied("ingest", "image.ome.zarr", *again).refuses("OME-Zarr needs no ingest")
    copied("ingest", "image.tif", *again, "--pixel-size", "0").refuses("--pixel-size")
    copied("ingest", "image.tif", *again, "--chunk", "500").refuses("multiple of chunk")
    copied("ingest", "image.tif", *again, "--workers", "100000").refuses("memory")
    copied("ingest", "image.tif", *again, "--cluster", "nonsense").refuses("--cluster nonsense")


def test_overwrite_never_removes_a_result(copied: Command) -> None:
    answer = copied("ingest", "image.tif", "OUT.ome.zarr", "--overwrite")
    answer.refuses("a result of `tilewright run`", "remove that result yourself")


def test_a_damaged_record_of_the_run(copied: Command, tmp_path: Path) -> None:
    place = tmp_path / "OUT.ome.zarr" / ".tilewright" / "run.json"
    damages = {"{": "damaged", "[]": "a JSON list", "{}": "format", '{"format": 1}': "format"}
    for content, message in damages.items():
        place.write_text(content)
        for words in (("status",), ("plan", "image.ome.zarr"), ("run", "image.ome.zarr")):
            copied(*words, "OUT.ome.zarr").refuses("run.json", message)


# --- what reads results ------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["absent", "image.tif", "image.ome.zarr", "."])
def test_status_of_what_is_no_run(tilewright: Command, out: str) -> None:
    tilewright("status", out).refuses(f"'{out}'", "a result of `tilewright run`")


def test_preview_of_what_has_no_labels(tilewright: Command) -> None:
    tilewright("preview", "absent", "a.png").refuses("absent", "nothing there")
    tilewright("preview", "image.tif", "a.png").refuses("image.tif", "an OME-Zarr image")
    tilewright("preview", "image.ome.zarr", "a.png").refuses("one label image", "found none")


def test_preview_of_what_is_not_in_the_result(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    settings = ("--set", "storage.chunk=128", "--set", "storage.shard=256")
    words = ("run", "image.ome.zarr", "OUT.ome.zarr", *settings, "--cluster", cluster_address)
    assert tilewright(*words).code == 0
    preview = ("preview", "OUT.ome.zarr")
    tilewright(*preview, "a.png", "--level", "7").refuses("level", "0 to 2", "7")
    tilewright(*preview, "a.png", "--level", "-1").refuses("level", "0 to 2", "-1")
    tilewright(*preview, "a.png", "--within", "0:10,0:999").refuses("--within", "0:300,0:280")
    tilewright(*preview, "a.jpg").refuses("a.jpg", "PNG")
    tilewright(*preview, "s3://bucket/a.png").refuses("s3://bucket/a.png", "a URL")
    tilewright(*preview, "a.png", "--plane", "3").refuses(
        "--plane: expected no index, for the image has one plane, found 3. Leave --plane out."
    )
    assert tilewright(*preview, "a.png", "--level", "1").touched == ("a.png",)
    shutil.rmtree(tmp_path / "image.ome.zarr")
    tilewright(*preview, "b.png").refuses("image.ome.zarr", "nothing there")


def test_scores_of_what_cannot_be_compared(tilewright: Command, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "small.tif", GREY[:99])
    tifffile.imwrite(tmp_path / "float.tif", GREY.astype(np.float32))
    (tmp_path / "notes.txt").write_text("none")
    truncated(tmp_path)
    tilewright("evaluate", "absent.tif", "image.tif").refuses("absent.tif", "nothing there")
    tilewright("evaluate", "image.tif", "small.tif").refuses("equal shapes", "(99, 280)")
    tilewright("evaluate", "image.tif", "float.tif").refuses("float.tif", "integers")
    tilewright("evaluate", "notes.txt", "image.tif").refuses("notes.txt", "'.txt'")
    tilewright("evaluate", "bad.tif", "image.tif").refuses("bad.tif")
