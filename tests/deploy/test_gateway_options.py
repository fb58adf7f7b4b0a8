"""What users of a gateway may ask for: one file, for Kubernetes and for one machine."""

import os
from pathlib import Path
from typing import Any

import pytest
from gateway_files import on_kubernetes, on_this_machine

pytest.importorskip("dask_gateway_server", reason="needs dask-gateway-server, of the extra test")

IMAGE = "registry.example:5000/lab/tilewright:1.2"


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILEWRIGHT_GATEWAY_PASSWORD", "test")


def asked(config: Any, **request: Any) -> dict[str, Any]:
    """Settings of the cluster for a request, as the server makes them."""
    options = config.Backend.cluster_options
    found: dict[str, Any] = options.get_configuration(options.parse_options(request), None)
    return found


def test_defaults_are_within_their_own_limits() -> None:
    found = asked(on_kubernetes("values"))
    assert found["worker_cores"] == found["worker_cores_limit"] == 2
    assert found["worker_memory"] == found["worker_memory_limit"] == 4 * 2**30
    assert found["image"] == "ghcr.io/tilewright/tilewright:0.1.0"
    assert found["idle_timeout"] == 900
    assert "worker_extra_pod_config" not in found  # those of the values hold


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"worker_cores": 17}, "worker_cores must be <= 16"),
        ({"worker_cores": 0}, "worker_cores must be >= 1"),
        ({"worker_memory": 65}, "worker_memory must be <= 64"),
        ({"worker_memory": "4G"}, "worker_memory must be a float"),
        ({"worker_threads": 9}, "worker_threads must be <= 8"),
        ({"idle_timeout_s": 0}, "idle_timeout_s must be >= 60"),
        ({"gpus": 1}, "gpus must be <= 0"),
        ({"workers": 3}, "Unknown fields"),
        ({"environment": {"A": 1}}, "must have strings"),
        ({"environment": {"A B": "1"}}, "names of variables"),
        ({"environment": {"DASK_GATEWAY_API_URL": "x"}}, "to the gateway"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_requests_out_of_limits_are_refused(request_: dict[str, Any], said: str) -> None:
    config = on_kubernetes("values")
    with pytest.raises((ValueError, TypeError), match=said):
        asked(config, **request_)


@pytest.mark.parametrize(
    "image",
    [
        "tilewright",
        "lab/tilewright",
        "lab:5000/tilewright",
        "lab/tilewright:latest",
        "lab/t:1 2",
        "",
    ],
)
def test_an_image_without_a_tag_is_refused(image: str) -> None:
    with pytest.raises(ValueError, match="must carry a tag other than latest, or a digest"):
        asked(on_kubernetes("values"), image=image)


@pytest.mark.parametrize("image", [IMAGE, "tilewright:0.1.0", f"lab/t@sha256:{'0' * 64}"])
def test_an_image_with_a_tag_is_taken(image: str) -> None:
    assert asked(on_kubernetes("values"), image=image)["image"] == image


def test_a_gpu_comes_with_its_node_and_keeps_what_the_site_gives() -> None:
    found = asked(on_kubernetes("values", "values-spot", "values-gpu"))  # one GPU by default
    pod, container = found["worker_extra_pod_config"], found["worker_extra_container_config"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    keys = [each["key"] for each in pod["tolerations"]]
    assert {"nvidia.com/gpu", "cloud.google.com/gke-spot"} <= set(keys)
    assert pod["securityContext"]["runAsNonRoot"] is True
    plain = asked(on_kubernetes("values", "values-gpu"), gpus=0)
    assert "worker_extra_pod_config" not in plain


def test_environment_of_the_site_holds_where_users_say_nothing() -> None:
    found = asked(on_kubernetes("values", "values-spot"), environment={"AWS_REGION": "eu"})
    name = "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"
    assert found["environment"] == {name: "30", "AWS_REGION": "eu"}


def test_commands_are_those_that_dask_has() -> None:
    config = on_kubernetes("values")
    assert config.ClusterConfig.scheduler_cmd == ["dask", "scheduler"]
    assert config.ClusterConfig.worker_cmd == ["dask", "worker"]
    assert config.ClusterConfig.idle_timeout > 0
    assert config.SimpleAuthenticator.password == "test"


def test_one_machine_offers_the_same_less_images_and_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = on_this_machine(tmp_path, monkeypatch)
    here = {field.field for field in config.Backend.cluster_options.fields}
    there = {field.field for field in on_kubernetes("values").Backend.cluster_options.fields}
    assert there - here == {"image", "gpus"}
    cores = os.cpu_count() or 1
    with pytest.raises(ValueError, match="worker_cores must be <= "):
        asked(config, worker_cores=cores + 1)
    assert config.ClusterConfig.cluster_max_workers == 8
    found = asked(config, worker_cores=1)
    assert "image" not in found
    assert found["environment"]["DASK_CONFIG"].endswith("deploy/dask/config.yaml")
    assert config.DaskGateway.address.startswith("127.0.0.1:")
    assert config.Proxy.address.startswith("127.0.0.1:")
