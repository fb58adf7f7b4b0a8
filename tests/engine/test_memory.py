"""What a worker takes is what was projected."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from journeys import save_image

from engine.planning import make_plan
from engine.planning.cost import worker_bytes
from engine.recipe import load_settings

WORKER = """
import pickle, sys
from engine.device import resident_peak
from engine.pixels import save_levels
from engine.running.outputs import create_arrays
from engine.statistics import freeze
from engine.tasks import compute
from tiling import Box, Region
with open(sys.argv[1], "rb") as file:
    job = pickle.load(file)
first = job.statistics_pass("statistics")
for cell in first.grid:
    compute(job, first, cell)
save_levels(job, freeze(job, list(first.grid)))
create_arrays(job)
part = Region((), Box((512, 512), (2560, 2560)))
for step in job.passes():
    if step.kind in ("regions", "repair"):
        compute(job, step, part)
sys.stdout.write(str(resident_peak()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "over"), [("nuclei", "image"), ("nuclei", "local"), ("mitochondria", "image")]
)
def test_a_worker_stays_within_what_was_projected(
    tmp_path: Path, nuclei: np.ndarray, recipe: str, over: str
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", np.tile(nuclei, (6, 6)))
    words = ["storage.chunk=256", "storage.shard=512", "resources.workers=1"]
    words += [f"normalise.over={over}", "resources.region=2048"]
    if over == "local":
        words += ["normalise.cell=512"]
    plan = make_plan(str(image), tmp_path / "OUT.ome.zarr", load_settings(recipe, words))
    (tmp_path / "job").write_bytes(pickle.dumps(plan.job))
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(tmp_path / "job")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    measured, projected = int(done.stdout), worker_bytes(plan.job, 2048, 1)
    assert measured <= projected <= 3 * measured, (measured / 2**20, projected / 2**20)
