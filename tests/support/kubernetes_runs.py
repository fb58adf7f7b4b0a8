"""Runs whose workers are pods: images and results where both see them, compared with runs here."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from deployed import Document, documents
from kubernetes_target import ask, image, kubectl, missing, objects, until, version

from engine.store import Location

#: Of all tests on a Kubernetes.
MARKS = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

#: Selects what is ours.
OURS = "app.kubernetes.io/part-of=tilewright"

#: Of the gateway that the tests start; one of the cluster has its own.
PASSWORD = {"DASK_GATEWAY__AUTH__KWARGS__PASSWORD": "only for tests"}

#: Kinds that the operator knows.
CLUSTERS = "daskclusters.kubernetes.dask.org"
DASK = ("DaskCluster", "DaskAutoscaler")

#: A cut of many regions, and pixels that do not depend on it.
SETTINGS = (
    *("--recipe", "nuclei", "--set", "storage.chunk=128", "--set", "storage.shard=256"),
    *("--set", "tiling.tile=256", "--set", "segment.precision=float32", "--region", "256"),
)


@dataclass(frozen=True)
class Shelf:
    """Where pods and this machine find images and results.

    Parameters
    ----------
    place : Location
        Seen by both.
    variables : dict
        With which they see it.
    image : str
        Its image.
    whole : Location
        Result of a run of this machine, never interrupted.
    """

    place: Location
    variables: dict[str, str]
    image: str
    whole: Location


Start = Callable[..., "Run"]


class Run:
    """A run of the command line, in a process of its own."""

    def __init__(
        self,
        source: str,
        out: Location,
        *words: str,
        settings: tuple[str, ...] = SETTINGS,
        **variables: str,
    ) -> None:
        self.out = out
        # The client of Kubernetes knows newer servers only.
        quiet = {"PYTHONWARNINGS": "ignore:Kubernetes version:UserWarning", "OMP_NUM_THREADS": "1"}
        quiet["PYTHONFAULTHANDLER"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine.cli", "run", source, str(out), *settings, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, **quiet, **PASSWORD, **variables},
        )  # fmt: skip

    def wait_for_records(self, count: int) -> None:
        def enough() -> bool:
            assert self.process.poll() is None, self.process.communicate()
            return records(self.out) >= count

        until(enough, 180, f"{count} records")

    def finish(self) -> None:
        text, errors = self.process.communicate(timeout=300)
        assert self.process.returncode == 0, text + errors
        assert errors == ""

    def end(self) -> None:
        """Stop it, where a test left it, as a user would."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                # Says where it hangs, by faulthandler.
                self.process.send_signal(signal.SIGABRT)
                sys.stderr.write("".join(self.process.communicate()))

    def refuses(self, *fragments: str, within_s: float = 60) -> None:
        """Assert one message with all fragments, and nothing written."""
        text, errors = self.process.communicate(timeout=within_s)
        assert self.process.returncode == 2, text + errors
        assert errors.count("\n") == 1, errors
        for fragment in ("expected", "found", *fragments):
            assert fragment in errors, errors
        assert not self.out.exists()


def records(out: Location) -> int:
    """How many record objects a run has so far."""
    if not out.exists():
        return 0
    return sum(name.endswith(".jsonl") for name, _ in (out / ".tilewright" / "records").walk())


def same(first: Location, second: Location) -> None:
    """Assert that all pixels are stored with the same bytes."""
    for folder in ("labels", "maps"):
        names = sorted(name for name, _ in (first / folder).walk())
        assert names == sorted(name for name, _ in (second / folder).walk())
        assert any("/c/" in name for name in names)
        for name in names:
            ours, theirs = ((each / folder / name).read_bytes() for each in (first, second))
            assert ours == theirs or name.endswith("zarr.json"), f"{folder}/{name}"


def on_kubernetes(namespace: str, *settings: str) -> list[str]:
    """Words of a run whose workers the operator starts."""
    size = (f"image={image()}", "worker_memory_gib=2", "worker_cores=1", "pass_environment=AWS_*")
    named = (f"namespace={namespace}", *size, *settings)
    words = [word for setting in named for word in ("--cluster-set", setting)]
    return ["--cluster", "kubernetes", *words]


def served(text: str) -> list[Document]:
    """Documents as this server knows them: fields of later versions are left out."""
    found = []
    for document in documents(text):
        each = json.loads(json.dumps(document))
        if each["kind"] == "PodDisruptionBudget" and version() < (1, 27):
            each["spec"].pop("unhealthyPodEvictionPolicy", None)
            each["apiVersion"] = "policy/v1" if version() >= (1, 21) else "policy/v1beta1"
        if each["kind"] == "Job" and version() < (1, 29):
            del each["spec"]["podReplacementPolicy"], each["spec"]["podFailurePolicy"]
        found.append(each)
    return found


def apply(found: list[Document], *words: str) -> str:
    """Have the server take documents, which it validates."""
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": found})
    return kubectl("apply", "--validate=true", "--filename=-", *words, text=listed)


def pods(namespace: str, selector: str = "") -> list[Document]:
    """Pods that are not on their way out."""
    found = objects("pods", namespace, selector)
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def delete_pod(pod: Document) -> None:
    """Let a pod go as a node that is lost takes it: without a word to it."""
    metadata = pod["metadata"]
    where = ("--namespace", metadata["namespace"], "delete", "pod", metadata["name"])
    kubectl(*where, "--grace-period=0", "--force")


def evict(pod: Document) -> str:
    """Ask that a pod leaves its node, as a drain does; why not, where a budget keeps it."""
    metadata = pod["metadata"]
    document = {
        "apiVersion": "policy/v1" if version() >= (1, 22) else "policy/v1beta1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }
    place = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/eviction"
    answer = ask("create", f"--raw={place}", "--filename=-", text=json.dumps(document))
    return answer.stderr


def save(folder: Path, place: Location) -> None:
    """Bring the files of a folder to a place that pods see."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (place / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


def counted(namespace: str) -> int:
    """How many quotas of a namespace have been counted; until then they refuse every pod."""
    found = objects("resourcequotas", namespace)
    return sum("used" in each.get("status", {}) for each in found)


def all_gone(namespace: str) -> bool:
    """Whether no Dask cluster and no pod is left."""
    return not objects(CLUSTERS, namespace) and not objects("pods", namespace)


def budgets(namespace: str) -> dict[str, tuple[int, int]]:
    """Pods that each disruption budget selects, and may go, as Kubernetes counts them."""
    found = {}
    for each in objects("poddisruptionbudgets", namespace):
        status = each.get("status", {})
        counts = (status.get("expectedPods", 0), status.get("disruptionsAllowed", 0))
        found[each["metadata"]["name"].removeprefix("tilewright-")] = counts
    return found
