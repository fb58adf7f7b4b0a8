"""Why pods of a cluster on Kubernetes do not come, and what the operator is told."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stub import Stub, kubernetes_stub

from engine.cluster import ClusterSpec, check_cluster
from engine.cluster.forwarding import forwarded
from engine.cluster.kubernetes import cluster_description
from engine.cluster.operated import Operated, _kept_from, _ready, _waits_for
from engine.errors import ResourceError
from engine.recipe.clusters import load_cluster_settings

pytest.importorskip("dask_kubernetes", reason="needs the extra kubernetes")

UNPLACED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1 nodes are available: 1 Insufficient memory.",
}


def pod(*conditions: dict[str, str], **state: Any) -> dict[str, Any]:
    containers = [{"name": "worker", "state": state}] if state else []
    status = {"phase": "Pending", "conditions": [*conditions], "containerStatuses": containers}
    return {"status": status}


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (pod(UNPLACED), "no node for a pod: 0/1 nodes are available: 1 Insufficient memory."),
        (
            pod(waiting={"reason": "ImagePullBackOff", "message": "not found"}),
            "ImagePullBackOff: not found",
        ),
        (pod(waiting={"reason": "ContainerCreating"}), "ContainerCreating"),
        (pod(running={}), "a pod that is pending and not ready"),
        ({}, "a pod that is unknown and not ready"),
    ],
)
def test_what_a_pod_waits_for(found: dict[str, Any], told: str) -> None:
    assert _waits_for(found) == told


def test_what_keeps_a_deployment_from_making_pods() -> None:
    message = 'pods "a" is forbidden: exceeded quota: small'
    failure = {"type": "ReplicaFailure", "status": "True", "message": message}
    assert _kept_from({"status": {"conditions": [failure]}}) == message
    assert _kept_from({"status": {"conditions": [failure | {"status": "False"}]}}) == ""
    assert _kept_from({}) == ""


def test_ready_pods() -> None:
    class Found:
        def __init__(self, status: str) -> None:
            self.raw = pod({"type": "Ready", "status": status})

    assert _ready(Found("True"))
    assert not _ready(Found("False"))


def test_everything_is_labelled_has_no_token_and_is_ended_by_the_operator_alone() -> None:
    words = ("workers=1", "image=a:1", "worker_memory_gib=2", "service_account=runner")
    spec = ClusterSpec("kubernetes", 1, 1, load_cluster_settings("kubernetes", words))
    described = cluster_description(spec, "tilewright-1")
    # The operator gives the labels of a cluster to all that it makes for it.
    assert described["metadata"]["labels"] == {"app.kubernetes.io/part-of": "tilewright"}
    assert described["spec"]["idleTimeout"] == 1800
    for part in ("scheduler", "worker"):
        made = described["spec"][part]["spec"]
        assert made["serviceAccountName"] == "runner"
        assert made["automountServiceAccountToken"] is False
        variables = {each["name"]: each["value"] for each in made["containers"][0]["env"]}
        assert variables["DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT"] == "None"


# --- a way to a pod ----------------------------------------------------------------------------


class Way:
    """What kr8s makes of a pod: a port of this machine, which may lead nowhere."""

    def __init__(self, greeting: bytes | None) -> None:
        self.name, self.greeting, self.place = "scheduler", greeting, None
        self.ended = False

    def portforward(self, port: int, local_port: int) -> "Way":
        self.local_port = local_port
        return self

    def start(self) -> None:
        if self.greeting is None:
            return
        self.place = socket.create_server(("127.0.0.1", self.local_port))
        self.thread = threading.Thread(target=self._greet)
        self.thread.start()

    def _greet(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self.place.accept()
                connected.sendall(self.greeting)
                connected.close()

    def stop(self) -> None:
        self.ended = True
        if self.place is not None:
            self.place.shutdown(socket.SHUT_RDWR)
            self.place.close()
            self.thread.join()


def test_a_way_that_leads_to_dask() -> None:
    way = Way(b"hello")
    with forwarded(way, 8786) as port:
        assert port == way.local_port
    assert way.ended


@pytest.mark.parametrize("greeting", [None, b""])
def test_a_way_that_leads_nowhere(greeting: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.cluster.configuration.CONNECT_TIMEOUT_S", 1)
    way = Way(greeting)
    expected = pytest.raises(ResourceError, match="an answer by way of the API server within 1 s")
    with expected, forwarded(way, 8786):
        pass
    assert way.ended


def test_no_right_to_forward_ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("workers=1", "image=a:1", "worker_memory_gib=2", "namespace=default")
    spec = ClusterSpec("kubernetes", 1, 1, load_cluster_settings("kubernetes", words))
    with kubernetes_stub(Stub(may_forward=False), tmp_path) as config:
        monkeypatch.setenv("KUBECONFIG", str(config))
        with pytest.raises(ResourceError, match="the right to get pods/portforward"):
            check_cluster(spec)
        # In a pod there is no need for it.
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
        check_cluster(spec)


def test_the_cluster_that_is_named_now_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("workers=1", "image=a:1", "worker_memory_gib=2", "namespace=default")
    spec = ClusterSpec("kubernetes", 1, 1, load_cluster_settings("kubernetes", words))
    for _ in range(2):
        stub = Stub()
        with kubernetes_stub(stub, tmp_path) as config:
            monkeypatch.setenv("KUBECONFIG", str(config))
            check_cluster(spec)
        assert stub.asked


def test_a_cluster_whose_operator_is_slow_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Kept:
        asked = 0

        def delete(self) -> None:
            self.asked += 1

    kept = Kept()
    monkeypatch.setattr(Operated, "_get", lambda self, kind, name: [kept])
    monkeypatch.setattr("engine.cluster.operated._REMOVE_S", 0.1)
    Operated(None, "tilewright-1").remove()
    assert kept.asked == 1
    assert "cluster tilewright-1 is being removed" in caplog.text
