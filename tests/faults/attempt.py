"""One seed from its first call to its verdict."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.faults.changes import changed_pixels, changed_recipe, changed_weights, other_image
from tests.faults.interruptions import (
    clock_skew,
    driver_dies_writing,
    kill_driver,
    kill_scheduler,
    kill_worker,
    paused_driver,
    stop_driver,
    tasks_twice,
    two_drivers,
    worker_dies_writing,
)
from tests.faults.journey import Journey, Library
from tests.faults.scene import Scene
from tests.faults.shortages import full_disk, store_faults
from tests.faults.wounds import damaged_objects, damaged_records, lost_objects, lost_records

if TYPE_CHECKING:
    from tests.faults.bench import Bench
    from tests.faults.plan import Fault, Kind, Scenario
    from tests.faults.stores import Shelf

_STRIKES: dict[Kind, Callable[[Scene, Fault], bool]] = {
    "kill worker": kill_worker,
    "kill driver": kill_driver,
    "stop driver": stop_driver,
    "kill scheduler": kill_scheduler,
    "worker dies writing": worker_dies_writing,
    "driver dies writing": driver_dies_writing,
    "tasks twice": tasks_twice,
    "two drivers": two_drivers,
    "paused driver": paused_driver,
    "clock skew": clock_skew,
    "full disk": full_disk,
    "store faults": store_faults,
    "lost objects": lost_objects,
    "damaged objects": damaged_objects,
    "lost records": lost_records,
    "damaged records": damaged_records,
    "changed recipe": changed_recipe,
    "changed weights": changed_weights,
    "changed pixels": changed_pixels,
    "other image": other_image,
}


@dataclass(frozen=True)
class Verdict:
    """What became of a seed.

    Parameters
    ----------
    scenario : Scenario
        What was tried.
    struck : tuple of bool
        For each of its faults, whether it really struck.
    error : str
        Why it failed; empty where it did not.
    seconds : float
        How long it took.
    notes : tuple of str
        What was seen on the way.
    """

    scenario: Scenario
    struck: tuple[bool, ...]
    error: str
    seconds: float
    notes: tuple[str, ...] = ()

    def did_strike(self, kind: Kind) -> bool:
        """Whether a fault of a kind struck."""
        pairs = zip(self.scenario.faults, self.struck, strict=True)
        return any(struck for fault, struck in pairs if fault.kind == kind)


def attempt(scenario: Scenario, bench: Bench, library: Library, shelf: Shelf) -> Verdict:
    """Try one seed."""
    started = time.monotonic()
    struck: list[bool] = []
    error = ""
    scene = Scene(scenario, Journey(scenario.work), bench, library, shelf)
    try:
        scene.prepare()
        for fault in scenario.faults:
            struck.append(_STRIKES[fault.kind](scene, fault))
            scene.after_fault()
        scene.check()
    except Exception as err:
        error = str(err) if isinstance(err, AssertionError) else traceback.format_exc()
    finally:
        bench.clear()
    missing = (False,) * (len(scenario.faults) - len(struck))
    seconds = time.monotonic() - started
    return Verdict(scenario, (*struck, *missing), error, seconds, tuple(scene.notes))
