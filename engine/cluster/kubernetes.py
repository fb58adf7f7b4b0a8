"""A cluster that the Dask operator makes on Kubernetes, from a description, and removes."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from distributed import Client

from engine.cluster import configuration
from engine.cluster.arriving import meet_workers
from engine.cluster.configuration import server_environment
from engine.cluster.extras import require
from engine.cluster.forwarding import WHERE, check_rights, is_inside
from engine.cluster.leaving import ended
from engine.cluster.operated import (
    KIND,
    LABELS,
    Api,
    Operated,
    allowed,
    in_our_words,
    open_api,
)
from engine.cluster.quota import needs, shortfalls
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cluster.spec import ClusterSpec
    from engine.recipe import ClusterSettings

#: What the scheduler takes: it holds no pixels.
_SCHEDULER = {"cpu": "1", "memory": "2Gi"}

#: The operator deletes a cluster that is idle. A scheduler that ended first would be started
#: again, by its deployment, and be idle anew for ever.
_NEVER_BY_ITSELF = {"DASK_DISTRIBUTED__SCHEDULER__IDLE_TIMEOUT": "None"}

#: What pods must not have: rights on the machine, a token of the cluster, which they never ask.
_SAFE_POD = {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 30}
_SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def check(spec: ClusterSpec) -> None:
    """Refuse where no Kubernetes answers, namespace or operator are missing, a quota is too small.

    Raises
    ------
    ResourceError
        If so.
    """
    require("dask_kubernetes.operator", "kubernetes")
    with in_our_words():
        api = open_api(spec.settings.namespace)
        # Also tells whether we may: a namespace of others, or none, has no list for us.
        list(require("kr8s", "kubernetes").get(KIND, namespace=api.namespace, api=api))
        _check_namespace(api)
        if not is_inside():
            check_rights(api)
        if spec.settings.name is None:
            _check_quota(api, cluster_description(spec, _new_name()))
        else:
            Operated(api, spec.settings.name).found()


@contextmanager
def start(spec: ClusterSpec) -> Iterator[Client]:
    """Have the operator make a cluster, wait for its first worker, and remove it in the end.

    Raises
    ------
    ResourceError
        If Kubernetes, the namespace, a quota or the operator refuse, no worker comes in time, or
        versions differ.
    """
    check(spec)
    deadline = time.monotonic() + spec.wait_s
    settings = spec.settings
    with in_our_words():
        cluster = Operated(open_api(settings.namespace), settings.name or _new_name())
    with ended(cluster.name, settings, cluster.remove):
        with in_our_words():
            _make(cluster, spec, deadline)
        with cluster.reached() as address, _client(address) as client:
            left, remedy = max(1, deadline - time.monotonic()), "Correct that, or raise wait_s."
            meet_workers(client, WHERE, left, remedy, lambda: _troubles(cluster))
            client.forward_logging("engine")
            yield client


def _make(cluster: Operated, spec: ClusterSpec, deadline: float) -> None:
    """Make a cluster, or give one that is there its size."""
    settings = spec.settings
    if settings.name is None:
        cluster.make(cluster_description(spec, cluster.name))
    elif settings.workers is not None:
        cluster.scale(settings.workers)
    cluster.wait_for_scheduler(deadline)
    if settings.adapt_min is not None and settings.adapt_max is not None:
        # Not before: an operator that finds no scheduler looks again after a minute.
        cluster.adapt(settings.adapt_min, settings.adapt_max)


def _client(address: str) -> Client:
    try:
        return Client(address, timeout=configuration.CONNECT_TIMEOUT_S, set_as_default=False)
    except OSError as err:
        raise ResourceError(
            where=WHERE,
            expected=f"a scheduler that answers within {configuration.CONNECT_TIMEOUT_S} s",
            found=str(err),
            remedy="See its log, and the network policies of the namespace.",
        ) from err


def _troubles(cluster: Operated) -> str:
    """Say what keeps workers from coming."""
    with in_our_words():
        return cluster.troubles("worker")


def cluster_description(spec: ClusterSpec, name: str) -> dict[str, Any]:
    """Describe the ``DaskCluster`` that the operator is to make.

    Parameters
    ----------
    spec : ClusterSpec
        With an image and the memory of a worker.
    name : str
        Name of the cluster.

    Raises
    ------
    ResourceError
        If a variable is to be passed on that this process does not have.
    """
    settings = spec.settings
    clusters = require("dask_kubernetes.operator", "kubernetes")
    described: dict[str, Any] = clusters.make_cluster_spec(
        name=name,
        image=settings.image,
        n_workers=settings.adapt_min or spec.wanted_workers,
        env=server_environment(settings) | _NEVER_BY_ITSELF,
        idle_timeout=int(settings.idle_timeout_s),
        # No `dask-worker` any more, which is what the operator's client would write.
        worker_command=["dask", "worker", "--nthreads", str(spec.threads), "--memory-limit", "0"],
    )
    described["metadata"]["labels"] = dict(LABELS)
    parts = described["spec"]
    scheduler = parts["scheduler"]["spec"]
    scheduler["containers"][0]["args"] = ["dask", "scheduler", "--host", "0.0.0.0"]
    worker = parts["worker"]["spec"]
    _fill(scheduler, settings, _SCHEDULER)
    size = {"cpu": f"{settings.worker_cores or 1:g}", "memory": f"{settings.worker_memory_gib:g}Gi"}
    _fill(worker, settings, size | ({"nvidia.com/gpu": "1"} if settings.gpus else {}))
    _tolerate(worker, settings)
    return described


def _fill(pod: dict[str, Any], settings: ClusterSettings, size: dict[str, str]) -> None:
    """Give a pod its size, its secrets and no rights that it does not need."""
    container = pod["containers"][0]
    # Equal, so that a node that runs short ends other pods first.
    container["resources"] = {"requests": dict(size), "limits": dict(size)}
    container["securityContext"] = _SAFE
    if settings.secret is not None:
        container["envFrom"] = [{"secretRef": {"name": settings.secret}}]
    pod |= _SAFE_POD
    if settings.service_account is not None:
        # Rights on buckets come with the account; its token for Kubernetes does not.
        pod |= {"serviceAccountName": settings.service_account}


def _tolerate(pod: dict[str, Any], settings: ClusterSettings) -> None:
    """Let workers run on nodes that are tainted for GPUs, or as preemptible."""
    tainted = ["nvidia.com/gpu"] if settings.gpus else []
    if settings.spot:
        # Of GKE and AKS; EKS and Karpenter have none unless an administrator chose one.
        tainted += ["cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"]
    pod["tolerations"] = [
        {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in tainted
    ]


def _check_namespace(api: Api) -> None:
    """Refuse a namespace that is not there, where we may look."""
    if allowed("namespaces", api.namespace, api=api) == []:
        raise ResourceError(
            where=f"{WHERE}, namespace {api.namespace}",
            expected="a namespace that exists",
            found="none of that name",
            remedy="Add --cluster-set namespace=NAME, or make it: kubectl create namespace "
            f"{api.namespace}.",
        )


def _check_quota(api: Api, description: dict[str, Any]) -> None:
    """Refuse a cluster that a quota of the namespace would keep from starting in full."""
    quotas = allowed("resourcequotas", namespace=api.namespace, api=api) or []
    short = list(shortfalls(needs(description), [dict(quota.raw) for quota in quotas]))
    if short:
        raise ResourceError(
            where=f"{WHERE}, namespace {api.namespace}",
            expected="a cluster within the quota of the namespace",
            found="; ".join(short),
            remedy="Ask for fewer or smaller workers, or raise the quota.",
        )


def _new_name() -> str:
    return f"tilewright-{uuid4().hex[:8]}"
