"""From what the user typed to the group of one image, or a refusal that says what to type."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from engine.store.failures import read_error
from engine.store.files import describe, read_first
from engine.store.location import Location
from engine.store.metadata import ome_attributes

if TYPE_CHECKING:
    from pathlib import Path

_LISTED = 6  # choices that an error names before it only counts them


@dataclass(frozen=True, slots=True)
class Group:
    """A zarr group, as its documents say.

    Parameters
    ----------
    path : Location
        Its folder.
    zarr_format : int
        2 or 3.
    attributes : dict
        All attributes.
    """

    path: Location
    zarr_format: int
    attributes: dict[str, Any]

    @property
    def ome(self) -> dict[str, Any]:
        """The attributes that OME-NGFF defines."""
        return ome_attributes(self.attributes, self.zarr_format)


def resolve_path(place: str | Path | Location) -> Location:
    """Folder of the one image that a path or URL names.

    Parameters
    ----------
    place : str, Path or Location
        Group of an image or a label image, or a container with exactly one image
        (``bioformats2raw.layout``).

    Returns
    -------
    Location
        Folder of the image's group.

    Raises
    ------
    InputError
        If there is nothing, a file of another format, a group without an image, a bare array, or
        several images (a plate, a well, a container, a listing of labels); the error names them.

    Notes
    -----
    https://ngff.openmicroscopy.org/0.5/#bf2raw and ``#plate-md``.
    """
    folder = Location.parse(place)
    try:
        group = read_group(folder)
        if "multiscales" in group.ome:
            return folder
        kind, choices = _images_inside(group)
    except OSError as err:
        raise read_error(str(folder), err) from err
    if kind == "container" and len(choices) == 1:
        return choices[0]
    if not choices:
        raise InputError(
            where=str(folder),
            expected="an OME-Zarr image",
            found="a zarr group without multiscales metadata",
            remedy="Pass the group of an image, or ingest the image again from its source.",
        )
    listed = ", ".join(str(choice) for choice in choices[:_LISTED])
    more = f" and {len(choices) - _LISTED} more" if len(choices) > _LISTED else ""
    raise InputError(
        where=str(folder),
        expected="one image",
        found=f"a {kind} with {len(choices)}: {listed}{more}",
        remedy=f"Pass one of them, for example {shlex.quote(str(choices[0]))}.",
    )


def read_group(folder: Location) -> Group:
    """Read the documents of a zarr group.

    Parameters
    ----------
    folder : Location
        Its folder.

    Returns
    -------
    Group
        Zarr v3 where both versions are there.

    Raises
    ------
    InputError
        If it is missing, a file, an array or not zarr, or its documents are damaged.
    OSError
        If the store does not say what is there.
    """
    group = read_group_if_any(folder)
    if group is not None:
        return group
    # A web server may answer for a folder as for a file.
    if folder.can_list and folder.is_file():
        raise _not_zarr(folder, f"a file{f' of type {folder.suffix}' if folder.suffix else ''}")
    if folder.exists():
        raise _not_zarr(folder, "a folder that is no zarr group")
    raise InputError(
        where=str(folder),
        expected="an OME-Zarr image",
        found="nothing there" if folder.can_list else "neither zarr.json nor .zattrs there",
        remedy="Check the path for a typing error or a disk that is not mounted."
        if folder.is_local
        else "Check the URL for a typing error.",
    )


def read_group_if_any(folder: Location) -> Group | None:
    """Read the documents of a zarr group, as `read_group`; None where there are none."""
    found = read_first(folder, ("zarr.json", ".zarray", ".zattrs", ".zgroup"))
    if found is None:
        return None
    name, document = found
    if name == ".zarray" or (name == "zarr.json" and document.get("node_type") == "array"):
        raise _bare_array(folder)
    if name != "zarr.json":
        return Group(folder, 2, document if name == ".zattrs" else {})
    attributes = document.get("attributes", {})
    if document.get("node_type") != "group" or not isinstance(attributes, dict):
        raise InputError(
            where=str(folder / "zarr.json"),
            expected="the document of a zarr v3 group",
            found=f"node_type {describe(document.get('node_type'))}",
            remedy="Copy the folder again from its source, or write it anew.",
        )
    return Group(folder, 3, attributes)


def _not_zarr(place: Location, found: str) -> InputError:
    """Say how to convert a file or a folder of files."""
    if not place.is_local:
        remedy = f"Convert it first: tilewright ingest {shlex.quote(str(place))} IMAGE.ome.zarr"
    else:
        path = place.path if place.name not in ("", "..") else place.path.resolve()
        stem = path.name or "image"
        if path.is_file():
            stem = stem.removesuffix(path.suffix).removesuffix(".ome")
        target = shlex.quote(str(path.parent / f"{stem}.ome.zarr"))
        remedy = f"Convert it first: tilewright ingest {shlex.quote(str(place))} {target}"
    return InputError(where=str(place), expected="an OME-Zarr image", found=found, remedy=remedy)


def _bare_array(folder: Location) -> InputError:
    """Say that an array alone tells neither its axes nor its pixel size."""
    return InputError(
        where=str(folder),
        expected="the group of an OME-Zarr image",
        found="a zarr array",
        remedy=f"Pass the group above it, {shlex.quote(str(folder.parent))}, if that is an image.",
    )


def _images_inside(group: Group) -> tuple[str, list[Location]]:
    """Kind of a group that is no image, and the groups of the images that it holds."""
    ome, folder = group.ome, group.path
    if "plate" in ome:
        wells = [folder / place for place in _values(ome["plate"], "wells", "path")]
        return "plate", [field for well in wells for field in _fields(well)]
    if "well" in ome:
        return "well", _fields(folder)
    if isinstance(ome.get("labels"), list):
        return "listing of labels", [folder / str(name) for name in ome["labels"]]
    return "container", _children(folder)


def _children(folder: Location) -> list[Location]:
    """List the groups of images directly inside a folder."""
    if not folder.can_list:
        raise InputError(
            where=str(folder),
            expected="the group of one image",
            found="a group of several, of which a web server gives no listing",
            remedy=f"Give the URL of one image, for example {folder}/0.",
        )
    folders = sorted((folder / name for name in folder.children()[0]), key=_by_number)
    return [place for place in folders if _is_image(place)]


def _fields(well: Location) -> list[Location]:
    """List the groups of the fields of a well, also of one that lacks its own metadata."""
    group = read_group_if_any(well)
    listed = _values(group.ome.get("well"), "images", "path") if group is not None else []
    return [well / place for place in listed] or _children(well)


def _values(document: object, listing: str, key: str) -> list[str]:
    """Strings under `key` of every entry of a list in the metadata of a plate or a well."""
    entries = document.get(listing) if isinstance(document, dict) else None
    listed = entries if isinstance(entries, list) else []
    found = [entry.get(key) for entry in listed if isinstance(entry, dict)]
    return [str(value) for value in found if value is not None]


def _is_image(folder: Location) -> bool:
    """Whether a folder is the group of an image."""
    found = read_first(folder, ("zarr.json", ".zattrs"))
    if found is None:
        return False
    name, document = found
    attributes = document if name == ".zattrs" else document.get("attributes")
    if not isinstance(attributes, dict):
        return False
    return "multiscales" in ome_attributes(attributes, 2 if name == ".zattrs" else 3)


def _by_number(place: Location) -> tuple[int, str]:
    """Order 2 before 10."""
    return (int(place.name) if place.name.isdigit() else 1 << 62), place.name
