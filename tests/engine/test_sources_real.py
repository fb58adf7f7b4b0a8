"""Real slides and stacks: the same pixels and sizes as other readers give."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import tifffile
from openslide import OpenSlide

from engine.errors import InputError
from engine.store.sources import open_source
from engine.store.sources.slide import SlideSource, on_background
from tiling.box import Box

DATA = Path(__file__).parents[2] / "../shared/data"
SLIDE = DATA / "slides/CMU-1-Small-Region.svs"
pytestmark = pytest.mark.skipif(
    not DATA.exists(), reason="the real images lie in shared/data beside the checkout"
)


def random_boxes(shape: tuple[int, ...], n: int) -> list[Box]:
    rng = np.random.default_rng(5)
    corners = np.sort(rng.integers(0, np.array(shape)[None, :] + 1, (2, n, 2)), axis=0)
    return [
        Box(tuple(int(v) for v in a), tuple(int(v) for v in b))
        for a, b in zip(*corners, strict=True)
    ]


def test_an_aperio_slide() -> None:
    whole = np.moveaxis(tifffile.imread(SLIDE), -1, 0)
    with open_source(str(SLIDE)) as source, OpenSlide(SLIDE) as slide:
        info = source.info
        for box in [*random_boxes((2967, 2220), 5), Box((2900, 2200), (2967, 2220))]:
            got = source.read({}, box)
            np.testing.assert_array_equal(got, whole[(slice(None), *box.slices())])
            if not box.empty:
                region = slide.read_region(box.start[::-1], 0, box.shape[::-1])
                rgb = np.asarray(region.convert("RGB"))
                np.testing.assert_array_equal(np.moveaxis(got, 0, -1), rgb)
    assert info.axes == ("c", "y", "x")
    assert info.shape == (3, 2967, 2220)
    assert info.scale == (1.0, 0.499, 0.499)
    assert info.units == (None, "micrometer", "micrometer")
    assert info.channel_names == ("red", "green", "blue")
    assert info.preferred_block == (240, 240)
    assert info.properties["aperio.AppMag"] == "20"
    assert info.properties["openslide.objective-power"] == "20"
    assert "Macro" in info.properties["tiff.left_out"]


def test_a_slide_through_openslide_is_the_same() -> None:
    box = Box((13, 1000), (2900, 2220))
    with open_source(str(SLIDE)) as ours, SlideSource(SLIDE) as theirs:
        np.testing.assert_array_equal(theirs.read({}, box), ours.read({}, box))
        assert theirs.info.shape == ours.info.shape
        assert theirs.info.scale == ours.info.scale
        assert theirs.fingerprint() == ours.fingerprint()
        assert theirs.info.properties.items() <= ours.info.properties.items()


def test_transparent_pixels_are_laid_on_the_background() -> None:
    rgba = np.array([[[10, 20, 30, 255], [9, 9, 9, 0], [0, 100, 200, 128]]], np.uint8)
    got = on_background(rgba, np.array([255, 255, 0], np.uint32))
    assert got.tolist() == [[[10, 20, 30], [255, 255, 0], [127, 177, 100]]]


def test_a_slide_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.svs"
    for keep in (1_000_000, 1_938_000):
        path.write_bytes(SLIDE.read_bytes()[:keep])
        with pytest.raises(InputError, match=r"cut\.svs"):
            open_source(str(path))


def test_fluorescence_in_two_channels() -> None:
    path = DATA / "slides/instanseg_Fluorescence_example.tif"
    whole = tifffile.imread(path)
    with open_source(str(path)) as source:
        for box in random_boxes((450, 450), 5):
            np.testing.assert_array_equal(source.read({}, box), whole[(slice(None), *box.slices())])
        info = source.info
    assert info.shape == (2, 450, 450)
    # The file names no channel and no pixel size, but shows them in green and blue.
    assert info.channel_names == ("channel 0", "channel 1")
    assert info.channel_colors == ("00FF00", "0000FF")
    assert info.units == (None, None, None)


def test_stained_tissue_of_bio_formats() -> None:
    path = DATA / "slides/instanseg_HE_example.tif"
    whole = np.moveaxis(tifffile.imread(path), -1, 0)
    with open_source(str(path)) as source:
        for box in random_boxes((1484, 1380), 5):
            np.testing.assert_array_equal(source.read({}, box), whole[(slice(None), *box.slices())])
        info = source.info
    assert info.channel_names == ("red", "green", "blue")
    assert info.scale == pytest.approx((1.0, 0.50008, 0.50008), rel=1e-5)


def test_slices_of_tissue_in_electrons() -> None:
    path = DATA / "em_vnc/raw.tif"
    whole = tifffile.imread(path)
    box = Box((200, 100), (700, 1024))
    with open_source(str(path)) as source:
        assert source.info.axes == ("z", "y", "x")
        np.testing.assert_array_equal(source.read({"z": 9}, box)[0], whole[9][box.slices()])


def test_facts_travel_to_workers_and_into_json() -> None:
    with open_source(str(SLIDE)) as source:
        info = source.info
    assert pickle.loads(pickle.dumps(info)) == info
    again = json.loads(json.dumps(dataclasses.asdict(info)))
    assert again["shape"] == [3, 2967, 2220]
