"""Bad input of ingest: one error that says where, expected, found and what to do."""

import pickle
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from engine.errors import InputError
from engine.store.sources import open_source
from tiling.box import Box

GREY = np.arange(100 * 120, dtype=np.uint16).reshape(100, 120)


def tiff(path: Path, array: np.ndarray = GREY, **options: object) -> Path:
    tifffile.imwrite(path, array, **({"photometric": "minisblack"} | options))  # type: ignore[arg-type]
    return path


def cut(path: Path, keep: int) -> Path:
    path.write_bytes(path.read_bytes()[:keep])
    return path


def missing(d: Path) -> Path:
    return d / "absent.tif"


def no_match(d: Path) -> Path:
    return d / "absent*.tif"


def empty_folder(d: Path) -> Path:
    return d


def folder_of_text(d: Path) -> Path:
    (d / "notes.txt").write_text("nothing")
    return d


def zarr_folder(d: Path) -> Path:
    (d / "zarr.json").write_text("{}")
    return d


def zero_bytes(d: Path) -> Path:
    (d / "a.tif").touch()
    return d / "a.tif"


def text(d: Path) -> Path:
    (d / "a.txt").write_text("this is a text")
    return d / "a.txt"


def no_tiff(d: Path) -> Path:
    (d / "a.tif").write_bytes(b"P5 10 10 255 " + bytes(100))
    return d / "a.tif"


def header_only(d: Path) -> Path:
    return cut(tiff(d / "a.tif"), 6)


def directory_cut(d: Path) -> Path:
    return cut(tiff(d / "a.tif"), 60)


def big_directory_cut(d: Path) -> Path:
    return cut(tiff(d / "a.tif", bigtiff=True), 60)


def pixels_cut(d: Path) -> Path:
    return cut(tiff(d / "a.tif"), 20000)


def tiles_cut(d: Path) -> Path:
    path = tiff(d / "a.tif", tile=(16, 16), compression="zlib")
    return cut(path, path.stat().st_size - 50)


def pages_cut(d: Path) -> Path:
    path = tiff(d / "a.tif", np.stack([GREY] * 5), metadata=None, compression="zlib")
    return cut(path, path.stat().st_size - 50)


def imagej_cut(d: Path) -> Path:
    path = tiff(d / "a.tif", np.stack([GREY] * 5), imagej=True, metadata={"axes": "ZYX"})
    return cut(path, path.stat().st_size - 30000)


def one_description_cut(d: Path) -> Path:
    path = tiff(d / "a.tif", np.stack([GREY] * 5), truncate=True)
    return cut(path, path.stat().st_size - 30000)


def imagej_lies(d: Path) -> Path:
    path = tiff(d / "a.tif", np.stack([GREY] * 5), imagej=True, metadata={"axes": "ZYX"})
    data = path.read_bytes()
    path.write_bytes(data.replace(b"images=5\nslices=5", b"images=9\nslices=9"))
    return path


def loop(d: Path) -> Path:
    path = tiff(d / "a.tif", metadata=None)
    data = bytearray(path.read_bytes())
    first = int.from_bytes(data[4:8], "little")
    end = first + 2 + 12 * int.from_bytes(data[first : first + 2], "little")
    data[end : end + 4] = first.to_bytes(4, "little")
    path.write_bytes(data)
    return path


def dtype(name: str) -> Callable[[Path], Path]:
    def write(d: Path) -> Path:
        return tiff(d / "a.tif", GREY.astype(name))

    write.__name__ = name
    return write


def zero_size(d: Path) -> Path:
    with pytest.warns(UserWarning, match="zero-size"):
        return tiff(d / "a.tif", np.zeros((0, 40), np.uint8))


def foreign_axis(d: Path) -> Path:
    return tiff(d / "a.tif", np.stack([GREY] * 5), metadata={"axes": "HYX"})


def two_unnamed_axes(d: Path) -> Path:
    return tiff(d / "a.tif", np.zeros((5, 6, 40, 50), np.uint8))


def two_images(d: Path) -> Path:
    with tifffile.TiffWriter(d / "a.tif") as writer:
        writer.write(GREY, metadata=None)
        writer.write(GREY.astype(np.float32), metadata=None)
    return d / "a.tif"


def unordered_palette(d: Path) -> Path:
    colors = np.random.default_rng(0).integers(0, 65536, (3, 256), dtype=np.uint16)
    return tiff(
        d / "a.tif", GREY.astype(np.uint8), colormap=colors, photometric="palette", metadata=None
    )


def cmyk(d: Path) -> Path:
    return tiff(d / "a.tif", np.zeros((40, 50, 4), np.uint8), photometric="separated")


def unknown_compression(d: Path) -> Path:
    path = tiff(d / "a.tif", compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+") as tif:
        tif.pages.first.tags["Compression"].overwrite(40404)
    return path


def bad_xml(d: Path) -> Path:
    return tiff(d / "a.tif", description="<?xml version='1.0'?><OME>&</OME>", metadata=None)


def companion_missing(d: Path) -> Path:
    xml = '<?xml version="1.0"?><OME><BinaryOnly MetadataFile="set.companion.ome" UUID="u"/></OME>'
    return tiff(d / "a.ome.tif", description=xml, metadata=None)


def set_incomplete(d: Path) -> Path:
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="{n}.ome.tif">u{z}</UUID>'
        "</TiffData>"
        for z, n in enumerate("ab")
    )
    xml = (
        '<?xml version="1.0"?><OME UUID="u0"><Image ID="Image:0"><Pixels ID="Pixels:0" SizeX="120" '
        'DimensionOrder="XYZCT" Type="uint16" SizeY="100" SizeZ="2" SizeC="1" SizeT="1">'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    return tiff(d / "a.ome.tif", description=xml, metadata=None)


def png_cut(d: Path) -> Path:
    (d / "a.png").write_bytes(imagecodecs.png_encode(GREY))
    return cut(d / "a.png", 400)


def jpeg_cut(d: Path) -> Path:
    (d / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(GREY.astype(np.uint8)))
    return cut(d / "a.jpg", (d / "a.jpg").stat().st_size - 40)


def jpeg_cmyk(d: Path) -> Path:
    from PIL import Image

    Image.new("CMYK", (20, 20)).save(d / "a.jpg")
    return d / "a.jpg"


def bmp_cut(d: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (20, 20)).save(d / "a.bmp")
    return cut(d / "a.bmp", 500)


def frames(second: np.ndarray) -> Callable[[Path], Path]:
    def write(d: Path) -> Path:
        tiff(d / "frame_1.tif")
        tiff(d / "frame_2.tif", second)
        return d

    write.__name__ = f"frame {second.shape} {second.dtype}"
    return write


def frame_broken(d: Path) -> Path:
    tiff(d / "frame_1.tif")
    cut(tiff(d / "frame_2.tif"), 10000)
    return d


def frame_with_time(d: Path) -> Path:
    tiff(d / "frame_1.tif", np.stack([GREY] * 4), metadata={"axes": "TYX"})
    return d


CASES: list[tuple[Callable[[Path], Path], str]] = [
    (missing, "found nothing"),
    (no_match, "found no file"),
    (empty_folder, "found no file"),
    (folder_of_text, "found 1 others"),
    (zarr_folder, "needs no ingest"),
    (zero_bytes, "0 bytes"),
    (text, "begins with b'this is '"),
    (no_tiff, "begins with b'P5 10 10'"),
    (header_only, "begins with"),
    (directory_cut, "directory of page 1"),
    (big_directory_cut, "directory of page 1"),
    (pixels_cut, "24000 bytes of pixels.*beyond the end of its 20000 bytes"),
    (tiles_cut, "beyond the end"),
    (pages_cut, "page 5"),
    (imagej_cut, "directory of page 2"),
    (one_description_cut, "120000 bytes of pixels"),
    (imagej_lies, "ImageJ description"),
    (loop, "returns to byte"),
    (dtype("complex64"), "found complex64.*magnitude"),
    (dtype("int64"), "found int64.*Convert the image to uint32 or float64"),
    (dtype("uint64"), "found uint64"),
    (zero_size, "at least one pixel"),
    (foreign_axis, "the axis H in HYX"),
    (two_unnamed_axes, "2 axes without a name"),
    (two_images, "2 images of the same size"),
    (unordered_palette, "table of colours"),
    (cmyk, "SEPARATED"),
    (unknown_compression, "40404"),
    (bad_xml, "XML that cannot be parsed"),
    (companion_missing, "set.companion.ome is not there"),
    (set_incomplete, "b.ome.tif is not there"),
    (png_cut, "no end marker"),
    (jpeg_cut, "no end marker"),
    (jpeg_cmyk, "4 components"),
    (bmp_cut, "500 of"),
    (frames(GREY[:50]), "frame_2.tif: expected shape 100 x 120 .*found 50 x 120"),
    (frames(GREY.astype(np.float32)), "frame_2.tif: expected dtype uint16.*found float32"),
    (frames(np.stack([GREY] * 3)), "frame_2.tif: expected axes y x x.*found z x y x x"),
    (frame_broken, "frame_2.tif: .*beyond the end"),
    (frame_with_time, "frame_1.tif with 4 of its own"),
]


@pytest.mark.parametrize(("make", "message"), CASES, ids=lambda v: getattr(v, "__name__", ""))
def test_refused_at_opening(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(InputError, match=f"(?s){message}") as caught:
        open_source(str(path))
    error = caught.value
    assert str(path.name) in error.where or str(tmp_path) in error.where
    assert error.expected
    assert error.remedy.endswith(".")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    "options", [{"tile": (16, 16)}, {"rowsperstrip": 10}], ids=["tiles", "strips"]
)
def test_a_damaged_piece_is_refused_where_it_is_met(
    options: dict[str, object], tmp_path: Path
) -> None:
    path = tiff(tmp_path / "a.tif", compression="zlib", **options)
    with tifffile.TiffFile(path) as tif:
        page = tif.pages.first
        at, n = page.dataoffsets[-1], page.databytecounts[-1]
    data = bytearray(path.read_bytes())
    data[at : at + n] = bytes(n)
    path.write_bytes(data)
    with open_source(str(path)) as source:
        np.testing.assert_array_equal(source.read({}, Box((0, 0), (40, 40)))[0], GREY[:40, :40])
        with pytest.raises(InputError, match=r"a\.tif, page 1, box 90:100,100:120: .*damaged"):
            source.read({}, Box((90, 100), (100, 120)))


def test_a_file_cut_after_opening_is_refused_at_reading(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif")
    with open_source(str(path)) as source:
        cut(path, 12000)
        with pytest.raises(InputError, match="beyond the end"):
            source.read({}, Box((90, 0), (100, 120)))


def test_a_worker_that_does_not_verify_still_refuses_an_unequal_frame(tmp_path: Path) -> None:
    frames(GREY[:50])(tmp_path)
    with open_source(str(tmp_path), verify=False) as source:
        assert source.read({"t": 0}, Box((0, 0), (10, 10))).shape == (1, 10, 10)
        with pytest.raises(InputError, match=r"frame_2\.tif: expected shape"):
            source.read({"t": 1}, Box((0, 0), (10, 10)))


def test_a_damaged_png_names_its_file(tmp_path: Path) -> None:
    data = bytearray(imagecodecs.png_encode(GREY))
    data[60:300] = bytes(240)
    (tmp_path / "a.png").write_bytes(data)
    with open_source(str(tmp_path / "a.png")) as source, pytest.raises(InputError, match=r"a\.png"):
        source.read({}, Box((0, 0), (10, 10)))
