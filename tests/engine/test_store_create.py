"""Arrays and documents are made once; making them again changes nothing."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import store
from engine.errors import InputError, OutputError
from engine.store import (
    MODE,
    ArraySpec,
    Channel,
    ImageMetadata,
    Level,
    create_array,
    create_group,
    display_range,
    effective_shard,
    inspect_image,
    make_axes,
    micrometres,
    open_array,
    pyramid_levels,
    pyramid_shapes,
    update_group,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)

AXES = make_axes("cyx", "micrometer")
SPEC = ArraySpec((2, 70, 90), "uint16", (16, 16), (32, 32), AXES)
LEVEL = Level("0", (2, 70, 90), (1.0, 0.5, 0.5), (0.0, 0.0, 0.0))
IMAGE = ImageMetadata("test", AXES, (LEVEL,), "uint16", channels=(Channel("a"), Channel("b")))


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.read_bytes()) for p in files}


def test_everything_that_is_exported_is_there_and_listed_once() -> None:
    assert len(set(store.__all__)) == len(store.__all__)
    assert all(hasattr(store, name) for name in store.__all__)


def test_making_the_same_again_touches_no_file(tmp_path: Path) -> None:
    for _ in range(2):
        create_array(tmp_path, "maps/votes/0", SPEC)
        write_image_metadata(tmp_path / "maps/votes", IMAGE)
        write_labels_group(tmp_path, ["cells"])
        write_label_metadata(tmp_path / "labels/cells", colors={1: (255, 0, 0, 255)})
        before = contents(tmp_path)
    assert contents(tmp_path) == before
    assert sorted(before) == [
        "labels/cells/zarr.json",
        "labels/zarr.json",
        "maps/votes/0/zarr.json",
        "maps/votes/zarr.json",
        "maps/zarr.json",
        "zarr.json",
    ]


def test_the_array_is_as_specified(tmp_path: Path) -> None:
    create_array(tmp_path, "0", SPEC)
    array = open_array(tmp_path / "0")
    assert (array.shape, array.chunks, array.shards) == ((2, 70, 90), (1, 16, 16), (1, 32, 32))
    assert array.metadata.zarr_format == 3
    assert array.metadata.dimension_names == ("c", "y", "x")
    text = (tmp_path / "0" / "zarr.json").read_text()
    assert '"cname": "zstd"' in text
    assert '"typesize": 2' in text


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (ArraySpec((2, 70, 91), "uint16", (16, 16), (32, 32), AXES), "shape"),
        (ArraySpec((2, 70, 90), "uint8", (16, 16), (32, 32), AXES), "data_type"),
        (ArraySpec((2, 70, 90), "uint16", (32, 32), (32, 32), AXES), "codecs"),
        (ArraySpec((2, 70, 90), "uint16", (16, 16), (64, 64), AXES), "chunk_grid"),
        (ArraySpec((2, 70, 90), "uint16", (16, 16), (32, 32), make_axes("zyx")), "dimension_names"),
    ],
)
def test_another_array_in_the_place_is_kept(tmp_path: Path, changed: ArraySpec, named: str) -> None:
    create_array(tmp_path, "0", SPEC)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match=f"differs in .*{named}"):
        create_array(tmp_path, "0", changed)
    assert contents(tmp_path) == before


def test_what_is_no_group_is_kept(tmp_path: Path) -> None:
    create_array(tmp_path, "0", SPEC)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2" / ".zgroup").write_text('{"zarr_format": 2}')
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "zarr.json").write_text('{"zarr')
    before = contents(tmp_path)
    for name, found in [
        ("0", "an array"),
        ("file", "a file"),
        ("v2", "zarr v2"),
        ("damaged", "damaged JSON"),
    ]:
        with pytest.raises(OutputError, match=found):
            create_group(tmp_path / name)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"shape": (0, 70, 90)}, "shape"),
        ({"shape": (70, 90)}, "shape"),
        ({"dtype": "complex64"}, "dtype"),
        ({"chunk": (0, 16)}, "chunk"),
        ({"shard": (40, 32)}, "shard"),
        ({"shard": (8, 16)}, "shard"),
    ],
)
def test_a_specification_that_breaks_its_rules(changes: dict[str, Any], field: str) -> None:
    fields = {name: getattr(SPEC, name) for name in ("shape", "dtype", "chunk", "shard", "axes")}
    with pytest.raises(OutputError, match=f"^{field} of a new array"):
        ArraySpec(**(fields | changes))


@pytest.mark.parametrize("names", ["xy", "y", "", "yxc", "yyx", "ayx", "YX"])
def test_axes_that_are_refused(names: str) -> None:
    with pytest.raises(InputError):
        make_axes(names)


@given(
    st.tuples(st.integers(1, 10_000), st.integers(1, 10_000)),
    st.integers(1, 64),
    st.integers(1, 64),
)
def test_shards_are_whole_chunks_and_no_larger_than_needed(
    extent: tuple[int, int], chunk: int, factor: int
) -> None:
    wanted = chunk * factor
    found = effective_shard(extent, (chunk, chunk), (wanted, wanted))
    for size, length in zip(found, extent, strict=True):
        assert size % chunk == 0
        assert 0 < size <= wanted
        assert size == wanted or size >= length > size - chunk


@given(st.tuples(st.integers(1, 100_000), st.integers(1, 100_000)), st.integers(1, 1000))
def test_pyramids_halve_until_they_fit(extent: tuple[int, int], smallest: int) -> None:
    shapes = pyramid_shapes(extent, smallest)
    assert shapes[0] == extent
    assert max(shapes[-1]) <= smallest
    assert all(max(shape) > smallest for shape in shapes[:-1])
    assert all(
        b == -(-a // 2)
        for fine, coarse in pairwise(shapes)
        for a, b in zip(fine, coarse, strict=True)
    )


def test_coarse_pixels_lie_where_their_fine_pixels_do() -> None:
    """The centre of pixel i of level k is the mean of the centres that it stands for."""
    first = Level("m/0", (4, 1000, 1000), (2.0, 0.5, 0.25), (0.0, 10.0, -3.0))
    for k, level in enumerate(pyramid_levels(first, 100)):
        assert level.path == f"m/{k}"
        for axis in (1, 2):
            fine = first.translation[axis] + first.scale[axis] * np.arange(1000)
            expected = fine[: 2**k * 3].reshape(3, -1).mean(1)
            found = level.translation[axis] + level.scale[axis] * np.arange(3)
            np.testing.assert_allclose(found, expected)
        assert (level.scale[0], level.translation[0]) == (2.0, 0.0)


def test_metadata_keep_what_others_wrote(tmp_path: Path) -> None:
    update_group(tmp_path, {"_creator": "x"}, {"mine": 1})
    write_image_metadata(tmp_path, IMAGE)
    write_label_metadata(tmp_path, properties=[{"label-value": 1, "kind": "cell"}])
    attributes = json.loads((tmp_path / "zarr.json").read_text())["attributes"]
    assert attributes["mine"] == 1
    assert set(attributes["ome"]) == {"_creator", "version", "multiscales", "omero", "image-label"}


def test_source_properties_come_back(tmp_path: Path) -> None:
    properties = {"objective": 40, "vendor": {"name": "aperio"}}
    create_array(tmp_path, "0", SPEC)
    image = ImageMetadata("test", AXES, (LEVEL,), "uint16", properties=properties)
    write_image_metadata(tmp_path, image)
    assert inspect_image(tmp_path).properties == properties


def test_channels_get_distinct_colours_and_a_window(tmp_path: Path) -> None:
    create_array(tmp_path, "0", SPEC)
    write_image_metadata(tmp_path, IMAGE)
    info = inspect_image(tmp_path)
    assert len(set(info.channel_colors)) == 2
    assert info.channels[0].window == (0, 65535, 0, 65535)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"levels": ()}, "levels"),
        ({"levels": (Level("0", (4, 4), (1.0, 1.0), (0.0, 0.0)),)}, "levels"),
        ({"channels": (Channel("a"),)}, "channels"),
        ({"dtype": "complex64"}, "dtype"),
    ],
)
def test_image_metadata_that_break_their_rules(changes: dict[str, Any], named: str) -> None:
    fields: dict[str, Any] = {"name": "a", "axes": AXES, "levels": (LEVEL,), "dtype": "uint16"}
    with pytest.raises(OutputError, match=f"^{named}"):
        ImageMetadata(**(fields | changes))


def test_axes_out_of_the_order_of_the_specification_are_not_written(tmp_path: Path) -> None:
    image = ImageMetadata(
        "a", make_axes("zcyx"), (Level("0", (1,) * 4, (1.0,) * 4, (0.0,) * 4),), "uint8"
    )
    with pytest.raises(OutputError, match=r"OME-NGFF 0\.5"):
        write_image_metadata(tmp_path / "a.zarr", image)
    assert not (tmp_path / "a.zarr").exists()


def test_labels_are_listed_once_and_in_order(tmp_path: Path) -> None:
    write_labels_group(tmp_path, ["nuclei"])
    write_labels_group(tmp_path, ["cells", "nuclei"])
    document = json.loads((tmp_path / "labels" / "zarr.json").read_text())
    assert document["attributes"]["ome"]["labels"] == ["nuclei", "cells"]


def test_label_properties_need_their_label(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="label-value"):
        write_label_metadata(tmp_path, properties=[{"kind": "cell"}])


def test_the_method_of_a_pyramid_is_named(tmp_path: Path) -> None:
    write_image_metadata(tmp_path, ImageMetadata("a", AXES, (LEVEL,), "uint32", MODE))
    ome = json.loads((tmp_path / "zarr.json").read_text())["attributes"]["ome"]
    assert ome["multiscales"][0]["type"] == "mode"
    assert "omero" not in ome


def test_display_ranges() -> None:
    assert display_range("int8") == (-128, 127)
    assert display_range("float16") == (0, 1)


def test_lengths_in_micrometres() -> None:
    assert micrometres(2.0, "millimeter") == 2000
    assert micrometres(0.5, "\N{MICRO SIGN}m") == 0.5
    assert micrometres(1.0, None) is None
    assert micrometres(1.0, "pixel") is None
