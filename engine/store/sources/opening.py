"""Which reader takes a path: a file by its first bytes, a folder or a pattern as frames."""

from __future__ import annotations

import glob
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openslide import OpenSlide

from engine.errors import InputError
from engine.store.location import Location
from engine.store.sources.address import split_axes
from engine.store.sources.axed import as_named, check_planes
from engine.store.sources.cache import DecodeCache
from engine.store.sources.frames import FramesSource, natural_key
from engine.store.sources.picture import PictureSource
from engine.store.sources.picture_header import picture_kind
from engine.store.sources.scratch import open_staged
from engine.store.sources.slide import SlideSource, slide_facts
from engine.store.sources.tiff import TiffSource, first_compression
from engine.store.sources.tiff_chain import is_tiff

if TYPE_CHECKING:
    from engine.store.sources.base import Source, SourceInfo

# Two frames of 4000 x 3000 RGB.
FRAME_CACHE_BYTES = 72 << 20
FRAME_SUFFIXES = {".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".bmp"}
# Slides whose tiles TiffSource reads as well as OpenSlide does, without its detour over RGBA.
_PLAIN_SLIDES = {"aperio", "generic-tiff"}
# Aperio's JPEG 2000 in YCbCr carries no colour space, so that TIFF readers give wrong colours.
_JPEG2000_YCBCR = 33003
_REMEDY = (
    "Give a TIFF, OME-TIFF, slide, PNG, JPEG or BMP file, a folder of equal frames, or a pattern "
    "such as 'folder/*.tif'."
)


# Facts of the sources that a plan looked at last, by address.
_FACTS: OrderedDict[str, SourceInfo] = OrderedDict()
_MOST_FACTS = 16


def source_facts(path: str) -> SourceInfo:
    """Facts of a source, as it was when this process verified it last.

    A file of a bucket is not brought again to say what a plan has just seen of it.

    Parameters
    ----------
    path : str
        As of `open_source`.

    Returns
    -------
    SourceInfo
        Of a source that was never opened here: as it is now.

    Raises
    ------
    InputError
        As of `open_source`, where it must be opened.
    """
    known = _FACTS.get(path)
    if known is not None:
        return known
    with open_source(path) as source:
        return source.info


def open_source(path: str, *, verify: bool = True) -> Source:
    """Open an image in a foreign format.

    Parameters
    ----------
    path : str
        A file, a folder of equal frames, a glob pattern (``**`` for folders in folders), or the URL
        of a file, which is brought to the scratch of this machine. The same path gives the same
        source in every process. Axes that the user names are part of it, see
        `engine.store.sources.address`; of several frames they are those of each.
    verify : bool
        Look at every page and every frame, so that what is incomplete or unequal is refused
        before any work. A worker that opens what the plan has verified may leave it out: the
        same faults are then found when they are met.

    Returns
    -------
    Source
        Open; close it, or use it as a context manager.

    Raises
    ------
    InputError
        If there is nothing, or nothing that can be taken.
    """
    source = _open(path, verify=verify)
    if verify:
        _FACTS[path] = source.info
        _FACTS.move_to_end(path)
        while len(_FACTS) > _MOST_FACTS:
            _FACTS.popitem(last=False)
    return source


def _open(address: str, *, verify: bool) -> Source:
    path, axes = split_axes(address)
    opener = _Opener(DecodeCache(FRAME_CACHE_BYTES), axes)
    remote = Location.parse(path)
    if not remote.is_local:
        return open_staged(remote, lambda file: opener.open(file, verify))
    place = Path(path).expanduser()
    if place.is_dir():
        return _open_folder(place, opener, verify=verify)
    if place.is_file():
        return opener.open(place, verify)
    if glob.has_magic(path):
        found = [Path(p) for p in glob.glob(str(place), recursive=True)]  # noqa: PTH207 - Path.glob takes no absolute pattern
        return _open_frames(path, [p for p in found if p.is_file()], opener, verify=verify)
    raise InputError(
        where=path, expected="a file, a folder or a pattern", found="nothing", remedy=_REMEDY
    )


@dataclass(frozen=True)
class _Opener:
    """Opens single files.

    Parameters
    ----------
    cache : DecodeCache
        Shared by all of them.
    axes : str or None
        As the user names them.
    """

    cache: DecodeCache
    axes: str | None

    def open(self, path: Path, verify: bool) -> Source:
        """Open a file, with its axes as the user names them or as they can be told."""
        source = _open_file(path, self.cache, verify=verify, renamed=self.axes is not None)
        try:
            if self.axes is not None:
                return as_named(str(path), source, self.axes)
            if verify:
                check_planes(str(path), source.info)
        except BaseException:
            source.close()
            raise
        return source


def _open_folder(folder: Path, opener: _Opener, *, verify: bool) -> Source:
    if any((folder / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
        raise InputError(
            where=str(folder),
            expected="an image in a foreign format",
            found="a Zarr store",
            remedy="OME-Zarr needs no ingest: use it as IMAGE directly.",
        )
    found = [p for p in folder.iterdir() if p.is_file()]
    return _open_frames(str(folder), found, opener, verify=verify)


def _open_frames(where: str, found: list[Path], opener: _Opener, *, verify: bool) -> Source:
    seen = sorted((p for p in found if not p.name.startswith(".")), key=natural_key)
    files = tuple(p for p in seen if p.suffix.lower() in FRAME_SUFFIXES)
    if not files:
        raise InputError(
            where=where,
            expected=f"files with the endings {', '.join(sorted(FRAME_SUFFIXES))}",
            found=f"{len(seen)} others" if seen else "no file",
            remedy=_REMEDY,
        )
    ignored = tuple(p for p in seen if p not in set(files))
    return FramesSource(where, files, ignored, opener.open, verify=verify)


def _open_file(path: Path, cache: DecodeCache, *, verify: bool, renamed: bool) -> Source:
    """Open one file by what its first bytes say, never by its name."""
    try:
        if path.stat().st_size == 0:
            raise InputError(
                where=str(path),
                expected="an image",
                found="an empty file of 0 bytes",
                remedy="Copy or export it again.",
            )
        kind = picture_kind(path)
        if kind is not None:
            return PictureSource(path, kind, cache)
        vendor = OpenSlide.detect_format(path)
        if is_tiff(path) and vendor in {None, *_PLAIN_SLIDES}:
            return _open_tiff(path, vendor, verify=verify, renamed=renamed)
    except OSError as err:
        raise InputError(
            where=str(path),
            expected="a readable file",
            found=f"{type(err).__name__}: {err.strerror}",
            remedy="Check its permissions and the disk.",
        ) from err
    if vendor is not None:
        return SlideSource(path)
    with path.open("rb") as file:
        head = file.read(8)
    raise InputError(
        where=str(path),
        expected="an image format that is known",
        found=f"a file that begins with {head!r}",
        remedy=_REMEDY,
    )


def _open_tiff(path: Path, vendor: str | None, *, verify: bool, renamed: bool) -> Source:
    if vendor != "aperio":
        return TiffSource(path, verify=verify, renamed=renamed)
    if first_compression(path) == _JPEG2000_YCBCR:
        return SlideSource(path)
    return TiffSource(path, verify=verify, slide=slide_facts(path))
