"""Facts of an OME-XML description: pixel sizes, channels, instrument, and files it names."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

from engine.errors import InputError
from engine.store.sources.facts import RGB_NAMES, Facts
from engine.store.sources.units import micrometers, seconds

if TYPE_CHECKING:
    from pathlib import Path
    from xml.etree.ElementTree import Element

# Elements whose attributes say how the image was made; pixels and positions of planes do not.
_KEPT = ("Microscope", "Objective", "ObjectiveSettings", "Detector", "ImagingEnvironment")


def parse_ome(where: str, xml: str) -> Element:
    """Root element of an OME-XML description.

    Parameters
    ----------
    where : str
        Path, for messages.
    xml : str
        The description.

    Returns
    -------
    Element
        The element ``OME``.

    Raises
    ------
    InputError
        If it is no well-formed XML.
    """
    try:
        return ElementTree.fromstring(xml)
    except ElementTree.ParseError as err:
        raise InputError(
            where=where,
            expected="an OME-XML description",
            found=f"XML that cannot be parsed ({err})",
            remedy="Export the image again as OME-TIFF.",
        ) from err


def missing_files(root: Element, folder: Path) -> tuple[str, ...]:
    """Files that a description names and that do not lie beside it.

    The file itself may have been renamed: it is known by its UUID.

    Parameters
    ----------
    root : Element
        The element ``OME``.
    folder : Path
        Folder of the file that holds the description.

    Returns
    -------
    tuple of str
        File names in order.
    """
    own = root.get("UUID")
    others = (e for e in root.iterfind(".//{*}TiffData/{*}UUID") if own is None or e.text != own)
    named = [e.get("FileName") for e in others]
    named += [e.get("MetadataFile") for e in root.iterfind("{*}BinaryOnly")]
    return tuple(sorted({n for n in named if n and not (folder / n).exists()}))


def ome_facts(root: Element, shape: tuple[int, int], planes: int) -> Facts:
    """Facts of the first image in a description that has these sizes.

    Parameters
    ----------
    root : Element
        The element ``OME``.
    shape : tuple of int
        Rows and columns.
    planes : int
        Planes in all, counting channels (and samples), slices and times.

    Returns
    -------
    Facts
        Only properties where no image of the description fits.

    Notes
    -----
    OME data model 2016-06: PhysicalSize defaults to micrometers, TimeIncrement to seconds, Color
    is a signed 32-bit integer of RGBA, SizeC counts samples.
    https://docs.openmicroscopy.org/ome-model/6.0.0/developers/
    """
    properties = {f"ome.{k}": v for k, v in root.attrib.items() if not k.startswith("{")}
    for image in root.iterfind("{*}Image"):
        pixels = image.find("{*}Pixels")
        if pixels is None:
            continue
        count = 1
        for axis in "ZCT":
            count *= int(pixels.get(f"Size{axis}", "1"))
        if (int(pixels.get("SizeY", "0")), int(pixels.get("SizeX", "0"))) != shape:
            continue
        if count == planes:
            names, colors = _channels(pixels)
            properties |= _properties(root, image, pixels)
            return Facts(_sizes(pixels), names, colors, properties)
    return Facts(properties=properties)


def _sizes(pixels: Element) -> dict[str, tuple[float, str]]:
    sizes = {}
    for axis in "zyx":
        value = pixels.get(f"PhysicalSize{axis.upper()}")
        unit = pixels.get(f"PhysicalSize{axis.upper()}Unit", "µm")
        um = micrometers(_number(value), unit)
        if um is not None:
            sizes[axis] = (um, "micrometer")
    step = seconds(_number(pixels.get("TimeIncrement")), pixels.get("TimeIncrementUnit", "s"))
    if step is not None:
        sizes["t"] = (step, "second")
    return sizes


def _number(text: str | None) -> float:
    """Value of an attribute; 0, which no size can be, where it is absent or no number."""
    try:
        return float(text) if text else 0.0
    except ValueError:
        return 0.0


def _channels(pixels: Element) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and colours of all channels, samples counted; empty where any is absent."""
    names: list[str] = []
    colors: list[str] = []
    elements = list(pixels.iterfind("{*}Channel"))
    for element in elements:
        name, samples = element.get("Name"), int(element.get("SamplesPerPixel", "1"))
        if samples == 1:
            names += [name] if name else []
            color = element.get("Color")
            colors += [f"{int(color) & 0xFFFFFFFF:08X}"[:6]] if color else []
        elif len(elements) > 1:
            names += [f"{name or f'channel {len(names)}'} {s}" for s in RGB_NAMES[:samples]]
    size = int(pixels.get("SizeC", "1"))
    return (
        tuple(names) if len(names) == size else (),
        tuple(colors) if len(colors) == size else (),
    )


def _properties(root: Element, image: Element, pixels: Element) -> dict[str, str]:
    found = {f"ome.Image.{k}": v for k, v in image.attrib.items()}
    found |= {f"ome.Pixels.{k}": v for k, v in pixels.attrib.items()}
    for tag in ("AcquisitionDate", "Description"):
        text = image.findtext(f"{{*}}{tag}")
        if text:
            found[f"ome.Image.{tag}"] = text
    for i, channel in enumerate(pixels.iterfind("{*}Channel")):
        found |= {f"ome.Channel.{i}.{k}": v for k, v in channel.attrib.items()}
    for tag in _KEPT:
        for i, element in enumerate(root.iterfind(f".//{{*}}{tag}")):
            found |= {f"ome.{tag}.{i}.{k}": v for k, v in element.attrib.items()}
    for entry in root.iterfind(".//{*}MapAnnotation/{*}Value/{*}M"):
        found[f"ome.annotation.{entry.get('K', '')}"] = entry.text or ""
    return found
