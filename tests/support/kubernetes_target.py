"""The Kubernetes that KUBECONFIG names, as tests use it; `make test-kubernetes`."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pod_sandbox
import pytest
from object_store import KEYS, moto_server, s3_client

from engine.store import Location

Document = dict[str, Any]

#: Label of the node that kubelet.py is: its pods reach this machine, and have its files as image.
OURS = "tilewright/processes"

BUCKET = "test-kubernetes"


def missing() -> str:
    """Why the tests cannot run here, or nothing."""
    if os.environ.get("TEST_KUBERNETES") is None:
        return "runs with `make test-kubernetes`: it makes things on a Kubernetes"
    if not os.environ.get("KUBECONFIG"):
        return "needs a Kubernetes: set KUBECONFIG; deploy/README.md says how to have one here"
    if shutil.which("kubectl") is None:
        return "needs kubectl, which is not on PATH"
    answer = ask("get", "--raw=/version", "--request-timeout=5s")
    if answer.returncode != 0:
        return f"no Kubernetes answers at KUBECONFIG={os.environ['KUBECONFIG']}: {answer.stderr}"
    if not is_ours() and not (os.environ.get("IMAGE") and os.environ.get("STORE")):
        return "needs IMAGE=registry/tilewright:TAG STORE=s3://bucket/prefix, which its pods reach"
    return ""


def kubectl(*words: str, text: str | None = None) -> str:
    """What kubectl says; an error where it fails."""
    answer = ask(*words, text=text)
    assert answer.returncode == 0, f"kubectl {' '.join(words)}: {answer.stderr}"
    return answer.stdout


def ask(*words: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Answer of kubectl, whatever it is."""
    return subprocess.run(
        ["kubectl", *words], input=text, capture_output=True, text=True, check=False
    )


def objects(kind: str, namespace: str, selector: str = "") -> list[Document]:
    """Objects of a kind, with labels."""
    words = ("get", kind, "--output=json", f"--selector={selector}")
    items: list[Document] = json.loads(kubectl("--namespace", namespace, *words))["items"]
    return items


def until(true: Callable[[], object], within_s: float, what: str) -> None:
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come within {within_s:g} s"
        time.sleep(0.3)


@cache
def is_ours() -> bool:
    """Whether pods are processes of this machine, see kubelet.py."""
    return bool(json.loads(kubectl("get", "nodes", f"--selector={OURS}", "--output=json"))["items"])


@cache
def version() -> tuple[int, int]:
    """Version of the server."""
    found = json.loads(kubectl("get", "--raw=/version"))
    return int(found["major"]), int(found["minor"].rstrip("+"))


def image() -> str:
    return os.environ.get("IMAGE") or "ghcr.io/tilewright/tilewright:0.1.0"


@contextmanager
def store() -> Iterator[tuple[Location, dict[str, str]]]:
    """Place that this machine and pods see alike, and the variables with which they do."""
    given = os.environ.get("STORE")
    with ExitStack() as stack:
        names = dict(os.environ)
        if not given:
            address = stack.enter_context(moto_server(pod_sandbox.HOST))
            s3_client(address).create_bucket(Bucket=BUCKET)
            given = f"s3://{BUCKET}/run"
            own = KEYS | {"AWS_ENDPOINT_URL": address, "AWS_EC2_METADATA_DISABLED": "true"}
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in own.items():
                patch.setenv(name, value)
            names |= own
        place = Location.parse(given) / f"test-{os.getpid()}"
        yield place, {name: value for name, value in names.items() if name.startswith("AWS_")}
        place.remove()


def has_operator() -> bool:
    """Whether the cluster has an operator of its own."""
    return ask("get", "crd/daskclusters.kubernetes.dask.org").returncode == 0


@contextmanager
def definitions() -> Iterator[None]:
    """The operator's custom resources, which ship with its package; nobody looks after them."""
    files = _definitions()
    names = [f"crd/{path.stem}s.kubernetes.dask.org" for path in files]
    for path in files:
        kubectl("create", f"--filename={path}")
    try:
        kubectl("wait", "--for=condition=Established", *names)
        yield
    finally:
        kubectl("delete", "--timeout=60s", *names)


#: Dask's operator with the rights of an administrator; its chart has narrower ones.
OPERATOR = """
apiVersion: v1
kind: Namespace
metadata: {name: dask-operator}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: dask-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: default, namespace: dask-operator}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: dask-operator, namespace: dask-operator}
spec:
  selector: {matchLabels: {app: dask-operator}}
  template:
    metadata: {labels: {app: dask-operator}}
    spec:
      containers:
        - name: operator
          image: ghcr.io/tilewright/tilewright:0.1.0
          args:
            - kopf
            - run
            - --all-namespaces
            - --liveness=http://0.0.0.0:8080/healthz
            - -m
            - dask_kubernetes.operator.controller
          readinessProbe: {httpGet: {port: 8080, path: /healthz}, periodSeconds: 1}
          # Its client knows newer servers only.
          env: [{name: PYTHONWARNINGS, value: "ignore:Kubernetes version:UserWarning"}]
"""


@contextmanager
def operator() -> Iterator[None]:
    """Dask's operator: the cluster's own, or one in a pod of this machine until the block ends."""
    if has_operator():
        yield
        return
    if not is_ours():
        pytest.skip("needs Dask's operator: deploy/README.md says how to install it")
    with definitions():
        kubectl("apply", "--filename=-", text=OPERATOR)
        try:
            ready = ("rollout", "status", "deployment/dask-operator", "--timeout=60s")
            kubectl("--namespace", "dask-operator", *ready)
            yield
        finally:
            # Not before its clusters are gone: it keeps them until it has seen that they end.
            kubectl("delete", "--filename=-", "--timeout=60s", text=OPERATOR)


def _definitions() -> list[Path]:
    """Files of the operator's custom resources, which ship with its package."""
    found = find_spec("dask_kubernetes")
    assert found is not None
    assert found.submodule_search_locations
    (root,) = found.submodule_search_locations
    chart = Path(root) / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
    return sorted((chart / "crds").glob("dask*.yaml"))
