"""deploy/slurm/tilewright.sbatch in a real Slurm of one node: driver, scheduler and a worker."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from deployed import DEPLOY
from journeys import read, save_image
from slurm_node import missing, slurm_node

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

SIZE = ("--ntasks=2", "--cpus-per-task=1", "--mem-per-cpu=3000M", "--time=5")


def test_one_job_runs_a_recipe_and_says_what_it_lacks(tmp_path: Path, nuclei: np.ndarray) -> None:
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    root = tmp_path / "project"
    root.mkdir()
    (root / ".venv").symlink_to(Path(sys.prefix))
    (root / "deploy").symlink_to(DEPLOY)
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm_node(Path(folder)) as node:
        env = os.environ | {"SLURM_CONF": str(node.config), "TILEWRIGHT_ROOT": str(root)}

        def submit(*words: str) -> tuple[int, str]:
            script = str(DEPLOY / "slurm" / "tilewright.sbatch")
            answer = subprocess.run(
                ["sbatch", "--wait", *SIZE, f"--output={tmp_path}/log", script, *words],
                env=env, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200,
            )  # fmt: skip
            return answer.returncode, (tmp_path / "log").read_text()

        code, log = submit(str(image), "out.ome.zarr", "--recipe", "identity")
        assert code == 0, log
        assert "done" in log
        code, log = submit(str(image))
        assert code == 2, log
        assert "usage: sbatch" in log
        assert node.jobs() == []
    assert not list(tmp_path.glob(".tilewright-scheduler*"))
    assert np.array_equal(read(tmp_path / "out.ome.zarr", "0"), nuclei)
