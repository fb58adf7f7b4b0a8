"""Faults that strike a result while nobody works on it: objects and records lost or damaged."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from tests.faults.bench import DefectError
from tests.faults.compare import PRIVATE, decode_object
from tests.faults.scene import DONE, MISSING, REFUSED

if TYPE_CHECKING:
    import random

    from engine.store.location import Location
    from tests.faults.plan import Fault
    from tests.faults.scene import Scene

#: Most objects that one fault hurts.
MOST = 4


def lost_objects(scene: Scene, fault: Fault) -> bool:
    """Objects with pixels or rows are deleted: verify names exactly those, repair mends them."""
    scene.complete()
    rng = fault.rng()
    names = _choose(_stored(scene), rng)
    for name in names:
        (scene.out / name).delete()
    _verify(scene, names)
    return True


def damaged_objects(scene: Scene, fault: Fault) -> bool:
    """Bytes are changed, or objects cut short: verify names exactly those whose content changed."""
    scene.complete()
    rng = fault.rng()
    hurt = []
    for name in _choose(_stored(scene), rng):
        before = decode_object(scene.out, name)
        _damage(scene.out / name, rng)
        after = decode_object(scene.out, name)
        if before is None or after is None or not np.array_equal(before, after):
            hurt.append(name)
    if not hurt:
        return False
    _verify(scene, hurt)
    return True


def lost_records(scene: Scene, fault: Fault) -> bool:
    """Some of the ledger's records are deleted: computed again, or missed, as damaged ones are."""
    scene.complete()
    lost = _choose(_records(scene), fault.rng())
    for name in lost:
        (scene.out / name).delete()
    driver = scene.start()
    if scene.expect(driver, REFUSED, MISSING, DONE) == REFUSED:
        _repair(scene, driver.text(), lost)
    return True


def damaged_records(scene: Scene, fault: Fault) -> bool:
    """A record object is damaged: a clear refusal, and verify --repair gets over it."""
    scene.complete()
    rng = fault.rng()
    name = rng.choice(_records(scene))
    _damage(scene.out / name, rng)
    driver = scene.start()
    if scene.expect(driver, REFUSED, DONE) == DONE:
        return False
    _repair(scene, driver.text(), [name])
    return True


def _repair(scene: Scene, text: str, hurt: list[str]) -> None:
    """Expect that a run was refused for these records, as this text says, and get over it.

    Raises
    ------
    DefectError
        If the refusal does not name a file.
    """
    if not any(name.rsplit("/", 1)[-1] in text for name in hurt):
        msg = f"the refusal names none of {hurt}: {text[-1500:]}"
        raise DefectError(msg)
    scene.expect(scene.bench.drive("verify", str(scene.out), "--repair"), DONE, MISSING)


def _choose(names: list[str], rng: random.Random) -> list[str]:
    return sorted(rng.sample(names, min(len(names), rng.randint(1, MOST))))


def _stored(scene: Scene) -> list[str]:
    """Names of the objects that records tell of, and that are there, sorted."""
    present = {name for name, _ in scene.out.walk()}
    return sorted(present & _owners(scene).keys())


def _records(scene: Scene) -> list[str]:
    """Names of the objects that hold records, sorted."""
    found = (name for name, _ in scene.out.walk())
    places = (f"{PRIVATE}/records/", f"{PRIVATE}/segments/")
    return sorted(name for name in found if name.startswith(places))


def _damage(place: Location, rng: random.Random) -> None:
    """Turn some bits around, or cut the object short."""
    data = bytearray(place.read_bytes())
    if rng.random() < 0.4:
        del data[rng.randrange(len(data)) :]
    else:
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    place.write_bytes(bytes(data))


def _verify(scene: Scene, names: list[str]) -> None:
    """Expect verify to find the regions of these objects and no other; then to mark them.

    Raises
    ------
    DefectError
        If it finds others, or not these.
    """
    owners = _owners(scene)
    for words in ((), ("--repair",)):
        driver = scene.bench.drive("verify", str(scene.out), *words)
        scene.expect(driver, MISSING)
        found = set(_FOUND.findall(driver.text()))
        lacking = [name for name in names if not owners[name] & found]
        wrong = found - set().union(*(owners[name] for name in names))
        if lacking or wrong:
            msg = (
                f"verify does not name the regions of {lacking}, and names {wrong} wrongly: "
                f"{driver.text()[-1500:]}"
            )
            raise DefectError(msg)


#: Pass and box of a region that verify reports.
_FOUND = re.compile(r"output (?:missing|damaged): ([\w-]+), .*?\[([\d:,]+)\]")


def _owners(scene: Scene) -> dict[str, set[tuple[str, str]]]:
    """For each stored object: pass and box of the regions whose records name it."""
    owners: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for name in _records(scene):
        for line in (scene.out / name).read_bytes().splitlines():
            record = json.loads(line)
            box = record.get("box", [])
            half = len(box) // 2
            text = ",".join(f"{a}:{b}" for a, b in zip(box[:half], box[half:], strict=True))
            for stored in record.get("stored", []):
                owners[stored[0]].add((record["pass"], text))
    return owners
