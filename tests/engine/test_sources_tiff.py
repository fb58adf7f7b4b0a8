"""TIFF sources: any box equals the slice of the whole array, and only what it needs is decoded."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.store.sources import SourceInfo, open_source
from engine.store.sources.base import FileStamp
from engine.store.sources.tiff_pixels import TiffPixels
from tiling.box import Box

RNG = np.random.default_rng(7)
H, W = 83, 117


def noise(*shape: int, dtype: str = "uint16") -> np.ndarray:
    if np.dtype(dtype).kind == "f":
        return RNG.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def canonical(array: np.ndarray, axes: str, info: SourceInfo) -> np.ndarray:
    """The array with all of t, c, z, y, x; `axes` are those of the array, in lower case."""
    order = [a for a in "tczyx" if a in axes]
    moved = array.transpose([axes.index(a) for a in order])
    for i, a in enumerate("tczyx"):
        if a not in axes:
            moved = np.expand_dims(moved, i)
    assert moved.shape == tuple(info.size(a) for a in "tczyx")
    return moved


def check_boxes(path: Path, array: np.ndarray, axes: str, n: int = 6) -> SourceInfo:
    """Compare random boxes of all planes, the whole plane and single pixels."""
    rng = np.random.default_rng(1)
    with open_source(str(path)) as source:
        info = source.info
        full = canonical(array, axes, info)
        height, width = info.shape[-2:]
        boxes = [Box((0, 0), (height, width)), Box((height - 1, width - 1), (height, width))]
        for _ in range(n):
            y = np.sort(rng.integers(0, height + 1, 2))
            x = np.sort(rng.integers(0, width + 1, 2))
            boxes.append(Box((int(y[0]), int(x[0])), (int(y[1]), int(x[1]))))
        for t, z in product(range(info.size("t")), range(info.size("z"))):
            plane = {a: i for a, i in (("t", t), ("z", z)) if a in info.axes}
            for box in boxes:
                got = source.read(plane, box)
                assert got.dtype == np.dtype(info.dtype)
                assert got.dtype.isnative
                np.testing.assert_array_equal(got, full[(t, slice(None), z, *box.slices())])
    return info


Write = Callable[[Path], tuple[np.ndarray, str]]


def plain(shape: tuple[int, ...], axes: str, dtype: str = "uint16", **options: Any) -> Write:
    def write(path: Path) -> tuple[np.ndarray, str]:
        array = noise(*shape, dtype=dtype)
        # Named, because tifffile would take three planes for RGB.
        tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))
        return array, axes

    return write


KINDS: dict[str, Write] = {
    "one strip": plain((H, W), "yx"),
    "strips": plain((H, W), "yx", rowsperstrip=7),
    "strips, big endian": plain((H, W), "yx", rowsperstrip=7, byteorder=">"),
    "strips, deflate": plain((H, W), "yx", rowsperstrip=7, compression="zlib"),
    "strips, LZW and predictor": plain(
        (H, W), "yx", rowsperstrip=10, compression="lzw", predictor=True
    ),
    "big endian deflate": plain((H, W), "yx", rowsperstrip=9, compression="zlib", byteorder=">"),
    "tiles": plain((H, W), "yx", tile=(16, 32)),
    "tiles, zstd": plain((H, W), "yx", tile=(32, 16), compression="zstd"),
    "tiles, one column": plain((64, 32), "yx", tile=(16, 32)),
    "BigTIFF": plain((H, W), "yx", tile=(16, 16), bigtiff=True),
    "BigTIFF, big endian": plain((3, H, W), "zyx", bigtiff=True, byteorder=">"),
    "pages": plain((5, H, W), "zyx", metadata=None),
    "pages, deflate": plain((5, H, W), "zyx", metadata=None, compression="zlib", rowsperstrip=20),
    "pages, one description": plain((5, H, W), "zyx", truncate=True),
    "pages, tiles": plain((5, H, W), "zyx", tile=(16, 16), compression="zlib"),
    "volumetric tiles": plain((5, H, W), "zyx", volumetric=True, tile=(2, 16, 16)),
    "named axes": plain((2, 3, 4, H, W), "tzcyx", metadata={"axes": "TZCYX"}),
    "named axes, other order": plain((2, 3, 4, H, W), "cztyx", metadata={"axes": "CZTYX"}),
    "RGB": plain((H, W, 3), "yxc", dtype="uint8", photometric="rgb"),
    "RGB 16 bit tiles": plain((H, W, 3), "yxc", photometric="rgb", tile=(16, 16)),
    "RGB planar": plain(
        (3, H, W), "cyx", dtype="uint8", photometric="rgb", planarconfig="separate"
    ),
    "RGB planar tiles": plain(
        (3, H, W),
        "cyx",
        photometric="rgb",
        planarconfig="separate",
        tile=(16, 16),
        compression="zlib",
    ),
    "RGBA": plain((H, W, 4), "yxc", photometric="rgb", extrasamples=["unassalpha"]),
    "RGB pages": plain((4, H, W, 3), "zyxc", dtype="uint8", photometric="rgb"),
    "two samples": plain((H, W, 2), "yxc", photometric="minisblack", planarconfig="contig"),
    "int8": plain((H, W), "yx", dtype="int8"),
    "int16": plain((H, W), "yx", dtype="int16", tile=(16, 16)),
    "uint32": plain((H, W), "yx", dtype="uint32"),
    "int32": plain((H, W), "yx", dtype="int32", compression="zlib"),
    "float16": plain((H, W), "yx", dtype="float16"),
    "float32": plain((H, W), "yx", dtype="float32", compression="zlib", predictor=3, tile=(16, 16)),
    "float64": plain((H, W), "yx", dtype="float64"),
    "ImageJ stack": plain((5, H, W), "zyx", imagej=True, metadata={"axes": "ZYX"}),
    "ImageJ hyperstack": plain((2, 3, 4, H, W), "tzcyx", imagej=True, metadata={"axes": "TZCYX"}),
    "ImageJ RGB stack": plain(
        (4, H, W, 3),
        "zyxc",
        dtype="uint8",
        imagej=True,
        photometric="rgb",
        metadata={"axes": "ZYXS"},
    ),
    "OME": plain((2, 3, 4, H, W), "tczyx", ome=True, metadata={"axes": "TCZYX"}),
    "OME tiles": plain(
        (2, 3, H, W), "czyx", ome=True, metadata={"axes": "CZYX"}, tile=(16, 32), compression="zlib"
    ),
    "OME RGB": plain((H, W, 3), "yxc", dtype="uint8", ome=True, photometric="rgb"),
    "OME, one pixel": plain((1, 1), "yx", ome=True),
    "one pixel": plain((1, 1), "yx"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_any_box_equals_the_slice(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    array, axes = KINDS[kind](path)
    info = check_boxes(path, array, axes)
    assert info.dtype == array.dtype.name
    with open_source(str(path), verify=False) as again:
        assert again.info == info


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(["tiles, zstd", "strips, deflate", "strips", "RGB planar tiles", "RGB"]),
    y=st.tuples(st.integers(0, H), st.integers(0, H)),
    x=st.tuples(st.integers(0, W), st.integers(0, W)),
)
def test_boxes_of_any_size(
    kind: str, y: tuple[int, int], x: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / f"{kind}.tif"
    if not path.exists():
        KINDS[kind](path)
    whole = tifffile.imread(path)
    if whole.ndim == 2:
        whole = whole[None]
    elif whole.shape[-1] == 3:
        whole = np.moveaxis(whole, -1, 0)
    box = Box((min(y), min(x)), (max(y), max(x)))
    with open_source(str(path)) as source:
        np.testing.assert_array_equal(source.read({}, box), whole[(slice(None), *box.slices())])


def test_pages_written_one_by_one_are_a_stack(tmp_path: Path) -> None:
    array = noise(4, H, W)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in array:
            writer.write(page, compression="zlib")
    check_boxes(tmp_path / "a.tif", array, "zyx")


def test_bilevel_is_0_and_1_and_white_is_zero_is_inverted(tmp_path: Path) -> None:
    mask = RNG.random((H, W)) > 0.5
    tifffile.imwrite(tmp_path / "black.tif", mask, photometric="minisblack")
    check_boxes(tmp_path / "black.tif", mask.astype(np.uint8), "yx")
    tifffile.imwrite(tmp_path / "white.tif", mask, photometric="miniswhite")
    check_boxes(tmp_path / "white.tif", 1 - mask.astype(np.uint8), "yx")
    grey = noise(H, W, dtype="uint8")
    tifffile.imwrite(tmp_path / "grey.tif", grey, photometric="miniswhite", tile=(16, 16))
    check_boxes(tmp_path / "grey.tif", 255 - grey, "yx")


def test_a_colour_ramp_is_an_intensity_with_a_colour(tmp_path: Path) -> None:
    ramp = np.zeros((3, 256), np.uint16)
    ramp[1] = np.arange(256) * 257
    grey = noise(H, W, dtype="uint8")
    tifffile.imwrite(
        tmp_path / "a.tif", np.stack([grey]), colormap=ramp, photometric="palette", metadata=None
    )
    check_boxes(tmp_path / "a.tif", grey, "yx")


def test_the_full_resolution_of_a_pyramid_is_read(tmp_path: Path) -> None:
    array = noise(3, 256, 320)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as writer:
        options: dict[str, Any] = {"tile": (64, 64), "photometric": "minisblack"}
        writer.write(array, subifds=2, metadata={"axes": "CYX"}, **options)
        writer.write(array[:, ::2, ::2], subfiletype=1, **options)
        writer.write(array[:, ::4, ::4], subfiletype=1, **options)
    info = check_boxes(tmp_path / "a.ome.tif", array, "cyx")
    assert info.preferred_block == (64, 64)


def test_smaller_images_beside_the_image_are_left_out_and_named(tmp_path: Path) -> None:
    array = noise(200, 300)
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(noise(33, 20), metadata=None)
        writer.write(array, tile=(64, 64), metadata=None)
    info = check_boxes(tmp_path / "a.tif", array, "yx")
    assert "33x20" in info.properties["tiff.left_out"]


def test_jpeg_tiles_equal_tifffile(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(100), np.arange(120))[..., None] * [1, 1, 0.5]
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, smooth.astype(np.uint8), tile=(32, 32), compression="jpeg", photometric="ycbcr",
        subsampling=(2, 2),
    )  # fmt: skip
    check_boxes(path, tifffile.imread(path), "yxc")


def test_tiles_that_were_not_stored_are_zero(tmp_path: Path) -> None:
    tiles = [np.full((16, 16), 7, np.uint8), None, None, np.full((16, 16), 9, np.uint8)]
    tifffile.imwrite(tmp_path / "a.tif", iter(tiles), shape=(32, 32), dtype="uint8", tile=(16, 16))
    wanted = np.zeros((32, 32), np.uint8)
    wanted[:16, :16], wanted[16:, 16:] = 7, 9
    check_boxes(tmp_path / "a.tif", wanted, "yx")


def test_ome_facts(tmp_path: Path) -> None:
    metadata = {
        "axes": "TCZYX",
        "PhysicalSizeX": 250.0,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.5,
        "PhysicalSizeZ": 2.0,
        "PhysicalSizeZUnit": "µm",
        "TimeIncrement": 500.0,
        "TimeIncrementUnit": "ms",
        "Channel": {"Name": ["DAPI", "actin"], "Color": [65535, -16776961]},
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", noise(2, 2, 3, H, W), metadata=metadata)
    with open_source(str(tmp_path / "a.ome.tif")) as source:
        info = source.info
    assert info.axes == ("t", "c", "z", "y", "x")
    assert info.scale == (0.5, 1.0, 2.0, 0.5, 0.25)
    assert info.units == ("second", None, "micrometer", "micrometer", "micrometer")
    assert info.channel_names == ("DAPI", "actin")
    # 65535 is RGBA 0000FFFF: blue, opaque; -16776961 is FF0000FF: red, opaque.
    assert info.channel_colors == ("0000FF", "FF0000")
    assert info.properties["ome.Channel.0.Name"] == "DAPI"


def test_the_name_of_a_single_channel_is_kept(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.ome.tif", noise(1, H, W), metadata={"axes": "CYX", "Channel": {"Name": "GFP"}}
    )
    with open_source(str(tmp_path / "a.ome.tif")) as source:
        assert source.info.axes == ("c", "y", "x")
        assert source.info.channel_names == ("GFP",)


def test_imagej_facts(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        noise(2, 3, 2, H, W),
        imagej=True,
        resolution=(1 / 0.325, 1 / 0.65),
        metadata={
            "axes": "TZCYX", "unit": "um", "spacing": 1.5, "finterval": 30.0,
            "Labels": ["red", "green"] * 6,
        },
    )  # fmt: skip
    with open_source(str(tmp_path / "a.tif")) as source:
        info = source.info
    assert info.axes == ("t", "c", "z", "y", "x")
    assert info.scale == pytest.approx((30.0, 1.0, 1.5, 0.65, 0.325), rel=1e-6)
    assert info.units == ("second", None, "micrometer", "micrometer", "micrometer")
    assert info.channel_names == ("red", "green")


@pytest.mark.parametrize(
    ("unit", "per_unit", "size"),
    [("CENTIMETER", 20000.0, 0.5), ("INCH", 25400.0, 1.0), ("INCH", 72.0, None), ("NONE", 4, None)],
)
def test_resolution_tags(unit: str, per_unit: float, size: float | None, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(H, W), resolution=(per_unit, per_unit), resolutionunit=unit)
    with open_source(str(path)) as source:
        assert source.info.scale == ((size or 1.0),) * 2
        assert source.info.units == (("micrometer" if size else None),) * 2


def test_only_the_tiles_that_meet_the_box_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    original = TiffPixels._decode

    def count(self: TiffPixels, page: Any, number: int, index: int) -> np.ndarray:
        decoded.append(index)
        return original(self, page, number, index)

    monkeypatch.setattr(TiffPixels, "_decode", count)
    tifffile.imwrite(tmp_path / "a.tif", noise(512, 512), tile=(64, 64), compression="zlib")
    with open_source(str(tmp_path / "a.tif")) as source:
        source.read({}, Box((64, 128), (192, 192)))
        assert sorted(decoded) == [10, 18]
        source.read({}, Box((70, 70), (71, 71)))
        source.read({}, Box((90, 90), (100, 100)))
        assert sorted(decoded) == [9, 10, 18]
    decoded.clear()
    tifffile.imwrite(tmp_path / "s.tif", noise(512, 512), rowsperstrip=32, compression="zlib")
    with open_source(str(tmp_path / "s.tif")) as source:
        source.read({}, Box((40, 10), (100, 20)))
        assert sorted(decoded) == [1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        {"tile": (256, 256), "compression": "zlib"},
        {"rowsperstrip": 64, "compression": "zlib"},
        {"rowsperstrip": 4096},
        {},
    ],
    ids=str,
)
def test_memory_of_a_read_is_that_of_its_box(options: dict[str, Any], tmp_path: Path) -> None:
    import tracemalloc

    image = np.zeros((4096, 4096), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image, **options)
    with open_source(str(tmp_path / "a.tif")) as source:
        source.read({}, Box((0, 0), (1, 1)))
        tracemalloc.start()
        source.read({}, Box((1000, 1000), (1256, 1256)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # The image holds 32 MiB, the box 128 KiB, the strips that meet it 2.5 MiB.
    assert peak < 4 << 20


def test_threads_read_the_same(tmp_path: Path) -> None:
    array = noise(3, 256, 256)
    tifffile.imwrite(
        tmp_path / "a.tif", array, compression="zlib", rowsperstrip=50, photometric="minisblack"
    )
    boxes = [Box((i, j), (i + 70, j + 90)) for i in range(0, 180, 45) for j in range(0, 160, 40)]
    with open_source(str(tmp_path / "a.tif")) as source, ThreadPoolExecutor(8) as pool:
        jobs = [(z, box) for z in range(3) for box in boxes]
        results = list(pool.map(lambda job: source.read({"z": job[0]}, job[1]), jobs))
    for (z, box), got in zip(jobs, results, strict=True):
        np.testing.assert_array_equal(got[0], array[z][box.slices()])


def test_an_ome_set_of_several_files(tmp_path: Path) -> None:
    array = noise(2, H, W)
    xml = ome_set(["a.ome.tif", "b.ome.tif"])
    tifffile.imwrite(tmp_path / "a.ome.tif", array[0], description=xml, metadata=None)
    tifffile.imwrite(tmp_path / "b.ome.tif", array[1], description=xml, metadata=None)
    check_boxes(tmp_path / "a.ome.tif", array, "zyx")
    with open_source(str(tmp_path / "a.ome.tif")) as source:
        names = [Path(s.path).name for s in source.fingerprint()]
    assert names == ["a.ome.tif", "b.ome.tif"]


def test_a_companion_file_describes_the_pixels(tmp_path: Path) -> None:
    array = noise(2, H, W)
    (tmp_path / "set.companion.ome").write_text(ome_set(["a.ome.tif", "b.ome.tif"]))
    binary = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:x"/></OME>'
    )
    for name, page in zip("ab", array, strict=True):
        tifffile.imwrite(tmp_path / f"{name}.ome.tif", page, description=binary, metadata=None)
    check_boxes(tmp_path / "a.ome.tif", array, "zyx")


def ome_set(names: list[str]) -> str:
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{z}</UUID></TiffData>'
        for z, name in enumerate(names)
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:0"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
        f'Type="uint16" SizeX="{W}" SizeY="{H}" SizeZ="{len(names)}" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )


def test_fingerprint_follows_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(H, W))
    with open_source(str(path)) as source:
        stamps = source.fingerprint()
    status = path.stat()
    assert stamps == (FileStamp(str(path.resolve()), status.st_size, status.st_mtime_ns),)


@pytest.mark.parametrize(
    ("plane", "box"),
    [
        ({}, Box((0, 0), (1, 1))),
        ({"z": 5}, Box((0, 0), (1, 1))),
        ({"z": 0, "t": 0}, Box((0, 0), (1, 1))),
        ({"z": 0}, Box((-1, 0), (1, 1))),
        ({"z": 0}, Box((0, 0), (1, W + 1))),
        ({"z": 0}, Box((0,), (1,))),
    ],
)
def test_requests_outside_of_the_image(plane: dict[str, int], box: Box, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", noise(5, H, W))
    with open_source(str(tmp_path / "a.tif")) as source, pytest.raises(ValueError, match="must"):
        source.read(plane, box)
