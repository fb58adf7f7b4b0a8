"""A batch before anything is written: its folder, its images, its settings; what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.api import check_workers
from engine.batch.document import DOCUMENT, Document, Row, read_document
from engine.batch.finding import find_images
from engine.batch.naming import name_images
from engine.batch.options import cluster_spec
from engine.cluster import check_cluster
from engine.errors import OutputError
from engine.ledger import FOLDER
from engine.planning.changes import named_changes
from engine.recipe import digest_parts
from engine.store import Location, check_store

if TYPE_CHECKING:
    from engine.batch.naming import Image
    from engine.batch.options import Options


@dataclass(frozen=True)
class Begun:
    """A batch before anything is written."""

    folder: Location
    document: Document
    images: list[Image]
    fresh: bool

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of the images of this call."""
        return tuple(self.document.rows[image.name] for image in self.images)


def begin(what: str, dest: str, options: Options) -> Begun:
    """Find and name images; refuse what can be known to fail before anything is written."""
    folder = _checked_folder(dest)
    found = find_images(what, folder)
    parts = _parts(options)
    kept = read_document(folder)
    document = kept or Document(parts)
    _check_parts(folder, document.parts, parts)
    known = {row.source: row.name for row in document.rows.values()}
    images = name_images(found.sources, found.root, known)
    for image in images:
        row = Row(image.name, image.source, image.foreign)
        document.rows.setdefault(image.name, row)
    check_workers(options.settings.resources, options.cluster)
    if options.cluster != "local":
        check_cluster(cluster_spec(options))
    return Begun(folder, document, images, fresh=kept is None)


def _checked_folder(dest: str) -> Location:
    """Folder of the batch, if it is free or holds one.

    Raises
    ------
    OutputError
        If it cannot be written or holds something else.
    """
    folder = Location.parse(dest, OutputError)
    check_store(folder, OutputError)
    if folder.url.startswith("http"):
        found = "a web server, which takes no data"
    elif folder.suffix == ".zarr":
        found = f"'{folder.name}', the name of one result"
    elif folder.is_file():
        found = "a file"
    else:
        folders, files = folder.children()
        others = [name for name in (*folders, *files) if name not in (FOLDER, DOCUMENT)]
        if DOCUMENT in files or not others:
            return folder
        found = f"a folder that holds '{others[0]}' and no batch"
    raise OutputError(
        where=f"--out {dest}",
        expected="a new folder for results, or one of an earlier batch",
        found=found,
        remedy="Choose another folder; nothing there was touched.",
    )


def _parts(options: Options) -> dict[str, str]:
    """Name what decides pixels, as far as it is the same for all images."""
    storage = options.settings.storage.model_dump(mode="json")
    extra = {f"storage.{name}": str(value) for name, value in storage.items()}
    if options.pixel_size_um is not None:
        extra["pixel size"] = str(options.pixel_size_um)
    return digest_parts(options.settings.recipe, extra)


def _check_parts(folder: Location, kept: dict[str, str], parts: dict[str, str]) -> None:
    """Refuse to continue a batch with other settings."""
    changes = named_changes(kept, parts)
    if changes:
        raise OutputError(
            where=f"--out {folder}",
            expected="the settings that the batch there was started with",
            found=changes,
            remedy="Choose another folder, or give the settings of before.",
        )
