"""One seed at work: its image, its OUT, the calls of the command line, and how they must end."""

from __future__ import annotations

import re
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from tests.faults.bench import LIMIT_S, Bench, DefectError, Driver, wait_until
from tests.faults.compare import PRIVATE, Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.store.location import Location
    from tests.faults.journey import Journey, Library
    from tests.faults.plan import Scenario
    from tests.faults.stores import Shelf

#: How often a run may need to be started before it is complete.
TRIES = 4

DONE, REFUSED, MISSING, STOPPED, KILLED = 0, 2, 3, 130, -9

#: How long nothing may change before nobody is taken to be at work.
QUIET_S = 1.5

#: What no user must ever see.
_CRASH = re.compile(r"Traceback \(most recent call last\)|a defect of tilewright")


class Scene:
    """One seed at work.

    Parameters
    ----------
    scenario : Scenario
        What happens.
    journey : Journey
        What is computed; faults that change the recipe or the input put another in its place.
    bench : Bench
        Where processes run.
    library : Library
        Images, networks, uninterrupted runs.
    shelf : Shelf
        Where image and OUT lie.
    """

    def __init__(
        self, scenario: Scenario, journey: Journey, bench: Bench, library: Library, shelf: Shelf
    ) -> None:
        self.scenario = scenario
        self.journey = journey
        self.bench = bench
        self.library = library
        self.shelf = shelf
        self.out: Location = shelf.place / "out.ome.zarr"
        self.image: Location = shelf.place / "image.zarr"
        self.weights = journey.weights
        self._region, self._fresh = 1, True
        self.notes: list[str] = []

    def prepare(self) -> None:
        """Put the image where the seed expects it."""
        self.shelf.copy(self.library.image(self.journey), self.image)
        self.seconds()

    def note(self, text: str) -> None:
        """Keep something that a reader of the log should know."""
        self.notes.append(text)

    def epoch(self) -> int:
        """Highest epoch of the lease."""
        _, names = (self.out / PRIVATE / "lease").children()
        return max((int(name[:6]) for name in names if name.endswith(".json")), default=0)

    def learn(self, *, in_time: bool) -> None:
        """Take note whether a fault came before the end of a run that nothing had hurt before."""
        if self._fresh:
            self.library.learn(self, in_time=in_time)

    def measure(self) -> float:
        """Run the same beside OUT, uninterrupted; seconds from its first trace to its end."""
        out, self.out = self.out, self.shelf.place / "measured" / self.out.name
        try:
            driver = self.start()
            self.begun(driver)
            begun = time.monotonic()
            self.expect(driver, DONE)
            return time.monotonic() - begun
        finally:
            self.out.remove()
            self.out = out

    def start(
        self, *extra: str, cold: bool = False, environment: Mapping[str, str] | None = None
    ) -> Driver:
        """Start the run, or continue it; `extra` are further words."""
        model = self.library.model(self.weights)
        size = ("--region", str(self.journey.shard * self._region))
        if self.scenario.cluster == "own":
            workers = ("--workers", "2")
        else:
            workers = ("--cluster", self.bench.cluster().address)
        return self.bench.drive(
            "run", str(self.image), str(self.out), *self.journey.words(str(model)),
            *size, *workers, *extra, cold=cold, environment=environment or {},
        )  # fmt: skip

    def seconds(self) -> float:
        """How long the run takes when nothing happens."""
        return self.library.pace(self)

    def workers(self, driver: Driver) -> list[psutil.Process]:
        """Worker processes that serve a driver."""
        if self.scenario.cluster == "own":
            return driver.workers()
        return self.bench.cluster().workers()

    def expect(self, driver: Driver, *codes: int, limit_s: float = LIMIT_S) -> int:
        """Wait for a driver to end in one of these ways, with a message fit for users.

        Raises
        ------
        DefectError
            If it ends otherwise.
        """
        try:
            code = driver.wait(limit_s)
        except DefectError:
            self._ask_for_stacks(driver)
            raise
        text = driver.text()
        if code not in codes or (code != KILLED and _CRASH.search(text)):
            msg = f"exit code {' or '.join(map(str, codes))}, found {code}: {text[-2500:]}"
            raise DefectError(msg)
        return code

    def _ask_for_stacks(self, driver: Driver) -> None:
        """Have the processes of a run that hangs write to their logs where they are."""
        driver.signal(signal.SIGUSR1)
        for worker in self.workers(driver):
            with suppress(psutil.NoSuchProcess):
                worker.send_signal(signal.SIGUSR1)
        time.sleep(2)

    def refused(self, *extra: str, naming: tuple[str, ...], strictly: bool = True) -> None:
        """Expect the run to be refused, with these words in its message and nothing changed.

        Where not `strictly`, the ledger may take note of what was found.

        Raises
        ------
        DefectError
            If it is not.
        """
        self._quiet()
        before = self.objects(private=strictly)
        driver = self.start(*extra)
        self.expect(driver, REFUSED)
        text = driver.text()
        lacking = [word for word in naming if word not in text]
        if lacking:
            msg = f"the refusal does not name {lacking}: {text[-1500:]}"
            raise DefectError(msg)
        after = self.objects(private=strictly)
        if before != after:
            changed = sorted(
                k for k in before.keys() | after.keys() if before.get(k) != after.get(k)
            )
            msg = f"a run that was refused changed {changed}"
            raise DefectError(msg)

    def _quiet(self) -> None:
        """Wait until workers whose driver was killed have written what they had begun."""
        last, since = self.objects(private=True), time.monotonic()

        def unchanged() -> bool:
            nonlocal last, since
            now = self.objects(private=True)
            if now != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since > QUIET_S

        wait_until(unchanged, "workers without a driver to end")

    def objects(self, *, private: bool) -> dict[str, str]:
        """Everything in OUT, with or without the ledger: name, and size with tag."""
        return {
            name: f"{stat.size} {stat.tag}"
            for name, stat in self.out.walk()
            if private or name.split("/")[0] != PRIVATE
        }

    def chunks(self) -> list[str]:
        """Names of the objects that hold pixels or rows, sorted."""
        found = (name for name, _ in self.out.walk() if name.split("/")[0] != PRIVATE)
        return sorted(n for n in found if "/c/" in f"/{n}" or n.endswith(".parquet"))

    def complete(self) -> None:
        """Run until it is complete.

        Raises
        ------
        DefectError
            If a call fails, or too many are needed.
        """
        for _ in range(TRIES):
            driver = self.start()
            if self.expect(driver, DONE, MISSING) == DONE:
                return
        msg = f"not complete after {TRIES} calls: {driver.text()[-2000:]}"
        raise DefectError(msg)

    def after_fault(self) -> None:
        """Let later calls cut the image as the scenario says."""
        self._region, self._fresh = self.scenario.region, False

    def check(self) -> None:
        """Finish, then compare with the uninterrupted run, and let the engine verify itself.

        Raises
        ------
        DefectError
            If anything differs.
        """
        self.complete()
        whole = self.library.whole(self.journey, self.bench)
        differences = whole.differences(Snapshot.of(self.out))
        if differences:
            msg = f"another result than the uninterrupted run: {'; '.join(differences[:8])}"
            raise DefectError(msg)
        self.verify()

    def verify(self) -> None:
        """Expect ``tilewright verify`` to find nothing wrong."""
        self.expect(self.bench.drive("verify", str(self.out)), DONE)

    def begun(self, driver: Driver) -> bool:
        """Wait until a driver has begun to write to OUT; whether it is still at work then."""
        begun = self.out / PRIVATE / "run.json"
        wait_until(lambda: driver.code() is not None or begun.is_file(), "the run to begin")
        return driver.code() is None

    def other(self, journey: Journey) -> None:
        """Compute something else from now on."""
        self.journey = journey
        self.weights = journey.weights
