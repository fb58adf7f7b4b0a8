"""Dask clusters against the operator's own schemas, which ship with its package."""

import copy
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import DEPLOY, OVERLAYS, Document, documents, kinds, rendered
from jsonschema import Draft202012Validator

FILES = ("daskcluster-cpu", "daskcluster-gpu", "daskautoscaler")


def definitions() -> Path:
    """Folder of the operator's custom resource definitions, with pod fields written out."""
    found = find_spec("dask_kubernetes")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs dask-kubernetes, of the extra test: it carries the schemas")
    root = Path(found.submodule_search_locations[0])
    return root / "operator" / "deployment" / "helm" / "dask-kubernetes-operator" / "crds"


def closed(schema: Any) -> Any:
    """Refuse fields that a schema does not name: Kubernetes would drop them in silence."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    if found.pop("x-kubernetes-int-or-string", False):
        found.pop("type", None)
    return found


@cache
def validator(kind: str) -> Draft202012Validator:
    text = (definitions() / f"{kind.lower()}.yaml").read_text()
    (version,) = yaml.load(text, yaml.CSafeLoader)["spec"]["versions"]
    schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    return Draft202012Validator(closed(schema))


def complaints(document: Document) -> list[str]:
    errors = validator(document["kind"]).iter_errors(document)
    return [f"{error.json_path}: {error.message}" for error in errors]


@pytest.mark.parametrize("name", FILES)
def test_every_file_keeps_the_schema(name: str) -> None:
    found = documents((DEPLOY / "operator" / f"{name}.yaml").read_text())
    assert len(found) == 1
    assert complaints(found[0]) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_overlay_keeps_the_schema(overlay: str) -> None:
    found = kinds(rendered(overlay), "DaskCluster", "DaskAutoscaler")
    assert [each["kind"] for each in found] == ["DaskAutoscaler", "DaskCluster"]
    assert [wrong for each in found for wrong in complaints(each)] == []
    assert found[0]["spec"]["cluster"] == found[1]["metadata"]["name"]


def test_schemas_are_strict() -> None:
    (sound,) = documents((DEPLOY / "operator" / "daskcluster-gpu.yaml").read_text())
    for path, key in (("worker", "replica"), ("scheduler", "services")):
        broken = copy.deepcopy(sound)
        broken["spec"][path][key] = 1
        assert len(complaints(broken)) == 1, key
    broken = copy.deepcopy(sound)
    broken["spec"]["worker"]["spec"]["containers"][0]["resource"] = {}
    assert len(complaints(broken)) == 1


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_services_and_probes_meet_ports(kind: str) -> None:
    (cluster,) = documents((DEPLOY / "operator" / f"daskcluster-{kind}.yaml").read_text())
    scheduler = cluster["spec"]["scheduler"]
    (container,) = scheduler["spec"]["containers"]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"tcp-comm": 8786, "http-dashboard": 8787}
    assert {each["targetPort"] for each in scheduler["service"]["ports"]} == ports.keys()
    for probe in ("readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["port"] in ports
    assert scheduler["service"]["selector"] == {
        "dask.org/cluster-name": cluster["metadata"]["name"],
        "dask.org/component": "scheduler",
    }
    assert cluster["spec"]["idleTimeout"] > 0
    (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
    gpus = worker["resources"]["limits"].get("nvidia.com/gpu")
    assert gpus == ("1" if kind == "gpu" else None)
