"""Facts of a TIFF file: from OME-XML, from ImageJ's description, or from its resolution tags."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from engine.store.sources.facts import Facts
from engine.store.sources.ome_xml import ome_facts, parse_ome
from engine.store.sources.tiff_layout import UNNAMED
from engine.store.sources.units import PRINT_PIXEL_UM, micrometers, seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tifffile import TiffFile, TiffPage

    from engine.store.sources.tiff_layout import PageStack

_KEPT_TAGS = ("Software", "DateTime", "Make", "Model", "Artist", "HostComputer", "Orientation")
_RESOLUTION_UNITS = {2: "inch", 3: "cm"}
# tifffile's name of a flavour: what a user calls it, and what in it names the axes.
_FLAVOURS = {
    "ome": ("OME-TIFF", "its OME-XML"),
    "imagej": ("ImageJ TIFF", "its ImageJ description"),
    "shaped": ("TIFF", ""),
    "generic": ("TIFF", ""),
    "uniform": ("TIFF", ""),
}


def tiff_facts(where: str, tif: TiffFile, stack: PageStack) -> Facts:
    """Facts about the image of a stack of pages.

    Parameters
    ----------
    where : str
        Path, for messages.
    tif : TiffFile
        The open file.
    stack : PageStack
        The chosen pages.

    Returns
    -------
    Facts
        The description's; pixel sizes of the resolution tags where no description speaks.

    Raises
    ------
    InputError
        If the OME-XML cannot be parsed.
    """
    page = stack.keyframe
    properties = _tag_properties(page)
    if stack.left_out:
        properties["tiff.left_out"] = "; ".join(stack.left_out)
    if stack.kind == "ome":
        shape = (page.imagelength, page.imagewidth)
        facts = ome_facts(
            parse_ome(where, tif.ome_metadata or ""), shape, prod(stack.shape) // prod(shape)
        )
    elif stack.kind == "imagej":
        facts = _imagej_facts(tif.imagej_metadata or {}, page, prod(stack.shape) // page.size)
    else:
        facts = Facts(_tag_sizes(page), properties=_shaped_properties(tif, page))
    return Facts(facts.sizes, facts.names, facts.colors, properties | facts.properties)


def naming(stack: PageStack) -> tuple[str, str]:
    """Say what a file is, and what in it names the axes of its array.

    Returns
    -------
    flavour : str
        Such as "OME-TIFF".
    named_by : str
        Such as "its OME-XML"; "" where nothing does.
    """
    letters = {a for a, n in zip(stack.axes, stack.shape, strict=True) if n > 1}
    flavour, named_by = _FLAVOURS.get(stack.kind, (f"TIFF, {stack.kind}", f"its {stack.kind} tags"))
    if letters & set(UNNAMED):
        return flavour, ""
    # tifffile's own description names axes where it names any beside the page's.
    if stack.kind == "shaped" and letters & set("TCZ"):
        return flavour, "its description"
    return flavour, named_by


def _tag_properties(page: TiffPage) -> dict[str, str]:
    found = {name: page.tags.valueof(name) for name in _KEPT_TAGS}
    unit = _RESOLUTION_UNITS.get(page.tags.valueof(296, default=1), "")
    found["Resolution"] = " x ".join(f"{v:g}" for v in page.resolution) + f" per {unit}"
    if not unit:
        del found["Resolution"]
    return {f"tiff.{k}": str(v).strip() for k, v in found.items() if v is not None}


def _shaped_properties(tif: TiffFile, page: TiffPage) -> dict[str, str]:
    """Other entries of tifffile's own description, or the description as it is."""
    if tif.shaped_metadata:
        entries = tif.shaped_metadata[0].items()
        return {f"tifffile.{k}": str(v) for k, v in entries if k not in {"shape", "axes"}}
    return {"tiff.ImageDescription": page.description} if page.description else {}


def _tag_sizes(page: TiffPage) -> dict[str, tuple[float, str]]:
    """Pixel sizes of XResolution and YResolution where they are a microscope's."""
    unit = _RESOLUTION_UNITS.get(page.tags.valueof(296, default=1))
    if unit is None or 282 not in page.tags or 283 not in page.tags:
        return {}
    sizes = {}
    for axis, per_unit in zip("xy", page.resolution, strict=True):
        um = micrometers(1 / per_unit, unit) if per_unit > 0 else None
        if um is None or um > PRINT_PIXEL_UM:
            return {}
        sizes[axis] = (um, "micrometer")
    return sizes


def _imagej_facts(meta: Mapping[str, object], page: TiffPage, planes: int) -> Facts:
    """Facts of ImageJ's description.

    ``unit`` holds for the resolution tags, ``spacing`` is the distance of slices in it,
    ``finterval`` the time between frames in ``tunit``.
    """
    unit = str(meta.get("unit", ""))
    sizes = {}
    x_per_unit, y_per_unit = page.resolution
    lengths = {
        "x": (1 / x_per_unit if x_per_unit else 0.0, unit),
        "y": (1 / y_per_unit if y_per_unit else 0.0, str(meta.get("yunit", unit))),
        "z": (_float(meta.get("spacing")), str(meta.get("zunit", unit))),
    }
    for axis, (value, axis_unit) in lengths.items():
        um = micrometers(value, axis_unit)
        if um is not None:
            sizes[axis] = (um, "micrometer")
    step = seconds(_float(meta.get("finterval")), str(meta.get("tunit", "s")))
    if step is not None:
        sizes["t"] = (step, "second")
    channels = int(_float(meta.get("channels", 1)))
    return Facts(
        sizes, _imagej_names(meta, channels, planes), _imagej_colors(meta, channels),
        _imagej_properties(meta),
    )  # fmt: skip


def _float(value: object) -> float:
    """Value of an entry; 0, which no size can be, where it is absent or no number."""
    return float(value) if isinstance(value, int | float) else 0.0


def _imagej_names(meta: Mapping[str, object], channels: int, planes: int) -> tuple[str, ...]:
    """Slice labels, where every plane of a channel carries the same one."""
    labels = meta.get("Labels")
    if not isinstance(labels, list) or channels < 2 or len(labels) != planes:
        return ()
    by_channel = [{str(label) for label in labels[c::channels]} for c in range(channels)]
    if any(len(names) != 1 for names in by_channel):
        return ()
    names = tuple(names.pop() for names in by_channel)
    return names if all(names) and len(set(names)) == channels else ()


def _imagej_colors(meta: Mapping[str, object], channels: int) -> tuple[str, ...]:
    """Colour of the brightest value in the lookup table of each channel."""
    tables = meta.get("LUTs")
    if not isinstance(tables, list) or len(tables) != channels or channels < 2:
        return ()
    return tuple("".join(f"{int(v):02X}" for v in table[:, -1]) for table in tables)


def _imagej_properties(meta: Mapping[str, object]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in meta.items():
        if isinstance(value, str | int | float | bool):
            found[f"imagej.{key}"] = str(value)
        elif isinstance(value, dict):
            found |= {f"imagej.{key}.{k}": str(v) for k, v in value.items()}
        elif key == "Labels" and isinstance(value, list):
            found["imagej.Labels"] = "\n".join(str(v) for v in value)
    return found
