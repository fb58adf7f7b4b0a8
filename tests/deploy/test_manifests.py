"""Manifests against the schemas of Kubernetes 1.33, and against what they must do."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import (
    DEPLOY,
    OVERLAYS,
    Document,
    as_pod,
    beyond_restricted,
    containers,
    documents,
    kinds,
    named,
    pods,
    rendered,
)

from engine.recipe import load_settings

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="needs kubernetes-validate, of the extra test"
)

VERSION = "1.33"
#: The package reads 1 MB of definitions for each document.
CONTENTS = cache(kubernetes_validate.utils.schema_contents)
BASE = DEPLOY / "k8s" / "base"
RAW = sorted([*BASE.glob("*.yaml"), *(DEPLOY / "k8s" / "components").glob("*/network.yaml")])
RAW = [file for file in RAW if file.name not in ("kustomization.yaml", "recipe.yaml")]


@pytest.fixture(autouse=True)
def _read_schemas_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", CONTENTS)


def check(document: Document) -> None:
    """Validate strictly: an unknown field is an error."""
    kubernetes_validate.validate(document, VERSION, strict=True)


@pytest.mark.parametrize("file", RAW, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_every_file_keeps_the_schema(file: Path) -> None:
    found = documents(file.read_text())
    assert found
    for document in found:
        check(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_keeps_the_schema(overlay: str) -> None:
    found = documents(rendered(overlay))
    ours = [each for each in found if not each["apiVersion"].startswith("kubernetes.dask.org")]
    assert len(ours) >= 14
    for document in ours:
        check(document)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_keeps_the_schema_and_the_standard_restricted(overlay: str) -> None:
    found = [pod for each in documents(rendered(overlay)) for pod in pods(each)]
    assert len(found) == 3  # driver, scheduler, worker
    for name, pod in found:
        check(as_pod(pod))
        assert beyond_restricted(pod) == [], name
        assert pod["spec"]["automountServiceAccountToken"] is False, name
        mounted = {each["name"] for each in pod["spec"]["volumes"]}
        for container in containers(pod):
            assert {m["name"] for m in container["volumeMounts"]} <= mounted, name
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), name
            image, _, tag = container["image"].rpartition(":")
            assert image, name
            assert tag not in ("", "latest"), name


def test_schemas_are_strict() -> None:
    pod = as_pod({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "b"}]}})
    check(pod)
    pod["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(pod)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_driver_survives_eviction_by_resuming(overlay: str) -> None:
    job = named(rendered(overlay), "Job", "tilewright-driver")["spec"]
    assert job["backoffLimit"] >= 4
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "Ignore"
    assert rule["onPodConditions"][0]["type"] == "DisruptionTarget"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_named_never_held(overlay: str) -> None:
    assert not kinds(rendered(overlay), "Secret")
    for word in ("AWS_SECRET_ACCESS_KEY", "password"):
        assert word not in rendered(overlay)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_lies_in_one_namespace_and_meets_its_references(overlay: str) -> None:
    found = documents(rendered(overlay))
    spaces = {each["metadata"].get("namespace") for each in found if each["kind"] != "Namespace"}
    assert spaces == {"tilewright"}
    held = {(each["kind"], each["metadata"]["name"]) for each in found}
    for _, pod in (pod for each in found for pod in pods(each)):
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in held
        for volume in pod["spec"]["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in held
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in held


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_quota_holds_the_largest_cluster(overlay: str) -> None:
    text = rendered(overlay)
    hard = named(text, "ResourceQuota", "tilewright")["spec"]["hard"]
    (cluster,) = kinds(text, "DaskCluster")
    (scaler,) = kinds(text, "DaskAutoscaler")
    wanted = cluster["spec"]["worker"]["spec"]["containers"][0]["resources"]["requests"]
    most = scaler["spec"]["maximum"]
    assert most * int(wanted["cpu"]) <= int(hard["requests.cpu"])
    memory = int(wanted["memory"].removesuffix("Gi"))
    assert most * memory <= int(hard["requests.memory"].removesuffix("Gi"))
    assert most * int(wanted.get("nvidia.com/gpu", 0)) <= int(hard["requests.nvidia.com/gpu"])


def selected(policy: Document, labels: dict[str, str]) -> bool:
    wanted = policy["spec"]["podSelector"].get("matchLabels", {})
    return bool(wanted.items() <= labels.items())


def test_network_denies_all_but_dasks_own_pods() -> None:
    policies = kinds(rendered("cpu"), "NetworkPolicy")
    deny = named(rendered("cpu"), "NetworkPolicy", "deny-all")
    assert deny["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    stranger = {"app": "other"}
    assert [p["metadata"]["name"] for p in policies if selected(p, stranger)] == ["deny-all"]
    job = named(rendered("cpu"), "Job", "tilewright-driver")
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert [p["metadata"]["name"] for p in policies if selected(p, labels)] == ["dask", "deny-all"]
    assert all("ipBlock" not in str(p) for p in policies)
    assert "ipBlock" in str(kinds(rendered("s3"), "NetworkPolicy"))


def test_a_bucket_takes_the_place_of_the_volume() -> None:
    text = rendered("s3")
    assert "persistentVolumeClaim" not in text
    assert "mountPath: /data" not in text
    for _, pod in (pod for each in documents(text) for pod in pods(each)):
        container = pod["spec"]["containers"][0]
        secrets = [each["secretRef"]["name"] for each in container.get("envFrom", [])]
        assert secrets == ([] if container["name"] == "scheduler" else ["tilewright-s3"])


def test_only_workers_go_to_spot_nodes() -> None:
    (cluster,) = kinds(rendered("spot"), "DaskCluster")
    worker, scheduler = (cluster["spec"][role]["spec"] for role in ("worker", "scheduler"))
    keys = {each["key"] for each in worker["tolerations"]}
    assert "cloud.google.com/gke-spot" in keys
    assert "tolerations" not in scheduler
    assert worker["terminationGracePeriodSeconds"] < 30  # notice of Google and Azure
    assert "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES" in str(scheduler["containers"][0]["env"])


def test_recipe_of_the_config_map_is_the_bundled_one() -> None:
    (found,) = kinds(rendered("cpu"), "ConfigMap")
    mounted: dict[str, Any] = yaml.safe_load(found["data"]["recipe.yaml"])
    assert mounted == yaml.safe_load((BASE / "recipe.yaml").read_text())
    ours = load_settings(str(BASE / "recipe.yaml"), [])
    assert ours.recipe == load_settings("nuclei", []).recipe
