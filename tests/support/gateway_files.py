"""Configuration of a gateway server from our files, as Helm or the local script makes it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed import DEPLOY

Values = dict[str, Any]

OPTIONS = DEPLOY / "gateway" / "config" / "options.py"


def merged(first: Values, second: Values) -> Values:
    """Values as Helm merges files: mappings key by key, all else replaced."""
    found = deepcopy(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else deepcopy(value)
    return found


def values(*names: str) -> Values:
    found: Values = {}
    for name in names:
        text = (DEPLOY / "gateway" / f"{name}.yaml").read_text()
        found = merged(found, yaml.safe_load(text))
    return found


def configured(lines: str) -> Any:
    """Configuration (traitlets) that a file of these lines makes."""
    loader = pytest.importorskip(
        "traitlets.config.loader", reason="needs dask-gateway-server, of the extra test"
    )
    config = loader.Config()
    exec(
        compile(lines, "dask_gateway_config.py", "exec"),
        {"c": config, "get_config": lambda: config},
    )
    return config


def on_kubernetes(*names: str) -> Any:
    """Configuration that the chart makes of our values."""
    return configured(lines_on_kubernetes(*names))


def lines_on_kubernetes(*names: str, **changed: str) -> str:
    """File of that configuration: the chart's own settings, then our blocks.

    Parameters
    ----------
    *names : str
        Files of values.
    **changed : str
        ``image``, or ``api``: where clusters reach the server.
    """
    given = values(*names)["gateway"]
    backend = given["backend"]
    image = changed.get("image", f"{backend['image']['name']}:{backend['image']['tag']}")
    lines = [
        'c.DaskGateway.backend_class = "dask_gateway_server.backends.kubernetes.KubeBackend"',
        'c.KubeBackend.gateway_instance = c.KubeController.gateway_instance = "test"',
        f"c.KubeController.api_url = {changed.get('api', 'http://api:8000/api')!r}",
        f"c.KubeClusterConfig.image = {image!r}",
        f"c.KubeClusterConfig.namespace = {backend['namespace']!r}",
        f"c.KubeClusterConfig.environment = {backend.get('environment', {})!r}",
    ]
    for role in ("scheduler", "worker"):
        part = backend[role]
        for ours, theirs in (
            ("cores", part["cores"]["request"]),
            ("cores_limit", part["cores"]["limit"]),
            ("memory", part["memory"]["request"]),
            ("memory_limit", part["memory"]["limit"]),
            ("extra_pod_config", part["extraPodConfig"]),
            ("extra_container_config", part["extraContainerConfig"]),
        ):
            lines.append(f"c.KubeClusterConfig.{role}_{ours} = {theirs!r}")
    blocks = given["extraConfig"] | {"10-options": OPTIONS.read_text()}
    return "\n".join([*lines, *(blocks[key] for key in sorted(blocks))])


def on_this_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Configuration of deploy/local."""
    loader = pytest.importorskip(
        "traitlets.config.loader", reason="needs dask-gateway-server, of the extra test"
    )
    monkeypatch.setenv("TILEWRIGHT_GATEWAY_PORT", "8000")
    monkeypatch.setenv("TILEWRIGHT_GATEWAY_FOLDER", str(folder))
    monkeypatch.setenv("TILEWRIGHT_GATEWAY_PASSWORD", "test")
    file = DEPLOY / "local" / "dask_gateway_config.py"
    return loader.PyFileConfigLoader(str(file)).load_config()
