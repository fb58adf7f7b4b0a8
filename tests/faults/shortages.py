"""Faults of what lies below a run: a disk that is full, a store that fails now and then."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.faults.bench import DefectError
from tests.faults.interruptions import wait_for_instant
from tests.faults.scene import DONE, MISSING, REFUSED
from tests.support.fault_proxy import FaultPlan

if TYPE_CHECKING:
    from tests.faults.plan import Fault
    from tests.faults.scene import Scene


def full_disk(scene: Scene, fault: Fault) -> bool:
    """A neighbour fills the disk: the run stops cleanly and says so; with space it goes on.

    Raises
    ------
    DefectError
        If it does not say so.
    """
    disk = scene.shelf.disk
    if disk is None:
        raise TypeError("a scene with a full disk has a small disk")
    driver = scene.start()
    if not wait_for_instant(scene, driver, fault.at):
        scene.expect(driver, DONE)
        return False
    disk.fill()
    try:
        code = scene.expect(driver, DONE, REFUSED, MISSING)
    finally:
        disk.empty()
    if code != DONE and "space" not in driver.text().lower():
        msg = f"stopped on a full disk without saying so: {driver.text()[-1500:]}"
        raise DefectError(msg)
    return code != DONE


def store_faults(scene: Scene, fault: Fault) -> bool:
    """The store drops, delays, truncates and answers 503; what is done in spite of it is right."""
    proxy = scene.shelf.proxy
    if proxy is None:
        raise TypeError("a scene with store faults has a proxy")
    rng = fault.rng()
    weights = {name: rng.random() for name in ("drop", "lose", "refuse", "truncate", "delay")}
    share = rng.uniform(0.02, 0.2) / sum(weights.values())
    plan = {name: share * weight for name, weight in weights.items()}
    proxy.follow(FaultPlan(seed=fault.dice, delay_s=0.3, **plan))
    try:
        scene.expect(scene.start(), DONE, REFUSED, MISSING)
    finally:
        struck = proxy.follow(FaultPlan())
    return bool(struck)
