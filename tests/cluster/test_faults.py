"""A short part of `make test-faults`: a seed of each sort, from its first call to its verdict."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from tests.faults.attempt import attempt
from tests.faults.bench import wait_until
from tests.faults.plan import KINDS, Choice, Kind, draw
from tests.faults.venue import Venue

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

#: One of each sort: processes that die, a ledger that is cut short, two of a kind, what lies on
#: disk is hurt, the user changes his mind, the store fails.
TRIED: tuple[Kind, ...] = (
    "kill driver",
    "worker dies writing",
    "driver dies writing",
    "two drivers",
    "damaged objects",
    "changed recipe",
    "store faults",
)


@pytest.fixture(scope="module")
def venue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Venue]:
    with Venue(tmp_path_factory.mktemp("faults"), None, jobs=1) as found:
        yield found


@pytest.mark.parametrize("kind", TRIED)
def test_a_run_that_was_hurt_ends_as_one_that_was_not(venue: Venue, kind: Kind) -> None:
    drawn = draw(KINDS.index(kind), Choice())
    # The rest, other stores, clusters and rows of faults, is what `make test-faults` is for.
    scenario = replace(drawn, work="tiny", cluster="shared", faults=drawn.faults[-1:])
    with venue.seat(scenario) as (bench, shelf):
        verdict = attempt(scenario, bench, venue.library, shelf)
    assert verdict.error == ""


def test_no_process_is_left(tmp_path: Path) -> None:
    with Venue(tmp_path, None, jobs=1) as venue:
        scenario = replace(draw(0, Choice()), store="disk")
        with venue.seat(scenario) as (bench, _):
            workers = bench.cluster().workers()
            driver = psutil.Process(bench.drive("recipes").pid)
    assert len(workers) == 2
    wait_until(lambda: not any(map(lives, [*workers, driver])), "all processes to end", 20)


def lives(process: psutil.Process) -> bool:
    """Whether a process runs; one that is dead and not yet waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
