"""What is written comes back, whatever the axes; what is no image is refused with a remedy."""

import contextlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.store import (
    ArraySpec,
    Channel,
    ImageMetadata,
    ImageReader,
    Level,
    create_array,
    inspect_image,
    make_axes,
    open_target,
    pyramid_levels,
    resolve_path,
    use_fast_codecs,
    write_box,
    write_image_metadata,
    write_label_metadata,
    write_labels_group,
)
from tiling.box import Box

SIZES = {"t": 2, "c": 3, "z": 2}


def write_image(
    folder: Path, data: np.ndarray, names: str, channels: tuple[Channel, ...] = ()
) -> None:
    """Write a one-level image with 16² chunks and 32² shards."""
    axes = make_axes(names, "micrometer")
    scale = tuple(0.5 if name in "yx" else 1.0 for name in names)
    level = Level("0", data.shape, scale, (0.0,) * data.ndim)
    create_array(folder, "0", ArraySpec(data.shape, data.dtype.name, (16, 16), (32, 32), axes))
    target = open_target(folder, "0")
    for leading in np.ndindex(data.shape[:-2]):
        write_box(target, leading, Box.of_shape(data.shape[-2:]), data[leading])
    write_image_metadata(
        folder, ImageMetadata("test", axes, (level,), data.dtype.name, channels=channels)
    )


def write_v2(folder: Path, data: np.ndarray, axes: list[dict[str, str]], **options: Any) -> None:
    """Write an OME-Zarr 0.4 image as a foreign writer would."""
    zarr.create_group(folder, zarr_format=2)
    array = zarr.create_array(
        folder / "0", shape=data.shape, dtype=data.dtype, zarr_format=2,
        chunks=(1,) * (data.ndim - 2) + (16, 16), **options,
    )  # fmt: skip
    array[...] = data
    scale = [{"type": "scale", "scale": [1.0] * data.ndim}]
    entry = {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
    (folder / ".zattrs").write_text(json.dumps({"multiscales": [entry | {"version": "0.4"}]}))


def edit(folder: Path, **changes: Any) -> None:
    """Change keys of the first multiscale of a 0.5 image; None removes one."""
    path = folder / "zarr.json"
    document = json.loads(path.read_text())
    first = document["attributes"]["ome"]["multiscales"][0]
    for key, value in changes.items():
        if value is None:
            del first[key]
        else:
            first[key] = value
    path.write_text(json.dumps(document))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A small two-channel image."""
    data = np.arange(2 * 40 * 50, dtype="uint16").reshape(2, 40, 50)
    channels = (Channel("DAPI", "0000FF", (0, 255, 10, 200)), Channel("actin"))
    write_image(tmp_path / "im.ome.zarr", data, "cyx", channels)
    return tmp_path / "im.ome.zarr"


@settings(max_examples=40)
@given(
    names=st.sampled_from(["yx", "cyx", "zyx", "tczyx", "tyx", "tcyx", "czyx"]),
    extent=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    dtype=st.sampled_from(["uint8", "uint16", "uint64", "float32", "int8", "bool"]),
    draw=st.data(),
)
def test_any_box_of_any_axes_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    names: str,
    extent: tuple[int, int],
    dtype: str,
    draw: st.DataObject,
) -> None:
    shape = (*(SIZES[n] for n in names[:-2]), *extent)
    data = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 99, shape).astype(dtype)
    folder = tmp_path_factory.mktemp("image")
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        use_fast_codecs()
        write_image(folder, data, names)
        reader = ImageReader(folder)
        sizes = {n: SIZES[n] for n in names[:-2]}
        plane = tuple(
            draw.draw(st.integers(0, SIZES[n] - 1), label=n) for n in names[:-2] if n != "c"
        )
        count = sizes.get("c", 1)
        channels = draw.draw(st.lists(st.integers(0, count - 1), max_size=4), label="channels")
        ends = [sorted(draw.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in extent]
        box = Box((ends[0][0], ends[1][0]), (ends[0][1], ends[1][1]))
        found = reader.read(plane, channels, box)
    indices = iter(plane)
    whole = data[tuple(slice(None) if n == "c" else next(indices) for n in names[:-2])]
    expected = whole.reshape(-1, *extent)[channels][(slice(None), *box.slices())]
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == data.dtype
    assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", ["<u2", ">u2", ">f4", "|u1"])
def test_v2_images_come_back_in_native_byte_order(tmp_path: Path, dtype: str) -> None:
    data = np.arange(3 * 40 * 50).reshape(3, 1, 40, 50).astype(dtype)
    axes = [{"name": "c", "type": "channel"}] + [{"name": n, "type": "space"} for n in "zyx"]
    write_v2(tmp_path / "a.zarr", data, axes)
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        use_fast_codecs()
        reader = ImageReader(tmp_path / "a.zarr")
        found = reader.read((0,), (2, 0), Box((5, 6), (37, 50)))
    np.testing.assert_array_equal(found, data[[2, 0], 0, 5:37, 6:50])
    assert found.dtype.isnative
    assert reader.info.version == "0.4"
    assert reader.info.dtype == np.dtype(dtype).newbyteorder("=").name


def test_inspect_says_what_was_written(image: Path) -> None:
    info = inspect_image(image)
    assert (info.version, info.name, info.dtype, info.is_label) == ("0.5", "test", "uint16", False)
    assert (info.plane_axes, info.plane_shape, info.n_planes) == ((), (), 1)
    assert (info.n_channels, info.extent) == (2, (40, 50))
    assert (info.chunks, info.shards) == ((1, 16, 16), (1, 32, 32))
    assert info.channels[0] == Channel("DAPI", "0000FF", (0, 255, 10, 200))
    assert info.channel_names == ("DAPI", "actin")
    assert info.pixel_size_um == (0.5, 0.5)
    assert info.levels == (Level("0", (2, 40, 50), (1, 0.5, 0.5), (0, 0, 0)),)


def test_scale_of_the_whole_multiscale_applies_to_every_level(image: Path) -> None:
    outer = [
        {"type": "scale", "scale": [1, 2, 4]},
        {"type": "translation", "translation": [0, 7, 0]},
    ]
    inner = [
        {"type": "scale", "scale": [1, 0.5, 0.5]},
        {"type": "translation", "translation": [0, 1, 3]},
    ]
    datasets = [{"path": "0", "coordinateTransformations": inner}]
    edit(image, coordinateTransformations=outer, datasets=datasets)
    level = inspect_image(image).levels[0]
    assert (level.scale, level.translation) == ((1, 1, 2), (0, 9, 12))


def test_a_smaller_level_is_read_by_its_own_extent(tmp_path: Path) -> None:
    axes = make_axes("yx")
    levels = pyramid_levels(Level("0", (60, 50), (1.0, 1.0), (0.0, 0.0)), 32)
    for k, level in enumerate(levels):
        create_array(
            tmp_path, level.path, ArraySpec(level.shape, "uint8", (16, 16), (32, 32), axes)
        )
        pixels = np.full(level.shape, k + 1, "uint8")
        write_box(open_target(tmp_path, level.path), (), Box.of_shape(level.shape), pixels)
    write_image_metadata(tmp_path, ImageMetadata("a", axes, levels, "uint8"))
    reader = ImageReader(tmp_path, level=1)
    assert reader.extent == (30, 25)
    assert (reader.read((), (0,), Box((0, 0), (30, 25))) == 2).all()
    with pytest.raises(InputError, match="0 to 1"):
        ImageReader(tmp_path, level=2)


@pytest.mark.parametrize(
    ("plane", "channels", "box"),
    [
        ((), (2,), Box((0, 0), (4, 4))),
        ((), (-1,), Box((0, 0), (4, 4))),
        ((0,), (0,), Box((0, 0), (4, 4))),
        ((), (0,), Box((-1, 0), (4, 4))),
        ((), (0,), Box((0, 0), (41, 4))),
        ((), (0,), Box((0, 0, 0), (1, 4, 4))),
    ],
)
def test_reading_outside_the_image_is_refused(
    image: Path, plane: tuple[int, ...], channels: tuple[int, ...], box: Box
) -> None:
    with pytest.raises(InputError, match=r"outside|inside"):
        ImageReader(image).read(plane, channels, box)


def test_threads_share_a_reader(image: Path) -> None:
    reader = ImageReader(image)
    boxes = [Box((y, x), (y + 9, x + 11)) for y in range(0, 30, 7) for x in range(0, 39, 3)]
    whole = reader.read((), (0, 1), Box((0, 0), (40, 50)))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda box: reader.read((), (0, 1), box), boxes))
    for box, part in zip(boxes, parts, strict=True):
        np.testing.assert_array_equal(part, whole[(slice(None), *box.slices())])


def test_damaged_pixels_name_the_place(image: Path) -> None:
    for path in (image / "0" / "c").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:20])
    for fast in (False, True):
        with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
            if fast:
                use_fast_codecs()
            with pytest.raises(InputError, match=r"box 3:9,4:8.*decode"):
                ImageReader(image).read((), (0,), Box((3, 4), (9, 8)))


def test_a_bf2raw_container_of_one_image_is_that_image(image: Path) -> None:
    box = image.parent / "box.zarr"
    shutil.copytree(image, box / "0")
    (box / "zarr.json").write_text(
        json.dumps(
            {
                "zarr_format": 3,
                "node_type": "group",
                "attributes": {"ome": {"version": "0.5", "bioformats2raw.layout": 3}},
            }
        )
    )
    assert resolve_path(box).path == box / "0"
    shutil.copytree(image, box / "1")
    with pytest.raises(InputError, match=r"container with 2: .*box\.zarr/0"):
        resolve_path(box)


def test_a_plate_names_its_fields(image: Path) -> None:
    plate = image.parent / "plate.zarr"
    group: dict[str, Any] = {"zarr_format": 3, "node_type": "group"}
    wells = [{"path": f"A/{k}", "rowIndex": 0, "columnIndex": k} for k in range(2)]
    for folder, ome in [
        (plate, {"plate": {"wells": wells}}),
        (plate / "A", {}),
        (plate / "A/0", {"well": {"images": [{"path": "f1"}, {"path": "f2"}]}}),
        (plate / "A/1", {"well": {"images": [{"path": "f1"}]}}),
    ]:
        folder.mkdir()
        (folder / "zarr.json").write_text(json.dumps(group | {"attributes": {"ome": ome}}))
    with pytest.raises(InputError, match=r"plate with 3: .*A/0/f1, .*A/0/f2, .*A/1/f1\. Pass one"):
        inspect_image(plate)
    with pytest.raises(InputError, match=r"well with 2"):
        inspect_image(plate / "A" / "0")


def test_labels_are_labels(image: Path) -> None:
    ids = np.full((40, 50), 2**40, "uint64")
    write_image(image / "labels" / "cells", ids, "yx")
    write_labels_group(image, ["cells"])
    assert inspect_image(image / "labels" / "cells").is_label, "listed by the group above"
    write_label_metadata(image / "labels" / "cells")
    info = inspect_image(image / "labels" / "cells")
    assert info.is_label
    assert info.dtype == "uint64"
    assert ImageReader(image / "labels/cells").read((), (0,), Box((1, 1), (2, 2)))[0, 0, 0] == 2**40
    with pytest.raises(InputError, match="labels/cells"):
        inspect_image(image / "labels")


@pytest.mark.parametrize("name", ["slide.svs", "a b.ome.tif", "frame.png"])
def test_other_files_name_the_command_that_converts_them(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not zarr")
    stem = name.split(".", maxsplit=1)[0]
    with pytest.raises(InputError) as caught:
        inspect_image(tmp_path / name)
    assert "tilewright ingest " in caught.value.remedy
    assert caught.value.remedy.rstrip("'").endswith(f"{stem}.ome.zarr")


def test_what_is_no_image_is_refused(image: Path) -> None:
    folder = image.parent
    with pytest.raises(InputError, match="nothing there"):
        inspect_image(folder / "absent.zarr")
    with pytest.raises(InputError, match=r"no zarr group.*tilewright ingest"):
        inspect_image(folder)
    with pytest.raises(InputError, match="a zarr array"):
        inspect_image(image / "0")
    with pytest.raises(InputError, match="the scheme gs"):
        inspect_image("gs://bucket/im.ome.zarr")
    zarr.create_group(folder / "bare.zarr")
    with pytest.raises(InputError, match="without multiscales"):
        inspect_image(folder / "bare.zarr")


SPACE = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
CHANNEL = {"name": "c", "type": "channel"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": None}, "list of axes"),
        ({"axes": SPACE}, r"2 axes"),
        ({"axes": [SPACE[0], SPACE[1], CHANNEL]}, "last two"),
        ({"axes": [CHANNEL, SPACE[1], SPACE[0]]}, "last two"),
        ({"axes": [{"name": "q", "type": "space"}, *SPACE]}, "'q'"),
        ({"axes": [{"name": "c", "type": "time"}, *SPACE]}, "type 'channel'"),
        ({"axes": ["c", "y", "x"]}, "a name"),
        ({"datasets": None}, "at least one level"),
        ({"datasets": [{"path": "0"}]}, "coordinateTransformations"),
    ],
)
def test_broken_metadata_are_refused(image: Path, changes: dict[str, Any], message: str) -> None:
    edit(image, **changes)
    with pytest.raises(InputError, match=message):
        inspect_image(image)


@pytest.mark.parametrize("path", ["1", "../im.ome.zarr/0", "/0"])
def test_level_paths_that_lead_nowhere_are_refused(image: Path, path: str) -> None:
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    edit(image, datasets=[{"path": path, "coordinateTransformations": scale}])
    with pytest.raises(InputError, match=r"no array|inside the image"):
        inspect_image(image)


def test_levels_must_agree_with_the_axes_and_with_each_other(image: Path) -> None:
    scale = [{"type": "scale", "scale": [1, 1, 1]}]
    datasets = [{"path": p, "coordinateTransformations": scale} for p in ("0", "1")]
    edit(image, datasets=datasets)
    for shape, dtype, message in [
        ((20, 25), "uint16", "3 axes"),
        ((2, 20, 0), "uint16", "at least one pixel"),
        ((2, 20, 25), "uint8", "as level 0"),
        ((2, 20, 25), "complex64", "complex"),
    ]:
        zarr.create_array(
            image / "1", shape=shape, dtype=dtype, chunks=(1,) * len(shape), overwrite=True
        )
        with pytest.raises(InputError, match=message):
            inspect_image(image)


@pytest.mark.parametrize("version", ["0.1", "0.6.dev1", None])
def test_other_versions_are_refused(image: Path, version: str | None) -> None:
    path = image / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["ome"]["version"] = version
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"OME-Zarr 0\.5"):
        inspect_image(image)


@pytest.mark.parametrize("content", ["", '{"zarr_format": 3, "node_ty', "[]", "{}"])
def test_a_damaged_group_document_is_named(image: Path, content: str) -> None:
    (image / "zarr.json").write_text(content)
    with pytest.raises(InputError, match=r"zarr\.json"):
        inspect_image(image)


def test_display_metadata_never_refuse_an_image(image: Path) -> None:
    path = image / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["ome"]["omero"] = {"channels": [{"color": 255, "window": {"min": "x"}}]}
    path.write_text(json.dumps(document))
    info = inspect_image(image)
    assert info.channels == (Channel("channel 0"), Channel("channel 1"))


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    if isinstance(value, dict):
        inner = [place for key in value for place in places(value[key], (*at, key))]
    elif isinstance(value, list):
        inner = [place for k, item in enumerate(value) for place in places(item, (*at, k))]
    else:
        inner = []
    return [at, *inner]


JSON_VALUES = st.sampled_from(
    [None, True, 0, -1, 2, 10**30, 1e308, "", "x", "|O", [], [None], ["x"], [0, 0], {}, {"a": 1}]
)


# zarrs says so when a codec's setting is beyond it and zarr-python takes over.
@pytest.mark.filterwarnings("ignore:Array is unsupported by ZarrsCodecPipeline")
@settings(max_examples=150)
@given(draw=st.data())
def test_one_wrong_value_anywhere_is_read_or_refused_never_a_crash(
    tmp_path_factory: pytest.TempPathFactory, draw: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp() / "mutated.zarr"
    version = draw.draw(st.sampled_from([2, 3]))
    if not (folder / str(version)).exists():
        data = np.ones((2, 20, 20), "uint16")
        write_image(folder / "3", data, "cyx", (Channel("a"), Channel("b")))
        names = [("c", "channel"), ("y", "space"), ("x", "space")]
        write_v2(folder / "2", data, [{"name": n, "type": t} for n, t in names])
    files = ["zarr.json", "0/zarr.json"] if version == 3 else [".zattrs", "0/.zarray"]
    path = folder / str(version) / draw.draw(st.sampled_from(files))
    good = path.read_text()
    document = json.loads(good)
    *above, last = draw.draw(st.sampled_from(places(document)[1:]), label="place")
    holder = document
    for key in above:
        holder = holder[key]
    holder[last] = draw.draw(JSON_VALUES, label="value")
    fast = draw.draw(st.booleans())
    path.write_text(json.dumps(document))
    try:
        with (
            contextlib.suppress(InputError),
            zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}),
        ):
            if fast:
                use_fast_codecs()
            reader = ImageReader(folder / str(version))
            assert reader.read((), (0,), Box((0, 0), (9, 5))).shape == (1, 9, 5)
    finally:
        path.write_text(good)
