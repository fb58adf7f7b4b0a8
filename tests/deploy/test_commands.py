"""Commands of manifests, images and scripts are those of our command line and of Dask."""

import re
import shlex
from typing import Any

import pytest
import typer.main
from dask.config import collect_yaml
from deployed import DEPLOY, OVERLAYS, containers, documents, pods, rendered, words
from distributed.cli import dask_scheduler, dask_worker

from engine.cli.main import app
from engine.cluster import WORKER_ENVIRONMENT
from engine.cluster.configuration import DASK_SETTINGS

SCRIPTS = ("slurm/tilewright.sbatch", "docker/Dockerfile.cpu", "docker/Dockerfile.gpu")


def parse(text: list[str]) -> dict[str, Any]:
    """Parameters of a command, parsed by the program that it names; nothing runs."""
    program, *rest = text
    if program == "tilewright":
        command = typer.main.get_command(app).commands[rest[0]]  # type: ignore[attr-defined]
    else:
        assert program == "dask"
        module = {"scheduler": dask_scheduler, "worker": dask_worker}[rest[0]]
        command = module.main
    context = command.make_context(rest[0], rest[1:])
    found: dict[str, Any] = context.params
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_of_pods_parse(overlay: str) -> None:
    pairs = [pod for each in documents(rendered(overlay)) for pod in pods(each)]
    seen = []
    for _, pod in pairs:
        for container in containers(pod):
            text = words(container)
            if text[0] == "python":
                compile(text[2], "wait", "exec")
                continue
            seen.append((container["name"], parse(text)))
    assert sorted(name for name, _ in seen) == ["driver", "scheduler", "worker"]
    found = dict(seen)
    assert found["driver"]["device"] == ("cuda" if overlay == "gpu" else "cpu")
    kind = "gpu" if overlay == "gpu" else "cpu"
    address = f"tcp://tilewright-{kind}-scheduler.tilewright.svc:8786"
    assert found["driver"]["cluster"] == address
    assert found["driver"]["image"].startswith("s3://" if overlay == "s3" else "/data/")
    assert found["scheduler"]["port"] == "8786"


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_commands_of_images_parse(kind: str) -> None:
    text = (DEPLOY / "docker" / f"Dockerfile.{kind}").read_text()
    lines = re.findall(r"^CMD (.*)$", text, re.MULTILINE)
    found = [re.findall(r'"([^"]*)"', line) for line in lines]
    roles = ["scheduler", "worker"] if kind == "cpu" else ["worker"]
    assert [each[:2] for each in found] == [["dask", role] for role in roles]
    for each in found:
        # Without the scheduler's address, which containers have in their environment.
        parse([*each, "tcp://127.0.0.1:8786"] if each[1] == "worker" else each)


def test_commands_of_the_batch_script_parse() -> None:
    text = (DEPLOY / "slurm" / "tilewright.sbatch").read_text().replace("\\\n", " ")
    found = re.findall(r'"\$bin/(dask|tilewright)" (.*?) &$', text, re.MULTILINE)
    assert [program for program, _ in found] == ["dask", "dask", "tilewright"]
    for program, rest in found:
        rest = re.sub(r"\$\(\(.*?\)\)", "4096", rest)
        rest = rest.replace('"$@"', "IMAGE OUT").replace('"$address"', "tcp://127.0.0.1:8786")
        parse([program, *shlex.split(rest)])


@pytest.mark.parametrize("name", SCRIPTS)
def test_environment_is_that_of_workers(name: str) -> None:
    text = (DEPLOY / name).read_text()
    found = dict(re.findall(r"\b((?:OMP|MKL|OPENBLAS|NUMBA|MALLOC)\w+)=(\S+)", text))
    assert {name: found.get(name) for name in WORKER_ENVIRONMENT} == WORKER_ENVIRONMENT


@pytest.mark.parametrize("name", ["slurm/tilewright.sbatch", "local/dask_gateway_config.py"])
def test_dask_reads_the_file_and_writes_nothing_beside_it(name: str) -> None:
    # Given a folder, dask-gateway and dask-kubernetes would put their defaults there.
    lines = [line for line in (DEPLOY / name).read_text().splitlines() if "DASK_CONFIG" in line]
    assert len(lines) == 1
    assert "config.yaml" in lines[0]
    assert [each.name for each in (DEPLOY / "dask").iterdir()] == ["config.yaml"]


def test_dask_settings_are_those_of_clusters_that_we_start() -> None:
    (ours,) = collect_yaml([str(DEPLOY / "dask")])
    said: dict[str, Any] = {}

    def flatten(values: dict[str, Any], before: str) -> None:
        for key, value in values.items():
            name = f"{before}{key}"
            if isinstance(value, dict) and not name.endswith("pre-spawn-environ"):
                flatten(value, f"{name}.")
            else:
                said[name] = value

    flatten(ours, "")
    assert said.pop("distributed.nanny.pre-spawn-environ") == WORKER_ENVIRONMENT
    for name in ("allowed-failures", "worker-ttl"):
        full = f"distributed.scheduler.{name}"
        assert said[full] == DASK_SETTINGS[full]
    for name, value in DASK_SETTINGS.items():
        if name.startswith(("distributed.worker.memory", "distributed.comm")):
            assert said[name] == value
