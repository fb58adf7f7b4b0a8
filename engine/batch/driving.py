"""A batch from its lease to its summary: several images at a time on one cluster."""

from __future__ import annotations

import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from engine.batch.beginning import begin
from engine.batch.document import DOCUMENT, Document, Row, read_document
from engine.batch.naming import INGESTED
from engine.batch.summary import page, totals
from engine.batch.working import AllStopError, Ended, Working
from engine.errors import (
    LeaseLostError,
    OutputError,
    RefusedError,
    StoppedRunError,
)
from engine.ledger import Lease, Ledger, beating
from engine.running import ClusterHost
from engine.running.interrupting import interruptible
from engine.running.logs import log_to_folder
from engine.store import write_atomic, write_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

    from engine.batch.beginning import Begun
    from engine.batch.listening import BatchListener
    from engine.batch.naming import Image
    from engine.batch.options import Options
    from engine.ledger import Pulse
    from engine.running import SharedCluster
    from engine.store import Location

#: Threads of the driver, started as images need them.
MOST_THREADS = 64

#: What a batch writes beside results.
DOCUMENTS = (DOCUMENT, "summary.json", "summary.md")

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
    begun = begin(what, dest, options)
    folder, refused = begun.folder, False
    lease = Lease.acquire(Ledger(folder), tell=listener.waiting)
    try:
        with (
            interruptible(f"batch '{folder}'"),
            beating(lease) as pulse,
            log_to_folder(Ledger(folder).path("logs")),
        ):
            _run(begun, options, listener, pulse)
    except RefusedError:
        refused = begun.fresh
        raise
    finally:
        lease.release()
        _clean(folder, begun.document, refused=refused)
    return BatchOutcome(folder, begun.rows)


def _run(begun: Begun, options: Options, listener: BatchListener, pulse: Pulse) -> None:
    """Do all images, with the lease held."""
    # Another batch may have ended while this one waited for it.
    latest = read_document(begun.folder)
    begun.document.rows.update(latest.rows if latest else {})
    working = Working(begun.folder, options, listener)
    batch = _Batch(begun.folder, begun.document, listener, working.drop)
    listener.images_found(len(begun.images), sum(row.state == "done" for row in begun.rows))
    batch.save(anyway=True)
    try:
        batch.run(begun.images, working, pulse)
    except LeaseLostError:
        # The document is another's now.
        raise
    except BaseException:
        batch.save(anyway=True)
        raise
    batch.save(anyway=True)


@dataclass
class _Batch:
    """What is known of all images: kept after each, by the thread that made it."""

    folder: Location
    document: Document
    listener: BatchListener
    drop: Callable[[Row], None]
    _unsaved: list[Row] = field(default_factory=list)
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
        self._unsaved.append(ended.row)
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
        document, short, text = (self.folder / name for name in DOCUMENTS)
        try:
            write_json(document, self.document.to_json())
            write_json(short, totals(rows))
            write_atomic(text, page(self.folder.name, rows).encode())
        except OutputError as err:
            raise StoppedRunError(
                where=err.where, expected=err.expected, found=err.found, remedy=err.remedy
            ) from err
        self._written = time.monotonic()
        self._took = self._written - now
        # Only now: without the row, an image whose copy is gone would be ingested again.
        for row in self._unsaved:
            self.drop(row)
        self._unsaved = []

    def _check(self) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt


def _clean(folder: Location, document: Document, *, refused: bool) -> None:
    """Remove folders that are empty, and all that a batch left which could not begin."""
    if refused and all(row.state == "waiting" for row in document.rows.values()):
        for name in DOCUMENTS:
            (folder / name).delete()
        Ledger(folder).folder.remove()
    for place in (folder / INGESTED, folder):
        if place.is_local and place.is_folder() and not any(map(bool, place.children())):
            place.remove()
