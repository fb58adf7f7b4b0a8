"""PNG, JPEG and BMP files, and folders and patterns of frames."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from engine.store.sources import open_source
from engine.store.sources.cache import DecodeCache
from engine.store.sources.frames import _OPEN_FRAMES
from engine.store.sources.picture import PictureSource
from tiling.box import Box

RNG = np.random.default_rng(3)
H, W = 40, 53


def noise(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize(
    ("samples", "names"),
    [
        (1, ()),
        (2, ("grey", "alpha")),
        (3, ("red", "green", "blue")),
        (4, ("red", "green", "blue", "alpha")),
    ],
)
def test_png(dtype: str, samples: int, names: tuple[str, ...], tmp_path: Path) -> None:
    array = noise(H, W, samples, dtype=dtype)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array.squeeze()))
    with open_source(str(tmp_path / "a.png")) as source:
        assert source.info.dtype == dtype
        assert source.info.channel_names == names
        assert source.info.shape == ((samples,) if samples > 1 else ()) + (H, W)
        assert source.info.preferred_block == (H, W)
        box = Box((3, 7), (31, 50))
        got = source.read({}, box)
    np.testing.assert_array_equal(got, np.moveaxis(array[box.slices()], -1, 0))
    assert got.dtype == np.dtype(dtype)


def test_palettes_and_few_bits_are_expanded(tmp_path: Path) -> None:
    from PIL import Image

    rgb = Image.fromarray(noise(H, W, 3)).quantize(16)
    rgb.save(tmp_path / "palette.png")
    rgb.save(tmp_path / "clear.png", transparency=3)
    rgb.save(tmp_path / "palette.bmp")
    rgb.convert("L").save(tmp_path / "grey.bmp")
    rgb.convert("1").save(tmp_path / "one.png")
    rgb.convert("RGB").save(tmp_path / "rgb.bmp")
    wanted = {
        "palette.png": np.asarray(rgb.convert("RGB")),
        "clear.png": np.asarray(Image.open(tmp_path / "clear.png").convert("RGBA")),
        "palette.bmp": np.asarray(rgb.convert("RGB")),
        "rgb.bmp": np.asarray(rgb.convert("RGB")),
        "grey.bmp": np.asarray(rgb.convert("L"))[..., None],
        "one.png": np.asarray(rgb.convert("1").convert("L"))[..., None],
    }
    for name, array in wanted.items():
        with open_source(str(tmp_path / name)) as source:
            got = source.read({}, Box.of_shape((H, W)))
        np.testing.assert_array_equal(got, np.moveaxis(array, -1, 0), err_msg=name)


@pytest.mark.parametrize("samples", [1, 3])
def test_jpeg(samples: int, tmp_path: Path) -> None:
    data = imagecodecs.jpeg8_encode(noise(H, W, samples).squeeze(), level=90)
    (tmp_path / "a.jpg").write_bytes(data)
    array = imagecodecs.jpeg8_decode(data).reshape(H, W, samples)
    box = Box((0, 11), (17, 20))
    with open_source(str(tmp_path / "a.jpg")) as source:
        assert source.info.channels == samples
        np.testing.assert_array_equal(source.read({}, box), np.moveaxis(array[box.slices()], -1, 0))


def test_a_picture_of_one_pixel(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(np.full((1, 1), 9, np.uint8)))
    with open_source(str(tmp_path / "a.png")) as source:
        assert source.read({}, Box.of_shape((1, 1))).tolist() == [[[9]]]


def test_png_pixel_size(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(noise(H, W)).save(tmp_path / "fine.png", dpi=(50800, 25400))
    Image.fromarray(noise(H, W)).save(tmp_path / "print.png", dpi=(300, 300))
    with open_source(str(tmp_path / "fine.png")) as source:
        assert source.info.scale == pytest.approx((1.0, 0.5))
        assert source.info.units == ("micrometer", "micrometer")
    with open_source(str(tmp_path / "print.png")) as source:
        assert source.info.scale == (1.0, 1.0)
        assert source.info.units == (None, None)


def write_frames(folder: Path, n: int, suffix: str) -> np.ndarray:
    frames = noise(n, H, W)
    for i, frame in enumerate(frames):
        path = folder / f"frame_{i + 1}{suffix}"
        if suffix == ".png":
            path.write_bytes(imagecodecs.png_encode(frame))
        else:
            tifffile.imwrite(path, frame, compression="zlib", rowsperstrip=8)
    return frames


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_folder_is_a_stack_in_natural_order(suffix: str, tmp_path: Path) -> None:
    n = _OPEN_FRAMES + 5
    frames = write_frames(tmp_path, n, suffix)
    (tmp_path / "notes.txt").write_text("20x, DAPI")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    with open_source(str(tmp_path)) as source:
        info = source.info
        assert info.axes == ("t", "y", "x")
        assert info.shape == (n, H, W)
        assert json.loads(info.properties["frames"])[1:10:8] == [
            f"frame_2{suffix}",
            f"frame_10{suffix}",
        ]
        assert json.loads(info.properties["ignored"]) == ["notes.txt"]
        box = Box((5, 6), (30, 53))
        jobs = [*range(n), *range(n)]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda t: source.read({"t": t}, box), jobs))
        for t, got in zip(jobs, results, strict=True):
            np.testing.assert_array_equal(got[0], frames[t][box.slices()])
        assert len(source.fingerprint()) == n
    with open_source(str(tmp_path), verify=False) as again:
        assert again.info == info


def test_a_pattern_chooses_frames(tmp_path: Path) -> None:
    frames = write_frames(tmp_path, 4, ".png")
    (tmp_path / "mask_1.png").write_bytes(imagecodecs.png_encode(noise(9, 9)))
    with open_source(str(tmp_path / "frame_[23].png")) as source:
        assert source.info.shape == (2, H, W)
        got = source.read({"t": 1}, Box.of_shape((H, W)))
    np.testing.assert_array_equal(got[0], frames[2])


def test_frames_may_be_z_stacks_with_channels(tmp_path: Path) -> None:
    array = noise(3, 2, 4, H, W, dtype="uint16")
    for t, frame in enumerate(array):
        metadata = {"axes": "CZYX", "Channel": {"Name": ["a", "b"]}, "PhysicalSizeX": 0.5}
        tifffile.imwrite(tmp_path / f"{t}.ome.tif", frame, metadata=metadata)
    with open_source(str(tmp_path)) as source:
        assert source.info.axes == ("t", "c", "z", "y", "x")
        assert source.info.channel_names == ("a", "b")
        assert source.info.scale == (1.0, 1.0, 1.0, 1.0, 0.5)
        got = source.read({"t": 2, "z": 3}, Box.of_shape((H, W)))
    np.testing.assert_array_equal(got, array[2, :, 3])


def test_a_frame_is_decoded_once_for_its_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frames(tmp_path, 2, ".png")
    decoded: list[str] = []
    original = PictureSource._decode

    def count(self: PictureSource) -> np.ndarray:
        decoded.append(self._path.name)
        return original(self)

    monkeypatch.setattr(PictureSource, "_decode", count)
    boxes = [Box((i, 0), (i + 5, W)) for i in range(0, H, 5)]
    with open_source(str(tmp_path)) as source, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda box: source.read({"t": 0}, box), boxes))
    assert decoded == ["frame_1.png"]


def test_the_cache_is_bounded_in_bytes() -> None:
    cache = DecodeCache(limit_bytes=250)
    for i in range(10):
        cache.get(i, lambda: np.zeros(100, np.uint8))
        assert cache.held_bytes <= 250
    calls: list[int] = []
    cache.get(9, lambda: calls.append(1) or np.zeros(100, np.uint8))
    assert not calls
    cache.get("large", lambda: np.zeros(1000, np.uint8))
    assert cache.held_bytes == 1000
    cache.get("large", lambda: calls.append(1) or np.zeros(1000, np.uint8))
    assert not calls


def test_what_is_appended_behind_the_end_of_a_picture_does_no_harm(tmp_path: Path) -> None:
    array = noise(H, W)
    appendix = bytes(9000)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(array) + appendix)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(array) + appendix)
    for name in ("a.png", "a.jpg"):
        with open_source(str(tmp_path / name)) as source:
            assert source.read({}, Box.of_shape((H, W))).shape == (1, H, W)
