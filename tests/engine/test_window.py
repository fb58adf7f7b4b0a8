"""The window, with a cluster that does as it is told: what is sent, sent again, or given up."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from distributed import Client
from distributed.client import ClosedClientError
from journeys import save_image

from engine.errors import StoppedRunError
from engine.planning import Job, make_plan
from engine.recipe import load_settings
from engine.running import crew, flight, window
from engine.running.window import Given, Window
from engine.tasks import Receipt, Trouble, Unit

#: What becomes of a task: an answer, an error, or "cancelled".
Fate = tuple[str, Receipt] | BaseException | str


@dataclass
class Future:
    key: str
    fate: Fate
    released: bool = False

    @property
    def status(self) -> str:
        if isinstance(self.fate, str):
            return self.fate
        # A receipt that does not come is known only when it is asked for.
        lost = isinstance(self.fate, TimeoutError)
        return "error" if isinstance(self.fate, BaseException) and not lost else "finished"

    def add_done_callback(self, call: Callable[["Future"], None]) -> None:
        call(self)

    def exception(self) -> Fate:
        return self.fate

    def result(self, timeout: float) -> Fate:
        assert timeout < 60
        if isinstance(self.fate, BaseException):
            raise self.fate
        return self.fate

    def release(self) -> None:
        self.released = True


@dataclass
class Cluster:
    """Threads of its workers, and what becomes of the n-th task of a unit."""

    threads: dict[str, int]
    fate: Callable[[Unit, int], Fate]
    status: str = "running"
    scheduler: object = None
    sent: list[tuple[Unit, int, list[str] | None, float]] = field(default_factory=list)
    futures: list[Future] = field(default_factory=list)
    most: int = 0
    cancelled: int = 0

    def sync(self, *_: object, callback_timeout: float) -> dict[str, int]:
        assert callback_timeout < 60
        return dict(self.threads)

    def submit(
        self, _do: object, _task: object, words: tuple[Any, ...], shunned: tuple[str, ...],
        **options: Any,
    ) -> Future:  # fmt: skip
        unit, attempt = words[1], words[3]
        assert bool(options["workers"]) == options["allow_other_workers"]
        meant = options["workers"] or list(self.threads)
        assert sorted([*meant, *shunned]) == sorted(self.threads)
        self.sent.append((unit, attempt, options["workers"], time.monotonic()))
        before = sum(u.key == unit.key for u, *_ in self.sent)
        future = Future(options["key"], self.fate(unit, before))
        self.futures.append(future)
        self.most = max(self.most, sum(not f.released for f in self.futures))
        return future

    def cancel(self, futures: list[Future], **_: object) -> None:
        self.cancelled = len(futures)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("window")
    image = save_image(folder / "image.zarr", np.zeros((1024, 1024), "u1"))
    settings = load_settings("identity", ["storage.chunk=128", "storage.shard=256"])
    return make_plan(str(image), folder / "unused.ome.zarr", settings).job


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of a tenth of theirs."""
    monkeypatch.setattr(window, "PAUSE_S", 0.05)
    monkeypatch.setattr(flight, "TICK_S", 0.02)
    monkeypatch.setattr(crew, "COUNT_EACH_S", 0.0)


def units_of(job: Job, size: int = 1) -> list[Unit]:
    step = job.passes()[0]
    regions = list(step.grid)
    return [Unit(step, tuple(regions[k : k + size])) for k in range(0, len(regions), size)]


def done(unit: Unit, worker: str = "a") -> Fate:
    return worker, Receipt(regions=len(unit.regions))


def trouble(unit: Unit, worker: str, *, fatal: bool = False, lasting: bool = False) -> Fate:
    return worker, Receipt(troubles=(Trouble(unit.regions[0], "it burns", fatal, lasting),))


def run(cluster: Cluster, job: Job, units: Iterator[Unit] | list[Unit], retries: int = 3) -> Any:
    return list(Window(cluster, job, 1, retries, lambda: None).run(units))  # type: ignore[arg-type]


def test_no_more_is_sent_or_even_made_than_keeps_the_workers_busy(job: Job) -> None:
    made = 0

    def units() -> Iterator[Unit]:
        nonlocal made
        for unit in units_of(job):
            made += 1
            assert made - sum(f.released for f in cluster.futures) <= room
            yield unit

    cluster = Cluster({"a": 1, "b": 2}, lambda unit, _: done(unit))
    room = window.PER_THREAD * 3
    run(cluster, job, units())
    assert made == len(cluster.sent) == 16
    assert cluster.most == room
    assert all(future.released for future in cluster.futures)


def test_a_worker_that_takes_what_is_meant_for_others_gives_it_back(job: Job) -> None:
    def fate(unit: Unit, count: int) -> Any:
        # The one where it failed is idle, so Dask lets it take the next tries, twice.
        taken = flight._Elsewhere() if count < 4 else done(unit, "b")
        return trouble(unit, "a") if count == 1 else taken

    cluster = Cluster({"a": 1, "b": 1}, fate)
    assert run(cluster, job, units_of(job)[:1], retries=1) == []
    assert [(attempt, where) for _, attempt, where, _ in cluster.sent] == [
        (1, None), (2, ["b"]), (2, ["b"]), (2, ["b"]),
    ]  # fmt: skip


def test_a_worker_knows_what_is_not_meant_for_it() -> None:
    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        (address,) = client.nthreads()
        tasks = [
            client.submit(flight._do, int, ("3",), shunned) for shunned in ((address,), ("x",))
        ]
        assert client.gather(tasks) == [flight._Elsewhere(), 3]


def test_trouble_is_tried_elsewhere_after_ever_longer_pauses(job: Job) -> None:
    workers = ["a", "b", "c", "a"]
    cluster = Cluster({"a": 1, "b": 1, "c": 1}, lambda unit, n: trouble(unit, workers[n - 1]))
    (given,) = run(cluster, job, units_of(job)[:1])
    assert isinstance(given, Given)
    assert (given.message, given.attempts) == ("it burns", 4)
    asked = [(attempt, where) for _, attempt, where, _ in cluster.sent]
    assert asked[0] == (1, None)
    assert asked[1] == (2, ["b", "c"])
    assert asked[2] == (3, ["c"])
    # Where it failed on all of them: on any but the last.
    assert asked[3] == (4, ["a", "b"])
    times = [when for *_, when in cluster.sent]
    pauses = np.diff(times)
    assert (pauses >= [0.05, 0.1, 0.2]).all()
    assert pauses.sum() < 2


def test_a_single_worker_tries_again_itself(job: Job) -> None:
    cluster = Cluster({"a": 1}, lambda unit, n: trouble(unit, "a") if n == 1 else done(unit))
    assert run(cluster, job, units_of(job)[:1]) == []
    assert [where for _, _, where, _ in cluster.sent] == [None, None]


@pytest.mark.parametrize(("retries", "attempts"), [(3, 2), (1, 2), (0, 1)])
def test_a_damaged_input_is_tried_once_more_elsewhere(
    job: Job, retries: int, attempts: int
) -> None:
    cluster = Cluster({"a": 1, "b": 1}, lambda unit, n: trouble(unit, "ab"[n - 1], lasting=True))
    (given,) = run(cluster, job, units_of(job)[:1], retries)
    assert given.attempts == attempts
    assert [where for _, _, where, _ in cluster.sent] == [None, ["b"]][:attempts]


def test_only_the_region_in_trouble_of_a_bundle_is_tried_again(job: Job) -> None:
    bundle = units_of(job, 4)[0]
    cluster = Cluster(
        {"a": 1}, lambda unit, _: trouble(unit, "a") if len(unit.regions) == 4 else done(unit)
    )
    run(cluster, job, [bundle])
    assert [unit.regions for unit, *_ in cluster.sent] == [bundle.regions, bundle.regions[:1]]


def test_a_bundle_that_killed_its_worker_follows_singly(job: Job) -> None:
    bundle = units_of(job, 4)[0]
    cluster = Cluster(
        {"a": 1},
        lambda unit, _: ("a", Receipt(deaths=1)) if len(unit.regions) == 4 else done(unit),
    )
    assert run(cluster, job, [bundle]) == []
    assert [unit.regions for unit, *_ in cluster.sent[1:]] == [(r,) for r in bundle.regions]
    assert cluster.most <= window.PER_THREAD


@pytest.mark.parametrize("fate", ["cancelled", TimeoutError("no receipt")])
def test_what_dask_lost_is_sent_again_and_not_counted(job: Job, fate: Fate) -> None:
    cluster = Cluster({"a": 1}, lambda unit, n: fate if n < 4 else done(unit))
    assert run(cluster, job, units_of(job)[:1], retries=0) == []
    assert [attempt for _, attempt, _, _ in cluster.sent] == [1, 1, 1, 1]


def test_what_dask_gave_up_counts_as_a_try(job: Job) -> None:
    cluster = Cluster({"a": 1}, lambda _unit, _n: RuntimeError("killed too often"))
    (given,) = run(cluster, job, units_of(job)[:1], retries=1)
    assert (given.message, given.attempts) == ("RuntimeError: killed too often", 2)


def test_fatal_trouble_stops_the_run_and_lets_go_of_the_rest(job: Job) -> None:
    units = units_of(job)
    cluster = Cluster({"a": 2}, lambda unit, _: trouble(unit, "a", fatal=unit.key == units[1].key))
    with pytest.raises(StoppedRunError, match=r"it burns.*what is done is kept"):
        run(cluster, job, units)
    assert cluster.cancelled == 2
    assert len(cluster.sent) == 4


def test_a_cluster_without_workers_for_a_while_loses_nothing(job: Job) -> None:
    cluster = Cluster({}, lambda unit, _: done(unit))
    looks = 0

    def check() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            cluster.threads = {"a": 1}

    units = units_of(job)
    some = Window(cluster, job, 1, 3, check)  # type: ignore[arg-type]
    assert list(some.run(units)) == []
    assert len(cluster.sent) == len(units)


def test_no_worker_for_long_stops_the_run(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WORKERLESS_S", 0.2)
    with pytest.raises(StoppedRunError, match="no worker for"):
        run(Cluster({}, lambda unit, _: done(unit)), job, units_of(job))


@pytest.mark.parametrize("status", ["running", "connecting"])
def test_a_scheduler_that_says_nothing_stops_the_run(
    job: Job, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    class Silent(Cluster):
        def sync(self, *_: object, callback_timeout: float) -> dict[str, int]:
            assert self.status == "running"
            raise TimeoutError(callback_timeout)

    monkeypatch.setattr(crew, "SILENCE_S", 0.2)
    with pytest.raises(StoppedRunError, match="no answer from the scheduler"):
        run(Silent({"a": 1}, lambda unit, _: done(unit), status), job, units_of(job))


def test_a_client_that_closes_while_a_task_is_sent_stops_the_run(job: Job) -> None:
    class Closing(Cluster):
        def submit(self, *_: object, **__: object) -> Future:
            raise ClosedClientError

    with pytest.raises(StoppedRunError, match="the scheduler is gone"):
        run(Closing({"a": 1}, lambda unit, _: done(unit)), job, units_of(job))
