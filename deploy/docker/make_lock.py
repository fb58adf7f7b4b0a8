"""Write the lock files of the images: `python deploy/docker/make_lock.py`.

pip resolves the project with the extra `gateway` under constraints.txt, as PyPI offers it, without
installing anything. Of what it finds come three files with exact versions:

requirements.lock
    What a worker or a driver needs, on a CPU.
requirements-cuda.lock
    What torch's CUDA build needs besides.
requirements-scheduler.lock
    What a scheduler needs: it reads tasks, which import no torch and nothing that only computing
    or foreign images need.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

FOLDER = Path(__file__).parent
PROJECT = "tilewright"
EXTRAS = frozenset({"gateway"})
#: Dependencies of the project that no scheduler imports.
COMPUTING = frozenset(
    {"torch", "monai", "stardist", "scikit-image", "h5py", "xarray", "ome-zarr", "zarrs"}
)
CUDA = ("nvidia-", "cuda-", "triton")


@dataclass(frozen=True)
class Package:
    """What pip chose: its version, and everything that it may require."""

    version: str
    requirements: tuple[Requirement, ...]

    def needs(self, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
        """Name and extras of each requirement that applies here."""
        for each in self.requirements:
            marker = each.marker
            if marker is None or any(marker.evaluate({"extra": e}) for e in ("", *extras)):
                yield canonicalize_name(each.name), frozenset(each.extras)


def resolve() -> dict[str, Package]:
    """Ask pip what it would install."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    wanted = ["--constraint", "constraints.txt", f".[{','.join(EXTRAS)}]"]
    command = [sys.executable, "-m", "pip", "install", *options, *wanted]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=FOLDER.parents[1])
    chosen: list[dict[str, Any]] = [
        each["metadata"] for each in json.loads(report.stdout)["install"]
    ]
    return {
        canonicalize_name(each["name"]): Package(
            Version(each["version"]).public,
            tuple(Requirement(text) for text in each.get("requires_dist", [])),
        )
        for each in chosen
    }


def closure(packages: dict[str, Package], without: frozenset[str]) -> set[str]:
    """Everything that the project needs if it did not need `without`."""
    found: set[tuple[str, frozenset[str]]] = set()
    ahead = {(PROJECT, EXTRAS)}
    while ahead:
        found |= ahead
        needed = {need for name, extras in ahead for need in packages[name].needs(extras)}
        ahead = {need for need in needed - found if need[0] not in without}
    return {name for name, _ in found} - {PROJECT}


def write(name: str, title: str, packages: Iterable[str], resolved: dict[str, Package]) -> None:
    """One lock file, in alphabetical order."""
    lines = [f"{package}=={resolved[package].version}" for package in sorted(packages)]
    head = [f"# {title}", "# Made by make_lock.py from constraints.txt; do not edit."]
    (FOLDER / name).write_text("\n".join([*head, *lines]) + "\n")


def main() -> None:
    """Resolve once, write three files."""
    resolved = resolve()
    cuda = {name for name in resolved if name.startswith(CUDA)}
    if not cuda:
        sys.exit(
            "pip chose a CPU build of torch: resolve from PyPI alone, without an index or links of "
            "your own (PIP_FIND_LINKS, pip.conf), since requirements-cuda.lock comes of it too"
        )
    everything = resolved.keys() - cuda - {PROJECT}
    write("requirements.lock", "What a worker or a driver needs, on a CPU.", everything, resolved)
    write("requirements-cuda.lock", "What torch's CUDA build needs besides.", cuda, resolved)
    scheduler = closure(resolved, COMPUTING)
    write("requirements-scheduler.lock", "What a scheduler needs.", scheduler, resolved)


if __name__ == "__main__":
    main()
