"""Names of images in a batch: stable, unique, safe as names of folders."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Endings of files that are ingested before they are run.
FOREIGN_SUFFIXES = frozenset(
    [
        *(".tif", ".tiff", ".btf", ".tf8", ".png", ".jpg", ".jpeg", ".bmp"),
        *(".svs", ".ndpi", ".scn", ".bif", ".svslide", ".mrxs", ".vms", ".vmu"),
    ]
)

#: Folder, below that of the batch, of images that were ingested.
INGESTED = "ingested"

# Taken off before a path becomes a name; the second only where the first was there.
_ENDINGS = (*sorted(FOREIGN_SUFFIXES), ".zarr")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

#: Folders of a path become parts of the name, with this between them.
_BETWEEN = "__"

#: Bytes of the longest name: file systems take 255, and endings are put behind it.
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Image:
    """One image of a batch.

    Parameters
    ----------
    name : str
        Its name in the batch; the result is ``<name>.ome.zarr``.
    source : str
        Path or URL.
    foreign : bool
        Whether it is ingested before it is run.
    """

    name: str
    source: str
    foreign: bool


def common_root(sources: Sequence[str]) -> str:
    """Folder above all sources, with a slash at its end.

    Examples
    --------
    >>> common_root(["/data/a/1.zarr", "/data/ab/2.zarr"]), common_root(["s3://b/1.zarr"])
    ('/data/', 's3://b/')
    """
    parts = [source.split("/")[:-1] for source in sources]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return "/".join(shared) + "/"


def safe_name(below: str) -> str:
    """Name of a folder for a path below a root: letters, digits, ``.``, ``_`` and ``-`` only.

    Examples
    --------
    >>> safe_name("plate 1/well A/img.ome.tif"), safe_name("cells.ome.zarr"), safe_name(".x")
    ('plate_1__well_A__img', 'cells', 'x')
    """
    stem = below.strip("/")
    ending = next((e for e in _ENDINGS if stem.lower().endswith(e)), "")
    if ending:
        stem = stem[: len(stem) - len(ending)]
        stem = stem[:-4] if stem.lower().endswith(".ome") else stem
    parts = [_UNSAFE.sub("_", part).lstrip(".") for part in PurePosixPath(stem).parts]
    name = _BETWEEN.join(part for part in parts if part) or "image"
    if len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(below.encode()).hexdigest()[:8]}"
    return name


def name_images(
    sources: Sequence[tuple[str, bool]], root: str, known: Mapping[str, str]
) -> list[Image]:
    """Name every image by its path below a root; those named before keep their names.

    Parameters
    ----------
    sources : sequence of (str, bool)
        Path or URL of each, and whether it is ingested.
    root : str
        Folder above all, with a slash at its end.
    known : mapping of str to str
        Names of an earlier call, by path or URL.

    Returns
    -------
    list of Image
        In the order given.

    Raises
    ------
    InputError
        If two images would have one name, or one is given twice.

    Examples
    --------
    >>> [image.name for image in name_images([("/d/a/1.tif", True), ("/d/2.zarr", False)], "/d/",
    ...                                      {"/d/2.zarr": "old"})]
    ['a__1', 'old']
    """
    images, taken = [], {name.casefold(): source for source, name in known.items()}
    seen: set[str] = set()
    for source, foreign in sources:
        name = known.get(source) or safe_name(source.removeprefix(root))
        other = taken.setdefault(name.casefold(), source)
        if other != source:
            raise InputError(
                where=f"the name '{name}'",
                expected="one image of that name",
                found=f"two: '{other}' and '{source}'",
                remedy="Rename one of them, or run them in batches of their own.",
            )
        if source in seen:
            raise InputError(
                where=f"'{source}'",
                expected="each image once",
                found="it twice",
                remedy="Remove one of the two lines.",
            )
        seen.add(source)
        images.append(Image(name, source, foreign))
    return images
