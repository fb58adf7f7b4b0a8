"""Which images a batch is of: those of a list, a pattern, a folder or a prefix of a bucket."""

from __future__ import annotations

import glob
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.batch.naming import FOREIGN_SUFFIXES, common_root
from engine.errors import InputError, OutputError
from engine.store import Location, check_store
from engine.store.failures import read_error
from engine.store.files import read_first
from engine.store.metadata import ome_attributes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

#: Folders that are listed at once.
_REQUESTS = 16

_DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
_REMEDY = (
    "Give a text file with one path a line, a pattern such as 'slides/*.svs', a folder, or "
    "s3://bucket/prefix."
)


@dataclass(frozen=True, slots=True)
class Found:
    """Images by path or URL.

    Parameters
    ----------
    sources : tuple of (str, bool)
        Each, and whether it is ingested.
    root : str
        Folder above all, with a slash at its end.
    """

    sources: tuple[tuple[str, bool], ...]
    root: str


def find_images(what: str, dest: Location) -> Found:
    """Find the images that a user names.

    Parameters
    ----------
    what : str
        A text file with one path or URL a line (``#`` begins a comment; relative ones are below
        its folder), a pattern, a folder, or a prefix of a bucket.
    dest : Location
        Folder of the batch, in which nothing is looked for.

    Returns
    -------
    Found
        A list in its own order, everything else sorted.

    Raises
    ------
    InputError
        If there is none.
    OutputError
        If `dest` is the folder that is looked through, or above it.
    """
    place = Location.parse(what)
    check_store(place, InputError)
    if place.is_local and glob.has_magic(what) and not place.path.exists():
        found = _matching(what, dest)
    elif place.can_list and place.is_folder():
        if place.is_inside(dest):
            raise OutputError(
                where=f"--out {dest}",
                expected="a folder apart from the images",
                found=f"the folder that holds them, '{place}'",
                remedy="Choose another folder; it may lie inside that of the images.",
            )
        root = place.parent if _kind(place) == "image" else place
        found = Found(tuple(sorted(_below([place], dest))), f"{root}/")
    elif place.is_file():
        found = _listed(place)
    else:
        raise InputError(where=f"'{what}'", expected="images", found="nothing", remedy=_REMEDY)
    if not found.sources:
        raise InputError(
            where=f"'{what}'", expected="at least one image", found="none", remedy=_REMEDY
        )
    return found


def _listed(place: Location) -> Found:
    """Images of a text file; one image where the file is one."""
    if place.suffix.lower() in FOREIGN_SUFFIXES:
        return Found(((place.url, True),), f"{place.parent}/")
    try:
        text = place.read_bytes().decode()
    except UnicodeDecodeError as err:
        raise InputError(
            where=f"'{place}'",
            expected="a text file with one path a line",
            found="something else",
            remedy=_REMEDY,
        ) from err
    except OSError as err:
        raise read_error(str(place), err) from err
    lines = [line.strip() for line in text.lstrip("\ufeff").splitlines()]
    sources = [_named(line, place.parent) for line in lines if line and line[0] != "#"]
    return Found(tuple(sources), common_root([url for url, _ in sources]) if sources else "/")


def _named(line: str, folder: Location) -> tuple[str, bool]:
    """Path or URL of a line, and whether it is ingested."""
    absolute = "://" in line or line.startswith(("/", "~"))
    place = Location.parse(line) if absolute else folder / line
    foreign = place.suffix.lower() in FOREIGN_SUFFIXES
    return place.url, foreign or (place.is_local and place.path.is_file())


def _matching(pattern: str, dest: Location) -> Found:
    """Images that a pattern matches, and those below the folders that it matches."""
    start = str(Path(pattern).expanduser().absolute())
    fixed = []
    for part in Path(start).parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    paths = glob.glob(start, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    places = [Location(path.rstrip("/")) for path in sorted(paths)]
    files = [p for p in places if p.path.is_file()]
    images = {(p.url, True) for p in files if p.suffix.lower() in FOREIGN_SUFFIXES}
    images |= _below([p for p in places if p.path.is_dir()], dest)
    return Found(tuple(sorted(images)), f"{str(Path(*fixed)).rstrip('/')}/")


def _below(folders: Iterable[Location], dest: Location) -> set[tuple[str, bool]]:
    """Images in folders and the folders below them; nothing is looked for inside an image."""
    images: set[tuple[str, bool]] = set()
    stores: set[Location] = set()
    level = [folder for folder in folders if not folder.is_inside(dest)]
    with ThreadPoolExecutor(_REQUESTS) as pool:
        while level:
            coming: list[Location] = []
            for place, kind, inside, files in pool.map(_look, level):
                if kind == "image":
                    images.add((place.url, False))
                elif place.suffix == ".zarr" and kind != "array":
                    stores.add(place)
                images |= {(file.url, True) for file in files}
                coming += [folder for folder in inside if not folder.is_inside(dest)]
            level = coming
    # A Zarr that holds no image is one that lost its metadata: its own plan says what is wrong.
    empty = [s for s in stores if not any(url.startswith(f"{s}/") for url, _ in images)]
    return images | {(store.url, False) for store in empty}


def _look(place: Location) -> tuple[Location, str, list[Location], list[Location]]:
    """Say what a folder is, with the folders and the files of images that it holds."""
    kind = _kind(place)
    if kind != "folder":
        return place, kind, [], []
    try:
        folders, files = place.children()
    except OSError as err:
        raise read_error(str(place), err) from err
    inside = [place / name for name in folders if not name.startswith(".")]
    images = [place / name for name in files if not name.startswith(".")]
    return place, kind, inside, [f for f in images if f.suffix.lower() in FOREIGN_SUFFIXES]


def _kind(folder: Location) -> str:
    """Whether a folder is an "image", an "array", or a "folder" that may hold images."""
    try:
        found = read_first(folder, _DOCUMENTS)
    except InputError:
        # Damaged: an image, whose own plan says so.
        return "image"
    if found is None:
        return "folder"
    name, document = found
    if name == ".zarray" or document.get("node_type") == "array":
        return "array"
    return "image" if "multiscales" in _attributes(name, document) else "folder"


def _attributes(name: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Find what OME-NGFF says of a group; nothing where its document is of another form."""
    attributes = document if name == ".zattrs" else document.get("attributes")
    if not isinstance(attributes, dict):
        return {}
    return ome_attributes(attributes, 2 if name == ".zattrs" else 3)
