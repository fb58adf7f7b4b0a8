"""Size and kind of a PNG, JPEG or BMP file from its first bytes, and whether it is complete."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import InputError
from engine.store.sources.units import PRINT_PIXEL_UM, micrometers

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# Samples of the PNG colour types (PNG specification, 11.2.2); a palette holds RGB.
_PNG_SAMPLES = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
# Start-of-frame markers C0 … CF without DHT, JPG and DAC (ITU-T T.81, table B.1).
_JPEG_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class PictureHeader:
    """What the head of a picture file says.

    Parameters
    ----------
    kind : str
        ``"png"``, ``"jpeg"`` or ``"bmp"``.
    height, width : int
        Pixels.
    samples : int
        1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha; palettes are expanded.
    dtype : str
        ``"uint8"`` or ``"uint16"``; fewer bits are scaled to 8.
    pixel_um : tuple of float or None
        Pixel size (y, x) in micrometers, where the file states one that is a microscope's.
    properties : dict of str to str
        Other facts.
    """

    kind: str
    height: int
    width: int
    samples: int
    dtype: str
    pixel_um: tuple[float, float] | None = None
    properties: dict[str, str] = field(default_factory=dict)


def picture_kind(path: Path) -> str | None:
    """Kind of picture that the first bytes announce.

    Parameters
    ----------
    path : Path
        A readable file.

    Returns
    -------
    str or None
        ``"png"``, ``"jpeg"``, ``"bmp"``; None where it is none of these.
    """
    with path.open("rb") as file:
        head = file.read(8)
    kinds = {"png": _PNG, "jpeg": _JPEG, "bmp": b"BM"}
    return next((kind for kind, magic in kinds.items() if head.startswith(magic)), None)


def read_header(path: Path, kind: str) -> PictureHeader:
    """Read the head of a picture, and check that its end is there.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        As `picture_kind` found.

    Returns
    -------
    PictureHeader
        Without having decoded a pixel.

    Raises
    ------
    InputError
        If the file is damaged or was cut off, or if its pixels cannot be taken.

    Notes
    -----
    PNG (W3C recommendation, third edition), JPEG (ITU-T T.81) and BMP (BITMAPINFOHEADER and
    later). Decoders fill what is missing of a truncated JPEG with grey, hence the look at its end.
    """
    readers = {"png": _png, "jpeg": _jpeg, "bmp": _bmp}
    with path.open("rb") as file:
        try:
            return readers[kind](path, file)
        except struct.error as err:
            raise _cut_off(path, kind, "an incomplete header") from err


def _take(file: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, file.read(struct.calcsize(form)))


def _png(path: Path, file: BinaryIO) -> PictureHeader:
    file.seek(16)
    width, height, bits, color = _take(file, ">IIBB")
    file.seek(33)
    properties = {"png.bit_depth": str(bits)}
    alpha, pixel_um = 0, None
    while True:
        length, tag = _take(file, ">I")[0], file.read(4)
        if tag == b"tRNS" and color in {0, 2, 3}:
            alpha = 1
        if tag == b"pHYs":
            pixel_um = _physical(*_take(file, ">IIB"))
            length -= 9
        if tag in {b"IDAT", b"IEND"}:
            break
        file.seek(length + 4, 1)
    if not _holds(file, b"IEND", file.tell()):
        raise _cut_off(path, "PNG", "no end marker")
    samples = _PNG_SAMPLES.get(color, 0) + alpha
    dtype = "uint16" if bits == 16 else "uint8"
    return PictureHeader("png", height, width, samples, dtype, pixel_um, properties)


def _physical(x_per_unit: int, y_per_unit: int, unit: int) -> tuple[float, float] | None:
    """Pixel size (y, x) of a pHYs chunk, unless it is unknown or a printer's."""
    if unit != 1 or not x_per_unit or not y_per_unit:
        return None
    sizes = (micrometers(1 / y_per_unit, "m"), micrometers(1 / x_per_unit, "m"))
    if sizes[0] is None or sizes[1] is None or max(sizes[0], sizes[1]) > PRINT_PIXEL_UM:
        return None
    return sizes[0], sizes[1]


def _jpeg(path: Path, file: BinaryIO) -> PictureHeader:
    file.seek(2)
    while True:
        fill, marker = _take(file, "BB")
        while marker == 0xFF:
            (marker,) = _take(file, "B")
        (length,) = _take(file, ">H")
        if fill != 0xFF or marker == 0xDA:
            raise _cut_off(path, "JPEG", "no frame header")
        if marker in _JPEG_FRAMES:
            break
        file.seek(length - 2, 1)
    bits, height, width, samples = _take(file, ">BHHB")
    if bits != 8 or samples not in {1, 3}:
        raise InputError(
            where=str(path),
            expected="a grey or RGB JPEG of 8 bits",
            found=f"{samples} components of {bits} bits",
            remedy="Convert the image to RGB or save it as TIFF.",
        )
    # From the frame header on: a preview in the EXIF data before it has an end marker too.
    if not _holds(file, b"\xff\xd9", file.tell()):
        raise _cut_off(path, "JPEG", "no end marker")
    return PictureHeader("jpeg", height, width, samples, "uint8")


def _bmp(path: Path, file: BinaryIO) -> PictureHeader:
    file.seek(2)
    (size,) = _take(file, "<I")
    file.seek(14)
    header, width, height, _, bits, compression = _take(file, "<IiiHHI")
    if header < 40 or compression not in {0, 3}:
        raise InputError(
            where=str(path),
            expected="an uncompressed Windows BMP",
            found=f"a header of {header} bytes with compression {compression}",
            remedy="Convert the image to PNG or TIFF.",
        )
    if file.seek(0, 2) < size:
        raise _cut_off(path, "BMP", f"{file.seek(0, 2)} of {size} bytes")
    samples = 3
    if bits == 8 and _grey_palette(file, header):
        samples = 1
    elif compression == 3 and header >= 56:
        file.seek(66)
        samples = 4 if _take(file, "<I")[0] else 3
    return PictureHeader("bmp", abs(height), width, samples, "uint8")


def _grey_palette(file: BinaryIO, header: int) -> bool:
    """Whether index i of a palette of blue, green, red, 0 is grey level i."""
    file.seek(14 + header)
    palette = file.read(1024)
    return all(palette[4 * i : 4 * i + 3] == bytes([i, i, i]) for i in range(len(palette) // 4))


def _holds(file: BinaryIO, marker: bytes, start: int) -> bool:
    """Whether an end marker follows position `start`: near the end, or before an appendix."""
    size = file.seek(0, 2)
    for at in (max(start, size - _TAIL_BYTES), start):
        file.seek(at)
        if marker in file.read():
            return True
    return False


def _cut_off(path: Path, kind: str, found: str) -> InputError:
    return InputError(
        where=str(path),
        expected=f"a complete {kind.upper()} file",
        found=found,
        remedy="The file is damaged or was cut off while it was copied: copy or export it again.",
    )
