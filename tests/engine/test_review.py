"""Pictures: every outline where it belongs, in its own colour, and nothing else touched."""

from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.segmentation import find_boundaries
from stardist.data import test_image_nuclei_2d as nuclei

from engine import review
from engine.errors import InputError, OutputError
from engine.review import add_scale_bar, draw_overlay, write_preview
from engine.review.keys import words
from engine.review.overlay import object_colors, stretch
from engine.review.scalebar import _length_name, _round_length


def colored(picture: np.ndarray) -> np.ndarray:
    """Which pixels are no gray."""
    return np.ptp(picture.astype(int), axis=-1) > 0


@given(
    arrays(np.int32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))
)
@settings(max_examples=100, deadline=None)
def test_outlines_are_the_inner_boundaries_and_the_rest_stays_gray(labels: np.ndarray) -> None:
    picture = draw_overlay(np.arange(labels.size).reshape(labels.shape), labels)
    wanted = find_boundaries(labels, connectivity=1, mode="inner") & (labels != 0)
    np.testing.assert_array_equal(colored(picture), wanted)


def test_each_object_keeps_its_colour_and_touching_ones_differ() -> None:
    labels = np.zeros((8, 12), np.uint32)
    labels[2:6, 2:6], labels[2:6, 6:10] = 7, 8
    picture = draw_overlay(np.zeros(labels.shape), labels)
    (left,) = np.unique(picture[(labels == 7) & colored(picture)], axis=0)
    (right,) = np.unique(picture[(labels == 8) & colored(picture)], axis=0)
    assert np.abs(left.astype(int) - right).sum() > 100
    moved = draw_overlay(np.zeros(labels.shape), np.roll(labels, 1, axis=0))
    np.testing.assert_array_equal(moved, np.roll(picture, 1, axis=0))


def test_ids_of_64_bits_that_differ_in_the_last_one_are_two_objects() -> None:
    labels = np.full((6, 6), 2**63, np.uint64)
    labels[:, 3:] += np.uint64(1)
    assert colored(draw_overlay(np.zeros((6, 6)), labels))[:, 2:4].all()


@pytest.mark.parametrize("dark", [False, True])
def test_outlines_stand_out_from_every_gray_that_is_shown(dark: bool) -> None:
    colors = object_colors(np.arange(1, 2000), dark=dark).astype(float)
    assert np.ptp(colors, axis=-1).min() >= 100
    luma = colors @ (0.299, 0.587, 0.114) / 255
    assert luma.min() > 0.3
    if dark:
        assert luma.max() < 0.5


def test_consecutive_ids_have_colours_far_apart() -> None:
    colors = object_colors(np.arange(1, 5000)).astype(int)
    assert np.abs(np.diff(colors, axis=0)).sum(axis=-1).min() > 60


def test_the_stretch_maps_the_percentiles_and_survives_what_is_not_finite() -> None:
    values = np.linspace(100, 1100, 10001).reshape(1, -1)
    shown = stretch(values)
    low, high = np.percentile(values, (1, 99.8))
    assert shown[0, 0] == 0
    assert shown[0, -1] == 255
    middle = np.abs(values - (low + high) / 2).argmin()
    assert abs(int(shown[0, middle]) - 127.5) < 1
    for odd in (np.full((3, 3), np.nan), np.full((3, 3), 7), np.full((3, 3), np.inf)):
        assert not stretch(odd).any()
    odd = np.array([[0.0, 1.0, np.nan, np.inf, -np.inf]])
    np.testing.assert_array_equal(stretch(odd), [[0, 255, 0, 0, 0]])


def test_colour_images_keep_their_colours_inside_and_outside_objects() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(100, 256, (3, 20, 20)).astype(np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 1
    picture = draw_overlay(image, labels)
    away = np.ones((20, 20), bool)
    away[5:15, 5:15] = False
    away[6:14, 6:14] = True
    np.testing.assert_array_equal(picture[away], np.moveaxis(stretch(image), 0, -1)[away])
    assert len(np.unique(picture[~away], axis=0)) == 1


@pytest.mark.parametrize(
    ("limit", "length", "name"),
    [(1.0, 1, "1 µm"), (99, 50, "50 µm"), (2.4, 2, "2 µm"), (0.7, 0.5, "500 nm"),
     (1999, 1000, "1 mm"), (0.0007, 0.0005, "0.5 nm"), (5000, 5000, "5 mm")],
)  # fmt: skip
def test_the_scale_bar_has_a_round_length(limit: float, length: float, name: str) -> None:
    assert _round_length(limit) == pytest.approx(length)
    assert _length_name(_round_length(limit)) == name


def test_the_scale_bar_is_as_long_as_it_says_and_hides_nothing() -> None:
    picture = np.full((30, 400, 3), 9, np.uint8)
    out = add_scale_bar(picture, 0.25)  # a quarter of 100 µm is 25 µm: 20 µm are 80 pixels
    np.testing.assert_array_equal(out[:30], picture)
    assert out.shape[1:] == (400, 3)
    row = out[30:][6, :, 0]
    assert (row[4:84] == 255).all()
    assert not row[84:88].any()
    assert out[30:, 88:].any()


def test_a_picture_without_pixel_size_says_so_below_it() -> None:
    for shape in ((30, 400), (1, 1), (2000, 3)):
        picture = np.full((*shape, 3), 9, np.uint8)
        out = add_scale_bar(picture, None)
        np.testing.assert_array_equal(out[: shape[0], : shape[1]], picture)
        assert not out[: shape[0], shape[1] :].any()
        unit = 4 if shape[0] == 2000 else 1
        text = words("no pixel size", max(12, 10 * unit))
        strip = out[shape[0] :]
        top = (len(strip) - len(text)) // 2
        at = 4 * unit
        np.testing.assert_array_equal(strip[top : top + len(text), at : at + text.shape[1]], text)
        assert not (strip[5 * unit : 8 * unit, :at]).any()


def test_the_length_is_told_in_full_on_a_picture_narrower_than_it() -> None:
    out = add_scale_bar(np.full((100, 3, 3), 9, np.uint8), 0.65)
    text = words("200 nm", 12)
    np.testing.assert_array_equal(out[100:113, 4 + 1 + 4 :], text)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_size_that_is_none_is_refused(size: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pixel_size_um"):
        write_preview(np.ones((4, 4)), np.ones((4, 4), int), tmp_path / "a.png", pixel_size_um=size)
    assert not list(tmp_path.iterdir())


def test_a_preview_of_real_nuclei_shows_every_object(tmp_path: Path) -> None:
    image, mask = nuclei(return_mask=True)
    out = tmp_path / "preview.png"
    out.write_bytes(b"something older")
    write_preview(image, mask, out, pixel_size_um=0.5)
    picture = imagecodecs.png_decode(out.read_bytes())
    assert picture.shape == (1024 + 26, 1024, 3)
    seen = colored(picture[:1024])[::2, ::2] | colored(picture[:1024])[1::2, 1::2]
    assert set(np.unique(mask[seen])) == set(np.unique(mask)) - {0}
    assert 0.01 < seen.mean() < 0.1
    assert [path.name for path in tmp_path.iterdir()] == ["preview.png"]


def test_large_images_shrink_by_means_and_labels_by_nearest(tmp_path: Path) -> None:
    image = np.tile(np.array([[0, 200], [200, 0]], np.uint8), (1100, 1500))
    labels = np.zeros(image.shape, np.uint16)
    labels[:1100] = 1000
    write_preview(image, labels, tmp_path / "a.PNG")
    picture = imagecodecs.png_decode((tmp_path / "a.PNG").read_bytes())
    assert picture.shape == (1100 + 39, 1500, 3)
    np.testing.assert_array_equal(np.flatnonzero(colored(picture).any(axis=1)), [549])


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (7, 5), (2049, 3)])
def test_images_of_any_size_can_be_shown(shape: tuple[int, int], tmp_path: Path) -> None:
    for image in (np.ones(shape), np.ones((3, *shape), np.uint8)):
        write_preview(image, np.ones(shape, np.int64), tmp_path / "a.png", pixel_size_um=0.1)
        assert max(imagecodecs.png_decode((tmp_path / "a.png").read_bytes()).shape) <= 2100


@pytest.mark.parametrize(
    ("image", "labels", "found"),
    [
        (np.ones((4, 5)), np.ones((5, 4), int), r"\(4, 5\) and \(5, 4\)"),
        (np.ones((2, 4, 5)), np.ones((4, 5), int), r"\(2, 4, 5\)"),
        (np.ones((4, 5)), np.ones((1, 4, 5), int), r"\(1, 4, 5\)"),
        (np.ones((0, 5)), np.ones((0, 5), int), r"\(0, 5\)"),
        (np.ones((4, 5)), np.ones((4, 5)), "float64"),
        (np.ones((4, 5), complex), np.ones((4, 5), int), "complex128"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    image: np.ndarray, labels: np.ndarray, found: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=found):
        draw_overlay(image, labels)
    with pytest.raises(InputError, match=found):
        write_preview(image, labels, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_take_a_picture_are_refused(tmp_path: Path) -> None:
    pair = np.ones((4, 4)), np.ones((4, 4), int)
    with pytest.raises(OutputError, match=r"ending '\.jpg'"):
        write_preview(*pair, tmp_path / "a.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OutputError, match="a folder"):
        write_preview(*pair, tmp_path / "folder.png")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="file"):
        write_preview(*pair, tmp_path / "file" / "a.png")


def test_the_public_names_are_those_listed() -> None:
    assert all(hasattr(review, name) for name in review.__all__)
    assert review.__all__ == sorted(review.__all__)
