"""Helm values against the chart's keys, and the pods that the gateway makes of them."""

import asyncio
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import beyond_restricted, containers
from gateway_files import Values, on_kubernetes, values

kubernetes_validate = pytest.importorskip(
    "kubernetes_validate", reason="needs kubernetes-validate, of the extra test"
)
controllers = pytest.importorskip(
    "dask_gateway_server.backends.kubernetes.controller",
    reason="needs dask-gateway-server and kubernetes_asyncio, of the extra test",
)

EXTRA = ("values-gpu", "values-spot")
FILES = [("values", *more) for n in range(3) for more in combinations(EXTRA, n)]
KEYS = yaml.safe_load(Path(__file__).with_name("gateway_chart_keys.yaml").read_text())
CONTENTS = cache(kubernetes_validate.utils.schema_contents)


def unknown(given: Values, known: Any, where: str = "") -> list[str]:
    """Keys that the chart does not document."""
    if known == "any" or not isinstance(given, dict):
        return []
    found = [f"{where}{key}" for key in given if key not in known]
    for key in given.keys() & known.keys():
        found += unknown(given[key], known[key], f"{where}{key}.")
    return found


@pytest.mark.parametrize("name", ["values", *EXTRA])
def test_every_key_is_one_of_the_charts(name: str) -> None:
    assert unknown(values(name), KEYS) == []


def test_an_unknown_key_is_found() -> None:
    broken = {"gateway": {"backend": {"worker": {"core": 1}}, "extraConfig": {"a": ""}}, "x": 1}
    assert unknown(broken, KEYS) == ["x", "gateway.backend.worker.core"]


@pytest.mark.parametrize("names", FILES, ids="+".join)
def test_password_comes_from_a_secret_in_every_combination(names: tuple[str, ...]) -> None:
    gateway = values(*names)["gateway"]
    (variable,) = gateway["env"]
    assert variable["valueFrom"]["secretKeyRef"] == {
        "name": "tilewright-gateway",
        "key": "password",
    }
    assert variable["name"] in gateway["extraConfig"]["00-password"]
    assert "password" not in gateway["auth"].get("simple", {})
    assert all(isinstance(each, str) for each in gateway["backend"].get("environment", {}).values())


@pytest.mark.parametrize("names", FILES, ids="+".join)
def test_pods_that_the_gateway_makes(
    names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILEWRIGHT_GATEWAY_PASSWORD", "test")
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", CONTENTS)
    for worker in (True, False):
        pod = made(names, worker)
        pod["metadata"]["name"] = "dask"
        kubernetes_validate.validate(pod, "1.33", strict=True)
        assert beyond_restricted(pod) == []
        (container,) = containers(pod)
        assert container["args"][:2] == ["dask", "worker" if worker else "scheduler"]
        labels = pod["metadata"]["labels"]
        assert labels["app.kubernetes.io/part-of"] == "tilewright"
        assert labels.get("dask.org/component") == (None if worker else "scheduler")
        gpus = container["resources"]["limits"].get("nvidia.com/gpu")
        assert gpus == ("1" if worker and "values-gpu" in names else None)
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        assert {"/tmp", "/etc/dask-credentials/"} <= mounts
        spot = "gke-spot" in str(pod["spec"].get("tolerations"))
        assert spot == (worker and "values-spot" in names)


def made(names: tuple[str, ...], worker: bool) -> dict[str, Any]:
    """Pod of a cluster with the default options, made by the gateway's own code."""
    config = on_kubernetes(*names)
    options = config.Backend.cluster_options

    async def make() -> dict[str, Any]:
        controller = controllers.KubeController(config=config)
        backend = pytest.importorskip("dask_gateway_server.backends.kubernetes.backend")
        settings = options.get_configuration(options.parse_options({}), None)
        cluster = backend.KubeClusterConfig(config=config, **settings)
        pod: dict[str, Any] = controller.make_pod("tilewright", "abc", cluster, worker)
        return pod

    return asyncio.run(make())
