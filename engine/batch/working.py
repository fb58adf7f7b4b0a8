"""One image of a batch, from its file to its row: ingest where needed, plan, run."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from engine.api import Silent, check_networks
from engine.batch.naming import INGESTED
from engine.batch.options import cluster_spec
from engine.batch.rows import done_row, missing_row, report_of, report_there
from engine.errors import (
    InterruptedRunError,
    LeaseLostError,
    ModelError,
    RefusedError,
    ResourceError,
    StoppedRunError,
)
from engine.planning import make_ingest_plan, make_plan
from engine.planning.many import settle_resources
from engine.running import execute
from engine.store import Location

if TYPE_CHECKING:
    from engine.batch.document import Row
    from engine.batch.listening import BatchListener
    from engine.batch.naming import Image
    from engine.batch.options import Options
    from engine.cluster import ClusterSpec
    from engine.planning import Job, Plan
    from engine.recipe import Settings
    from engine.running import Outcome, SharedCluster

_LOG = logging.getLogger(__name__)


#: Images in work at a time, where nobody says how many: each takes a thread of the driver. With
#: two workers, images of one region took 1.8 s each one by one, and 0.8 s each four at a time.
LEAST_AT_ONCE, MOST_AT_ONCE = 4, 32


class AllStopError(Exception):
    """What no image of a batch can do without is missing: a network, or its device.

    Parameters
    ----------
    why : RefusedError
        What the user reads.
    """

    def __init__(self, why: RefusedError) -> None:
        super().__init__(str(why))
        self.why = why


@dataclass(frozen=True, slots=True)
class Ended:
    """How a try of an image ended.

    Parameters
    ----------
    row : Row
        What is known of it now.
    stopped : StoppedRunError or None
        Where it could not go on, as others may not.
    """

    row: Row
    stopped: StoppedRunError | None = None


class Working:
    """What the images of a batch share while they are in work; used from several threads.

    Parameters
    ----------
    dest : Location
        Folder of the batch.
    options : Options
        What holds for every image.
    listener : BatchListener
        Is told of progress.
    """

    def __init__(self, dest: Location, options: Options, listener: BatchListener) -> None:
        self._dest = dest
        self._options = options
        self._listener = listener
        self._settling = threading.Lock()
        self._settled: Settings | None = None
        self._looked = False

    @property
    def at_once(self) -> int:
        """Images in work at a time: some compute while others are planned, joined or written."""
        options = self._options
        if options.at_once is not None:
            return options.at_once
        workers = self.settings.resources.workers or options.cluster_settings.most_workers
        return min(MOST_AT_ONCE, max(LEAST_AT_ONCE, 2 * (workers or LEAST_AT_ONCE)))

    def spec(self) -> ClusterSpec:
        """Which cluster, as the first image that needs it settled it."""
        return cluster_spec(replace(self._options, settings=self.settings))

    @property
    def settings(self) -> Settings:
        """Settings of all images; with resources settled once the first was planned."""
        return self._settled or self._options.settings

    def place(self, image: Image) -> Location:
        """Where the result of an image goes."""
        return self._dest / f"{image.name}.ome.zarr"

    def drop(self, row: Row) -> None:
        """Remove what was ingested for an image that is done, where it is not to be kept."""
        if row.foreign and row.state == "done" and not self._options.keep_ingested:
            self._ingested(row.name).remove()

    def work(self, image: Image, row: Row, shared: SharedCluster) -> Ended:
        """Do one image, or find that it is done; only what concerns all images is raised.

        Parameters
        ----------
        image : Image
            The image.
        row : Row
            What is known of it.
        shared : SharedCluster
            The cluster.

        Raises
        ------
        AllStopError
            If a network is missing or cannot run.
        """
        start = time.perf_counter()
        self._listener.image_started(image.name)
        stopped = None
        try:
            ended = self._image(image, row, shared)
        except (KeyboardInterrupt, InterruptedRunError):
            # Of the check of the cluster: all are asked to stop.
            return Ended(row)
        except ModelError as err:
            raise AllStopError(err) from err
        except StoppedRunError as err:
            stopped = err
            ended = replace(row, state="incomplete", reason=str(err))
        except (RefusedError, LeaseLostError) as err:
            ended = replace(row, state="quarantined", reason=str(err))
        except AllStopError:
            raise
        except Exception as err:
            # A bad image stops only itself, also where it finds a defect of ours.
            _LOG.exception("%s", image.source)
            reason = f"a defect of tilewright, {type(err).__name__}: {err}"
            ended = replace(row, state="quarantined", reason=reason)
        if ended is row:
            return Ended(row)
        return Ended(
            replace(
                ended,
                seconds=round(row.seconds + time.perf_counter() - start, 3),
                tries=row.tries + 1,
                finished=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
            stopped,
        )

    def _image(self, image: Image, row: Row, shared: SharedCluster) -> Row:
        """Row of an image after it was done; the one given where it stands already."""
        out, tag = self.place(image), _tag(image) if image.foreign else ""
        if image.foreign and row.state == "done" and row.tag == tag and report_there(out):
            self.drop(row)
            return row
        source = image.source
        if image.foreign:
            plan = self._ingest_plan(image)
            if report_of(plan) is None:
                outcome = self._execute(image, plan, shared)
                if not outcome.complete:
                    return missing_row(row, plan, outcome)
            source = str(plan.job.out)
        plan = self._run_plan(source, out)
        report = report_of(plan)
        if report is None:
            outcome = self._execute(image, plan, shared)
            if not outcome.complete:
                return missing_row(row, plan, outcome)
            report = outcome.report
        elif row.state == "done":
            return row
        return done_row(row, plan, report, tag)

    def _ingest_plan(self, image: Image) -> Plan:
        options = self._options
        plan = make_ingest_plan(
            image.source,
            str(self._ingested(image.name)),
            self.settings.storage,
            self.settings.resources,
            options.pixel_size_um,
        )
        if self._settled is None:
            self._settle(plan.job)
        return plan

    def _ingested(self, name: str) -> Location:
        """Where the copy of an image goes."""
        return self._dest / INGESTED / f"{name}.ome.zarr"

    def _run_plan(self, source: str, out: Location) -> Plan:
        """Plan a run with the resources of the batch, which the first plan settles."""
        plan = make_plan(source, str(out), self.settings)
        if self._settled is not None:
            return plan
        self._settle(plan.job)
        return make_plan(source, str(out), self.settings)

    def _settle(self, like: Job) -> None:
        """Settle workers and memory by the first image that was planned."""
        options = self._options
        with self._settling:
            if self._settled is None:
                settings = options.settings
                if options.cluster == "local":
                    found = settle_resources(settings, like)
                    settings = settings.model_copy(update={"resources": found})
                self._settled = settings

    def _execute(self, image: Image, plan: Plan, shared: SharedCluster) -> Outcome:
        """Run a plan on the cluster of the batch."""
        try:
            self._check_networks(plan)
        except (ModelError, ResourceError) as err:
            raise AllStopError(err) from err
        return execute(plan, shared, _ImageListener(image.name, self._listener))

    def _check_networks(self, plan: Plan) -> None:
        """Check the networks once, with the first plan that runs them."""
        with self._settling:
            if not self._looked and plan.job.launch is not None and plan.pending:
                check_networks(plan, self._options.cluster)
                self._looked = True


class _ImageListener(Silent):
    """Tells the listener of a batch what an image's run tells."""

    def __init__(self, name: str, listener: BatchListener) -> None:
        self._name = name
        self._listener = listener

    def waiting(self, reason: str) -> None:
        """Pass it on."""
        self._listener.waiting(f"{self._name}: {reason}")

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Pass it on; every run of the batch says so of the same cluster."""
        self._listener.cluster_started(dashboard, workers)

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Pass it on."""
        self._listener.regions_done(self._name, regions, pixels)


def _tag(image: Image) -> str:
    """Find what tells whether a file was changed."""
    found = Location.parse(image.source).stat()
    return f"{found.size}-{found.tag}" if found else ""
