"""A run from its lease to its end, whatever ends it."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.cluster import ClusterSettings, ClusterSpec, open_cluster
from engine.device import visible_gpus
from engine.errors import (
    InputError,
    ModelError,
    OutputError,
    ResourceError,
    StoppedRunError,
)
from engine.ledger import Lease, Ledger, beating, take_over
from engine.running.documents import check_unchanged
from engine.running.driver import Driver, Held
from engine.running.interrupting import interruptible
from engine.running.logs import log_to_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from distributed import Client

    from engine.planning import Plan
    from engine.running.listening import Listener, Outcome
    from engine.store import Location

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedCluster:
    """A cluster that several runs share, each on a thread of its own; no run closes it.

    Parameters
    ----------
    client : callable
        Gives its client, from any thread; the first call may start the cluster.
    check : callable
        Raises KeyboardInterrupt where all runs are to stop.
    """

    client: Callable[[], Client]
    check: Callable[[], None]


def execute(
    plan: Plan,
    cluster: str | SharedCluster,
    listener: Listener,
    settings: ClusterSettings | None = None,
) -> Outcome:
    """Run a plan to its end, or as far as it goes.

    Parameters
    ----------
    plan : Plan
        What to do; a run that stands in OUT is continued from its records.
    cluster : str or SharedCluster
        "local", "gateway", "kubernetes", "slurm" or the address of a scheduler; or what several
        runs share.
    listener : Listener
        Is told of progress.
    settings : ClusterSettings or None
        What a cluster of this run alone is told.

    Returns
    -------
    Outcome

    Raises
    ------
    RefusedError
        If another driver holds OUT, or the image or the cluster turn out not to serve; what this
        call made is removed.
    StoppedRunError
        If the run cannot go on: a full disk, a lost permission; what is done stays done.
    LeaseLostError
        If another driver took over while this one did not answer.
    InterruptedRunError
        If the user or the system stops the run; what is done stays done.
    """
    ledger = Ledger(plan.job.out)
    fresh = not ledger.exists
    lease = Lease.acquire(ledger, tell=listener.waiting)
    refused = False
    try:
        with interruptible(f"OUT '{plan.job.out}'"), ExitStack() as stack:
            pulse = stack.enter_context(beating(lease))
            journal = take_over(ledger, lease)
            check_unchanged(ledger, plan.seen)
            stack.enter_context(_stopping(plan.job.out))
            stack.enter_context(log_to_folder(ledger.path("logs")))
            if isinstance(cluster, str):
                cluster = _own_cluster(cluster_spec(plan, cluster, settings), stack)
            held = Held(journal, lease.epoch, _both(cluster.check, pulse.check))
            driver = Driver(plan, cluster.client, listener, held)
            try:
                return driver.run()
            except (InputError, ModelError, ResourceError):
                # The image cannot be taken, or no worker could be had that serves: no pixel was
                # written.
                refused = not driver.made
                raise
    finally:
        _release(lease)
        if refused:
            _leave_no_trace(ledger, plan, fresh=fresh)


def cluster_spec(plan: Plan, address: str, settings: ClusterSettings | None) -> ClusterSpec:
    """Cluster that a plan asks for."""
    launch = plan.job.launch
    here = address == "local" and launch is not None and launch.device == "cuda"
    return ClusterSpec(
        address,
        plan.workers,
        plan.resources.threads,
        settings or ClusterSettings(),
        visible_gpus() if here else (),
    )


def _own_cluster(spec: ClusterSpec, stack: ExitStack) -> SharedCluster:
    """Cluster of one run, which ends with `stack`."""
    return SharedCluster(lambda: stack.enter_context(open_cluster(spec)), lambda: None)


def _both(first: Callable[[], None], second: Callable[[], None]) -> Callable[[], None]:
    """Check one thing, then the other."""

    def check() -> None:
        first()
        second()

    return check


@contextmanager
def _stopping(out: Location) -> Iterator[None]:
    """Stop, as a region would have it, where the store refuses what the driver itself writes."""
    try:
        yield
    except (OutputError, OSError) as err:
        cause = err.__cause__ if isinstance(err, OutputError) else err
        if not isinstance(cause, OSError) or isinstance(cause, FileNotFoundError):
            raise
        raise StoppedRunError(
            where=err.where if isinstance(err, OutputError) else f"OUT '{out}'",
            expected="a place that can be written",
            found=err.found if isinstance(err, OutputError) else str(err),
            remedy="Make space, or mend permissions or the connection, and give the same command "
            "again: what is done is kept.",
        ) from err


def _release(lease: Lease) -> None:
    """Give the lease back, where the store takes that; else it expires, by its holder's end."""
    try:
        lease.release()
    except OutputError as err:
        # Not raised: it would hide why the run ends.
        _LOG.warning("the lease stays: %s", err)


def _leave_no_trace(ledger: Ledger, plan: Plan, *, fresh: bool) -> None:
    """Remove what a run that was refused made in OUT."""
    if fresh:
        ledger.folder.remove()
        if plan.job.out.is_local and not any(map(bool, plan.job.out.children())):
            plan.job.out.path.rmdir()
    elif plan.choice.beside and not plan.choice.started:
        ledger.clear_next()
