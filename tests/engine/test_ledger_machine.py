"""Drivers that start, stall, die and come back late; whatever they do, what counts is true.

Every effect on the store is a step of its own: any number of drivers, workers, heartbeats and
readers stand between any two of their effects, and the machine decides who goes on, who dies and
whose effect fails, before or after it was done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from memory_store import MemoryStore, in_memory
from stepping import Actor, StepLock, current

from engine.errors import LeaseLostError, OutputError
from engine.ledger import (
    EXPIRY_S,
    Bundle,
    Identity,
    Journal,
    Lease,
    Ledger,
    Mark,
    Record,
    RecordWriter,
    State,
    Timer,
    take_over,
)
from engine.store.location import Location
from tiling import Grid, Region

GRID = Grid((), (20, 30), (10, 10))
CUTS = ((10, 10), (10, 20), (20, 20))
DIGESTS = ("a" * 32, "b" * 32)

#: What was struck, over all examples; `test_the_machine_gets_there` looks at it.
SEEN: Counter[str] = Counter()

Cell = tuple[str, int]


class FaultyStore(MemoryStore):
    """The store of the machine: effects wait for their step, and may fail."""

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data)
        _fail("after")

    def create(self, name: str, data: bytes) -> None:
        super().create(name, data)
        _fail("after")


def _fail(when: str) -> None:
    actor = current()
    if actor is not None and actor.fault == when:
        actor.fault = ""
        SEEN[f"fault {when}"] += 1
        raise TimeoutError(110, "timed out")


def _gate(effect: str, name: str) -> None:
    actor = current()
    if actor is not None:
        actor.pause(effect, name)
        _fail("before")


def cells_of(region: Region) -> list[int]:
    numbers = np.arange(len(GRID)).reshape(GRID.shape)
    return [int(n) for n in numbers[GRID.cells(region)].ravel()]


def record(region: Region, digest: str) -> Record:
    return Record("regions", region, digest, 0.0, 0, "w")


@dataclass(eq=False)
class Driver:
    """One driver process."""

    number: int
    digest: str
    cut: tuple[int, int]
    here: bool
    alive: bool = True
    lease: Lease | None = None
    journal: Journal | None = None
    pending: list[Region] | None = None
    sent: list[Region] = field(default_factory=list)
    inbox: list[Bundle] = field(default_factory=list)
    busy: Actor | None = None
    heart: Actor | None = None
    revoking: set[Cell] = field(default_factory=set)
    keeping: tuple[str, ...] | None = None

    @property
    def idle(self) -> bool:
        return self.alive and self.journal is not None and (self.busy is None or self.busy.done)

    @property
    def identity(self) -> Identity:
        return Identity("u", "here" if self.here else "there", "m", self.number, "1")


@dataclass(eq=False)
class Watch:
    """What a reader may have seen while it read."""

    ever: set[Cell]
    always: set[Cell]


class LedgerMachine(RuleBasedStateMachine):
    """Ledger and lease under every order of effects."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self.store = FaultyStore()
        self.store.before = _gate
        self._stack.enter_context(in_memory(self.store))
        for target, value in (
            ("engine.ledger.scribe.MOST_LINES", 2),
            ("engine.ledger.journal.FAILURES", 2),
            ("engine.ledger.lease.threading", SimpleNamespace(Lock=StepLock)),
            ("engine.ledger.identity.Identity.is_alive", lambda who: self._is_alive(who)),
        ):
            self._stack.enter_context(patch(target, value))
        self.ledger = Ledger(Location("s3://bucket/out"))
        self.now = 0.0
        self.pixels: set[Cell] = set()
        self.hurt: set[Cell] = set()
        self.drivers: list[Driver] = []
        self.actors: list[tuple[Actor, Driver | None]] = []
        self.watches: list[Watch] = []
        self.created: dict[int, float] = {}
        self.floor: dict[int, set[Cell]] = {}
        self.done: set[Cell] = set()
        self.newest = 0
        self.changed = True

    # Who acts

    @precondition(lambda self: sum(driver.alive for driver in self.drivers) < 4)
    @rule(
        digest=st.sampled_from((DIGESTS[0], *DIGESTS)),
        cut=st.sampled_from(CUTS),
        here=st.sampled_from((False, False, True)),
        how_far=st.integers(0, 4),
    )
    def start(self, digest: str, cut: tuple[int, int], here: bool, how_far: int) -> None:
        """Start a driver; most get through their first step, some to the check that follows."""
        driver = Driver(len(self.drivers), digest, cut, here)
        self.drivers.append(driver)
        driver.busy = self._spawn(lambda: self._begin(driver), driver)
        if how_far > 0:
            self._run(driver.busy, driver)
        if how_far > 2 and driver.idle:
            self._give(driver, self._revoke)

    @precondition(lambda self: self._active())
    @rule(which=st.integers(0, 9), steps=st.integers(1, 12))
    def go_on(self, which: int, steps: int) -> None:
        active = self._active()
        actor, driver = active[which % len(active)]
        for _ in range(steps):
            self._step(actor, driver)

    @precondition(lambda self: self._active())
    @rule(which=st.integers(0, 9))
    def finish(self, which: int) -> None:
        active = self._active()
        self._run(*active[which % len(active)])

    @precondition(lambda self: self._active())
    @rule(which=st.integers(0, 9), when=st.sampled_from(["before", "after"]))
    def store_fault(self, which: int, when: str) -> None:
        active = self._active()
        active[which % len(active)][0].fault = when

    @precondition(lambda self: any(driver is None for _, driver in self._active()))
    @rule(which=st.integers(0, 9))
    def worker_dies(self, which: int) -> None:
        workers = [actor for actor, driver in self._active() if driver is None]
        workers[which % len(workers)].kill()

    @precondition(lambda self: any(driver.alive for driver in self.drivers))
    @rule(which=st.integers(0, 9))
    def driver_dies(self, which: int) -> None:
        living = [driver for driver in self.drivers if driver.alive]
        driver = living[which % len(living)]
        driver.alive = False
        for actor in (driver.busy, driver.heart):
            if actor is not None:
                actor.kill()

    @rule(seconds=st.sampled_from([1, 4, 10, 31]))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def hearts_beat(self) -> None:
        """All drivers that are not stalled write a heartbeat."""
        for driver in self.drivers:
            lease = driver.lease
            if driver.alive and lease and (driver.heart is None or driver.heart.done):
                heart = self._spawn(lambda lease=lease: self._beat(lease), driver)
                driver.heart = heart
                for _ in range(20):
                    self._step(heart, driver)

    # What idle drivers do

    @precondition(lambda self: self._idle())
    @rule(which=st.integers(0, 9), what=st.sampled_from(["collect", "flush", "release"]))
    def tidy(self, which: int, what: str) -> None:
        self._order(which, getattr(self, f"_{what}"))

    @precondition(lambda self: self._idle())
    @rule(which=st.integers(0, 9), twice=st.booleans(), number=st.integers(1, 2))
    def send(self, which: int, twice: bool, number: int) -> None:
        """Send a task; it is then for the worker to go on."""
        self._order(which, lambda driver: self._send(driver, number, twice=twice))
        self._run(*self.actors[-1])

    @precondition(lambda self: self._idle())
    @rule(which=st.integers(0, 9))
    def fail(self, which: int) -> None:
        self._order(which, self._fail)

    @precondition(lambda self: self._idle())
    @rule(which=st.integers(0, 9))
    def revoke(self, which: int) -> None:
        self._order(which, self._revoke)

    @precondition(lambda self: self._idle())
    @rule(which=st.integers(0, 9), all_digests=st.booleans(), whole=st.booleans())
    def forget(self, which: int, all_digests: bool, whole: bool) -> None:
        def act(driver: Driver) -> None:
            driver.keeping = DIGESTS if all_digests else (driver.digest,)
            try:
                _journal(driver).forget(driver.keeping)
                SEEN["forgotten"] += 1
            finally:
                driver.keeping = None

        self._order(which, act)
        if whole:
            self._run(*self.actors[-1])

    @precondition(lambda self: self._idle())
    @rule(which=st.integers(0, 9), units=st.integers(1, 4))
    def work(self, which: int, units: int) -> None:
        """A driver that nothing disturbs sends some tasks and takes their receipts."""
        idle = self._idle()
        driver = idle[which % len(idle)]
        for _ in range(units):
            for act in (lambda d: self._send(d, 2, twice=False), self._collect):
                if driver.idle:
                    first = len(self.actors)
                    self._give(driver, act)
                    for actor, who in self.actors[first:]:
                        self._run(actor, who)
                    for actor, who in self.actors[first + 1 :]:
                        self._run(actor, who)

    # What happens to the result, and who looks at it

    @precondition(lambda self: self.done)
    @rule(which=st.integers(0, 20))
    def hurt_pixels(self, which: int) -> None:
        cell = sorted(self.done)[which % len(self.done)]
        if cell in self.pixels:
            self.pixels.discard(cell)
            self.hurt.add(cell)

    @rule(digest=st.sampled_from(DIGESTS))
    def look(self, digest: str) -> None:
        def act() -> None:
            watch = Watch(set(self.done), set(self.done))
            self.watches.append(watch)
            try:
                codes = self.ledger.states("regions", digest, GRID).ravel()
            except OutputError as err:
                if not isinstance(err.__cause__, TimeoutError):  # no fault of the machine's own
                    raise
                return
            finally:
                self.watches.remove(watch)
            found = {(digest, int(n)) for n in np.flatnonzero(codes == State.DONE)}
            assert found <= watch.ever
            assert found >= {cell for cell in watch.always if cell[0] == digest}
            SEEN["looked"] += 1

        self._spawn(act, None)

    # What must hold

    @invariant()
    def all_ways_of_reading_agree(self) -> None:
        if not self.changed:
            return
        self.changed = False
        counts = self.ledger.counts()
        for digest in DIGESTS:
            cells: list[Cell] = []
            for found in self.ledger.records("regions", digest, GRID):
                cells += [(digest, n) for n in cells_of(found.region)]
            assert len(cells) == len(set(cells))
            mine = {cell for cell in self.done if cell[0] == digest}
            assert set(cells) == mine
            count = counts.get(("regions", digest))
            assert (count.pixels if count else 0) == 100 * len(mine)
            failed = set()
            for failure in self.ledger.failures("regions", digest, GRID):
                failed |= {(digest, n) for n in cells_of(failure.region)}
            codes = self.ledger.states("regions", digest, GRID).ravel()
            assert {(digest, int(n)) for n in np.flatnonzero(codes == State.FAILED)} <= failed

    def teardown(self) -> None:
        """All die; one more driver finishes the work."""
        try:
            for actor, _ in self.actors:
                actor.kill()
                if actor.error:
                    raise actor.error
            self._finish_all()
        finally:
            for actor, _ in self.actors:
                actor.kill()
            self._stack.close()

    def _finish_all(self) -> None:
        for driver in self.drivers:
            driver.alive = False
        lease = Lease.acquire(self.ledger, timer=Timer(lambda: self.now, self._pass))
        journal = take_over(self.ledger, lease)
        assert self._read_done() >= self.done
        digest = DIGESTS[0]
        live = self.ledger.records("regions", digest, GRID)
        hurt = [r for r in live if self.hurt & {(digest, n) for n in cells_of(r.region)}]
        journal.revoke(Mark("regions", r.region, digest, State.MISSING) for r in hurt)
        writer = RecordWriter(self.ledger.out, lease.epoch)
        done = self.ledger.states("regions", digest, GRID) == State.DONE
        for region in GRID.missing(done, CUTS[1]):
            self.pixels |= {(digest, n) for n in cells_of(region)}
            journal.add(writer.write([record(region, digest)]))
        journal.flush()
        journal.forget([digest])
        lease.release()
        everything = {(digest, n) for n in range(len(GRID))}
        assert self._read_done() == everything
        assert everything <= self.pixels
        assert list(self.ledger.damaged()) == []
        names = [n for n in self.ledger.path("lease").children()[1] if not n.startswith(".")]
        assert len(names) == 3, "beat, end and json of the last one"

    # How drivers and workers act; each runs in a thread of its own

    def _begin(self, driver: Driver) -> None:
        try:
            timer = Timer(lambda: self.now, self._sleep)
            driver.lease = Lease.acquire(self.ledger, timer=timer, identity=driver.identity)
            driver.journal = take_over(self.ledger, driver.lease)
            SEEN["begun"] += 1
        except (OutputError, LeaseLostError) as err:
            SEEN[type(err).__name__] += 1
            driver.alive = False

    def _beat(self, lease: Lease) -> None:
        try:
            lease.beat()
        except (OutputError, LeaseLostError):
            return

    def _collect(self, driver: Driver) -> None:
        while driver.inbox:
            _journal(driver).add(driver.inbox.pop(0))

    def _flush(self, driver: Driver) -> None:
        _journal(driver).flush()

    def _release(self, driver: Driver) -> None:
        _journal(driver).flush()
        _lease(driver).release()
        driver.alive = False
        SEEN["released"] += 1

    def _send(self, driver: Driver, number: int, *, twice: bool) -> None:
        lease = _lease(driver)
        lease.check()
        newer = [at for epoch, at in self.created.items() if epoch > lease.epoch]
        assert not newer or self.now - min(newer) <= EXPIRY_S, "two drivers at once"
        if driver.pending is None:
            done = np.array([(driver.digest, n) in self.done for n in range(len(GRID))])
            driver.pending = list(GRID.missing(done.reshape(GRID.shape), driver.cut))
        some, driver.pending = driver.pending[:number], driver.pending[number:]
        if not some and driver.sent:
            some = driver.sent[:1]
        if some:
            driver.sent += some
            for _ in range(1 + twice):
                self._spawn(lambda: self._work(driver, lease.epoch, some), None)

    def _work(self, driver: Driver, epoch: int, regions: list[Region]) -> None:
        digest = driver.digest
        writer = RecordWriter(self.ledger.out, epoch)
        try:
            with writer.attempt(regions[0].key):
                for region in regions:
                    _gate("pixels", "")
                    cells = {(digest, n) for n in cells_of(region)}
                    self.pixels |= cells
                    self.hurt -= cells
                bundle = writer.write([record(region, digest) for region in regions])
        except (OutputError, TimeoutError):
            return
        driver.inbox.append(bundle)

    def _fail(self, driver: Driver) -> None:
        if driver.pending:
            region = driver.pending.pop(0)
            mark = Mark("regions", region, driver.digest, State.FAILED, "no", 4)
            _journal(driver).fail(mark)
            SEEN["failed"] += 1

    def _revoke(self, driver: Driver) -> None:
        if driver.pending is not None:
            return
        marks = []
        with self._quietly():
            live = list(self.ledger.records("regions", driver.digest, GRID))
        for found in live:
            cells = {(driver.digest, n) for n in cells_of(found.region)}
            if cells & self.hurt:
                driver.revoking |= cells
                marks.append(Mark("regions", found.region, driver.digest, State.MISSING))
        if not marks:
            return
        try:
            _journal(driver).revoke(marks)
            if self.newest == _lease(driver).epoch:
                self.hurt -= driver.revoking
                SEEN["revoked"] += 1
        finally:
            driver.revoking = set()

    # The machinery

    def _spawn(self, body: Callable[[], None], driver: Driver | None) -> Actor:
        actor = Actor(body)
        self.actors.append((actor, driver))
        return actor

    def _active(self) -> list[tuple[Actor, Driver | None]]:
        return [(actor, driver) for actor, driver in self.actors if not actor.done]

    def _idle(self) -> list[Driver]:
        return [driver for driver in self.drivers if driver.idle]

    def _run(self, actor: Actor, driver: Driver | None) -> None:
        """Let an actor go on to its end, or to a lock that another one holds."""
        for _ in range(1000):
            self.now = max(self.now, actor.until)
            if actor.done or actor.at[0] == "lock":
                return
            self._step(actor, driver)
        raise AssertionError("no end")

    def _order(self, which: int, act: Callable[[Driver], None]) -> None:
        idle = self._idle()
        self._give(idle[which % len(idle)], act)

    def _give(self, driver: Driver, act: Callable[[Driver], None]) -> None:
        def body() -> None:
            try:
                act(driver)
            except LeaseLostError:
                SEEN["lost"] += 1
                driver.alive = False
            except OutputError:
                SEEN["store failed"] += 1

        driver.busy = self._spawn(body, driver)

    def _step(self, actor: Actor, driver: Driver | None) -> None:
        """Let an actor do one effect, and look what it did to what counts."""
        if actor.done or actor.until > self.now:
            return
        effect, name = actor.at
        before, newest = self.done, self.newest
        allowed = _may_lose(driver, before)
        actor.step()
        if actor.error:
            raise actor.error
        place = name.partition(".tilewright/")[2]
        kind, _, rest = place.partition("/")
        if effect == "create" and kind == "lease" and rest.endswith(".json"):
            epoch = int(rest[:6])
            if name in self.store.objects and epoch not in self.created:
                self.created[epoch] = self.now
                self.floor[epoch] = set(before)
        if effect in ("write", "delete") and kind in ("records", "segments", "marks", "epochs"):
            self._follow()
            self._judge(effect, kind, rest, before, newest, allowed)
            for watch in self.watches:
                watch.ever |= self.done
                watch.always &= self.done
        untrue = self.done - self.pixels - self.hurt
        assert not untrue, f"done without pixels: {untrue}"

    def _follow(self) -> None:
        self.changed = True
        self.done = self._read_done()
        listed = self.ledger.path("epochs").children()[1]
        self.newest = max((int(name[:6]) for name in listed), default=0)

    def _judge(
        self,
        effect: str,
        kind: str,
        rest: str,
        before: set[Cell],
        newest: int,
        allowed: set[Cell],
    ) -> None:
        lost, gained = before - self.done, self.done - before
        epoch = int(rest[:6])
        if kind == "epochs" and epoch > newest:
            SEEN["takeover over something done"] += bool(before)
            SEEN["late work dropped"] += bool(lost)
            assert not gained
            assert not lost & self.floor[epoch], "what was done before the takeover"
            return
        if kind == "records" and effect == "write" and epoch == newest:
            assert not lost
            return
        if kind == "records" and effect == "write":
            SEEN["late record"] += 1
        assert not gained, f"{effect} {kind}/{rest}"
        assert lost <= allowed, f"{effect} {kind}/{rest}"

    def _read_done(self) -> set[Cell]:
        with self._quietly():
            return {
                (digest, int(n))
                for digest in DIGESTS
                for n in np.flatnonzero(
                    self.ledger.states("regions", digest, GRID).ravel() == State.DONE
                )
            }

    def _quietly(self) -> Any:
        return patch.object(self.store, "before", lambda effect, name: None)

    def _is_alive(self, who: Identity) -> bool | None:
        return self.drivers[who.pid].alive if who.host == "here" else None

    def _sleep(self, seconds: float) -> None:
        actor = current()
        assert actor is not None
        actor.pause("sleep", "", self.now + seconds)

    def _pass(self, seconds: float) -> None:
        self.now += seconds


def _may_lose(driver: Driver | None, done: set[Cell]) -> set[Cell]:
    """What a driver takes back or forgets on purpose."""
    if driver and driver.keeping:
        return {cell for cell in done if cell[0] not in driver.keeping}
    return set(driver.revoking) if driver else set()


def _journal(driver: Driver) -> Journal:
    assert driver.journal is not None
    return driver.journal


def _lease(driver: Driver) -> Lease:
    assert driver.lease is not None
    return driver.lease


LedgerMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestLedgerMachine = LedgerMachine.TestCase


def test_the_machine_gets_there() -> None:
    for what in ("takeover over something done", "looked", "lost", "forgotten", "fault before"):
        assert SEEN[what], what
