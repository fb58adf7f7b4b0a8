"""Writing the metadata of OME-Zarr 0.5 groups: each document replaced in one step, repeatable."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from zarr.storage import MemoryStore

from engine.errors import OutputError
from engine.store.arrays import DTYPES
from engine.store.axes import check_axes
from engine.store.create import create_group
from engine.store.files import describe, read_json, write_json
from engine.store.location import Location
from engine.store.metadata import PROPERTIES_KEY, WRITTEN_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from engine.store.axes import Axis
    from engine.store.metadata import Channel, Level

# Shown colours where the source names none: distinguishable with the common red-green deficiency
# (Okabe and Ito 2008, "Color universal design").
_COLORS = ("0072B2", "E69F00", "009E73", "CC79A7", "56B4E9", "D55E00", "F0E442")


@dataclass(frozen=True, slots=True)
class Downsampling:
    """How the levels of a pyramid come from the one above.

    Parameters
    ----------
    type : str
        Short name: ``mean`` for images, ``mode`` or ``nearest`` for labels.
    description : str
        One sentence for people.
    """

    type: str
    description: str


MEAN = Downsampling("mean", "Mean of 2 by 2 pixels; at an odd edge, of those that are there.")
MODE = Downsampling("mode", "Most frequent label of 2 by 2 pixels.")
NEAREST = Downsampling("nearest", "First of 2 by 2 pixels.")


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What is written about an image.

    Parameters
    ----------
    name : str
        Its name.
    axes : tuple of Axis
        In the order time, channel, space.
    levels : tuple of Level
        Largest first; their arrays may be made before or after.
    dtype : str
        Of the pixels; gives the display range of a channel without one.
    downsampling : Downsampling
        How the levels were made.
    channels : tuple of Channel
        One per index on the c axis for an image; empty for a label image.
    properties : mapping
        What the source said and OME-NGFF has no place for, as JSON.

    Raises
    ------
    OutputError
        If a field breaks its rule.
    """

    name: str
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    dtype: str
    downsampling: Downsampling = MEAN
    channels: tuple[Channel, ...] = ()
    properties: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        check_axes(self.axes, where=f"axes of {self.name!r}")
        if not self.levels or any(len(lv.shape) != len(self.axes) for lv in self.levels):
            raise _refuse("levels", f"levels with {len(self.axes)} axes", self.levels)
        if self.dtype not in DTYPES:
            raise _refuse("dtype", f"one of {', '.join(sorted(DTYPES))}", self.dtype)
        sizes = dict(zip((a.name for a in self.axes), self.levels[0].shape, strict=True))
        if self.channels and len(self.channels) != sizes.get("c", 1):
            raise _refuse("channels", f"{sizes.get('c', 1)} channels", self.channels)


def _refuse(what: str, expected: str, found: object) -> OutputError:
    """Say which part of the metadata to write is wrong."""
    return OutputError(
        where=f"{what} of an image to write",
        expected=expected,
        found=describe(found),
        remedy=f"Correct the {what}.",
    )


def write_image_metadata(group: str | Path | Location, image: ImageMetadata) -> None:
    """Write the multiscale metadata of an image, with its channels where it has some.

    Other attributes of the group stay as they are. Calling again with the same image changes
    nothing; with another one replaces the metadata in one step.

    Parameters
    ----------
    group : str, Path or Location
        Folder of the image's group; made where it is missing.
    image : ImageMetadata
        What to write.

    Raises
    ------
    OutputError
        If the metadata would break the specification or the group cannot be written.

    Notes
    -----
    The document is built and checked by ome-zarr in memory
    (https://ngff.openmicroscopy.org/0.5/#multiscale-md) and put on the disk as a whole.
    """
    # Imported here: it loads dask.array and scikit-image, 2 s that a worker can do without.
    with warnings.catch_warnings():
        # ome-zarr 0.18 warns of its own class on import.
        warnings.filterwarnings("ignore", "Call to deprecated class Scaler", DeprecationWarning)
        from ome_zarr.format import FormatV05
        from ome_zarr.writer import write_multiscales_metadata
    draft = zarr.create_group(MemoryStore(), zarr_format=3)
    extra: dict[str, Any] = {"description": image.downsampling.description}
    if image.channels:
        extra["omero"] = _omero(image)
    try:
        write_multiscales_metadata(
            draft,
            datasets=[_dataset(level) for level in image.levels],
            fmt=FormatV05(),
            axes=[_axis(axis) for axis in image.axes],
            name=image.name,
            metadata=extra,
        )
    except ValueError as err:
        raise _refuse("metadata", "what OME-NGFF 0.5 allows", str(err)) from err
    built: dict[str, Any] = draft.attrs.asdict()
    ome: dict[str, Any] = built["ome"]
    ome["multiscales"][0]["type"] = image.downsampling.type
    update_group(group, ome, {PROPERTIES_KEY: dict(image.properties)} if image.properties else {})


def update_group(
    group: str | Path | Location, ome: Mapping[str, Any], other: Mapping[str, Any]
) -> None:
    """Set some attributes of a group and keep the rest, in one step.

    Parameters
    ----------
    group : str, Path or Location
        Folder of a zarr v3 group; made where it is missing.
    ome : mapping
        Keys to set under ``ome``.
    other : mapping
        Keys to set beside ``ome``.

    Raises
    ------
    OutputError
        If the group cannot be read or written.
    """
    create_group(group)
    place = Location.parse(group, OutputError) / "zarr.json"
    document = read_json(place, OutputError)
    attributes = dict(document.get("attributes", {}))
    merged = {**attributes.get("ome", {}), **ome, "version": WRITTEN_VERSION}
    write_json(place, document | {"attributes": {**attributes, **other, "ome": merged}})


def _axis(axis: Axis) -> dict[str, str]:
    """Axis as JSON, without the unit where it is not known."""
    return {key: value for key, value in asdict(axis).items() if value is not None}


def _dataset(level: Level) -> dict[str, Any]:
    """Level as JSON."""
    transforms: list[dict[str, Any]] = [{"type": "scale", "scale": list(level.scale)}]
    if any(level.translation):
        transforms.append({"type": "translation", "translation": list(level.translation)})
    return {"path": level.path, "coordinateTransformations": transforms}


def _omero(image: ImageMetadata) -> dict[str, Any]:
    """Channels as JSON; https://ngff.openmicroscopy.org/0.5/#omero-md."""
    low, high = display_range(image.dtype)
    channels = []
    for index, channel in enumerate(image.channels):
        default = _COLORS[index % len(_COLORS)] if len(image.channels) > 1 else "FFFFFF"
        window = channel.window or (low, high, low, high)
        channels.append(
            {
                "label": channel.name,
                "color": channel.color or default,
                "active": True,
                "family": "linear",
                "window": dict(zip(("min", "max", "start", "end"), window, strict=True)),
            }
        )
    model = "color" if len(channels) > 1 else "greyscale"
    return {"channels": channels, "rdefs": {"model": model}}


def display_range(dtype: str) -> tuple[float, float]:
    """Smallest and largest value that pixels of a dtype are shown with.

    Parameters
    ----------
    dtype : str
        One of `DTYPES`.

    Returns
    -------
    tuple of float
        The whole range of integers; 0 and 1 for bool and floats.
    """
    if np.dtype(dtype).kind not in "iu":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def write_labels_group(group: str | Path | Location, names: Iterable[str]) -> None:
    """List label images in the ``labels`` group of an image; those listed before stay listed.

    Parameters
    ----------
    group : str, Path or Location
        Folder of the image's group; ``labels`` is made in it.
    names : iterable of str
        Folders of label images inside ``labels``.

    Raises
    ------
    OutputError
        If the group cannot be read or written.

    Notes
    -----
    https://ngff.openmicroscopy.org/0.5/#labels-md
    """
    folder = Location.parse(group, OutputError) / "labels"
    create_group(folder)
    attributes = read_json(folder / "zarr.json", OutputError).get("attributes", {})
    listed = list(attributes.get("ome", {}).get("labels", []))
    update_group(folder, {"labels": list(dict.fromkeys([*listed, *names]))}, {})


def write_label_metadata(
    group: str | Path | Location,
    source: str = "../../",
    colors: Mapping[int, tuple[int, int, int, int]] | None = None,
    properties: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Mark an image as a label image.

    Parameters
    ----------
    group : str, Path or Location
        Folder of the label image's group.
    source : str
        Path from there to the image that the labels belong to.
    colors : mapping or None
        Red, green, blue and opacity, 0 to 255, of some labels.
    properties : sequence of mapping
        Properties of some labels, each with the key ``label-value``.

    Raises
    ------
    OutputError
        If a property lacks its label or the group cannot be written.

    Notes
    -----
    https://ngff.openmicroscopy.org/0.5/#label-md
    """
    if any(not isinstance(entry.get("label-value"), int) for entry in properties):
        raise _refuse("properties", "an integer label-value in each", properties)
    label: dict[str, Any] = {"source": {"image": source}}
    if colors:
        pairs = sorted(colors.items())
        label["colors"] = [{"label-value": value, "rgba": list(rgba)} for value, rgba in pairs]
    if properties:
        label["properties"] = [dict(entry) for entry in properties]
    update_group(group, {"image-label": label}, {})


def image_groups(out: Location) -> list[str]:
    """List the label images and maps below a result, sorted; maps may lie one folder deeper.

    Parameters
    ----------
    out : Location
        The result.

    Returns
    -------
    list of str
        Paths such as ``labels/nuclei``, ``maps/entropy`` and ``maps/probability/matrix``.
    """
    found = []
    for kind in ("labels", "maps"):
        for name in (out / kind).children()[0]:
            path = f"{kind}/{name}"
            below = (out / path).children()[0] if kind == "maps" else ()
            found += [p for p in (path, *(f"{path}/{n}" for n in below)) if _is_image(out / p)]
    return sorted(found)


def _is_image(group: Location) -> bool:
    """Whether a group says that it is a multiscale image."""
    place = group / "zarr.json"
    if not place.is_file():
        return False
    attributes = read_json(place, OutputError).get("attributes", {})
    return "multiscales" in attributes.get("ome", {})
