"""The Rust codecs give the pixels of zarr-python, or are not used."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr import codecs

from engine.errors import InputError, OutputError
from engine.store import (
    ArraySpec,
    create_array,
    make_axes,
    open_array,
    open_target,
    read_plane,
    remove_partial,
    use_fast_codecs,
    write_box,
)
from tiling.box import Box

PYTHON = "zarr.core.codec_pipeline.BatchedCodecPipeline"
DTYPES = ["bool", "int8", "uint8", "uint16", "int32", "uint64", "float16", "float32", "float64"]


@pytest.fixture(params=["rust", "python"])
def pipeline(request: pytest.FixtureRequest) -> Iterator[str]:
    """Codecs in use during a test; the process-wide setting is put back after it."""
    with zarr.config.set({"codec_pipeline.path": PYTHON, "threading.max_workers": None}):
        if request.param == "rust":
            assert use_fast_codecs(threads=1)
        yield request.param


def make(path: Path, data: np.ndarray, **options: Any) -> None:
    """Write a foreign array with the codecs of zarr-python."""
    with zarr.config.set({"codec_pipeline.path": PYTHON}):
        array = zarr.create_array(path, shape=data.shape, dtype=data.dtype, **options)
        array[...] = data


def uses_rust(array: zarr.Array[Any]) -> bool:
    return type(array._async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"


def pixels_of(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def spec_of(shape: tuple[int, ...], dtype: str = "uint16", names: str = "cyx") -> ArraySpec:
    return ArraySpec(shape, dtype, (16, 16), (32, 32), make_axes(names))


def stored(array_path: Path) -> list[str]:
    return sorted(str(p.relative_to(array_path)) for p in array_path.rglob("*") if p.is_file())


def test_v2_arrays_of_every_common_compressor(tmp_path: Path, pipeline: str) -> None:
    compressors = {
        "none": None,
        "blosc-lz4": numcodecs.Blosc("lz4", 5, 1),
        "blosc-zstd": numcodecs.Blosc("zstd", 3, 2),
        "zlib": numcodecs.Zlib(1),
        "gzip": numcodecs.GZip(1),
        "zstd": numcodecs.Zstd(1),
        "lz4": numcodecs.LZ4(),
        "bz2": numcodecs.BZ2(1),
    }
    for dtype in ["|b1", "|i1", "<u2", ">u2", "<f2", ">f4", "<u8"]:
        data = pixels_of(np.dtype(dtype).name, (3, 50, 45)).astype(dtype)
        for name, compressor in compressors.items():
            path = tmp_path / f"{name}{np.dtype(dtype).str.replace('|', '')}"
            make(
                path, data, chunks=(2, 20, 20), zarr_format=2, compressors=compressor,
                filters=None, chunk_key_encoding={"name": "v2", "separator": "/"},
            )  # fmt: skip
            array = open_array(path)
            np.testing.assert_array_equal(array[1:3, 7:41, 5:6], data[1:3, 7:41, 5:6], err_msg=name)
            rust = pipeline == "rust" and dtype[0] != ">" and name not in ("lz4", "bz2")
            assert uses_rust(array) == rust, (dtype, name)


def test_v2_array_with_a_filter_keeps_the_python_codecs(tmp_path: Path, pipeline: str) -> None:
    data = pixels_of("int32", (40, 40))
    make(
        tmp_path / "a", data, chunks=(20, 20), zarr_format=2,
        filters=[numcodecs.Delta("<i4")], compressors=numcodecs.Zlib(1),
    )  # fmt: skip
    array = open_array(tmp_path / "a")
    np.testing.assert_array_equal(array[:], data)
    assert not uses_rust(array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_v3_arrays_of_foreign_chains(tmp_path: Path, pipeline: str, dtype: str) -> None:
    data = pixels_of(dtype, (3, 50, 45))
    chains = {
        "gzip": {"compressors": codecs.GzipCodec(level=1)},
        "zstd": {"compressors": codecs.ZstdCodec(level=1)},
        "blosc": {"compressors": codecs.BloscCodec(cname="lz4", shuffle="shuffle")},
        "big": {"serializer": codecs.BytesCodec(endian="big"), "compressors": None},
        "transposed": {"filters": codecs.TransposeCodec(order=(2, 0, 1)), "compressors": None},
        "crc": {"compressors": codecs.Crc32cCodec()},
        "sharded": {"shards": (2, 40, 40)},
    }
    for name, chain in chains.items():
        make(tmp_path / name, data, chunks=(1, 20, 20), **chain)
        array = open_array(tmp_path / name)
        np.testing.assert_array_equal(array[1:3, 7:41, 5:6], data[1:3, 7:41, 5:6], err_msg=name)
        assert uses_rust(array) == (pipeline == "rust"), name


@pytest.mark.parametrize("dtype", DTYPES)
def test_boxes_of_whole_shards_come_back_and_fill_is_not_stored(
    tmp_path: Path, pipeline: str, dtype: str
) -> None:
    create_array(tmp_path, "0", spec_of((2, 70, 90), dtype))
    target = open_target(tmp_path, "0")
    array = target.array
    data = pixels_of(dtype, (70, 90))
    data[:32, :32] = 0
    for box in Box.of_shape((70, 90)).split((32, 64)):
        write_box(target, (1,), box, data[box.slices()])
    np.testing.assert_array_equal(open_array(tmp_path / "0")[1], data)
    assert uses_rust(array) == (pipeline == "rust")
    places = [f"c/1/{y}/{x}" for y in range(3) for x in range(3) if (y, x) != (0, 0)]
    assert stored(tmp_path / "0") == [*places, "zarr.json"]
    # An object that turns empty goes away: a second run must leave what one run leaves.
    write_box(target, (1,), Box((0, 0), (70, 90)), np.zeros((70, 90), dtype))
    assert stored(tmp_path / "0") == ["zarr.json"]


def test_objects_cut_short_by_a_crash_are_replaced(tmp_path: Path, pipeline: str) -> None:
    create_array(tmp_path, "0", spec_of((1, 70, 90)))
    target = open_target(tmp_path, "0")
    array = target.array
    data = pixels_of("uint16", (70, 90)) + 1
    write_box(target, (0,), Box((0, 0), (70, 90)), data)
    for place in stored(tmp_path / "0")[:-1]:
        path = tmp_path / "0" / place
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises((RuntimeError, ValueError)):
        array[:]
    for box in Box.of_shape((70, 90)).split((32, 32)):
        write_box(target, (0,), box, data[box.slices()])
    np.testing.assert_array_equal(array[0], data)


def test_a_writer_that_dies_leaves_the_objects_that_stood(
    tmp_path: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_array(tmp_path, "0", spec_of((1, 70, 90)))
    target = open_target(tmp_path, "0")
    array = target.array
    data = pixels_of("uint16", (70, 90)) + 1
    write_box(target, (0,), Box((0, 0), (70, 90)), data)

    def die(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", die)
    with pytest.raises(KeyboardInterrupt):
        write_box(target, (0,), Box((0, 0), (70, 90)), data * 2)
    np.testing.assert_array_equal(array[0], data)
    assert len(stored(tmp_path / "0")) == 10


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    create_array(tmp_path, "0", spec_of((1, 70, 90)))
    left = tmp_path / "0" / ".partial-0123" / "c" / "0"
    left.mkdir(parents=True)
    (left / "0").write_bytes(b"cut")
    assert open_array(tmp_path / "0")[:].max() == 0
    assert remove_partial(tmp_path / "0") == 1
    assert stored(tmp_path / "0") == ["zarr.json"]


def test_a_full_disk_is_an_output_error(
    tmp_path: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_array(tmp_path, "0", spec_of((1, 70, 90)))
    target = open_target(tmp_path, "0")

    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OutputError, match="No space left"):
        write_box(target, (0,), Box((0, 0), (32, 32)), np.ones((32, 32), "uint16"))
    assert stored(tmp_path / "0") == ["zarr.json"]


@pytest.mark.parametrize(
    ("leading", "box", "dtype"),
    [
        ((0,), Box((0, 0), (16, 32)), "uint16"),
        ((0,), Box((32, 32), (70, 80)), "uint16"),
        ((0,), Box((64, 64), (96, 96)), "uint16"),
        ((2,), Box((0, 0), (32, 32)), "uint16"),
        ((0,), Box((0, 0), (32, 32)), "int32"),
    ],
    ids=["cuts a shard", "cuts at the end", "over the edge", "no such plane", "dtype"],
)
def test_boxes_that_are_not_whole_shards_are_refused(
    tmp_path: Path, leading: tuple[int, ...], box: Box, dtype: str
) -> None:
    create_array(tmp_path, "0", spec_of((2, 70, 90)))
    target = open_target(tmp_path, "0")
    with pytest.raises(OutputError, match="whole"):
        write_box(target, leading, box, np.ones(box.shape, dtype))
    assert stored(tmp_path / "0") == ["zarr.json"]


def test_threads_read_and_write_different_shards(tmp_path: Path, pipeline: str) -> None:
    data = pixels_of("uint16", (160, 192)) + 1
    create_array(tmp_path, "in", spec_of(data.shape, names="yx"))
    create_array(tmp_path, "out", spec_of(data.shape, names="yx"))
    source, sink = open_target(tmp_path, "in"), open_target(tmp_path, "out")
    write_box(source, (), Box.of_shape(data.shape), data)

    def copy(box: Box) -> None:
        write_box(sink, (), box, source.array[box.slices()])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(copy, list(Box.of_shape(data.shape).split((32, 32))) * 3))
    np.testing.assert_array_equal(open_array(tmp_path / "out")[:], data)


@pytest.mark.parametrize(
    "document",
    [
        {"dtype": "<c8"},
        {"dtype": "|O"},
        {"dtype": "<U4"},
        {"dtype": [["a", "<u2"]]},
        {"dtype": "<M8[ns]"},
        {"dtype": None},
    ],
)
def test_dtypes_that_are_no_numbers_are_refused(tmp_path: Path, document: dict[str, Any]) -> None:
    zarr.create_array(tmp_path / "a", shape=(4, 4), chunks=(4, 4), dtype="<u2", zarr_format=2)
    path = tmp_path / "a" / ".zarray"
    path.write_text(path.read_text().replace('"<u2"', repr(document["dtype"]).replace("'", '"')))
    with pytest.raises(InputError, match=r"dtype|JSON"):
        open_array(tmp_path / "a")
    with pytest.raises(OutputError):
        open_array(tmp_path / "a", "r+")


@pytest.mark.parametrize("data_type", ["complex64", "string", "r16", "bfloat16"])
def test_v3_dtypes_that_are_not_taken(tmp_path: Path, data_type: str) -> None:
    zarr.create_array(tmp_path / "a", shape=(4, 4), chunks=(4, 4), dtype="uint16")
    path = tmp_path / "a" / "zarr.json"
    path.write_text(path.read_text().replace('"uint16"', f'"{data_type}"'))
    with pytest.raises(InputError, match=data_type):
        open_array(tmp_path / "a")


def test_metadata_that_zarr_cannot_open(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "a", shape=(4, 4), chunks=(4, 4), dtype="uint16")
    path = tmp_path / "a" / "zarr.json"
    for old, new in (('"bytes"', '"secret"'), ('"regular"', '"irregular"'), ('"shape"', '"form"')):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match=r"can be opened"):
            open_array(tmp_path / "a")
        path.write_text(text)
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(InputError, match="no array"):
        open_array(tmp_path / "a")


def test_an_array_that_is_being_opened_leaves_the_setting_to_others(
    tmp_path: Path, pipeline: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The setting that an opening puts back must not be older than another thread's."""
    make(tmp_path / "a", np.zeros((8, 8), "uint16"), chunks=(4, 4), compressors=None)
    zarr.config.set({"codec_pipeline.path": PYTHON})
    inside, done = Event(), Event()
    real = zarr.Array.from_dict

    def slow(*args: Any, **kwargs: Any) -> Any:
        inside.set()
        done.wait(0.5)
        return real(*args, **kwargs)

    monkeypatch.setattr(zarr.Array, "from_dict", slow)
    with ThreadPoolExecutor(2) as pool:
        opening = pool.submit(open_array, tmp_path / "a")
        assert inside.wait(5)
        setting = pool.submit(use_fast_codecs, 1)
        setting.add_done_callback(lambda _: done.set())
        opening.result()
        assert setting.result()
    assert zarr.config.get("codec_pipeline.path") != PYTHON


def test_fill_value_is_not_stored_whatever_the_setting(tmp_path: Path, pipeline: str) -> None:
    make(tmp_path / "a", np.zeros((8, 8), "uint16"), chunks=(4, 4), compressors=None)
    with zarr.config.set({"array.write_empty_chunks": True}):
        open_array(tmp_path / "a", "r+")[...] = 0
    assert stored(tmp_path / "a") == ["zarr.json"]


@pytest.mark.parametrize("leading", [(), (1,), (1, 0)])
def test_any_box_of_a_plane_is_read(
    pipeline: str, tmp_path: Path, leading: tuple[int, ...]
) -> None:
    shape = (*(2 for _ in leading), 65, 130)
    data = pixels_of("uint8", shape)
    ones = (1,) * len(leading)
    make(tmp_path / "a", data, chunks=(*ones, 16, 16), shards=(*ones, 32, 32))
    array = open_array(tmp_path / "a")
    assert uses_rust(array) is (pipeline == "rust")
    boxes = [((64, 0), (65, 130)), ((0, 129), (65, 130)), ((32, 0), (33, 33)), ((32, 64), (33, 65))]
    for start, stop in boxes:
        box = Box(start, stop)
        np.testing.assert_array_equal(read_plane(array, leading, box), data[leading][box.slices()])
