"""From what the user typed to the group of one image, or a refusal that says what to type."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import InputError
from engine.store.files import describe, local_path, read_json
from engine.store.metadata import ome_attributes

_LISTED = 6  # choices that an error names before it only counts them


@dataclass(frozen=True, slots=True)
class Group:
    """A zarr group on the disk, as its documents say.

    Parameters
    ----------
    path : Path
        Its folder.
    zarr_format : int
        2 or 3.
    attributes : dict
        All attributes.
    """

    path: Path
    zarr_format: int
    attributes: dict[str, Any]

    @property
    def ome(self) -> dict[str, Any]:
        """The attributes that OME-NGFF defines."""
        return ome_attributes(self.attributes, self.zarr_format)


def resolve_path(path: str | Path) -> Path:
    """Folder of the one image that a path names.

    Parameters
    ----------
    path : str or Path
        Group of an image or a label image, or a container with exactly one image
        (``bioformats2raw.layout``).

    Returns
    -------
    Path
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
    folder = local_path(path)
    try:
        group = read_group(folder)
        if "multiscales" in group.ome:
            return folder
        kind, choices = _images_inside(group)
    except OSError as err:
        raise InputError(
            where=str(path),
            expected="a folder that can be read",
            found=err.strerror or str(err),
            remedy="Check the path and its permissions.",
        ) from err
    if kind == "container" and len(choices) == 1:
        return choices[0]
    if not choices:
        raise InputError(
            where=str(path),
            expected="an OME-Zarr image",
            found="a zarr group without multiscales metadata",
            remedy="Pass the group of an image, or ingest the image again from its source.",
        )
    listed = ", ".join(str(choice) for choice in choices[:_LISTED])
    more = f" and {len(choices) - _LISTED} more" if len(choices) > _LISTED else ""
    raise InputError(
        where=str(path),
        expected="one image",
        found=f"a {kind} with {len(choices)}: {listed}{more}",
        remedy=f"Pass one of them, for example {shlex.quote(str(choices[0]))}.",
    )


def read_group(folder: Path) -> Group:
    """Read the documents of a zarr group.

    Parameters
    ----------
    folder : Path
        Its folder.

    Returns
    -------
    Group
        Zarr v3 where both versions are there.

    Raises
    ------
    InputError
        If it is missing, a file, an array or not zarr, or its documents are damaged.
    """
    if not folder.exists():
        raise InputError(
            where=str(folder),
            expected="an OME-Zarr image",
            found="nothing there",
            remedy="Check the path for a typing error or a disk that is not mounted.",
        )
    if folder.is_file():
        raise _not_zarr(folder, f"a file{f' of type {folder.suffix}' if folder.suffix else ''}")
    if (folder / "zarr.json").is_file():
        document = read_json(folder / "zarr.json")
        if document.get("node_type") == "array":
            raise _bare_array(folder)
        attributes = document.get("attributes", {})
        if document.get("node_type") != "group" or not isinstance(attributes, dict):
            raise InputError(
                where=str(folder / "zarr.json"),
                expected="the document of a zarr v3 group",
                found=f"node_type {describe(document.get('node_type'))}",
                remedy="Copy the folder again from its source, or write it anew.",
            )
        return Group(folder, 3, attributes)
    if (folder / ".zarray").is_file():
        raise _bare_array(folder)
    if (folder / ".zgroup").is_file() or (folder / ".zattrs").is_file():
        attributes = read_json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
        return Group(folder, 2, attributes)
    raise _not_zarr(folder, "a folder that is no zarr group")


def _not_zarr(path: Path, found: str) -> InputError:
    """Say how to convert a file or a folder of files."""
    named = path if path.name not in ("", "..") else path.resolve()
    stem = named.name or "image"
    if path.is_file():
        stem = stem.removesuffix(path.suffix).removesuffix(".ome")
    source = shlex.quote(str(path))
    target = shlex.quote(str(named.parent / f"{stem}.ome.zarr"))
    return InputError(
        where=str(path),
        expected="an OME-Zarr image",
        found=found,
        remedy=f"Convert it first: tilewright ingest {source} {target}",
    )


def _bare_array(folder: Path) -> InputError:
    """Say that an array alone tells neither its axes nor its pixel size."""
    return InputError(
        where=str(folder),
        expected="the group of an OME-Zarr image",
        found="a zarr array",
        remedy=f"Pass the group above it, {shlex.quote(str(folder.parent))}, if that is an image.",
    )


def _images_inside(group: Group) -> tuple[str, list[Path]]:
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


def _children(folder: Path) -> list[Path]:
    """List the groups of images directly inside a folder."""
    folders = sorted((path for path in folder.iterdir() if path.is_dir()), key=_by_number)
    return [path for path in folders if _is_image(path)]


def _fields(well: Path) -> list[Path]:
    """List the groups of the fields of a well, also of one that lacks its own metadata."""
    if not well.is_dir():
        return []
    documents = any((well / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs"))
    listed = _values(read_group(well).ome.get("well"), "images", "path") if documents else []
    return [well / place for place in listed] or _children(well)


def _values(document: object, listing: str, key: str) -> list[str]:
    """Strings under `key` of every entry of a list in the metadata of a plate or a well."""
    entries = document.get(listing) if isinstance(document, dict) else None
    listed = entries if isinstance(entries, list) else []
    found = [entry.get(key) for entry in listed if isinstance(entry, dict)]
    return [str(value) for value in found if value is not None]


def _is_image(folder: Path) -> bool:
    """Whether a folder is the group of an image."""
    if not any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zattrs")):
        return False
    if (folder / "zarr.json").is_file() and read_json(folder / "zarr.json").get(
        "node_type"
    ) == "array":
        return False
    return "multiscales" in read_group(folder).ome


def _by_number(path: Path) -> tuple[int, str]:
    """Order 2 before 10."""
    return (int(path.name) if path.name.isdigit() else 1 << 62), path.name
