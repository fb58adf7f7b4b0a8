"""`--cluster kubernetes` on the Kubernetes that KUBECONFIG names; `make test-kubernetes`."""

import base64
import json
import signal
from pathlib import Path

import pytest
import yaml
from kubernetes_runs import (
    CLUSTERS,
    MARKS,
    OURS,
    SETTINGS,
    Run,
    Shelf,
    Start,
    all_gone,
    budgets,
    counted,
    delete_pod,
    evict,
    on_kubernetes,
    pods,
    same,
)
from kubernetes_target import (
    definitions,
    has_operator,
    image,
    kubectl,
    objects,
    until,
    version,
)

pytestmark = MARKS


def refuse(start: Start, shelf: Shelf, namespace: str, *settings: str, **variables: str) -> Run:
    """Start a run that cannot be."""
    words, out = on_kubernetes(namespace, *settings), shelf.place / "refused.ome.zarr"
    return start(shelf.image, out, *words, **shelf.variables, **variables)


# --- without an operator -----------------------------------------------------------------------


def test_no_operator(namespace: str, shelf: Shelf, start: Start) -> None:
    if has_operator():
        pytest.skip("needs a Kubernetes without Dask's operator")
    refuse(start, shelf, namespace, "workers=1").refuses(
        "the Dask operator", "daskclusters", within_s=30
    )


def test_an_operator_that_does_nothing(namespace: str, shelf: Shelf, start: Start) -> None:
    if has_operator():
        pytest.skip("needs a Kubernetes without Dask's operator")
    with definitions():
        run = refuse(start, shelf, namespace, "workers=1", "wait_s=5")
        run.refuses("the Dask operator to take up the cluster")
        assert not objects(CLUSTERS, namespace)


# --- with it -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("dask_operator")
def test_a_worker_pod_is_deleted_and_the_run_has_the_same_bytes(
    namespace: str, shelf: Shelf, start: Start
) -> None:
    out = shelf.place / "operator.ome.zarr"
    run = start(shelf.image, out, *on_kubernetes(namespace, "workers=2"), **shelf.variables)
    run.wait_for_records(2)
    workers = pods(namespace, "dask.org/component=worker")
    assert len(workers) == 2
    # Policies of the network select by this label; budgets too, as Kubernetes itself counts.
    assert len(pods(namespace, OURS)) == 3
    counts = {"scheduler": (1, 0), "workers": (2, 1)}
    until(lambda: budgets(namespace) == counts, 30, "budgets")
    for pod in pods(namespace):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "serviceaccount" not in json.dumps(pod["spec"]["containers"])
    (scheduler,) = pods(namespace, "dask.org/component=scheduler")
    assert "disruption budget" in evict(scheduler)
    delete_pod(workers[0])
    run.finish()
    same(shelf.whole, out)
    assert not objects(CLUSTERS, namespace)
    until(lambda: all_gone(namespace), 60, "the end of all pods")


@pytest.mark.usefixtures("dask_operator")
def test_adapted_with_the_rights_of_the_launcher(
    namespace: str, shelf: Shelf, start: Start, tmp_path: Path
) -> None:
    out = shelf.place / "adapted.ome.zarr"
    config = launchers_config(namespace, tmp_path)
    words = on_kubernetes(namespace, "adapt_min=1", "adapt_max=3")
    run = start(shelf.image, out, *words, **shelf.variables, KUBECONFIG=config)
    run.wait_for_records(1)
    (scaler,) = objects("daskautoscalers", namespace)
    assert scaler["metadata"]["ownerReferences"][0]["kind"] == "DaskCluster"
    assert (scaler["spec"]["minimum"], scaler["spec"]["maximum"]) == (1, 3)
    run.finish()
    same(shelf.whole, out)
    until(lambda: all_gone(namespace), 60, "the end of all pods")
    assert not objects("daskautoscalers", namespace)


def launchers_config(namespace: str, folder: Path) -> str:
    """File with which the service account of deploy/k8s/base reaches the same Kubernetes."""
    if version() >= (1, 24):
        token = kubectl("--namespace", namespace, "create", "token", "tilewright-launcher")
    else:
        found = objects("secrets", namespace)
        (secret,) = (s for s in found if s["metadata"]["name"].startswith("tilewright-launcher-"))
        token = base64.b64decode(secret["data"]["token"]).decode()
    document = yaml.safe_load(kubectl("config", "view", "--flatten", "--minify", "--raw"))
    document["users"][0]["user"] = {"token": token}
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@pytest.mark.usefixtures("dask_operator")
def test_a_run_in_a_pod_starts_its_own_cluster(namespace: str, shelf: Shelf) -> None:
    """With the launcher's account; the scheduler is reached by its name."""
    out = shelf.place / "inside.ome.zarr"
    words = ("run", shelf.image, str(out), *SETTINGS, *on_kubernetes(namespace, "workers=1"))
    quiet = {"PYTHONWARNINGS": "ignore:Kubernetes version:UserWarning"}
    variables = [{"name": k, "value": v} for k, v in {**shelf.variables, **quiet}.items()]
    container = {"name": "run", "image": image(), "command": ["tilewright", *words]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "inside", "labels": {"app.kubernetes.io/part-of": "tilewright"}},
        "spec": {
            "serviceAccountName": "tilewright-launcher",
            "restartPolicy": "Never",
            "containers": [container | {"env": variables}],
        },
    }
    kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(pod))

    def ended() -> bool:
        (found,) = objects("pods", namespace, "!dask.org/component")
        return found["status"]["phase"] in ("Succeeded", "Failed")

    try:
        until(ended, 240, "the end of the run")
        log = kubectl("--namespace", namespace, "logs", "inside")
    finally:
        kubectl("--namespace", namespace, "delete", "pod", "inside")
    assert out.exists(), log
    same(shelf.whole, out)
    until(lambda: all_gone(namespace), 60, "the end of all pods")


@pytest.mark.usefixtures("dask_operator")
def test_left_used_again_by_name_and_ended_by_the_operator(
    namespace: str, shelf: Shelf, start: Start
) -> None:
    first, second = shelf.place / "left.ome.zarr", shelf.place / "again.ome.zarr"
    words = on_kubernetes(namespace, "workers=1", "leave=true", "idle_timeout_s=20")
    run = start(shelf.image, first, *words, **shelf.variables)
    run.finish()
    (cluster,) = objects(CLUSTERS, namespace)
    named = (f"name={cluster['metadata']['name']}", "workers=2", "leave=true")
    run = start(shelf.image, second, *on_kubernetes(namespace, *named), **shelf.variables)
    run.wait_for_records(2)
    until(lambda: len(pods(namespace, "dask.org/component=worker")) == 2, 60, "a second worker")
    run.finish()
    same(first, second)
    until(lambda: all_gone(namespace), 120, "the end of an idle cluster")


@pytest.mark.usefixtures("dask_operator")
@pytest.mark.parametrize("settings", [("workers=1",), ("workers=1", "image=registry.invalid/no:1")])
def test_stopped_while_it_runs_and_while_it_waits(
    namespace: str, shelf: Shelf, start: Start, settings: tuple[str, ...]
) -> None:
    out = shelf.place / f"stopped{len(settings)}.ome.zarr"
    run = start(shelf.image, out, *on_kubernetes(namespace, *settings), **shelf.variables)
    if len(settings) == 1:
        run.wait_for_records(1)
    else:
        until(lambda: pods(namespace, "dask.org/component=scheduler"), 60, "a scheduler")
    run.process.send_signal(signal.SIGINT)
    text, errors = run.process.communicate(timeout=60)
    assert run.process.returncode == 130, text + errors
    assert "Traceback" not in errors
    until(lambda: all_gone(namespace), 60, "the end of all pods")


@pytest.mark.usefixtures("dask_operator")
@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        (("workers=200",), ("pods: 201 wanted", "(quota 'tilewright')")),
        (("workers=1", "image=registry.invalid/none:1", "wait_s=10"), ("a scheduler", "Pull")),
        (
            ("workers=1", "worker_memory_gib=150", "wait_s=20"),
            ("at least one worker within", "no node for"),
        ),
        (("workers=1", "name=nobody"), ("the cluster nobody", "none of that name")),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_left(
    namespace: str,
    shelf: Shelf,
    start: Start,
    settings: tuple[str, ...],
    fragments: tuple[str, ...],
) -> None:
    refuse(start, shelf, namespace, *settings).refuses(*fragments, within_s=90)
    until(lambda: all_gone(namespace), 60, "the end of all pods")


@pytest.mark.usefixtures("dask_operator")
def test_a_namespace_that_is_missing(namespace: str, shelf: Shelf, start: Start) -> None:
    run = refuse(start, shelf, "nowhere", "workers=1")
    run.refuses("namespace nowhere", "kubectl create namespace nowhere", within_s=30)


@pytest.mark.usefixtures("dask_operator")
def test_a_quota_that_the_launcher_may_not_see(
    namespace: str, shelf: Shelf, start: Start, tmp_path: Path
) -> None:
    config = launchers_config(namespace, tmp_path)
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    document = {"apiVersion": "v1", "kind": "ResourceQuota", **quota}
    kubectl("--namespace", namespace, "create", "--filename=-", text=json.dumps(document))
    try:
        until(lambda: counted(namespace) == 2, 10, "the quota")
        run = refuse(start, shelf, namespace, "workers=1", "wait_s=20", KUBECONFIG=config)
        run.refuses("at least one worker within", "exceeded quota: small", within_s=60)
    finally:
        kubectl("--namespace", namespace, "delete", "quota", "small")
    until(lambda: all_gone(namespace), 60, "the end of all pods")
