"""OME-NGFF metadata: value types, and what the documents of versions 0.4 and 0.5 say."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from engine.store.axes import Axis, parse_axes
from engine.store.files import describe

if TYPE_CHECKING:
    from collections.abc import Mapping

WRITTEN_VERSION = "0.5"
"""Version of OME-NGFF that is written; 0.4 is read as well."""

PROPERTIES_KEY = "tilewright"
"""Attribute beside ``ome`` that holds what a source said and OME-NGFF has no place for."""

_REMEDY = "Correct the metadata, or write the image again with a current OME-Zarr writer."
_COLOR = re.compile(r"^#?([0-9A-Fa-f]{6})$")


@dataclass(frozen=True, slots=True)
class Level:
    """One resolution of an image.

    Parameters
    ----------
    path : str
        Path of its array inside the image's group, such as ``"0"`` or ``"maps/votes/0"``.
    shape : tuple of int
        Pixels on each axis.
    scale : tuple of float
        Size of a pixel on each axis, in the axis' unit.
    translation : tuple of float
        Place of the first pixel's centre on each axis, in the axis' unit.

    Examples
    --------
    >>> Level("0", (3000, 4000), (0.5, 0.5), (0.0, 0.0)).shape
    (3000, 4000)
    """

    path: str
    shape: tuple[int, ...]
    scale: tuple[float, ...]
    translation: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.shape), len(self.scale), len(self.translation)}
        if len(lengths) != 1:
            raise InputError(
                where=f"level {self.path!r}",
                expected="one scale and one translation per axis",
                found=f"shape {self.shape}, scale {self.scale}, translation {self.translation}",
                remedy=_REMEDY,
            )


@dataclass(frozen=True, slots=True)
class Channel:
    """How one channel is called and shown.

    Parameters
    ----------
    name : str
        Name of the stain or colour.
    color : str or None
        Six hexadecimal digits, RRGGBB; None where the metadata names no valid one.
    window : tuple of float or None
        Display range: smallest and largest possible value, value shown black, value shown full.

    Examples
    --------
    >>> Channel("DAPI", color="0000FF").name
    'DAPI'
    """

    name: str
    color: str | None = None
    window: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """One entry of ``datasets``: where a level's array is and how it lies in space.

    Parameters
    ----------
    path, scale, translation
        As of a `Level`; the transformations of the whole multiscale are applied.
    """

    path: str
    scale: tuple[float, ...]
    translation: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Multiscale:
    """What the metadata of an image's group says, before its arrays are looked at.

    Parameters
    ----------
    version : str
        ``"0.4"`` or ``"0.5"``.
    name : str or None
        Name of the image, where it has one.
    axes : tuple of Axis
        In the order of the arrays.
    datasets : tuple of Dataset
        Largest resolution first.
    channels : tuple of Channel
        From the ``omero`` block; empty where there is none.
    is_label : bool
        Whether ``image-label`` metadata mark it as a label image.
    """

    version: str
    name: str | None
    axes: tuple[Axis, ...]
    datasets: tuple[Dataset, ...]
    channels: tuple[Channel, ...]
    is_label: bool


def ome_attributes(attributes: Mapping[str, Any], zarr_format: int) -> dict[str, Any]:
    """Part of a group's attributes that OME-NGFF defines.

    Parameters
    ----------
    attributes : mapping
        Attributes of a group.
    zarr_format : int
        2, where OME-NGFF 0.4 keeps its keys at the top; 3, where 0.5 keeps them under ``ome``.

    Returns
    -------
    dict
        Keys such as ``multiscales``, ``plate``, ``labels``; empty where there are none.
    """
    found = attributes.get("ome") if zarr_format == 3 else attributes
    return dict(found) if isinstance(found, dict) else {}


def parse_multiscale(ome: Mapping[str, Any], zarr_format: int, *, where: str) -> Multiscale:
    """Read the first multiscale of a group, the one that the specification makes the default.

    Parameters
    ----------
    ome : mapping
        What `ome_attributes` gave.
    zarr_format : int
        2 or 3.
    where : str
        What errors name.

    Returns
    -------
    Multiscale
        Checked, with the transformations of the multiscale applied to each dataset.

    Raises
    ------
    InputError
        If the version is not read here or the metadata break the specification.

    Notes
    -----
    https://ngff.openmicroscopy.org/0.5/#multiscale-md. Display metadata (``omero``) never refuse
    an image: a colour or a window that cannot be read is None.
    """
    entries = ome.get("multiscales")
    if not isinstance(entries, list) or not entries or not isinstance(entries[0], dict):
        raise _error(f"{where}, multiscales", "a list with a multiscale image", entries)
    first: dict[str, Any] = entries[0]
    version = _version(ome, first, zarr_format, where)
    axes = parse_axes(first.get("axes"), where=f"{where}, axes")
    overall = _transform(first.get("coordinateTransformations"), len(axes), where, needed=False)
    listed = first.get("datasets")
    if not isinstance(listed, list) or not listed:
        raise _error(f"{where}, datasets", "a list of at least one level", listed)
    datasets = tuple(_dataset(entry, len(axes), overall, version, where) for entry in listed)
    name = first.get("name")
    return Multiscale(
        version=version,
        name=name if isinstance(name, str) and name else None,
        axes=axes,
        datasets=datasets,
        channels=_channels(ome.get("omero")),
        is_label="image-label" in ome,
    )


def _version(ome: Mapping[str, Any], first: Mapping[str, Any], zarr_format: int, where: str) -> str:
    """Find the version: 0.5 requires it beside `multiscales`, 0.4 recommends it inside."""
    found = ome.get("version") if zarr_format == 3 else first.get("version", "0.4")
    expected = "0.5" if zarr_format == 3 else "0.4"
    if found == expected:
        return expected
    raise InputError(
        where=f"{where}, version",
        expected=f"OME-Zarr {expected} in a zarr v{zarr_format} group",
        found=describe(found),
        remedy="Convert the image to OME-Zarr 0.4 or 0.5 first.",
    )


def _dataset(
    entry: object,
    ndim: int,
    overall: tuple[tuple[float, ...], tuple[float, ...]],
    version: str,
    where: str,
) -> Dataset:
    """Read one entry of ``datasets`` and place it in the space of the whole multiscale."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    path = fields.get("path")
    if version == "0.4" and isinstance(path, int) and not isinstance(path, bool):
        path = str(path)  # written so by tools in the field (ez_zarr, early Fractal)
    if not isinstance(path, str) or not path:
        raise _error(f"{where}, datasets", "the path of an array", entry)
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise _error(f"{where}, datasets", "a path inside the image's group", path)
    at = f"{where}, level {path!r}"
    scale, shift = _transform(fields.get("coordinateTransformations"), ndim, at, needed=True)
    outer, origin = overall
    return Dataset(
        path=path,
        scale=tuple(s * o for s, o in zip(scale, outer, strict=True)),
        translation=tuple(t * o + b for t, o, b in zip(shift, outer, origin, strict=True)),
    )


def _transform(
    document: object, ndim: int, where: str, *, needed: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and translation out of ``coordinateTransformations``."""
    identity = (1.0,) * ndim, (0.0,) * ndim
    if document is None and not needed:
        return identity
    entries = document if isinstance(document, list) else []
    kinds = [entry.get("type") if isinstance(entry, dict) else None for entry in entries]
    if kinds not in (["scale"], ["scale", "translation"]):
        expected = "coordinateTransformations with one scale, then at most one translation"
        raise _error(where, expected, document)
    values = [_numbers(entry.get(entry["type"]), ndim, where) for entry in entries]
    return values[0], values[1] if len(values) == 2 else identity[1]


def _numbers(value: object, ndim: int, where: str) -> tuple[float, ...]:
    """One finite number per axis."""
    items = value if isinstance(value, list) else []
    good = [
        float(item)
        for item in items
        if isinstance(item, (int, float)) and not isinstance(item, bool) and math.isfinite(item)
    ]
    if len(good) != ndim or len(items) != ndim:
        raise _error(where, f"one number for each of {ndim} axes in a transformation", value)
    return tuple(good)


def _channels(omero: object) -> tuple[Channel, ...]:
    """Channels out of the ``omero`` block, as far as they can be read."""
    listed = omero.get("channels") if isinstance(omero, dict) else None
    entries = listed if isinstance(listed, list) else []
    return tuple(_channel(entry, index) for index, entry in enumerate(entries))


def _channel(entry: object, index: int) -> Channel:
    """Read one channel; a name that is missing is replaced by its number."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    label, color = fields.get("label"), fields.get("color")
    match = _COLOR.match(color) if isinstance(color, str) else None
    return Channel(
        name=label if isinstance(label, str) and label else f"channel {index}",
        color=match.group(1).upper() if match else None,
        window=_window(fields.get("window")),
    )


def _window(window: object) -> tuple[float, float, float, float] | None:
    """Display range; numbers that a writer put into strings are taken."""
    fields: dict[str, Any] = window if isinstance(window, dict) else {}
    try:
        low, high, start, end = (float(fields[key]) for key in ("min", "max", "start", "end"))
    except (KeyError, TypeError, ValueError):
        return None
    return low, high, start, end


def _error(where: str, expected: str, found: object) -> InputError:
    """Say what part of the metadata breaks the specification."""
    return InputError(where=where, expected=expected, found=describe(found), remedy=_REMEDY)
