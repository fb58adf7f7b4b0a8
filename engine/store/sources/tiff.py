"""TIFF in all its flavours: plain, BigTIFF, OME-TIFF, ImageJ hyperstacks and pyramids of tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tifffile import TiffFile

from engine.errors import InputError
from engine.store.sources.base import FileStamp, Source, SourceInfo, stamp
from engine.store.sources.checks import check_request
from engine.store.sources.facts import Facts, channel_labels
from engine.store.sources.ome_xml import missing_files, parse_ome
from engine.store.sources.tiff_chain import count_pages
from engine.store.sources.tiff_facts import naming, tiff_facts
from engine.store.sources.tiff_layout import PageStack, choose_stack, map_planes
from engine.store.sources.tiff_meaning import meaning_of
from engine.store.sources.tiff_pixels import TiffPixels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tiling.box import Box


class TiffSource(Source):
    """One image of a TIFF file, at full resolution.

    Parameters
    ----------
    path : Path
        The file.
    verify : bool
        Walk through all pages first, so that a file that was cut off is refused before any work.
    slide : Facts or None
        What a slide's own description says; it goes before what the TIFF tags say.
    renamed : bool
        The user names the axes: as many as there are letters may be unnamed in the file.

    Raises
    ------
    InputError
        If the file is no TIFF, is damaged or incomplete, or holds what cannot be taken.
    """

    def __init__(
        self, path: Path, *, verify: bool, slide: Facts | None = None, renamed: bool = False
    ) -> None:
        self._where = str(path)
        if verify:
            count_pages(path)
        self._tif = _open(path)
        try:
            self._stack = _stack_of(path, self._tif)
            self._meaning = meaning_of(self._where, self._stack)
            facts = _merge(tiff_facts(self._where, self._tif, self._stack), slide)
            keep = len(facts.names) == 1
            self._map = map_planes(self._where, self._stack, keep_channel=keep, renamed=renamed)
            self._pixels = TiffPixels(path, self._stack)
        except BaseException:
            self._tif.close()
            raise
        try:
            if verify:
                self._pixels.check_complete()
            self.info = self._describe(facts)
        except BaseException:
            self.close()
            raise

    def _describe(self, facts: Facts) -> SourceInfo:
        axes = self._map.axes
        names, colors = channel_labels(
            facts, len(self._map.channels), rgb=self._meaning.rgb, color=self._meaning.color
        )
        has_channels = "c" in axes
        flavour, named_by = naming(self._stack)
        return SourceInfo(
            axes=axes,
            shape=self._map.shape,
            dtype="uint8" if self._stack.dtype == np.bool_ else self._stack.dtype.name,
            scale=facts.scale(axes),
            units=facts.units(axes),
            channel_names=names if has_channels else (),
            channel_colors=colors if has_channels else (),
            properties=facts.properties,
            preferred_block=self._pixels.block,
            format=flavour,
            stored=self._map.stored,
            named_by=named_by,
        )

    def read(self, plane: Mapping[str, int], box: Box) -> NDArray[np.generic]:
        """Read a box of one plane; see `Source.read`.

        Parameters
        ----------
        plane : mapping of str to int
            One index for each of ``info.plane_axes``.
        box : Box
            Two axes (y, x), inside the image.

        Returns
        -------
        ndarray (C, Y, X)
            Native byte order.

        Raises
        ------
        InputError
            If the file cannot be decoded here; the box is named.
        """
        check_request(self.info, plane, box)
        first = sum(self._map.steps.get(axis, 0) * index for axis, index in plane.items())
        out = np.empty((len(self._map.channels), *box.shape), self.info.dtype)
        offsets = dict.fromkeys(offset for offset, _ in self._map.channels)
        try:
            for offset in offsets:
                pixels = self._meaning.intensities(self._pixels.read(first + offset, box))
                for c, (at, sample) in enumerate(self._map.channels):
                    if at == offset:
                        out[c] = pixels[..., sample]
        except InputError as err:
            raise InputError(
                where=f"{err.where}, box {box}",
                expected=err.expected,
                found=err.found,
                remedy=err.remedy,
            ) from err
        return out

    def fingerprint(self) -> tuple[FileStamp, ...]:
        """Stamps of the file and of all others that hold pages of the image."""
        return tuple(stamp(p) for p in self._pixels.files())

    def close(self) -> None:
        """Close the file."""
        self._pixels.close()
        self._tif.close()


def first_compression(path: Path) -> int:
    """Compression of the first page of a TIFF file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    int
        Value of the field Compression.

    Raises
    ------
    InputError
        If the first page cannot be read.
    """
    with _tifffile(path, None) as tif:
        return int(tif.pages.first.compression)


def _merge(facts: Facts, slide: Facts | None) -> Facts:
    if slide is None:
        return facts
    return Facts(
        facts.sizes | slide.sizes, facts.names, facts.colors, facts.properties | slide.properties
    )


def _open(path: Path) -> TiffFile:
    """Open a file; with the companion file of an OME-TIFF that has its description there."""
    tif = _tifffile(path, None)
    if not tif.is_ome:
        return tif
    try:
        companion = _companion(path, tif)
    except BaseException:
        tif.close()
        raise
    if companion is None:
        return tif
    tif.close()
    return _tifffile(path, companion.read_text(encoding="utf-8"))


def _companion(path: Path, tif: TiffFile) -> Path | None:
    """File with the description of an OME-TIFF, if not the file itself; all files are there."""
    root = parse_ome(str(path), tif.ome_metadata or "")
    missing = missing_files(root, path.parent)
    if missing:
        raise InputError(
            where=str(path),
            expected="all files of the OME-TIFF set in one folder",
            found=f"that {', '.join(missing[:5])} is not there ({len(missing)} missing)",
            remedy="Put the files of the set beside each other, under their own names.",
        )
    binary_only = root.find("{*}BinaryOnly")
    return None if binary_only is None else path.parent / binary_only.get("MetadataFile", "")


def _tifffile(path: Path, omexml: str | None) -> TiffFile:
    try:
        return TiffFile(path, omexml=omexml)
    # A parser of foreign bytes: struct, index, key, value, type and Unicode errors all mean that
    # the file is damaged.
    except Exception as err:
        raise _unreadable(path, err) from err


def _stack_of(path: Path, tif: TiffFile) -> PageStack:
    """Chosen pages, after the description was found to agree with what tifffile made of it."""
    try:
        _ = tif.series
    # As above.
    except Exception as err:
        raise _unreadable(path, err) from err
    stack = choose_stack(str(path), tif)
    described = "OME-XML" if tif.is_ome else "ImageJ" if tif.is_imagej else None
    if described is not None and stack.kind in {"generic", "uniform"}:
        raise InputError(
            where=str(path),
            expected=f"the planes that its {described} description names",
            found=f"{stack.n_pages} pages that do not fit it",
            remedy="The file was cut off, or edited by a program that left the description as "
            "it was: copy or export it again.",
        )
    return stack


def _unreadable(path: Path, err: Exception) -> InputError:
    return InputError(
        where=str(path),
        expected="a readable TIFF file",
        found=f"{type(err).__name__}: {err}",
        remedy="The file is damaged or was cut off: copy or export it again.",
    )
