"""What the tests on a Kubernetes share: its namespace, operator, images."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from deployed import rendered
from journeys import save_image
from kubernetes_runs import DASK, Run, Shelf, Start, apply, counted, save, served
from kubernetes_target import kubectl, operator, store, until

from engine.store import Location

SPACE = "tilewright"


@pytest.fixture(scope="session")
def namespace() -> Iterator[str]:
    """The namespace of deploy/k8s/base, without driver and Dask cluster."""
    if f"namespace/{SPACE}" in kubectl("get", "namespaces", "--output=name").split():
        pytest.skip(f"needs a Kubernetes without a namespace {SPACE}: it makes, and deletes, one")
    found = [each for each in served(rendered("s3")) if each["kind"] not in ("Job", *DASK)]
    apply([each for each in found if each["kind"] == "Namespace"])
    try:
        apply(found, "--dry-run=server")
        apply(found)
        # A quota refuses pods until it has counted; accounts need their controller.
        until(lambda: counted(SPACE) == 1, 30, "the quota")
        yield SPACE
    finally:
        kubectl("delete", "namespace", SPACE, "--timeout=120s")


@pytest.fixture(scope="session")
def dask_operator(namespace: str) -> Iterator[None]:
    with operator():
        yield


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray) -> Iterator[Shelf]:
    folder = tmp_path_factory.mktemp("shelf")
    pixels = np.pad(nuclei, [(0, 1100 - 512), (0, 1200 - 512)], mode="symmetric")
    local = save_image(folder / "image.ome.zarr", pixels)
    whole = Location.parse(folder / "whole.ome.zarr")
    Run(str(local), whole, "--workers", "2").finish()
    with store() as (place, variables):
        save(local, place / local.name)
        yield Shelf(place, variables, f"{place}/{local.name}", whole)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start runs, which end with the test."""
    started: list[Run] = []

    def run(*words: Any, **options: Any) -> Run:
        started.append(Run(*words, **options))
        return started[-1]

    yield run
    for each in started:
        each.end()
