"""What users of a gateway may ask for, and within which limits.

One file for every gateway: Helm puts its text into the server's configuration (`--set-file
gateway.extraConfig.10-options=deploy/gateway/config/options.py`), and so do `deploy/local` and the
tests. Limits come from the section `TilewrightLimits` of the configuration, set before it.
"""

import re

from dask_gateway_server.options import Float, Integer, Mapping, Options, String

c = get_config()  # noqa: F821 - given to files of configuration

#: What a site may change, in its own configuration, before this file.
LIMITS = {
    "image": "ghcr.io/tilewright/tilewright:0.1.0",
    "max_workers": 64,
    "max_cores": 16,
    "max_memory_gib": 64.0,
    "max_gpus": 0,
    "max_idle_timeout_s": 3600,
    "gpu_node_selector": {"nvidia.com/gpu.present": "true"},
} | dict(c.TilewrightLimits)

ON_KUBERNETES = "kubernetes" in str(c.DaskGateway.get("backend_class", ""))


class Image(String):
    """Reference of an image that says which one: a tag other than latest, or a digest."""

    def validate(self, x: object) -> str:
        """Refuse what may be another image tomorrow."""
        image = super().validate(x)
        name = r"[a-z0-9][a-z0-9._-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*"
        if not re.fullmatch(rf"{name}(:(?!latest$)[\w][\w.-]*|@sha256:[0-9a-f]{{64}})", image):
            raise ValueError(
                f"{self.field} must carry a tag other than latest, or a digest, such as "
                f"{LIMITS['image']}, got {image!r}"
            )
        return image


class Environment(Mapping):
    """Variables of scheduler and workers."""

    def validate(self, x: object) -> dict[str, str]:
        """Refuse what is no variable, or belongs to the gateway."""
        found = super().validate(x)
        for name, value in found.items():
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{self.field} must have names of variables, got {name!r}")
            if not isinstance(value, str):
                raise TypeError(f"{self.field} must have strings, got {name}={value!r}")
            if name.startswith(("DASK_GATEWAY_", "DASK_DISTRIBUTED__COMM__TLS__")):
                raise ValueError(f"{self.field} must leave {name} to the gateway")
        return found


def with_gpus(config: dict[str, object], gpus: int) -> dict[str, object]:
    """Container and pod of a worker with GPUs, beside what the site gives every worker."""
    container = dict(config.get("worker_extra_container_config", {}))
    resources = dict(container.get("resources", {}))
    limits = dict(resources.get("limits", {})) | {"nvidia.com/gpu": str(gpus)}
    pod = dict(config.get("worker_extra_pod_config", {}))
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    selector = dict(pod.get("nodeSelector", {})) | LIMITS["gpu_node_selector"]
    return {
        "worker_extra_container_config": container | {"resources": resources | {"limits": limits}},
        "worker_extra_pod_config": pod
        | {"nodeSelector": selector, "tolerations": [*pod.get("tolerations", []), toleration]},
    }


def configuration(options: object) -> dict[str, object]:
    """Turn what a user asked for into settings of the cluster."""
    site = c.KubeClusterConfig if ON_KUBERNETES else c.ClusterConfig
    settings = {
        "worker_cores": options.worker_cores,
        "worker_memory": int(options.worker_memory * 2**30),
        "worker_threads": options.worker_threads,
        "idle_timeout": options.idle_timeout_s,
        "environment": dict(site.get("environment", {})) | dict(options.environment),
    }
    if ON_KUBERNETES:
        # A worker may not take more than it asked for: the node would kill it, or its neighbour.
        settings["worker_cores_limit"] = options.worker_cores
        settings["worker_memory_limit"] = settings["worker_memory"]
        settings["image"] = options.image
        labels = {"app.kubernetes.io/part-of": "tilewright"}
        settings["worker_extra_pod_labels"] = labels
        # The budget of schedulers selects by it; that of workers cannot count a gateway's.
        settings["scheduler_extra_pod_labels"] = labels | {"dask.org/component": "scheduler"}
        if options.gpus:
            settings |= with_gpus(site, options.gpus)
    return settings


fields = [
    Integer(
        "worker_cores",
        min(2, LIMITS["max_cores"]),
        min=1,
        max=LIMITS["max_cores"],
        label="Cores of a worker",
    ),
    Float(
        "worker_memory",
        min(4.0, LIMITS["max_memory_gib"]),
        min=1,
        max=LIMITS["max_memory_gib"],
        label="Memory, GiB",
    ),
    Integer("worker_threads", 2, min=1, max=8, label="Regions that a worker does at once"),
    Integer("idle_timeout_s", 900, min=60, max=LIMITS["max_idle_timeout_s"], label="Idle, s"),
    Environment("environment", {}, label="Environment of scheduler and workers"),
]
if ON_KUBERNETES:
    # Where a worker is a process of this machine, it has the image and the GPUs of this machine.
    fields += [
        Image("image", LIMITS["image"], label="Image of scheduler and workers"),
        Integer("gpus", min(1, LIMITS["max_gpus"]), min=0, max=LIMITS["max_gpus"], label="GPUs"),
    ]

c.Backend.cluster_options = Options(*fields, handler=configuration)

# The gateway still starts dask-scheduler and dask-worker, which Dask has no more.
c.ClusterConfig.scheduler_cmd = ["dask", "scheduler"]
c.ClusterConfig.worker_cmd = ["dask", "worker"]
c.ClusterConfig.cluster_max_workers = LIMITS["max_workers"]
# For clusters whose driver died: it could not end them.
c.ClusterConfig.idle_timeout = 900
