"""A batch from its lease to its summary: several images at a time on one cluster."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from engine.api import check_workers
from engine.batch.document import DOCUMENT, Document, Row, read_document
from engine.batch.finding import find_images
from engine.batch.naming import name_images
from engine.batch.summary import page, totals
from engine.batch.working import AllStopError, Ended, Options, Working, cluster_spec
from engine.cluster import check_cluster
from engine.errors import InterruptedRunError, OutputError
from engine.ledger import FOLDER, Lease, Ledger, beating
from engine.planning.changes import named_changes
from engine.recipe import digest_parts
from engine.running import ClusterHost
from engine.store import Location, check_store, write_atomic, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

    from engine.batch.listening import BatchListener
    from engine.batch.naming import Image
    from engine.ledger import Pulse
    from engine.running import SharedCluster

#: Threads of the driver, started as images need them.
MOST_THREADS = 64

#: How often the driver looks whether it should stop.
TICK_S = 0.5

#: Images that may be stopped one after the other, by a full disk or a lost cluster, before no more
#: are begun.
MOST_STOPPED = 3

#: Writing the document takes at most this share of the time, however many images it lists.
_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of a batch.

    Parameters
    ----------
    dest : Location
        Its folder.
    rows : tuple of Row
        The images of this call, in order.
    """

    dest: Location
    rows: tuple[Row, ...]

    @property
    def complete(self) -> bool:
        """Whether every image is done."""
        return all(row.state == "done" for row in self.rows)


def run_batch(what: str, dest: str, options: Options, listener: BatchListener) -> BatchOutcome:
    """Run a recipe on many images, or continue where that stopped.

    Parameters
    ----------
    what : str
        Which images; see `engine.batch.finding.find_images`.
    dest : str
        Folder for results, made where it is missing.
    options : Options
        What holds for all images.
    listener : BatchListener
        Is told of progress.

    Returns
    -------
    BatchOutcome
        Also in ``batch.json``, ``summary.json`` and ``summary.md`` in the folder.

    Raises
    ------
    RefusedError
        If there are no images, names collide, the folder holds something else or a batch of other
        settings, or nothing can run at all: no network, no cluster.
    StoppedRunError
        If several images in a row cannot go on: a full disk, a lost cluster.
    InterruptedRunError
        If it is asked to stop; what is done stays done.
    """
    folder = _checked_folder(dest)
    found = find_images(what, folder)
    parts = _parts(options)
    document = read_document(folder) or Document(parts)
    _check_parts(folder, document.parts, parts)
    known = {row.source: row.name for row in document.rows.values()}
    images = name_images(found.sources, found.root, known)
    for image in images:
        row = Row(image.name, image.source, image.foreign)
        document.rows.setdefault(image.name, row)
    check_workers(options.settings.resources, options.cluster)
    if options.cluster != "local":
        check_cluster(cluster_spec(options))
    lease = Lease.acquire(Ledger(folder), tell=listener.waiting)
    try:
        with beating(lease) as pulse:
            batch = _Batch(folder, document, listener)
            done = sum(document.rows[image.name].state == "done" for image in images)
            listener.images_found(len(images), done)
            batch.save(anyway=True)
            try:
                batch.run(images, Working(folder, options, listener), pulse)
            finally:
                batch.save(anyway=True)
    except KeyboardInterrupt as err:
        raise InterruptedRunError(
            where=f"batch '{folder}'",
            expected="to finish",
            found="a request to stop",
            remedy="What is done is kept: give the same command again to continue.",
        ) from err
    finally:
        lease.release()
    return BatchOutcome(folder, tuple(document.rows[image.name] for image in images))


@dataclass
class _Batch:
    """What is known of all images: kept after each, by the thread that made it."""

    folder: Location
    document: Document
    listener: BatchListener
    _written: float = 0.0
    _took: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _stopped: int = 0

    def run(self, images: list[Image], working: Working, pulse: Pulse) -> None:
        """Do images, several at a time; a bad one stops only itself."""
        with ClusterHost(working.spec, self._check) as host:
            pool = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix="tilewright-image")
            try:
                for ended in self._each(images, working, host.shared, pool):
                    self._settle(ended)
                    host.serve()
                    pulse.check()
            except AllStopError as err:
                # What the user reads is why.
                raise err.why from err
            finally:
                # Does nothing where all are done. Runs in work see it within half a second, and
                # give their leases back before the cluster ends.
                self._stop.set()
                pool.shutdown(cancel_futures=True)

    def _each(
        self, images: list[Image], working: Working, shared: SharedCluster, pool: ThreadPoolExecutor
    ) -> Iterator[Ended | None]:
        """Do images; yield what became of each, and None now and then."""
        left = iter(images)
        flying: set[Future[Ended]] = set()
        while True:
            for image in islice(left, max(0, working.at_once - len(flying))):
                row = self.document.rows[image.name]
                flying.add(pool.submit(working.work, image, row, shared))
            if not flying:
                return
            landed, flying = wait(flying, TICK_S, FIRST_COMPLETED)
            yield None
            for future in landed:
                yield future.result()

    def _settle(self, ended: Ended | None) -> None:
        """Keep what became of an image."""
        if ended is None:
            return
        self.document.rows[ended.row.name] = ended.row
        self.save()
        self.listener.image_ended(ended.row)
        self._stopped = self._stopped + 1 if ended.stopped else 0
        if ended.stopped is not None and self._stopped >= MOST_STOPPED:
            raise ended.stopped

    def save(self, *, anyway: bool = False) -> None:
        """Write the document and the summaries, unless that would take much of the time."""
        now = time.monotonic()
        if not anyway and now - self._written < self._took / _SHARE:
            return
        rows = list(self.document.rows.values())
        write_json(self.folder / DOCUMENT, self.document.to_json())
        write_json(self.folder / "summary.json", totals(rows))
        write_atomic(self.folder / "summary.md", page(self.folder.name, rows).encode())
        self._written = time.monotonic()
        self._took = self._written - now

    def _check(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


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
