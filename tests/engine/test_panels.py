"""Pictures of all maps: sizes, colours, and what is refused."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from engine.errors import OutputError
from engine.review.panels import Panel, class_picture, gray_picture, heat_picture, write_panels


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
