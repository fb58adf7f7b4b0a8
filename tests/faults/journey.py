"""The runs that are hurt: their words on the command line, and what they make when unhurt."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from stardist.data import test_image_nuclei_2d

from engine.store.location import Location
from tests.faults.bench import Bench, DefectError
from tests.faults.compare import Snapshot
from tests.faults.material import CHUNK, SHARD, Pixels, draw_pixels, save_image, save_model

if TYPE_CHECKING:
    from tests.faults.plan import Work
    from tests.faults.scene import Scene


@dataclass(frozen=True)
class Journey:
    """What a run computes; equal journeys give equal results wherever and however they run.

    Parameters
    ----------
    work : {"tiny", "copy", "bundled"}
        See `tests.faults.plan.Scenario`.
    pixels : {"first", "mirrored", "other"}
        Which image.
    weights : int
        Which of the tiny networks.
    settings : tuple of str
        Further settings, ``key=value``.
    """

    work: Work
    pixels: Pixels = "first"
    weights: int = 1
    settings: tuple[str, ...] = ()

    @property
    def shard(self) -> int:
        """Side of a shard in pixels."""
        return 2 * SHARD if self.work == "bundled" else SHARD

    @property
    def name(self) -> str:
        """A name for folders."""
        parts = [self.work, self.pixels, str(self.weights), *self.settings]
        return "-".join(part.replace(".", "-").replace("=", "-") for part in parts)

    def words(self, model: str) -> tuple[str, ...]:
        """Recipe and settings, with the folder of the tiny network."""
        sides = {"storage.chunk": self.shard // 2, "storage.shard": self.shard}
        match self.work:
            case "copy":
                chosen: dict[str, object] = {}
            case "bundled":
                chosen = {"tiling.tile": 256, "segment.precision": "float32"}
            case "tiny":
                chosen = {
                    "tiling.tile": CHUNK * 2,
                    "tiling.overlap": CHUNK // 2,
                    "tiling.margin": 8,
                    "segment.model": model,
                    "segment.precision": "float32",
                }
        settings = [f"{k}={v}" for k, v in {**sides, **chosen}.items()] + list(self.settings)
        recipe = "identity" if self.work == "copy" else "nuclei"
        return ("--recipe", recipe, *(word for text in settings for word in ("--set", text)))

    def image(self) -> np.ndarray:
        """Pixels to start from."""
        if self.work == "bundled":
            return np.asarray(test_image_nuclei_2d())
        return draw_pixels(self.pixels)


class Library:
    """Images, networks and uninterrupted runs, each made once, by whoever needs it first.

    Parameters
    ----------
    folder : Path
        Where they lie; on a disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._wholes: dict[Journey, Snapshot] = {}
        self._paces_lock = threading.Lock()
        self._paces: dict[tuple[str, str, str], float] = {}

    def model(self, weights: int) -> Path:
        """Folder of a tiny network."""
        folder = self._folder / f"network-{weights}"
        with self._lock:
            if not folder.is_dir():
                save_model(folder, weights)
        return folder

    def image(self, journey: Journey) -> Path:
        """Image of a journey, on disk."""
        if journey.pixels == "mirrored":
            self.image(replace(journey, pixels="first"))
        folder = self._folder / f"{'real' if journey.work == 'bundled' else journey.pixels}"
        with self._lock:
            if not folder.is_dir():
                if journey.pixels == "mirrored":
                    # Only what changed is another object.
                    shutil.copytree(self._folder / "first", folder)
                save_image(folder / "image.zarr", journey.image(), journey.shard)
        return folder / "image.zarr"

    def pace(self, scene: Scene) -> float:
        """Seconds of an uninterrupted run from its first trace in OUT to its end."""
        key = (scene.journey.work, scene.scenario.store, scene.scenario.cluster)
        with self._paces_lock:
            if key not in self._paces:
                self._paces[key] = scene.measure()
        return self._paces[key]

    def learn(self, scene: Scene, *, in_time: bool) -> None:
        """Keep up with a machine that is busier or idler than when the pace was measured."""
        key = (scene.journey.work, scene.scenario.store, scene.scenario.cluster)
        with self._paces_lock:
            self._paces[key] *= 1.04 if in_time else 0.75

    def whole(self, journey: Journey, bench: Bench) -> Snapshot:
        """Uninterrupted run of a journey, on a disk and on a cluster of its own.

        Raises
        ------
        DefectError
            If not even that works.
        """
        image, model = self.image(journey), self.model(journey.weights)
        with self._lock:
            if journey not in self._wholes:
                out = self._folder / journey.name / "out.ome.zarr"
                size = ("--region", str(journey.shard), "--workers", "2")
                driver = bench.drive("run", str(image), str(out), *journey.words(str(model)), *size)
                code = driver.wait()
                if code != 0:
                    msg = f"the uninterrupted run ended with {code}: {driver.text()[-2000:]}"
                    raise DefectError(msg)
                snapshot = Snapshot.of(Location(str(out)))
                _check_content(journey, snapshot)
                self._wholes[journey] = snapshot
        return self._wholes[journey]


def _check_content(journey: Journey, snapshot: Snapshot) -> None:
    """Refuse a run that would show nothing: an image without objects passes every comparison.

    Raises
    ------
    DefectError
        If there is little in it.
    """
    rows = sum(table.num_rows for table in snapshot.tables.values())
    least = 0 if journey.work == "copy" else 60
    bright = all(array.any() for array in snapshot.arrays.values())
    if rows < least or not bright or len(snapshot.arrays) < 3 or snapshot.strays:
        msg = f"a run that shows something, found {rows} objects in {snapshot}"
        raise DefectError(msg)
