"""The lease: one driver at a time, whatever the clocks say; the dead are told from the slow."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest
from memory_store import MemoryStore, in_memory

from engine.errors import LeaseLostError, OutputError
from engine.ledger import EXPIRY_S, Identity, Lease, Ledger, Timer, beating, holder
from engine.store.location import Location

HERE = Identity.of_this_process()
ELSEWHERE = replace(HERE, user="ada", host="node7", machine="node7/x/y")


@dataclass
class Clock:
    """A clock of the tests: time passes while somebody sleeps, and others act meanwhile."""

    seconds: float = 1000.0
    meanwhile: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        due = [act for at, act in self.meanwhile if at <= self.seconds]
        self.meanwhile = [(at, act) for at, act in self.meanwhile if at > self.seconds]
        for act in due:
            act()

    def every(self, seconds: float, act: Callable[[], None], times: int = 100) -> None:
        self.meanwhile += [(self.seconds + k * seconds, act) for k in range(1, times)]

    @property
    def timer(self) -> Timer:
        return Timer(self.now, self.sleep)


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    with in_memory() as memory:
        yield memory


@pytest.fixture
def ledger(store: MemoryStore) -> Ledger:
    return Ledger(Location("s3://bucket/out"))


def take(ledger: Ledger, clock: Clock, who: Identity = ELSEWHERE) -> Lease:
    return Lease.acquire(ledger, timer=clock.timer, identity=who)


def test_a_second_driver_is_told_who_holds_it(ledger: Ledger) -> None:
    clock = Clock()
    lease = take(ledger, clock)
    clock.every(5, lease.beat)
    said: list[str] = []
    with pytest.raises(OutputError, match=f"ada on node7 \\(process {HERE.pid}\\), since 20"):
        Lease.acquire(ledger, said.append, clock.timer, HERE)
    assert clock.now() <= 1000 + 6, "the first new heartbeat tells"
    assert len(said) == 1
    assert "ada on node7" in said[0]
    found = holder(ledger)
    assert found is not None
    assert (found.epoch, found.who) == (1, ELSEWHERE)


def test_a_lease_that_was_given_back_is_free(ledger: Ledger) -> None:
    clock = Clock()
    lease = take(ledger, clock)
    lease.release()
    lease.release()
    assert holder(ledger) is None
    with pytest.raises(LeaseLostError):
        lease.check()
    with pytest.raises(LeaseLostError):
        lease.beat()
    assert take(ledger, clock).epoch == 2
    assert clock.now() == 1000, "without waiting"


def test_a_silent_driver_elsewhere_expires(ledger: Ledger) -> None:
    clock = Clock()
    first = take(ledger, clock)
    first.beat()
    assert take(ledger, clock).epoch == 2
    assert EXPIRY_S <= clock.now() - 1000 <= EXPIRY_S + 2
    with pytest.raises(LeaseLostError, match="another driver: ada on node7"):
        first.beat()
    with pytest.raises(LeaseLostError):
        first.check()


def test_one_heartbeat_in_the_last_second_is_enough(ledger: Ledger) -> None:
    clock = Clock()
    first = take(ledger, clock)
    clock.meanwhile.append((1000 + EXPIRY_S - 0.5, first.beat))
    with pytest.raises(OutputError, match="node7"):
        take(ledger, clock)


@pytest.mark.parametrize("skew_days", [-4000, 0, 4000])
def test_wall_clocks_do_not_matter(ledger: Ledger, skew_days: int) -> None:
    clock = Clock()
    other = datetime.now(UTC) + timedelta(days=skew_days)
    with (
        patch("engine.ledger.lease.datetime", **{"now.return_value": other}),
        patch("time.time", return_value=other.timestamp()),
    ):
        lease = take(ledger, clock)
    clock.every(5, lease.beat, 3)
    with pytest.raises(OutputError, match=f"since {other.year}"):
        take(ledger, clock)
    clock.meanwhile.clear()
    start = clock.now()
    assert take(ledger, clock).epoch == 2
    assert EXPIRY_S <= clock.now() - start <= EXPIRY_S + 2


def test_a_driver_given_back_while_another_waits(ledger: Ledger) -> None:
    clock = Clock()
    first = take(ledger, clock)
    clock.meanwhile.append((1003, first.release))
    assert take(ledger, clock).epoch == 2
    assert clock.now() < 1006


def test_of_two_that_wait_one_gets_it(ledger: Ledger) -> None:
    clock = Clock()
    take(ledger, clock)
    # The other one began to wait a little earlier.
    clock.meanwhile.append((1000 + EXPIRY_S - 2, lambda: _create_next(ledger)))
    with pytest.raises(OutputError, match="eve on node8"):
        take(ledger, clock)


def _create_next(ledger: Ledger) -> None:
    ledger.path("lease", "000001.end").write_bytes(b"")
    take(ledger, Clock(), replace(ELSEWHERE, user="eve", host="node8"))


def test_a_race_is_decided_by_the_store(ledger: Ledger, store: MemoryStore) -> None:
    clock = Clock()

    def overtake(effect: str, name: str) -> None:
        if effect == "create" and name.endswith("000001.json"):
            store.before = lambda effect, name: None
            take(ledger, clock, replace(ELSEWHERE, user="eve"))

    store.before = overtake
    with pytest.raises(OutputError, match="eve on node7"):
        take(ledger, clock)
    assert store.before is not overtake


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    ledger = Ledger(Location(str(tmp_path)))
    got: list[int] = []
    gate = threading.Barrier(8)

    def run() -> None:
        gate.wait()
        try:
            got.append(take(ledger, Clock()).epoch)
        except OutputError:
            return

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got.count(1) == 1
    assert len(got) == len(set(got))


def test_a_request_that_is_repeated_finds_its_own_lease(ledger: Ledger, store: MemoryStore) -> None:
    created = store.create

    def answer_lost(name: str, data: bytes) -> None:
        created(name, data)
        if name.endswith(".json"):
            created(name, data)

    with patch.object(store, "create", answer_lost):
        assert take(ledger, Clock()).epoch == 1


def test_a_store_that_lets_two_create_is_refused(ledger: Ledger, store: MemoryStore) -> None:
    with (
        patch.object(store, "create", store.write),
        pytest.raises(OutputError, match="only one of two"),
    ):
        take(ledger, Clock())
    assert holder(ledger) is None


def test_a_driver_that_cannot_write_stops_in_time(ledger: Ledger, store: MemoryStore) -> None:
    clock = Clock()
    lease = take(ledger, clock)
    lease.beat()

    def down(effect: str, name: str) -> None:
        raise TimeoutError(110, "timed out", name)

    store.before = down
    clock.seconds += EXPIRY_S - 1
    lease.check()
    with pytest.raises(OutputError, match="timed out"):
        lease.beat()
    lease.check()
    clock.seconds += 1
    with pytest.raises(LeaseLostError, match="timed out"):
        lease.check()
    store.before = lambda effect, name: None
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_slow_heartbeat_counts_from_its_beginning(ledger: Ledger, store: MemoryStore) -> None:
    clock = Clock()
    lease = take(ledger, clock)

    def slow(effect: str, name: str) -> None:
        clock.seconds += 10 if effect == "write" else 0

    store.before = slow
    lease.beat()
    store.before = lambda effect, name: (_ for _ in ()).throw(TimeoutError(110, "timed out"))
    clock.seconds = 1000 + EXPIRY_S
    with pytest.raises(LeaseLostError):
        lease.check()


def test_a_driver_that_was_suspended_goes_on_where_nobody_took_over(ledger: Ledger) -> None:
    clock = Clock()
    lease = take(ledger, clock)
    clock.seconds += 3600
    lease.check()
    clock.seconds += 3600
    take(ledger, clock, replace(ELSEWHERE, user="eve"))
    with pytest.raises(LeaseLostError, match="eve"):
        lease.check()


def test_a_driver_whose_lease_was_removed_stops(ledger: Ledger) -> None:
    lease = take(ledger, Clock())
    ledger.path("lease").remove()
    with pytest.raises(LeaseLostError):
        lease.beat()


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"user": "ada"}'])
def test_a_damaged_lease_expires_as_any_other(ledger: Ledger, data: bytes) -> None:
    clock = Clock()
    ledger.path("lease", "000004.json").write_bytes(data)
    found = holder(ledger)
    assert found is not None
    assert "unknown driver" in str(found)
    assert take(ledger, clock).epoch == 5
    assert clock.now() >= 1000 + EXPIRY_S


def sleeper() -> subprocess.Popen[bytes]:
    code = "print('up', flush=True); import sys; sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    return process


def identity_of(pid: int) -> Identity:
    with patch("os.getpid", return_value=pid):
        return Identity.of_this_process()


def test_a_driver_on_this_machine_is_seen_at_once(ledger: Ledger) -> None:
    clock = Clock()
    with sleeper() as process:
        assert process.stdin
        who = identity_of(process.pid)
        take(ledger, clock, who)
        assert who.is_alive() is True
        with pytest.raises(OutputError, match=f"process {process.pid}"):
            take(ledger, clock)
        assert holder(ledger) is not None
        process.kill()
        # Dead, and not yet waited for by who started it.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert who.is_alive() is False
        assert holder(ledger) is None
        process.wait()
        assert who.is_alive() is False
    assert take(ledger, clock).epoch == 2
    assert clock.now() == 1000, "without waiting"


def test_a_number_that_was_given_to_another_process_is_no_life(ledger: Ledger) -> None:
    assert HERE.is_alive() is True
    assert replace(HERE, started="1").is_alive() is False
    take(ledger, Clock(), replace(HERE, started="1"))
    assert take(ledger, Clock()).epoch == 2


def test_of_processes_elsewhere_nothing_is_known() -> None:
    assert replace(HERE, machine="another").is_alive() is None
    assert replace(HERE, machine="").is_alive() is None
    assert replace(HERE, started="").is_alive() is None
    assert Identity.from_json(HERE.to_json()) == HERE


def test_a_thread_keeps_the_lease(ledger: Ledger) -> None:
    lease = Lease.acquire(ledger)
    place = ledger.path("lease", "000001.beat")
    with beating(lease, 0.01) as pulse:
        deadline = time.monotonic() + 20
        while not place.is_file() or int(place.read_bytes()) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pulse.check()
        assert not pulse.lost.is_set()
        ledger.path("lease", "000002.json").write_bytes(b"{}")
        assert pulse.lost.wait(20)
        with pytest.raises(LeaseLostError):
            pulse.check()
    assert not any(t.name == "tilewright-heartbeat" for t in threading.enumerate())


def test_a_thread_tells_when_the_store_is_down(ledger: Ledger, store: MemoryStore) -> None:
    clock = Clock()
    lease = take(ledger, clock)

    def down(effect: str, name: str) -> None:
        clock.seconds += 1
        raise TimeoutError(110, "timed out", name)

    store.before = down
    with beating(lease, 0.001) as pulse:
        assert pulse.lost.wait(20)
    assert EXPIRY_S <= clock.now() - 1000 <= EXPIRY_S + 3
