"""What the benchmarks share: the image, the case that all segment, and the machine they ran on."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import tifffile
from stardist.data import test_image_nuclei_2d

import engine
from engine.cluster import WORKER_ENVIRONMENT
from engine.demo.common import mirrored
from engine.device import Launch
from engine.methods.starconvex import BORDER, StarObjects, render, suppress
from engine.networks.model_folder import open_model
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.device import Precision
    from engine.networks.runtime import OpenNetwork
    from engine.planning import Plan

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PACKAGES = ("tilewright", "torch", "stardist", "monai", "dask", "zarr", "zarrs", "numpy")

#: Side of a pixel of the test image in micrometres, as in the demo.
PIXEL_SIZE_UM = 0.5


#: Share of all processors that others may use when a measurement starts.
QUIET = 0.08


@dataclass(frozen=True)
class Case:
    """One piece of work, the same for everyone.

    Parameters
    ----------
    image : str
        File of the normalised image, (Y, X) float32, in NumPy's format.
    model : str
        Name or folder of the network.
    precision : {"float32", "bfloat16"}
        Arithmetic of its convolutions; channels last in memory.
    tile, overlap : int
        Pixels.
    launch : int
        Tiles that go through the network at once.
    grid, rays : int
        Pixels per answer of the network on each axis, and distances per answer.
    prob, nms : float
        Thresholds.
    """

    image: str
    model: str
    precision: Precision
    tile: int
    overlap: int
    launch: int
    grid: int
    rays: int
    prob: float
    nms: float

    @classmethod
    def of_plan(cls, plan: Plan, image: Path) -> Case:
        """Take the settings of a run."""
        recipe, launch, model = plan.job.stardist, plan.job.launch, plan.job.model
        if launch is None or model is None:
            raise TypeError("a plan that segments has a launch and a model")
        segment, tiling = recipe.segment, recipe.tiling
        prob, nms = segment.prob_threshold, segment.nms_threshold
        if prob is None or nms is None:
            raise TypeError("the recipe of a plan has nothing left to choose")
        return cls(
            str(image), segment.model, launch.precision, tiling.tile, tiling.overlap, launch.tiles,
            model.config.grid[0], model.config.n_rays, prob, nms,
        )  # fmt: skip

    def save(self, path: Path) -> Path:
        """Write the case where another process finds it."""
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def load(cls, path: Path) -> Case:
        """Read a case."""
        return cls(**json.loads(path.read_text()))

    def network(self) -> OpenNetwork:
        """Load the network; sets one thread, which the caller may raise."""
        from engine.networks.runtime import open_network

        return open_network(open_model(self.model), Launch("cpu", self.precision, self.launch))


def label_whole(
    case: Case, prob: np.ndarray, rays: np.ndarray, extent: tuple[int, int]
) -> np.ndarray:
    """Candidates, suppression and rendering of a whole image, for those who only predict.

    Parameters
    ----------
    case : Case
        Thresholds.
    prob : ndarray of shape (y, x), float32
        Object probability, once per grid pixel.
    rays : ndarray of shape (R, y, x), float32
        Distances in pixels.
    extent : tuple of int
        (Y, X) of the image.

    Returns
    -------
    ndarray of shape (Y, X), int32
        Labels.
    """
    inner = np.zeros(prob.shape, bool)
    inner[BORDER:-BORDER, BORDER:-BORDER] = True
    points = np.argwhere(inner & (prob > case.prob))
    y, x = points.T
    lengths = np.ascontiguousarray(rays[:, y, x].T)
    objects = suppress(StarObjects(points * case.grid, prob[y, x], lengths), case.nms)
    return render(objects, Box.of_shape(extent))


def make_image(folder: Path, side: int) -> Path:
    """Ingest a mosaic of real nuclei, mirrored to side x side pixels, uint16; return its path."""
    image = folder / f"nuclei{side}.ome.zarr"
    if not image.exists():
        source = folder / f"nuclei{side}.tif"
        tifffile.imwrite(source, mirrored(test_image_nuclei_2d(), (side, side)))
        engine.ingest(source, image, pixel_size_um=PIXEL_SIZE_UM)
        source.unlink()
    return image


def child(script: str, *arguments: str, threads: int = 1) -> dict[str, Any]:
    """Run a script of this folder in a process of its own; return what it says in JSON.

    Its libraries take `threads` threads, and its allocator the settings of our workers.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
    settings = WORKER_ENVIRONMENT | dict.fromkeys(names, str(threads))
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments],
        env=os.environ | settings, check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed:\n{done.stderr[-4000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_bytes() -> int:
    """Largest resident size of this process, and of its largest child that has ended."""
    own, children = (
        resource.getrusage(who).ru_maxrss * 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own + children


def wait_for_quiet(patience_s: float) -> float:
    """Wait until nobody else computes; share of the processors that is busy at the end."""
    end = time.monotonic() + patience_s
    while True:
        busy = float(psutil.cpu_percent(interval=3)) / 100
        if busy < QUIET or time.monotonic() > end:
            return busy


def machine() -> dict[str, Any]:
    """Name what the numbers depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=HERE, check=False, capture_output=True, text=True,
    )  # fmt: skip
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def median(values: Sequence[float]) -> float:
    """Median, to milliseconds."""
    return round(float(np.median(values)), 3)


def save(path: Path, result: dict[str, Any]) -> Path:
    """Write a result."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path
