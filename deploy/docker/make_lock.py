"""Write the lock files of the images: `python deploy/docker/make_lock.py`, from the project's folder.

pip resolves the project with the extra `gateway` under constraints.txt, as PyPI offers it, without
installing anything. Of what it finds come three files with exact versions:

requirements.lock
    What a worker needs, on a CPU.
requirements-cuda.lock
    What torch's CUDA build needs besides.
requirements-lean.lock
    What a scheduler or a driver needs: no torch and nothing that only it, MONAI or StarDist need.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER = Path(__file__).parent
PROJECT = "tilewright"
#: Dependencies of the project that only computing needs.
COMPUTING = frozenset({"torch", "monai", "stardist"})
CUDA = ("nvidia-", "cuda-", "triton")

#: name: (version, names of what it requires)
Resolved = dict[str, tuple[str, frozenset[str]]]


def resolve() -> Resolved:
    """Ask pip what it would install."""
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    wanted = ["--constraint", "constraints.txt", ".[gateway]"]
    command = [sys.executable, "-m", "pip", "install", *options, *wanted]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=FOLDER.parents[1])
    items: list[dict[str, Any]] = json.loads(report.stdout)["install"]
    return {
        canonicalize_name(item["metadata"]["name"]): (
            Version(item["metadata"]["version"]).public,
            _needs(item["metadata"].get("requires_dist", []), item.get("requested_extras", [])),
        )
        for item in items
    }


def _needs(requirements: Iterable[str], extras: Iterable[str]) -> frozenset[str]:
    """Names of those requirements that apply here."""
    parsed = [Requirement(text) for text in requirements]
    environments = [{"extra": extra} for extra in ("", *extras)]
    return frozenset(
        canonicalize_name(each.name)
        for each in parsed
        if each.marker is None or any(each.marker.evaluate(place) for place in environments)
    )


def closure(resolved: Resolved, without: frozenset[str]) -> set[str]:
    """Everything that the project needs if it did not need `without`."""
    found: set[str] = set()
    ahead = {PROJECT}
    while ahead:
        found |= ahead
        needed = set().union(*(resolved[name][1] for name in ahead))
        ahead = (needed & resolved.keys()) - without - found
    return found - {PROJECT}


def write(name: str, title: str, packages: Iterable[str], resolved: Resolved) -> None:
    """One lock file, in alphabetical order."""
    lines = [f"{package}=={resolved[package][0]}" for package in sorted(packages)]
    head = [f"# {title}", "# Made by make_lock.py from constraints.txt; do not edit."]
    (FOLDER / name).write_text("\n".join([*head, *lines]) + "\n")


def main() -> None:
    """Resolve once, write three files."""
    resolved = resolve()
    cuda = {name for name in resolved if name.startswith(CUDA)}
    if not cuda:
        sys.exit(
            "pip chose a CPU build of torch: resolve from PyPI alone, without an index or find-links "
            "of your own (PIP_FIND_LINKS, pip.conf), since requirements-cuda.lock comes of it too"
        )
    everything = resolved.keys() - cuda - {PROJECT}
    write("requirements.lock", "What a worker needs.", everything, resolved)
    write("requirements-cuda.lock", "What torch's CUDA build needs besides.", cuda, resolved)
    lean = closure(resolved, COMPUTING)
    write("requirements-lean.lock", "What a scheduler or a driver needs.", lean, resolved)


if __name__ == "__main__":
    main()
