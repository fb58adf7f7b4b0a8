"""What the command line says of an image before work, and of a run after it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from command_line import Command, commands_in
from journeys import save_image

from engine import pixels
from engine.store import ImageMetadata, Level, make_axes, write_image_metadata
from engine.store.metadata import Channel

RNG = np.random.default_rng(9)
SHAPE = (3, 60, 70)


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Command]:
    yield commands_in(tmp_path, monkeypatch, capsys)
    # Tasks run in this process: what they opened is closed when nothing holds it.
    pixels.open_foreign.cache_clear()


def lines(text: str) -> dict[str, str]:
    """Rows of a printed table: what stands before two blanks names the rest."""
    pairs = (line.split("  ", 1) for line in text.splitlines() if "  " in line)
    return {name.strip(): value.strip() for name, value in pairs}


def unfolded(text: str) -> str:
    """What was printed, without the blanks and the ends of lines that long values are folded at."""
    return "".join(text.split())


def colour_image(path: Path, names: tuple[str, ...], colors: tuple[str | None, ...]) -> None:
    """Image of three channels with these names and colours."""
    save_image(path, RNG.integers(0, 255, SHAPE, dtype=np.uint8), "cyx")
    axes = make_axes("cyx", "micrometer")
    level = Level("0", SHAPE, (1.0, 0.5, 0.5), (0.0,) * 3)
    channels = tuple(Channel(n, c) for n, c in zip(names, colors, strict=True))
    write_image_metadata(path, ImageMetadata("rgb", axes, (level,), "uint8", channels=channels))


# --- before work -------------------------------------------------------------------------------


def test_an_ingest_says_how_it_understands_the_source(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    stack = RNG.integers(0, 60000, (3, 2, 60, 70), dtype=np.uint16)
    known = {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.6, "Channel": {"Name": ["DAPI", "GFP"]}}
    tifffile.imwrite(tmp_path / "a.ome.tif", stack, metadata={"axes": "ZCYX", **known})
    words = ("--cluster", cluster_address)
    answer = tilewright("ingest", "a.ome.tif", "a.ome.zarr", *words)
    told = lines(answer.out)
    assert answer.code == 0, answer
    assert str(tmp_path / "a.ome.tif") in unfolded(answer.out)
    assert told["format"] == "OME-TIFF"
    assert told["pixels"] == "60 x 70 (y, x), 2 channels (DAPI, GFP), 3 planes (z), uint16"
    assert told["axes"] == "zcyx, named by its OME-XML"
    assert told["pixel size"] == "0.6 x 0.3 um (y, x)"
    assert answer.out.index("OME-TIFF") < answer.out.index("done ")
    told = lines(tilewright("plan", "a.ome.zarr", "OUT.ome.zarr").out)
    assert told["format"] == "OME-Zarr 0.5"
    assert told["pixels"] == "60 x 70 (y, x), 2 channels (DAPI, GFP), 3 planes (z), uint16"
    assert told["pixel size"] == "0.6 x 0.3 um (y, x)"
    assert told["channels"] == "0 (DAPI) of 2"


def test_an_ingest_says_what_it_did_not_find(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    pair = RNG.integers(0, 255, (2, 60, 70), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pair)
    words = ("--cluster", cluster_address)
    told = lines(tilewright("ingest", "a.tif", "a.ome.zarr", *words).out)
    assert told["pixels"] == "60 x 70 (y, x), 2 planes (z), uint8"
    assert told["axes"].startswith("zyx, a guess")
    assert told["pixel size"] == "none found: --pixel-size UM gives it"
    named = ("--axes", "cyx", "--pixel-size", "0.25")
    answer = tilewright("ingest", "a.tif", "b.ome.zarr", *named, *words)
    told = lines(answer.out)
    assert f"source{tmp_path / 'a.tif'}format" in unfolded(answer.out)
    assert told["pixels"] == "60 x 70 (y, x), 2 channels (channel 0, channel 1), uint8"
    assert told["axes"] == "cyx, named by --axes"
    assert told["pixel size"] == "0.25 x 0.25 um (y, x)"


def test_a_long_path_is_not_cut_off(
    tilewright: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    place = tmp_path / ("long" * 20)
    place.mkdir()
    colour_image(place / "rgb.ome.zarr", RGB, PURE)
    answer = tilewright("plan", str(place / "rgb.ome.zarr"), "OUT.ome.zarr")
    assert str(place / "rgb.ome.zarr") in unfolded(answer.out)


RGB = ("red", "green", "blue")
PURE = ("FF0000", "00FF00", "0000FF")


@pytest.mark.parametrize(
    ("names", "colors", "warned"),
    [
        (RGB, PURE, True),
        (("Red", "Green", "Blue"), (None,) * 3, True),
        (("channel 0", "Channel:0:1", "2"), PURE, True),
        (("TRITC", "GFP", "DAPI"), PURE, False),
        (("channel 0", "channel 1", "channel 2"), ("0000FF", "00FF00", "FF0000"), False),
    ],
)
def test_one_channel_of_a_colour_image_is_warned_of(
    tilewright: Command,
    tmp_path: Path,
    names: tuple[str, ...],
    colors: tuple[str | None, ...],
    warned: bool,
) -> None:
    colour_image(tmp_path / "rgb.ome.zarr", names, colors)
    words = ("plan", "rgb.ome.zarr", "OUT.ome.zarr")
    answer = tilewright(*words)
    assert answer.code == 0
    assert lines(answer.out)["channels"] == f"0 ({names[0]}) of 3"
    text = "warning the image is in colour (brightfield?) and the network takes one channel of it, "
    assert (f"{text}0 ({names[0]})" in answer.out) == warned
    named = tilewright(*words, "--set", "input.channels=[2]")
    assert lines(named.out)["channels"] == f"2 ({names[2]}) of 3"
    assert "warning" not in named.out


def test_a_recipe_of_the_user_is_warned_of_where_it_names_no_channel(
    tilewright: Command, tmp_path: Path
) -> None:
    colour_image(tmp_path / "rgb.ome.zarr", RGB, PURE)
    for text, warned in (("", True), ("input: {channels: [0]}", False)):
        (tmp_path / "own.yaml").write_text(f"method: stardist\n{text}\n")
        answer = tilewright("plan", "rgb.ome.zarr", "OUT.ome.zarr", "--recipe", "own.yaml")
        assert answer.code == 0, answer
        assert ("warning" in answer.out) == warned


# --- after it ----------------------------------------------------------------------------------


def test_a_command_that_finds_all_done_says_so(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RNG.integers(0, 255, (60, 70), dtype=np.uint8))
    copying = ("run", "a.ome.zarr", "OUT.ome.zarr", "--recipe", "identity")
    for words in (("ingest", "a.tif", "a.ome.zarr"), copying):
        first = tilewright(*words, "--cluster", cluster_address)
        assert first.code == 0, first
        assert "nothing was computed" not in first.out
        again = tilewright(*words, "--cluster", cluster_address)
        assert again.code == 0
        head = "all of it stood already: nothing was computed now. Of the run that ended 20"
        assert head in again.out
        assert again.out.index(head) < again.out.index("memory per worker  ", again.out.index(head))


def test_a_damaged_source_is_to_be_mended_first(
    tilewright: Command, tmp_path: Path, cluster_address: str
) -> None:
    path = tmp_path / "a.tif"
    grey = RNG.integers(0, 255, (300, 280), dtype=np.uint8)
    tifffile.imwrite(path, grey, compression="zlib", tile=(64, 64))
    with tifffile.TiffFile(path) as tif:
        at, n = tif.pages.first.dataoffsets[-1], tif.pages.first.databytecounts[-1]
    data = bytearray(path.read_bytes())
    data[at : at + n] = bytes(n)
    path.write_bytes(data)
    answer = tilewright("ingest", "a.tif", "a.ome.zarr", "--cluster", cluster_address)
    assert answer.code == 3
    last = answer.out.splitlines()[-1]
    assert last == (
        "These come from the input: mend it first, as the messages say. A mended source is another "
        "one: ingest it with --overwrite."
    )
    tifffile.imwrite(path, grey, compression="zlib", tile=(64, 64))
    words = ("ingest", "a.tif", "a.ome.zarr", "--cluster", cluster_address)
    tilewright(*words).refuses("source.stamps")
    assert tilewright(*words, "--overwrite").code == 0
