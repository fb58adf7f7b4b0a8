"""What lies in deploy/: documents, rendered overlays, pods, and the rules that pods keep."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
OVERLAYS = ("cpu", "gpu", "spot", "s3")

Document = dict[str, Any]


@cache
def documents(text: str) -> tuple[Document, ...]:
    """Documents of a YAML text, without empty ones; not to be changed."""
    return tuple(each for each in yaml.load_all(text, yaml.CSafeLoader) if each)


@cache
def rendered(overlay: str) -> str:
    """Text of an overlay as `kubectl apply -k` would send it."""
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, whose kustomize renders overlays; it is not on PATH")
    folder = DEPLOY / "k8s" / "overlays" / overlay
    answer = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert not answer.stderr, answer.stderr
    return answer.stdout


def kinds(text: str, *wanted: str) -> list[Document]:
    """Documents of some kinds."""
    return [each for each in documents(text) if each["kind"] in wanted]


def named(text: str, kind: str, name: str) -> Document:
    """The one document of a kind and a name."""
    (found,) = (each for each in kinds(text, kind) if each["metadata"]["name"] == name)
    return found


def pods(document: Document) -> Iterator[tuple[str, Document]]:
    """Pods that a document leads to, as Kubernetes would see them."""
    name, spec = document["metadata"]["name"], document.get("spec", {})
    if document["kind"] == "Job":
        yield name, {"metadata": {"name": name}, "spec": spec["template"]["spec"]}
    if document["kind"] == "DaskCluster":
        for role in ("worker", "scheduler"):
            full = f"{name}-{role}"
            yield full, {"metadata": {"name": full}, "spec": spec[role]["spec"]}


def as_pod(pod: Document) -> Document:
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def containers(pod: Document) -> list[Document]:
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def words(container: Document) -> list[str]:
    """Command of a container with its variables filled in; what has none stays."""
    known = {each["name"]: each.get("value", "") for each in container.get("env", [])}
    texts = [*container.get("command", []), *container.get("args", [])]
    return [re.sub(r"\$\((\w+)\)", lambda m: known.get(m[1], m[0]), text) for text in texts]


def beyond_restricted(pod: Document) -> list[str]:
    """What of a pod the Pod Security Standard `restricted` would refuse, of what concerns us."""
    spec, wrong = pod["spec"], []
    security = spec.get("securityContext", {})
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        wrong.append("seccompProfile")
    if not security.get("runAsNonRoot") or security.get("runAsUser") == 0:
        wrong.append("runAsNonRoot")
    wrong += [k for k in ("hostNetwork", "hostPID", "hostIPC") if spec.get(k)]
    allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
    for volume in spec.get("volumes", []):
        wrong += [f"volume {kind}" for kind in volume.keys() - {"name"} - allowed]
    for container in containers(pod):
        inner = container.get("securityContext", {})
        if inner.get("allowPrivilegeEscalation") is not False:
            wrong.append(f"{container['name']}: allowPrivilegeEscalation")
        if "ALL" not in inner.get("capabilities", {}).get("drop", []):
            wrong.append(f"{container['name']}: capabilities")
    return wrong
