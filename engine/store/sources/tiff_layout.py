"""Where the planes of an image lie in the pages of a TIFF file: series chosen, axes named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from engine.errors import InputError
from engine.store.sources.base import AXES
from engine.store.sources.checks import check_shape, taken_dtype

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage, TiffPageSeries

_KNOWN = {"T": "t", "C": "c", "S": "c", "Z": "z"}
# tifffile's letters for pages that the file does not name.
UNNAMED = "IQ"


@dataclass(frozen=True)
class PageStack:
    """The pages that make up one image, in the order in which its planes follow each other.

    Parameters
    ----------
    keyframe : TiffPage
        Shares shape, dtype and compression with all others.
    dtype : numpy dtype
        Of the pixels as they are decoded, native byte order.
    axes, shape : str, tuple of int
        Letters of tifffile and lengths of the whole image, axes of length one included.
    kind : str
        tifffile's name of the flavour: ``"ome"``, ``"imagej"``, ``"shaped"`` …
    offset : int or None
        First byte of the pixels where all of them lie in one piece as they are.
    n_pages : int
        Number of pages.
    page : callable
        Gives page i; None where a file that should hold it is missing.
    left_out : tuple of str
        Other images of the file: smaller ones such as labels and thumbnails.
    """

    keyframe: TiffPage
    dtype: np.dtype[np.generic]
    axes: str
    shape: tuple[int, ...]
    kind: str
    offset: int | None
    n_pages: int
    page: Callable[[int], TiffPage | TiffFrame | None]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class PlaneMap:
    """From our axes to the flat number of a plane in the stack.

    Parameters
    ----------
    axes, shape : tuple
        Our axes and their lengths; axes of length one are left out, except y and x.
    steps : dict of str to int
        Planes from one index to the next on t and z.
    channels : tuple of (int, int)
        For each channel its offset in planes and its sample within a pixel.
    stored : tuple of str
        `axes` in the order of the file's array; empty where several of its axes are channels.
    """

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    steps: dict[str, int]
    channels: tuple[tuple[int, int], ...]
    stored: tuple[str, ...]


def choose_stack(where: str, tif: TiffFile) -> PageStack:
    """Pages of the one image of a file, at full resolution.

    Pyramid levels are not images of their own. Several images of the same size that the writer
    put there one by one, unnamed, are a stack; otherwise the largest image is taken and the
    others are named in `PageStack.left_out`.

    Parameters
    ----------
    where : str
        Path, for messages.
    tif : TiffFile
        The open file.

    Returns
    -------
    PageStack
        With the axes as the file names them.

    Raises
    ------
    InputError
        If there is no image, or several that are as large, or if its pixels cannot be taken.
    """
    series = list(tif.series)
    if not series:
        raise InputError(
            where=where,
            expected="a TIFF file with an image",
            found="none",
            remedy="Export the image again.",
        )
    check_shape(where, series[0].shape)
    if _is_loose_stack(series):
        return _join(where, series)
    areas = [s.keyframe.imagelength * s.keyframe.imagewidth for s in series]
    largest = [s for s, area in zip(series, areas, strict=True) if area == max(areas)]
    if len(largest) > 1:
        names = ", ".join(_describe(s) for s in largest[:4])
        raise InputError(
            where=where,
            expected="one image, with or without smaller copies and labels beside it",
            found=f"{len(largest)} images of the same size ({names})",
            remedy="Export each image to a file of its own.",
        )
    (chosen,) = largest
    return PageStack(
        keyframe=chosen.keyframe,
        dtype=_dtype(where, chosen.keyframe),
        axes=chosen.get_axes(squeeze=False),
        shape=tuple(chosen.get_shape(squeeze=False)),
        kind=chosen.kind,
        offset=chosen.dataoffset,
        n_pages=len(chosen),
        page=chosen.__getitem__,
        left_out=tuple(_describe(s) for s in series if s is not chosen),
    )


def _is_loose_stack(series: list[TiffPageSeries]) -> bool:
    """Whether the series are single pages written one by one, such as in a loop of `write`."""
    first = series[0]
    return len(series) > 1 and all(
        s.kind == "shaped"
        and not s.name
        and len(s) == 1
        and s.shape == first.shape
        and s.axes == first.axes
        and s.keyframe.hash == first.keyframe.hash
        for s in series
    )


def _join(where: str, series: list[TiffPageSeries]) -> PageStack:
    first = series[0]
    return PageStack(
        keyframe=first.keyframe,
        dtype=_dtype(where, first.keyframe),
        axes="I" + first.get_axes(squeeze=False),
        shape=(len(series), *first.get_shape(squeeze=False)),
        kind=first.kind,
        offset=None,
        n_pages=len(series),
        page=lambda i: series[i].keyframe,
        left_out=(),
    )


def _dtype(where: str, page: TiffPage) -> np.dtype[np.generic]:
    """Dtype of decoded pixels, after `taken_dtype` took it."""
    taken = np.dtype(taken_dtype(where, page.dtype))
    return np.dtype(np.bool_) if page.dtype == np.bool_ else taken


def _describe(series: TiffPageSeries) -> str:
    lengths = "x".join(str(n) for n in series.shape)
    return f"{series.name or series.kind} {series.axes} {lengths}"


def map_planes(
    where: str, stack: PageStack, *, keep_channel: bool, renamed: bool = False
) -> PlaneMap:
    """Name the axes of a stack and find each plane in it.

    Parameters
    ----------
    where : str
        Path, for messages.
    stack : PageStack
        The pages.
    keep_channel : bool
        Keep a c axis of length one: the file names the channel, and the name is worth keeping.
    renamed : bool
        The user names the axes, so several may be unnamed here: any free letters hold their place.

    Returns
    -------
    PlaneMap
        Unnamed pages are z, or t where z is named already.

    Raises
    ------
    InputError
        If an axis longer than one has no meaning here, if two have the same, or if the pages
        are fewer than the axes say.

    Notes
    -----
    Every page holds, in this order, separate samples, depth, rows, columns and samples of a pixel
    (TIFF 6.0, PlanarConfiguration; tifffile's ``shaped``). The image's axes run over pages in the
    order of the file, so planes follow each other in C order of all axes before y.
    """
    separate, depth, height, width, samples = stack.keyframe.shaped
    letters, lengths = stack.axes, stack.shape
    if letters[-1] in "SC" and lengths[-1] == samples:
        letters, lengths = letters[:-1], lengths[:-1]
    if letters[-2:] != "YX" or lengths[-2:] != (height, width):
        raise _unmapped(where, stack, f"the axes {stack.axes}, not ending with rows and columns")
    lead, sizes = letters[:-2], lengths[:-2]
    held = stack.n_pages * separate * depth
    if stack.offset is None and prod(sizes) != held:
        raise InputError(
            where=where,
            expected=f"{prod(sizes)} planes, as its description says",
            found=str(held),
            remedy="The file was cut off, or edited by a program that left the description as "
            "it was: export it again.",
        )
    steps = {i: prod(sizes[i + 1 :]) for i in range(len(lead))}
    free = ("z", "t", *("c" * (renamed and samples == 1)))
    names = _name_axes(where, stack, sizes, free if renamed else free[:2])
    runs = [
        [k * steps[i] for k in range(sizes[i])] for i in range(len(lead)) if names.get(i) == "c"
    ]
    channels = tuple((sum(p[:-1]), p[-1]) for p in product(*runs, range(samples)))
    found = {name: sizes[i] for i, name in names.items() if name != "c"}
    found |= {"y": height, "x": width}
    if len(channels) > 1 or keep_channel:
        found["c"] = len(channels)
    axes = tuple(a for a in AXES if a in found)
    stored = (*(names[i] for i in sorted(names)), "y", "x", *("c" * (samples > 1)))
    if "c" in axes and "c" not in stored:
        stored = ("c", *stored)
    return PlaneMap(
        axes=axes,
        shape=tuple(found[a] for a in axes),
        steps={name: steps[i] for i, name in names.items() if name != "c"},
        channels=channels,
        stored=stored if len(stored) == len(axes) else (),
    )


def _name_axes(
    where: str, stack: PageStack, sizes: tuple[int, ...], unused: tuple[str, ...]
) -> dict[int, str]:
    """Our name of each leading axis longer than one, by its place; unnamed ones take unused."""
    lead = stack.axes
    long = [i for i, n in enumerate(sizes) if n > 1]
    names = {i: _KNOWN[lead[i]] for i in long if lead[i] in _KNOWN}
    foreign = [lead[i] for i in long if lead[i] not in _KNOWN and lead[i] not in UNNAMED]
    if foreign:
        raise _unmapped(where, stack, f"the axis {', '.join(foreign)} in {stack.axes}")
    unnamed = [i for i in long if lead[i] in UNNAMED]
    free = [a for a in unused if a not in names.values()]
    if len(unnamed) > 1 and len(unused) == 2:
        raise _unmapped(
            where, stack, f"{len(unnamed)} axes without a name in {stack.axes}",
            f"Name all axes longer than one, such as --axes "
            f"{'tczyx'[-len(unnamed) - 2 :]}, or save the image as OME-TIFF with named axes.",
        )  # fmt: skip
    if len(unnamed) > len(free):
        raise _unmapped(where, stack, f"one more axis without a name in {stack.axes}")
    names |= dict(zip(unnamed, free, strict=False))
    for axis in ("t", "z"):
        if list(names.values()).count(axis) > 1:
            raise _unmapped(where, stack, f"two axes that mean {axis} in {stack.axes}")
    return names


def _unmapped(
    where: str,
    stack: PageStack,
    found: str,
    remedy: str = "Save the image as OME-TIFF with named axes, or each such part as a file of its "
    "own.",
) -> InputError:
    return InputError(
        where=where,
        expected="axes that can be named t, c, z, y, x",
        found=f"{found} of shape {stack.shape}",
        remedy=remedy,
    )
