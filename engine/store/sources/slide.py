"""Whole-slide images through OpenSlide: level 0 as RGB, with all properties of the slide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from openslide import PROPERTY_NAME_VENDOR, OpenSlide, OpenSlideError

from engine.errors import InputError
from engine.store.sources.base import FileStamp, Source, SourceInfo, stamp
from engine.store.sources.checks import check_request
from engine.store.sources.facts import RGB_COLORS, RGB_NAMES, Facts
from engine.store.sources.units import micrometers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiling.box import Box

# OpenSlide hands out RGBA: boxes are read in parts of this many pixels, 16 MiB each.
_PART = (2048, 2048)
_DEFAULT_TILE = 512


class SlideSource(Source):
    """Level 0 of a slide; label, macro and thumbnail are not pixels of the image.

    Parts that were not scanned are transparent and are shown on the background colour that the
    slide states, white otherwise.

    Parameters
    ----------
    path : Path
        The slide's file.

    Raises
    ------
    InputError
        If OpenSlide cannot open the slide.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slide = _open(path)
        properties = self._slide.properties
        color = properties.get("openslide.background-color", "FFFFFF")
        self._background = np.array(list(bytes.fromhex(color.removeprefix("#"))), np.uint32)
        width, height = self._slide.dimensions
        facts = _facts(properties)
        axes = ("c", "y", "x")
        self.info = SourceInfo(
            axes=axes,
            shape=(3, height, width),
            dtype="uint8",
            scale=facts.scale(axes),
            units=facts.units(axes),
            channel_names=RGB_NAMES[:3],
            channel_colors=RGB_COLORS,
            properties=facts.properties,
            preferred_block=_tile(properties),
            format=f"slide, {properties.get(PROPERTY_NAME_VENDOR, 'vendor unknown')}",
            stored=("y", "x", "c"),
            named_by="its slide format",
        )

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box of level 0; see `Source.read`.

        Parameters
        ----------
        plane : mapping of str to int
            Empty.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (3, Y, X) uint8
            Red, green, blue.

        Raises
        ------
        InputError
            If OpenSlide cannot decode the box; it reads nothing more from this slide then.
        """
        check_request(self.info, plane, box)
        out = np.empty((3, *box.shape), np.uint8)
        for part in () if box.empty else box.split(_PART):
            (y, x), (height, width) = part.start, part.shape
            try:
                rgba = self._slide.read_region((x, y), 0, (width, height))
            except OpenSlideError as err:
                raise _unreadable(f"{self._path}, box {box}", err) from err
            seen = on_background(np.asarray(rgba), self._background)
            out[(slice(None), *part.slices(box.start))] = np.moveaxis(seen, -1, 0)
        return out

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """Stamps of the slide's file and of the files that belong to its format."""
        vendor = self._slide.properties.get("openslide.vendor", "")
        return tuple(stamp(p) for p in (self._path, *_siblings(self._path, vendor)))

    def close(self) -> None:
        """Close the slide."""
        self._slide.close()


def slide_facts(path: Path) -> Facts:
    """Pixel size and all properties of a slide, for a reader that takes its pixels elsewhere.

    Parameters
    ----------
    path : Path
        The slide's file.

    Returns
    -------
    Facts
        Sizes in micrometers.

    Raises
    ------
    InputError
        If OpenSlide cannot open the slide.
    """
    with _open(path) as slide:
        return _facts(slide.properties)


def on_background(rgba: NDArray[np.uint8], background: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Lay transparent pixels on a background.

    Parameters
    ----------
    rgba : ndarray (Y, X, 4) uint8
        Colours not multiplied by alpha.
    background : ndarray (3,) uint32
        Red, green, blue.

    Returns
    -------
    ndarray (Y, X, 3) uint8
        ``alpha * colour + (1 - alpha) * background``, rounded.
    """
    if rgba[..., 3].min() == 255:
        return rgba[..., :3]
    alpha = rgba[..., 3:].astype(np.uint32)
    mixed = (rgba[..., :3] * alpha + background * (255 - alpha) + 127) // 255
    return mixed.astype(np.uint8)


def _open(path: Path) -> OpenSlide:
    try:
        return OpenSlide(path)
    except (OpenSlideError, OSError) as err:
        raise _unreadable(str(path), err) from err


def _unreadable(where: str, err: Exception) -> InputError:
    return InputError(
        where=where,
        expected="a slide that OpenSlide can read",
        found=f"{type(err).__name__}: {err}",
        remedy="Check that the slide is complete, with all files that belong to it.",
    )


def _facts(properties: Mapping[str, str]) -> Facts:
    sizes = {}
    for axis in "yx":
        text = properties.get(f"openslide.mpp-{axis}")
        um = micrometers(float(text), "µm") if text else None
        if um is not None:
            sizes[axis] = (um, "micrometer")
    return Facts(sizes, properties=dict(properties))


def _tile(properties: Mapping[str, str]) -> tuple[int, int]:
    height = properties.get("openslide.level[0].tile-height", _DEFAULT_TILE)
    width = properties.get("openslide.level[0].tile-width", _DEFAULT_TILE)
    return int(height), int(width)


def _siblings(path: Path, vendor: str) -> tuple[Path, ...]:
    """Files that hold the pixels of a slide beside the one that is named."""
    if vendor == "mirax":
        folder = path.with_suffix("")
    elif vendor == "dicom" or path.suffix.lower() in {".vms", ".vmu"}:
        folder = path.parent
    else:
        return ()
    return tuple(sorted(p for p in folder.iterdir() if p.is_file() and p != path))
