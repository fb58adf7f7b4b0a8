"""Faults of the user: a recipe, weights or an image that changed since the run was started."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tests.faults.bench import DefectError
from tests.faults.compare import shown
from tests.faults.interruptions import arm, kill_driver, wait_for_instant
from tests.faults.scene import DONE, KILLED

if TYPE_CHECKING:
    from tests.faults.journey import Journey
    from tests.faults.plan import Fault
    from tests.faults.scene import Scene

#: Settings that decide pixels, and another value of each.
_SETTINGS = (
    ("segment.prob_threshold", "0.75"),
    ("segment.nms_threshold", "0.15"),
    ("normalise.high", "98.5"),
    ("tiling.overlap", "48"),
)

#: Effects of a driver that replaces what stands: metadata, documents, parts of tables, rubbish.
_PUBLISHING = r"^(put .*/(zarr|next|run)\.json$|put .*/out\.ome\.zarr/tables/|delete )"


def changed_recipe(scene: Scene, fault: Fault) -> bool:
    """Another setting: refused by name, then begun anew with --restart."""
    _begin(scene, fault)
    name, value = fault.rng().choice(_SETTINGS)
    scene.other(replace(scene.journey, settings=(f"{name}={value}",)))
    scene.refused(naming=(name, value))
    _restart(scene, fault)
    return True


def changed_weights(scene: Scene, fault: Fault) -> bool:
    """Another network: refused by name, then begun anew with --restart."""
    _begin(scene, fault)
    scene.other(replace(scene.journey, weights=2))
    scene.refused(naming=("weights",))
    _restart(scene, fault)
    return True


def changed_pixels(scene: Scene, fault: Fault) -> bool:
    """Some chunks of the image are written anew: --check listing finds what read them."""
    scene.complete()
    _rewrite(scene, replace(scene.journey, pixels="mirrored"))
    driver = scene.start("--check", "listing")
    scene.expect(driver, DONE)
    if "input changed" not in driver.text():
        msg = f"the reason 'input changed' is not told: {driver.text()[-1500:]}"
        raise DefectError(msg)
    return True


def other_image(scene: Scene, fault: Fault) -> bool:
    """Another image at the same place, whose statistics differ: refused, then --restart."""
    _begin(scene, fault)
    _rewrite(scene, replace(scene.journey, pixels="other"))
    scene.refused("--check", "listing", naming=("statistics",), strictly=False)
    _restart(scene, fault)
    return True


def _begin(scene: Scene, fault: Fault) -> None:
    """Bring the run to its end, or leave it where a kill at a random instant does."""
    if fault.rng().random() < 0.5:
        kill_driver(scene, fault)
    else:
        scene.complete()


def _restart(scene: Scene, fault: Fault) -> None:
    """Begin anew; a first attempt may die, and until one is done what stood before stands.

    Raises
    ------
    DefectError
        If what stood is gone before its successor is there.
    """
    stood = shown(scene.out)
    if fault.nth % 3:
        if fault.nth % 3 == 1:
            # At any step of putting the new in the place of the old.
            arm(scene, replace(fault, nth=fault.rng().randint(1, 40)), "driver", _PUBLISHING)
        driver = scene.start("--restart")
        if fault.nth % 3 == 2 and wait_for_instant(scene, driver, fault.at):
            driver.signal(signal.SIGKILL)
        code = scene.expect(driver, KILLED, DONE)
        scene.bench.disarm()
        if code == KILLED:
            _check_shown(scene, stood)
    scene.expect(scene.start("--restart"), DONE)


def _check_shown(scene: Scene, stood: dict[str, np.ndarray]) -> None:
    """Expect each group to show what stood before, or all of what replaces it."""
    made = scene.library.whole(scene.journey, scene.bench).arrays
    now = shown(scene.out)
    for group, before in stood.items():
        after = made["maps/probability/0" if not group else f"{group}/0"]
        if not any(np.array_equal(now[group], wanted) for wanted in (before, after)):
            msg = f"a restart that was killed shows neither the old nor the new in '{group}'"
            raise DefectError(msg)


def _rewrite(scene: Scene, journey: Journey) -> None:
    """Write the objects of another image over those that differ."""
    scene.shelf.copy(scene.library.image(journey), scene.image)
    scene.other(journey)
