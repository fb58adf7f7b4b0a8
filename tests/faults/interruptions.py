"""Faults that strike a run while it is at work: processes that die, stop, freeze or do too much."""

from __future__ import annotations

import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from tests.faults.bench import DefectError, wait_until
from tests.faults.hooks.fault_injection import EXPIRY, HOST, SKEW
from tests.faults.scene import DONE, KILLED, MISSING, REFUSED, STOPPED

if TYPE_CHECKING:
    from tests.faults.bench import Driver
    from tests.faults.plan import Fault
from tests.faults.scene import Scene

#: How long a run that was asked to stop may take; the promise is 10 s, machines are shared.
STOP_LIMIT_S = 15.0

#: How long a driver may take to see that its scheduler is gone.
GONE_LIMIT_S = 60.0

#: Effects inside a worker: pixels, tables, then the record.
WORKER_EFFECTS = r"^(put|create) .*/out\.ome\.zarr/"
#: Effects of the driver: what it writes to, or deletes from, its ledger.
DRIVER_EFFECTS = r"^(put|create|delete) .*/\.tilewright/(?!logs)"


def kill_worker(scene: Scene, fault: Fault) -> bool:
    """SIGKILL for one worker, or two one after the other; the run must not notice."""
    driver = scene.start()
    rng = fault.rng()
    struck = False
    for _ in range(rng.choice((1, 1, 2))):
        if not wait_for_instant(scene, driver, fault.at):
            break
        with suppress(psutil.NoSuchProcess, IndexError):
            rng.choice(scene.workers(driver)).kill()
            struck = True
    scene.expect(driver, DONE)
    return struck


def kill_driver(scene: Scene, fault: Fault) -> bool:
    """SIGKILL for the driver; workers of a shared cluster go on for a while."""
    driver = scene.start()
    struck = wait_for_instant(scene, driver, fault.at) and driver.signal(signal.SIGKILL)
    scene.expect(driver, KILLED, DONE)
    return struck and driver.code() == KILLED


def stop_driver(scene: Scene, fault: Fault) -> bool:
    """SIGTERM or SIGINT: the run ends soon, and says how to go on.

    Raises
    ------
    DefectError
        If it takes too long or says nothing.
    """
    driver = scene.start()
    number = fault.rng().choice((signal.SIGTERM, signal.SIGINT))
    struck = wait_for_instant(scene, driver, fault.at) and driver.signal(number)
    if not struck:
        scene.expect(driver, DONE)
        return False
    asked = time.monotonic()
    code = scene.expect(driver, STOPPED, DONE)
    if time.monotonic() - asked > STOP_LIMIT_S:
        msg = f"took {time.monotonic() - asked:.0f} s to stop"
        raise DefectError(msg)
    if code == STOPPED and "same command again" not in driver.text():
        msg = f"stopped without saying how to go on: {driver.text()[-1000:]}"
        raise DefectError(msg)
    return code == STOPPED


def kill_scheduler(scene: Scene, fault: Fault) -> bool:
    """SIGKILL for the scheduler of a shared cluster: the driver ends by itself, with a message."""
    driver = scene.start()
    if not wait_for_instant(scene, driver, fault.at):
        scene.expect(driver, DONE)
        return False
    scene.bench.cluster().kill_scheduler()
    killed = time.monotonic()
    code = scene.expect(driver, DONE, REFUSED, MISSING, limit_s=GONE_LIMIT_S)
    scene.note(f"ended {time.monotonic() - killed:.0f} s after its scheduler")
    return code != DONE


def worker_dies_writing(scene: Scene, fault: Fault) -> bool:
    """A worker dies right before or after it writes pixels, a table or a record."""
    arm(scene, fault, "worker", WORKER_EFFECTS)
    scene.expect(scene.start(), DONE)
    return bool(scene.bench.disarm())


def driver_dies_writing(scene: Scene, fault: Fault) -> bool:
    """The driver dies right before or after an effect on its ledger, from takeover to clean-up."""
    arm(scene, fault, "driver", DRIVER_EFFECTS)
    code = scene.expect(scene.start(), KILLED, DONE)
    return bool(scene.bench.disarm()) and code == KILLED


def tasks_twice(scene: Scene, fault: Fault) -> bool:
    """Each task is done twice, at once or one after the other, after a pause of its own."""
    scene.bench.arm(role="worker", do="repeat", jitter_s=0.05 * fault.rng().random())
    scene.expect(scene.start(), DONE)
    return bool(scene.bench.disarm())


def two_drivers(scene: Scene, fault: Fault) -> bool:
    """A second driver on the same OUT is refused, and told who holds it; the first goes on.

    Raises
    ------
    DefectError
        If it is let in, or not told.
    """
    first = scene.start()
    if not wait_for_instant(scene, first, fault.at / 2):
        scene.expect(first, DONE)
        return False
    second = scene.start()
    code = scene.expect(second, REFUSED, DONE)
    scene.expect(first, DONE)
    if code == DONE:
        # The first had ended when the second asked; one that was let in beside it shows otherwise.
        return False
    if str(first.pid) not in second.text():
        msg = f"the refusal does not name process {first.pid}: {second.text()[-1000:]}"
        raise DefectError(msg)
    return True


def paused_driver(scene: Scene, fault: Fault) -> bool:
    """A driver freezes until its lease expires; another, elsewhere, takes over; then it wakes.

    Raises
    ------
    DefectError
        If it does not see that it lost its lease.
    """
    here, there = ({HOST: name, EXPIRY: "4"} for name in ("here", "there"))
    first = scene.start(environment=here)
    if not (wait_for_instant(scene, first, fault.at) and first.signal(signal.SIGSTOP)):
        scene.expect(first, DONE)
        return False
    if fault.nth % 2:
        # Its late records arrive while the other works; else after the other is done.
        second = scene.start(environment=there)
        wait_until(lambda: second.code() is not None or scene.epoch() > 1, "a takeover")
        first.signal(signal.SIGCONT)
    else:
        second = scene.start(environment=there)
        second.wait()
        first.signal(signal.SIGCONT)
    scene.expect(second, DONE)
    # Refused, where it froze before it had the lease, while it waited for that of a dead one.
    code = scene.expect(first, MISSING, REFUSED, DONE)
    if code == REFUSED and "no other run writes there" not in first.text():
        msg = f"does not say that another run holds OUT: {first.text()[-1000:]}"
        raise DefectError(msg)
    if code == MISSING and "another driver" not in first.text():
        msg = f"does not say that another driver took over: {first.text()[-1000:]}"
        raise DefectError(msg)
    return code != DONE


def clock_skew(scene: Scene, fault: Fault) -> bool:
    """Clocks are wrong by up to a year, differently in drivers and workers; the first dies."""
    rng = fault.rng()
    skews = [rng.choice((-1, 1)) * 10 ** rng.uniform(1, 7.5) for _ in range(2)]
    driver = scene.start(cold=True, environment={SKEW: str(skews[0])})
    struck = wait_for_instant(scene, driver, fault.at) and driver.signal(signal.SIGKILL)
    scene.expect(driver, KILLED, DONE)
    scene.expect(scene.start(cold=True, environment={SKEW: str(skews[1])}), DONE)
    return struck


def arm(scene: Scene, fault: Fault, role: str, match: str) -> None:
    rng = fault.rng()
    when = rng.choice(("before", "after"))
    if role == "worker" and rng.random() < 0.5:
        # Between pixels and record.
        match, when = r"^put .*/\.tilewright/records/", "before"
    scene.bench.arm(role=role, do="kill", match=match, nth=fault.nth, when=when)


def wait_for_instant(scene: Scene, driver: Driver, share: float) -> bool:
    """Wait for an instant of the run; whether the driver is still at work then."""
    if not scene.begun(driver):
        scene.learn(in_time=False)
        return False
    instant = time.monotonic() + share * scene.seconds()
    wait_until(lambda: driver.code() is not None or time.monotonic() >= instant, "the instant")
    in_time = driver.code() is None
    scene.learn(in_time=in_time)
    return in_time
