"""A run through a real Slurm of one node: the same result as here; `make test-slurm`."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from journeys import Runner, read, save_image
from slurm_node import Node, missing, slurm_node

pytest.importorskip("dask_jobqueue", reason="needs the extra slurm")

from command_line import Command, commands_in

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

WORDS = (
    *("--recipe", "nuclei", "--set", "storage.chunk=128", "--set", "storage.shard=256"),
    *("--set", "tiling.tile=256", "--set", "segment.precision=float32", "--region", "256"),
    *("--cluster", "slurm", "--cluster-set", "host=127.0.0.1", "--workers", "2"),
    *("--cluster-set", "worker_memory_gib=3", "--cluster-set", "walltime=10:00"),
)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    # Its sockets have names of at most 108 characters.
    with tempfile.TemporaryDirectory(prefix="slurm") as folder, slurm_node(Path(folder)) as found:
        yield found


@pytest.fixture
def tilewright(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    monkeypatch.setenv("SLURM_CONF", str(node.config))
    return commands_in(tmp_path, monkeypatch, capsys)


def gone(node: Node) -> bool:
    deadline = time.monotonic() + 30
    while node.jobs() and time.monotonic() < deadline:
        time.sleep(0.3)
    return not node.jobs()


def test_a_run_through_slurm_is_as_one_here(
    node: Node, tilewright: Command, tmp_path: Path, run_recipe: Runner, nuclei: np.ndarray
) -> None:
    image = save_image(tmp_path / "image.ome.zarr", nuclei)
    settings = ("segment.precision=float32", "resources.region=256")
    assert run_recipe(image, tmp_path / "here.ome.zarr", *settings).complete
    # Jobs run in the folder of who submits them, and write there where nothing else is said.
    answer = tilewright(
        *("run", "image.ome.zarr", "there.ome.zarr"), *WORDS,
        *("--cluster-set", "partition=short", "--cluster-set", f"log_folder={tmp_path}/logs"),
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.err == ""
    for name in ("labels/nuclei/0", "labels/nuclei/1", "maps/probability/0"):
        ours, theirs = (read(tmp_path / f"{k}.ome.zarr", name) for k in ("here", "there"))
        assert np.array_equal(ours, theirs), name
    assert ours.any()
    assert gone(node)


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (("partition=night",), ("takes the job", "invalid partition", "`sinfo`")),
        (("worker_cores=99",), ("takes the job", "configuration is not available")),
    ],
)
def test_what_slurm_does_not_take(
    node: Node, tilewright: Command, nuclei: np.ndarray, settings: tuple[str], messages: tuple[str]
) -> None:
    save_image(Path("image.ome.zarr"), nuclei)
    words = [word for setting in settings for word in ("--cluster-set", setting)]
    started = time.monotonic()
    tilewright("run", "image.ome.zarr", "OUT.ome.zarr", *WORDS, *words).refuses(*messages)
    assert time.monotonic() - started < 15
    assert node.jobs() == []


def test_no_worker_in_time(node: Node, tilewright: Command, nuclei: np.ndarray) -> None:
    save_image(Path("image.ome.zarr"), nuclei)
    words = ("--cluster-set", "wait_s=0.5")
    answer = tilewright("run", "image.ome.zarr", "OUT.ome.zarr", *WORDS, *words)
    assert answer.code == 2, answer
    assert "at least one worker within 0.5 s" in answer.err
    assert "squeue --me" in answer.err
    assert not Path("OUT.ome.zarr").exists()
    assert gone(node)
