"""Labels are found where they lie, and what is no label image is refused with what was found."""

import itertools
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from object_store import bucket, s3_client, s3_server  # noqa: F401 - fixtures

from engine.errors import InputError
from engine.evaluation import evaluate_paths, open_labels

SHARED = Path(__file__).parents[2] / "../shared/data"
LABELS = np.kron(np.arange(12, dtype=np.uint16).reshape(3, 4), np.ones((5, 6), np.uint16))
IMAGE = np.linspace(0, 1, LABELS.size, dtype=np.float32).reshape(LABELS.shape)


def write_multiscale(group: zarr.Group, array: np.ndarray, axes: str, version: str) -> None:
    """Smallest valid-looking multiscale image of one level."""
    level = group.create_array("0", shape=array.shape, chunks=array.shape, dtype=array.dtype)
    level[...] = array
    entry = {
        "axes": [{"name": a, "type": "space"} for a in axes],
        "datasets": [
            {
                "path": "0",
                "coordinateTransformations": [{"type": "scale", "scale": [1.0] * len(axes)}],
            }
        ],
    }
    put_ome(group, {"multiscales": [entry]}, version)


def put_ome(group: zarr.Group, metadata: dict, version: str) -> None:
    group.attrs.update(metadata if version == "0.4" else {"ome": {"version": "0.5", **metadata}})


def write_result(path: Path, names: list[str], version: str = "0.5") -> str:
    """An image with label images beside it, as a run leaves it."""
    root = zarr.create_group(path, zarr_format=2 if version == "0.4" else 3)
    write_multiscale(root, IMAGE, "yx", version)
    labels = root.create_group("labels")
    put_ome(labels, {"labels": names}, version)
    for k, name in enumerate(names):
        write_multiscale(labels.create_group(name), LABELS + k * (LABELS > 0), "yx", version)
    return str(path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("inner", ["", "/labels", "/labels/nuclei", "/labels/nuclei/"])
def test_a_result_its_labels_group_and_one_image_of_it_open_alike(
    tmp_path: Path, version: str, inner: str
) -> None:
    path = write_result(tmp_path / "out.ome.zarr", ["nuclei"], version)
    source = open_labels(path + inner)
    assert source.axes == ("y", "x")
    np.testing.assert_array_equal(source.array[...], LABELS)
    assert source.name.rstrip("/").endswith("labels/nuclei")


def test_several_label_images_need_a_name(tmp_path: Path) -> None:
    path = write_result(tmp_path / "out.ome.zarr", ["nuclei", "cells"])
    with pytest.raises(InputError, match="label images: nuclei, cells"):
        open_labels(path)
    with pytest.raises(InputError, match=r"'nucleus'.*nuclei, cells"):
        open_labels(path, label="nucleus")
    np.testing.assert_array_equal(
        open_labels(path, label="cells").array[...], LABELS + (LABELS > 0)
    )


def test_an_ome_zarr_image_of_integers_is_a_label_image(tmp_path: Path) -> None:
    write_multiscale(zarr.create_group(tmp_path / "truth.zarr"), LABELS[None], "zyx", "0.5")
    source = open_labels(str(tmp_path / "truth.zarr"))
    assert (source.axes, source.shape) == (("z", "y", "x"), LABELS.shape)


def test_tiff_and_png_files_open(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    tifffile.imwrite(tmp_path / "stack.tiff", np.stack([LABELS] * 3), photometric="minisblack")
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(LABELS))
    for name in ("a.tif", "a.png"):
        source = open_labels(str(tmp_path / name))
        np.testing.assert_array_equal(source.array[...], LABELS)
        assert source.axes == ("y", "x")
    assert open_labels(str(tmp_path / "stack.tiff")).shape == (3, *LABELS.shape)


def test_any_two_forms_of_the_same_labels_score_one(tmp_path: Path) -> None:
    write_result(tmp_path / "out.ome.zarr", ["nuclei"])
    tifffile.imwrite(tmp_path / "a.tif", LABELS.astype(np.uint32), tile=(16, 16))
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(LABELS))
    paths = [str(tmp_path / name) for name in ("out.ome.zarr", "a.tif", "a.png")]
    for pred, truth in itertools.permutations(paths, 2):
        found = evaluate_paths(pred, truth)
        assert [at.f1 for at in found.instances] == [1.0] * 10
        assert found.hd95 == 0


def test_shapes_that_differ_are_named_with_their_paths(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", LABELS)
    tifffile.imwrite(tmp_path / "b.tif", LABELS[1:])
    with pytest.raises(InputError, match=r"a\.tif against .*b\.tif.*\(15, 24\) and \(14, 24\)"):
        evaluate_paths(str(tmp_path / "a.tif"), str(tmp_path / "b.tif"))


def refused(path: Path, label: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        open_labels(str(path), label=label)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_missing_and_foreign_paths_are_refused(tmp_path: Path) -> None:
    assert "found nothing" in refused(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no labels")
    assert "ends in '.txt'" in refused(tmp_path / "notes.txt")
    (tmp_path / "empty").mkdir()
    assert "no zarr group" in refused(tmp_path / "empty")


def test_an_image_without_labels_is_refused(tmp_path: Path) -> None:
    write_multiscale(zarr.create_group(tmp_path / "raw.zarr"), IMAGE, "yx", "0.5")
    assert "dtype float32" in refused(tmp_path / "raw.zarr")
    assert "without label images" in refused(tmp_path / "raw.zarr", label="nuclei")
    write_result(tmp_path / "none.zarr", [])
    assert "label images: none" in refused(tmp_path / "none.zarr")


def test_metadata_that_does_not_hold_is_refused(tmp_path: Path) -> None:
    zarr.create_group(tmp_path / "bare.zarr").create_array("0", shape=(3, 3), dtype="u1")
    assert "multiscales" in refused(tmp_path / "bare.zarr")
    root = zarr.create_group(tmp_path / "lost.zarr")
    put_ome(root.create_group("labels"), {"labels": ["nuclei"]}, "0.5")
    assert "nothing there" in refused(tmp_path / "lost.zarr")
    write_multiscale(zarr.create_group(tmp_path / "turned.zarr"), LABELS, "xy", "0.5")
    assert "found x, y" in refused(tmp_path / "turned.zarr")


def test_colour_and_damaged_files_are_refused(tmp_path: Path) -> None:
    rgb = np.stack([LABELS.astype(np.uint8)] * 3, axis=-1)
    (tmp_path / "rgb.png").write_bytes(imagecodecs.png_encode(rgb))
    assert "axes ('y', 'x', 's')" in refused(tmp_path / "rgb.png")
    tifffile.imwrite(tmp_path / "rgb.tif", rgb, photometric="rgb")
    assert "axes ('y', 'x', 's')" in refused(tmp_path / "rgb.tif")
    tifffile.imwrite(tmp_path / "float.tif", IMAGE)
    assert "dtype float32" in refused(tmp_path / "float.tif")
    for name in ("bad.png", "bad.tif"):
        (tmp_path / name).write_bytes(b"not an image at all")
        assert "a readable" in refused(tmp_path / name)
    tifffile.imwrite(tmp_path / "one.tif", LABELS)
    assert "without a name" in refused(tmp_path / "one.tif", label="nuclei")


def test_bytes_that_do_not_decode_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2**16, (256, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "whole.tif", labels, compression="zlib", tile=(64, 64))
    data = bytearray((tmp_path / "whole.tif").read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    (tmp_path / "cut.tif").write_bytes(data)
    with pytest.raises(InputError, match=r"cut\.tif.*decode to labels"):
        evaluate_paths(str(tmp_path / "cut.tif"), str(tmp_path / "whole.tif"))
    (tmp_path / "short.png").write_bytes(imagecodecs.png_encode(labels)[:2000])
    assert "a readable PNG" in refused(tmp_path / "short.png")


def test_the_labels_of_a_result_in_a_bucket_open(
    tmp_path: Path,
    s3_server: str,  # noqa: F811 - a fixture
    bucket: str,  # noqa: F811 - a fixture
) -> None:
    result = Path(write_result(tmp_path / "out.ome.zarr", ["nuclei"]))
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    for file in filter(Path.is_file, result.rglob("*")):
        client.upload_file(str(file), name, f"out.ome.zarr/{file.relative_to(result)}")
    np.testing.assert_array_equal(open_labels(f"{bucket}/out.ome.zarr").array[...], LABELS)
    with pytest.raises(InputError, match="nothing there"):
        open_labels(f"{bucket}/other.ome.zarr")


def test_the_labels_of_a_foreign_image_open() -> None:
    path = SHARED / "omezarr/6001240_labels_v0.5.zarr"
    if not path.exists():
        pytest.skip("shared/data is not beside the checkout")
    source = open_labels(str(path))
    assert source.axes == ("c", "z", "y", "x")
    assert source.shape == (236, 275, 271)
