"""Files of deploy/, really used on the Kubernetes that KUBECONFIG names; `make test-kubernetes`."""

import json
import time
from collections.abc import Iterator

import dask
import pytest
from deployed import DEPLOY, OVERLAYS, Document, rendered
from kubernetes_gateway import gateway
from kubernetes_runs import (
    MARKS,
    OURS,
    Shelf,
    Start,
    all_gone,
    apply,
    budgets,
    delete_pod,
    evict,
    pods,
    same,
    served,
)
from kubernetes_target import ask, image, is_ours, kubectl, objects, until

from engine.store import Location

pytestmark = MARKS


# --- deploy/k8s --------------------------------------------------------------------------------


@pytest.mark.usefixtures("dask_operator")
def test_the_driver_of_deploy_is_evicted_and_resumes(
    namespace: str, shelf: Shelf, start: Start
) -> None:
    """The overlay s3 as it is, but for its addresses, image and Secret."""
    out, here = (shelf.place / f"{name}.ome.zarr" for name in ("driver", "recipe"))
    recipe = ("--recipe", str(DEPLOY / "k8s" / "base" / "recipe.yaml"))
    run = start(shelf.image, here, "--workers", "2", settings=recipe, **shelf.variables)
    run.finish()
    keys = [f"--from-literal={name}={value}" for name, value in shelf.variables.items()]
    secret = ("secret", "generic", "tilewright-s3", *keys)
    kubectl("--namespace", namespace, "create", *secret)
    documents = served(of_this_test(rendered("s3"), shelf, out))
    apply(documents, "--dry-run=server")
    apply(documents)
    try:
        until(lambda: drivers(namespace, "Running"), 180, "the driver")
        time.sleep(2)
        assert evict(drivers(namespace, "Running")[0]) == ""
        until(lambda: drivers(namespace, "Succeeded"), 300, "the end of the second driver")
    finally:
        kubectl(
            "--namespace", namespace, "delete", "job,daskcluster", "--all", "--cascade=foreground"
        )
    same(here, out)
    until(lambda: all_gone(namespace), 90, "the end of all pods")


def of_this_test(text: str, shelf: Shelf, out: Location) -> str:
    for ours, theirs in (
        ("s3://my-bucket/image.ome.zarr", shelf.image),
        ("s3://my-bucket/nuclei.ome.zarr", str(out)),
        ("ghcr.io/tilewright/tilewright:0.1.0-scheduler", image()),
        ("ghcr.io/tilewright/tilewright:0.1.0", image()),
    ):
        assert ours in text
        text = text.replace(ours, theirs)
    return text


def drivers(namespace: str, phase: str) -> list[Document]:
    """Pods of the driver that are in a phase."""
    found = pods(namespace, "app.kubernetes.io/component=driver")
    return [pod for pod in found if pod["status"]["phase"] == phase]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_is_taken_by_the_server(
    namespace: str, dask_operator: None, overlay: str
) -> None:
    told = apply(served(rendered(overlay)), "--dry-run=server")
    assert told.count("(server dry run)") == len(served(rendered(overlay)))
    broken = served(rendered(overlay))
    (cluster,) = (each for each in broken if each["kind"] == "DaskCluster")
    cluster["spec"]["worker"]["spec"]["containers"][0]["imag"] = "x"
    told = ask("apply", "--dry-run=server", "--filename=-", text=json.dumps(cluster))
    assert "imag" in told.stderr
    assert told.returncode != 0


# --- the gateway -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway_words(namespace: str) -> Iterator[list[str]]:
    if dask.config.get("gateway.address", None):
        # Of the cluster; credentials are in Dask's configuration.
        yield []
    elif is_ours():
        with gateway(namespace) as words:
            yield words
    else:
        pytest.skip("needs a gateway of this Kubernetes: DASK_GATEWAY__ADDRESS=http://HOST")


def on_gateway(words: list[str], *settings: str) -> list[str]:
    named = (f"image={image()}", "worker_memory_gib=2", "worker_cores=1", *settings)
    more = [word for setting in named for word in ("--cluster-set", setting)]
    return ["--cluster", "gateway", *words, *more, "--cluster-set", "pass_environment=AWS_*"]


def test_a_worker_pod_of_a_gateway_is_deleted_and_the_run_has_the_same_bytes(
    namespace: str, gateway_words: list[str], shelf: Shelf, start: Start
) -> None:
    out = shelf.place / "gateway.ome.zarr"
    run = start(shelf.image, out, *on_gateway(gateway_words, "workers=2"), **shelf.variables)
    run.wait_for_records(2)
    workers = pods(namespace, "app.kubernetes.io/component=dask-worker")
    assert len(workers) == 2
    # Policies of the network select by this label; budgets too, as Kubernetes itself counts.
    assert len(pods(namespace, OURS)) == 3
    counts = {"scheduler": (1, 0), "workers": (0, 0)}
    until(lambda: budgets(namespace) == counts, 30, "budgets")
    delete_pod(workers[0])
    run.finish()
    same(shelf.whole, out)
    until(lambda: not objects("pods", namespace), 60, "the end of all pods")


def test_a_gateway_that_cannot_start_a_scheduler(
    namespace: str, gateway_words: list[str], shelf: Shelf, start: Start
) -> None:
    words = on_gateway(gateway_words, "workers=1", "image=registry.invalid/none:1", "wait_s=10")
    run = start(shelf.image, shelf.place / "refused.ome.zarr", *words, **shelf.variables)
    run.refuses("a scheduler that starts within wait_s", "a cluster that is pending")
    until(lambda: not objects("pods", namespace), 60, "the end of all pods")
