"""Axes of a source: what a file names, what the user names, and what is refused as a guess."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import Command, commands_in

from engine.errors import InputError
from engine.store import ImageReader
from engine.store.sources import SourceInfo, open_source, split_axes, with_axes
from tiling import Box

RNG = np.random.default_rng(3)
PAIR = RNG.integers(0, 255, (40, 50, 2), dtype=np.uint8)
GREY = "minisblack"
LENGTHS = {"t": 3, "c": 2, "z": 4, "y": 20, "x": 30}


def whole(path: str) -> tuple[SourceInfo, np.ndarray]:
    """Facts and all pixels of a source: (planes …, C, Y, X), read in two boxes of each plane."""
    with open_source(path) as source:
        info = source.info
        planes = tuple(info.size(axis) for axis in info.plane_axes)
        height, width = info.shape[-2:]
        found = np.empty((*planes, info.channels, height, width), info.dtype)
        for at in np.ndindex(planes):
            index = dict(zip(info.plane_axes, at, strict=True))
            for box in (Box((0, 0), (height, 1)), Box((0, 1), (height, width))):
                found[at][:, :, box.start[1] : box.stop[1]] = source.read(index, box)
    return info, found


@pytest.mark.parametrize(
    "axes",
    [
        *("yx", "xy", "tzyx", "czyx", "yxzc", "tczyx", "yxtcz"),
        *map("".join, permutations("yxc")),
        *map("".join, permutations("zyx")),
    ],
)
def test_any_order_of_axes_that_a_plain_tiff_does_not_name(axes: str, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 60000, [LENGTHS[a] for a in axes], dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=GREY)
    info, found = whole(with_axes(str(tmp_path / "a.tif"), axes))
    assert info.axes == tuple(a for a in "tczyx" if a in axes)
    assert info.shape == tuple(LENGTHS[a] for a in info.axes)
    order = [axes.index(a) for a in "tzcyx" if a in axes]
    assert np.array_equal(found.reshape(-1), pixels.transpose(order).reshape(-1))
    assert info.channel_names == (("channel 0", "channel 1") if "c" in axes else ())


def test_samples_of_a_pixel_are_an_axis_too(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 255, (40, 50, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    info, found = whole(with_axes(str(tmp_path / "a.tif"), "yxz"))
    assert (info.axes, info.shape) == (("z", "y", "x"), (3, 40, 50))
    assert np.array_equal(found[:, 0], np.moveaxis(pixels, -1, 0))
    info, _ = whole(with_axes(str(tmp_path / "a.tif"), "yxc"))
    assert info.channel_names == ("red", "green", "blue")


def test_a_pixel_size_holds_for_rows_and_columns_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PAIR.transpose(2, 0, 1), resolution=(20000, 20000), resolutionunit=3)
    info, _ = whole(with_axes(str(path), "cyx"))
    assert (info.scale, info.units) == ((1.0, 0.5, 0.5), (None, "micrometer", "micrometer"))
    info, _ = whole(with_axes(str(path), "yxz"))
    assert set(info.units) == {None}


def test_each_frame_of_a_folder_has_the_axes(tmp_path: Path) -> None:
    for k in range(2):
        tifffile.imwrite(tmp_path / f"{k}.tif", PAIR + k)
    info, found = whole(with_axes(str(tmp_path), "yxc"))
    assert (info.axes, info.shape) == (("t", "c", "y", "x"), (2, 2, 40, 50))
    assert np.array_equal(found[1], np.moveaxis(PAIR + 1, -1, 0))
    with pytest.raises(InputError, match="single points in time"):
        open_source(with_axes(str(tmp_path), "yxt"))


@pytest.mark.parametrize(
    ("shape", "found", "letters"),
    [
        ((40, 50, 2), "40 planes of 50 x 2 pixels", "last dimension holds channels: --axes yxc"),
        ((40, 3, 50), "40 planes of 3 x 50 pixels", "dimension of 3 holds channels: --axes ycx"),
    ],
)
def test_planes_that_are_too_narrow_are_refused(
    shape: tuple[int, ...], found: str, letters: str, tmp_path: Path
) -> None:
    pixels = RNG.integers(0, 255, shape, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric=GREY)
    for path in (tmp_path / "a.tif", tmp_path):
        with pytest.raises(InputError, match=found) as caught:
            open_source(str(path))
        assert letters in caught.value.remedy
        assert "--axes zyx" in caught.value.remedy
    assert whole(with_axes(str(tmp_path / "a.tif"), "zyx"))[0].axes == ("z", "y", "x")


@pytest.mark.parametrize("kind", ["ome", "imagej", "shaped"])
def test_narrow_planes_that_the_file_names_are_taken(kind: str, tmp_path: Path) -> None:
    options = {} if kind == "shaped" else {kind: True}
    pixels = PAIR[..., 0].reshape(50, 10, 4)
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, metadata={"axes": "ZYX"}, photometric=GREY, **options
    )
    assert whole(str(tmp_path / "a.tif"))[0].shape == (50, 10, 4)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("ome", "OME-XML"), ("imagej", "ImageJ description"), ("shaped", "its description")],
)
def test_axes_that_contradict_the_file_are_refused(kind: str, said: str, tmp_path: Path) -> None:
    options = {} if kind == "shaped" else {kind: True}
    path = str(tmp_path / "a.tif")
    tifffile.imwrite(
        path, PAIR.transpose(2, 0, 1), metadata={"axes": "ZYX"}, photometric=GREY, **options
    )
    with pytest.raises(InputError, match=f"the axes zyx, which .*{said} names, found --axes cyx"):
        open_source(with_axes(path, "cyx"))
    assert np.array_equal(whole(with_axes(path, "zyx"))[1], whole(path)[1])


@pytest.mark.parametrize("axes", ["yxq", "yxx", "ycz", "yxcyx", ""])
def test_letters_that_are_no_axes(axes: str) -> None:
    with pytest.raises(InputError, match="letters of t, c, z, y and x"):
        with_axes("a.tif", axes)


def test_too_few_and_too_many_letters(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PAIR)
    for axes in ("yx", "tyxc"):
        with pytest.raises(InputError, match=f"3 letters for the 40 x 50 x 2 .*--axes {axes}"):
            open_source(with_axes(str(tmp_path / "a.tif"), axes))
    tifffile.imwrite(tmp_path / "b.tif", RNG.random((2, 4, 20, 30), np.float32), photometric=GREY)
    with pytest.raises(InputError, match=r"2 axes without a name.*such as --axes czyx"):
        open_source(str(tmp_path / "b.tif"))


def test_an_address_is_taken_apart_as_it_was_made() -> None:
    for path in ("a.tif", "s3://b/c|axes:d/e.tif", "a|axes:yx/b*.tif"):
        assert split_axes(with_axes(path, None)) == (path, None)
        assert split_axes(with_axes(path, "YXC")) == (path, "yxc")


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    tifffile.imwrite(tmp_path / "a.tif", PAIR)
    return commands_in(tmp_path, monkeypatch, capsys)


def test_axes_on_the_command_line_are_those_of_the_image(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    words = ("ingest", "a.tif", "a.ome.zarr", "--cluster", cluster_address)
    tilewright(*words).refuses("40 planes of 50 x 2 pixels", "--axes yxc")
    tilewright(*words, "--axes", "yxq").refuses("--axes", "'yxq'")
    answer = tilewright(*words, "--axes", "yxc")
    assert answer.code == 0, answer
    reader = ImageReader(tmp_path / "a.ome.zarr")
    assert reader.info.channel_names == ("channel 0", "channel 1")
    assert np.array_equal(reader.read((), (0, 1), Box((0, 0), (40, 50))), PAIR.transpose(2, 0, 1))
    tilewright(*words, "--axes", "xyc").refuses("source.axes: yxc -> xyc", "ingest --overwrite")
    tilewright(*words, "--axes", "zyx").refuses("source.axes: yxc -> zyx")


def test_an_image_is_not_ingested_into_the_folder_of_its_frames(
    tilewright: Command, tmp_path: Path
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "a.tif").rename(tmp_path / "frames/a.tif")
    answer = tilewright("ingest", "frames", "frames/b.ome.zarr", "--axes", "yxc")
    answer.refuses("neither holds the image nor lies inside it")
