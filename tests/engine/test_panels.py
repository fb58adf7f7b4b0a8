"""Pictures of all maps: sizes, colours, keys to read them by, and what is refused."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journeys import save_image
from PIL import Image, ImageDraw, ImageFont

from engine.drawing import View, draw_panels
from engine.errors import InputError, OutputError
from engine.planning.elements import CLASS_COLORS
from engine.review.keys import class_key, value_key, words
from engine.review.panels import Panel, value_panel, write_panels
from engine.review.pictures import class_picture, gray_picture, heat_picture
from engine.store import write_label_metadata, write_labels_group
from tiling import Box

NAMES = {0: "background", 1: "intermembrane", 2: "cristae", 3: "matrix"}


def decoded(png: Path) -> np.ndarray:
    return np.asarray(imagecodecs.png_decode(png.read_bytes()))


def places(sheet: np.ndarray, part: np.ndarray) -> list[tuple[int, int]]:
    """Rows and columns at which a part stands on a sheet, pixel for pixel."""
    height, width = part.shape[:2]
    middle = height // 2
    wanted, found = part[middle].tobytes(), []
    for row in range(middle, len(sheet) - height + middle + 1):
        line, at = sheet[row].tobytes(), -1
        while (at := line.find(wanted, at + 1)) >= 0:
            y, x = row - middle, at // 3
            if at % 3 == 0 and (sheet[y : y + height, x : x + width] == part).all():
                found.append((y, x))
    return found


def test_background_shows_the_image_and_classes_differ() -> None:
    image = np.tile(np.arange(8, dtype=np.uint16), (4, 1))
    classes = np.zeros((4, 8), np.uint8)
    classes[1], classes[2] = 1, 2
    picture, gray = class_picture(image, classes), gray_picture(image)
    np.testing.assert_array_equal(picture[0], gray[0])
    assert (picture[1] != picture[2]).any(axis=-1).all()
    assert (picture[1] != gray[1]).any(axis=-1).all()


def test_heat_gets_brighter_all_the_way() -> None:
    heat = heat_picture(np.arange(256, dtype=np.uint8)[None], 255).astype(int)
    luma = heat[0] @ np.array([299, 587, 114])
    assert (np.diff(luma) >= 0).all()
    assert luma[-1] > 200_000
    assert luma[0] < 2_000


def test_panels_stand_in_rows(tmp_path: Path) -> None:
    picture = np.full((40, 60, 3), (200, 10, 10), np.uint8)
    write_panels([Panel(str(k), picture) for k in range(4)], tmp_path / "p.png")
    sheet = imagecodecs.png_decode((tmp_path / "p.png").read_bytes())
    bright = (sheet == (200, 10, 10)).all(axis=-1)
    assert bright.sum() == 4 * 40 * 60
    assert (bright.sum(axis=1) == 180).sum() == 40
    with pytest.raises(OutputError, match=r"\.png"):
        write_panels([Panel("", picture)], tmp_path / "p.jpg")


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    kinds=st.lists(st.booleans(), min_size=1, max_size=8),
    size=st.sampled_from([None, 0.1]),
    named=st.booleans(),
)
def test_nothing_stands_on_a_panel(
    shape: tuple[int, int],
    kinds: list[bool],
    size: float | None,
    named: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    png = tmp_path_factory.mktemp("panels") / "p.png"
    panels = [
        Panel(
            "a title wider than all", np.full((*shape, 3), (9, 200, k), np.uint8), 8 if k else None
        )
        for k in range(len(kinds))
    ]
    panels = [p if bar else Panel(p.title, p.picture) for p, bar in zip(panels, kinds, strict=True)]
    write_panels(panels, png, pixel_size_um=size, classes=NAMES if named else None)
    sheet = decoded(png)
    for panel in panels:
        assert (sheet == panel.picture[0, 0]).all(axis=-1).sum() == shape[0] * shape[1]
        assert places(sheet, panel.picture)
    assert len(places(sheet, words("a title wider than all", 15))) == len(panels)


def test_classes_are_named_once_beside_their_colours(tmp_path: Path) -> None:
    image, classes = np.ones((40, 40)), np.repeat(np.arange(4, dtype=np.uint8), 10)[:, None]
    panel = Panel("classes", class_picture(image, np.tile(classes, 40)))
    write_panels([panel] * 5, tmp_path / "p.png", classes=NAMES)
    sheet = decoded(tmp_path / "p.png")
    lowest = max(y for y, _ in places(sheet, panel.picture)) + 40
    for value, name in NAMES.items():
        ((y, x),) = places(sheet, words(name, 15))
        assert y > lowest
        swatch = sheet[y + 8, x - 7 - 30 : x - 7].astype(float)
        tint = 0.55 if value else 0.0
        for white in (10, 128, 245):  # of the image below the colour
            shown = np.array(CLASS_COLORS[value]) * tint + white * (1 - tint)
            assert np.abs(swatch - shown).max(axis=-1).min() < 8, (name, white)
    write_panels([panel] * 5, tmp_path / "bare.png")
    assert not places(decoded(tmp_path / "bare.png"), words("cristae", 15))


@pytest.mark.parametrize("width", [1, 130, 300, 1000])
def test_names_of_classes_stay_within_the_width_unless_one_alone_is_wider(width: int) -> None:
    names = {k: f"class-{k}" for k in range(12)} | {12: "a" * 12}
    key = class_key(names, 15, width)
    alone = max(class_key({k: name}, 15, width).shape[1] for k, name in names.items())
    assert alone <= key.shape[1] <= max(width, alone)
    assert all(len(places(key, words(name, 15))) >= 1 for name in names.values())


@pytest.mark.parametrize(
    ("values", "most"),
    [
        (np.array([[0, 51, 255]], np.uint8), 1),
        (np.array([[0, 3, 8]], np.uint16), 8),
        (np.zeros((1, 3), np.uint16), 1),
    ],
)
def test_a_bar_tells_the_value_of_each_colour(values: np.ndarray, most: int) -> None:
    panel = value_panel("map", values)
    assert (panel.most, str(panel)) == (most, f"map, 0 to {most}")
    key = value_key(most, 15, 400)
    assert key.shape[1] == 400
    assert not key[:, -30:].any()
    ((_, left),), ((_, right),) = places(key, words("0", 15)), places(key, words(f"{most}", 15))
    zero, space = words("0", 15).shape[1], 7
    bar = key[len(key) // 2, left + zero + space : right - space]
    share = values[0] / (255 if values.dtype == np.uint8 else most)
    at = np.clip(np.rint(share * (len(bar) - 1)).astype(int), 1, len(bar) - 2)
    assert np.abs(bar[at].astype(int) - panel.picture[0]).max() <= 4
    assert len(value_key(most, 15, 1)) == len(key)
    assert value_key(most, 15, 1).shape[1] > 60


def test_the_first_panel_has_the_scale_of_all(tmp_path: Path) -> None:
    picture = np.full((40, 400, 3), (9, 200, 9), np.uint8)
    write_panels([Panel("a", picture)] * 2, tmp_path / "p.png", pixel_size_um=0.25)
    sheet = decoded(tmp_path / "p.png")
    top = places(sheet, picture)[0][0] + 40
    ((y, _),) = places(sheet, words("20 µm", 12))
    assert y >= top
    assert (sheet[top:] == 255).all(axis=-1).sum(axis=1).max() >= 80
    assert not places(sheet, words("no pixel size", 12))
    write_panels([Panel("a", picture)] * 2, tmp_path / "p.png")
    sheet = decoded(tmp_path / "p.png")
    ((y, _),) = places(sheet, words("no pixel size", 12))
    assert y >= top
    with pytest.raises(InputError, match="pixel_size_um"):
        write_panels([Panel("a", picture)], tmp_path / "p.png", pixel_size_um=0.0)


def test_letters_grow_with_the_sheet(tmp_path: Path) -> None:
    picture = np.full((768, 768, 3), 9, np.uint8)
    write_panels([Panel("classes", picture)] * 3, tmp_path / "p.png", classes=NAMES)
    sheet = decoded(tmp_path / "p.png")
    assert len(places(sheet, words("classes", 36))) == 3
    assert len(places(sheet, words("cristae", 36))) == 1


def test_micrometres_have_their_letter_and_no_letter_is_cut() -> None:
    for size in (12, 15, 24, 40):
        micro, plain = words("µ", size), words("u", size)
        assert micro.shape == plain.shape
        more = np.argwhere((micro != plain).any(axis=-1))
        ink = np.argwhere(plain.any(axis=-1))
        assert more[:, 0].max() > ink[:, 0].max()
        assert more[:, 1].max() < ink[:, 1].mean()
        roomy = Image.new("RGB", (400, 200))
        ImageDraw.Draw(roomy).text(
            (9, 99), "bdfhklgjpqy_", "white", ImageFont.load_default(size), anchor="ls"
        )
        assert words("bdfhklgjpqy_", size).sum() == np.asarray(roomy).sum()


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A small result whose class map shows a class that its metadata do not name."""
    out = save_image(tmp_path / "out.ome.zarr", np.arange(1600, dtype=np.uint8).reshape(40, 40))
    write_labels_group(out, ["cells", "classes"])
    ids = np.kron(np.arange(4, dtype=np.uint32).reshape(2, 2), np.ones((20, 20), np.uint32))
    for name, pixels in (("cells", ids), ("classes", ids.astype(np.uint8))):
        save_image(out / "labels" / name, pixels)
    told = [{"label-value": k, "class": name} for k, name in NAMES.items() if k != 3]
    write_label_metadata(out / "labels" / "cells")
    write_label_metadata(out / "labels" / "classes", properties=told)
    save_image(out / "maps" / "entropy", np.tile(np.arange(40, dtype=np.uint8), (40, 1)))
    return out


def test_panels_of_a_small_result_are_enlarged_and_named(result: Path, tmp_path: Path) -> None:
    said = draw_panels(result, tmp_path / "p.png", View())
    assert said.endswith(": image; cells; entropy, 0 to 1; classes")
    sheet = decoded(tmp_path / "p.png")
    entropy = heat_picture(np.tile(np.arange(40, dtype=np.uint8), (40, 1)), 255)
    ((y, x),) = places(sheet, entropy.repeat(8, axis=0).repeat(8, axis=1))
    assert [column for row, column in places(sheet, value_key(1, 15, 320)) if row >= y + 320] == [x]
    for name in ("background", "intermembrane", "cristae", "class 3"):
        assert len(places(sheet, words(name, 15))) == 1, name
    assert len(places(sheet, words("5 µm", 12))) == 1  # a quarter of 20 µm
    bar = (sheet == 255).all(axis=-1)[8 + 16 + 3 + 320 :, 8 : 8 + 4 + 80 + 4]
    assert bar.sum(axis=1)[:13].max() == 80


def test_a_part_of_40_pixels_or_fewer_and_one_row_can_be_shown(
    result: Path, tmp_path: Path
) -> None:
    for stop in ((40, 40), (1, 40), (40, 1), (1, 1), (33, 7)):
        draw_panels(result, tmp_path / "p.png", View(within=Box((0, 0), stop)))
        sheet = decoded(tmp_path / "p.png")
        assert len(places(sheet, words("background", 15))) == 1
        assert len(places(sheet, words("entropy", 15))) == 1
