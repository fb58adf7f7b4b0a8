"""Where seeds are tried: benches for those at work at once, shelves for images and results."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from engine.store.location import Location
from tests.faults.bench import Bench
from tests.faults.journey import Library
from tests.faults.plan import KINDS, Choice, Kind, Scenario, Store
from tests.faults.stores import BUCKET, ObjectStore, Shelf, SmallDisk
from tests.support.fault_proxy import FaultProxy


class Venue:
    """A context in which seeds can be tried; everything it starts ends with the block.

    Parameters
    ----------
    work : Path
        Folder on a disk for images, networks, logs and, where no other place is given, results.
    place : str or None
        Folder or ``s3://`` prefix for images and results; None for `work`, and for an S3 server on
        loopback.
    jobs : int
        Seeds that are tried at once.
    """

    def __init__(self, work: Path, place: str | None, jobs: int) -> None:
        self.work = work
        self.place = None if place is None else Location.parse(place)
        self.library = Library(work / "library")
        self._jobs = jobs
        self._free: queue.Queue[tuple[Bench, FaultProxy | None]] = queue.Queue()
        self._stack = ExitStack()

    def choice(self, kinds: tuple[Kind, ...]) -> tuple[Choice, dict[Kind, str]]:
        """What may be drawn here, and why the rest may not."""
        without: dict[Kind, str] = {}
        if not SmallDisk.possible():
            without["full disk"] = "mounting a small tmpfs is not permitted"
        elif self.place is not None:
            without["full disk"] = "strikes a disk of its own, not the store that was given"
        if self.place is not None:
            without["store faults"] = "strikes a server of its own, not the store that was given"
        stores: tuple[Store, ...] = ("disk", "bucket")
        if self.place is not None:
            stores = ("disk",) if self.place.is_local else ("bucket",)
        left = tuple(kind for kind in KINDS if kind in kinds and kind not in without)
        return Choice(left, stores), {k: v for k, v in without.items() if k in kinds}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.work.mkdir(parents=True, exist_ok=True)
            server = None
            if self.place is None:
                server = stack.enter_context(ObjectStore(self.work))
                stack.enter_context(_environment(server.environment(server.url)))
            for number in range(self._jobs):
                self._free.put(self._bench(number, server, stack))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _bench(
        self, number: int, server: ObjectStore | None, stack: ExitStack
    ) -> tuple[Bench, FaultProxy | None]:
        proxy, environment = None, {}
        if server is not None:
            proxy = stack.enter_context(FaultProxy("127.0.0.1", server.port))
            environment = server.environment(proxy.url)
        bench = Bench(self.work / f"bench-{number}", environment)
        stack.callback(bench.close)
        return bench, proxy

    @contextmanager
    def seat(self, scenario: Scenario) -> Iterator[tuple[Bench, Shelf]]:
        """A bench and a shelf for a seed; what lies on the shelf is removed afterwards."""
        bench, proxy = self._free.get()
        try:
            with ExitStack() as stack:
                shelf = self._shelf(scenario, proxy, stack)
                stack.callback(shelf.clear)
                yield bench, shelf
        finally:
            self._free.put((bench, proxy))

    def _shelf(self, scenario: Scenario, proxy: FaultProxy | None, stack: ExitStack) -> Shelf:
        name = f"seed-{scenario.seed}"
        if self.place is not None:
            return Shelf(self.place / name)
        if scenario.store == "bucket":
            return Shelf(Location(f"s3://{BUCKET}/{name}"), proxy)
        folder = self.work / "results" / name
        if any(fault.kind == "full disk" for fault in scenario.faults):
            disk = stack.enter_context(SmallDisk(folder))
            return Shelf(Location(str(folder / "shelf")), disk=disk)
        return Shelf(Location(str(folder)))


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment of this process, which reads results too."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
