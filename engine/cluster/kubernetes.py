"""A cluster that the Dask operator makes on Kubernetes, from a description, and removes."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from distributed import Client

from engine.cluster import configuration
from engine.cluster.arriving import end_when_idle, wait_for_worker
from engine.cluster.configuration import WAIT_S, server_environment
from engine.cluster.extras import require
from engine.cluster.inspection import inspect_cluster
from engine.cluster.quota import needs, shortfalls
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.cluster.spec import ClusterSpec
    from engine.recipe import ClusterSettings

_LOG = logging.getLogger(__name__)

WHERE = "--cluster kubernetes"

#: The operator's kind of resource.
KIND = "daskclusters.kubernetes.dask.org"

#: What the scheduler takes: it holds no pixels.
_SCHEDULER = {"cpu": "1", "memory": "2Gi"}

#: Whose errors are told in our words.
_PACKAGES = ("kr8s", "httpx", "httpcore", "dask_kubernetes")

#: How long removing may take.
_REMOVE_S = 60

#: What a worker's pod must not have by itself: rights on the machine, a token of the cluster.
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
    kr8s = require("kr8s", "kubernetes")
    require("dask_kubernetes.operator", "kubernetes")
    with _in_our_words():
        api = kr8s.api(namespace=spec.settings.namespace)
        api.timeout = configuration.CONNECT_TIMEOUT_S
        # Also tells whether we may: a namespace of others, or none, has no list for us.
        list(kr8s.get(KIND, namespace=api.namespace, api=api))
        _check_namespace(kr8s, api)
        if spec.settings.name is None:
            _check_quota(kr8s, api, cluster_description(spec, _new_name()))


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
    settings = spec.settings
    operator = require("dask_kubernetes.operator", "kubernetes")
    wait_s = settings.wait_s or WAIT_S
    description = None if settings.name else cluster_description(spec, _new_name())
    name = settings.name or str((description or {})["metadata"]["name"])
    make = operator.KubeCluster.from_name if settings.name else operator.KubeCluster
    with _removed(name, settings):
        with _in_our_words():
            cluster = make(
                name=name,
                namespace=settings.namespace,
                custom_cluster_spec=description,
                shutdown_on_close=False,
                resource_timeout=int(max(1, wait_s)),
                quiet=True,
            )
        with (
            cluster,
            Client(
                cluster, timeout=configuration.CONNECT_TIMEOUT_S, set_as_default=False
            ) as client,
        ):
            if settings.adapt_min is not None:
                cluster.adapt(settings.adapt_min, settings.adapt_max)
            end_when_idle(client, settings.idle_timeout_s)
            remedy = f"See `kubectl describe pods -l dask.org/cluster-name={name}` for the reason."
            wait_for_worker(client, WHERE, wait_s, remedy)
            inspect_cluster(client, WHERE)
            client.forward_logging("engine")
            yield client


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
        n_workers=settings.workers or settings.adapt_min or spec.workers,
        env=server_environment(settings),
        idle_timeout=int(settings.idle_timeout_s),
        # No `dask-worker` any more, which is what the operator's client would write.
        worker_command=["dask", "worker", "--nthreads", str(spec.threads), "--memory-limit", "0"],
    )
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
        pod |= {"serviceAccountName": settings.service_account}
        pod |= {"automountServiceAccountToken": True}


def _tolerate(pod: dict[str, Any], settings: ClusterSettings) -> None:
    """Let workers run on nodes that are tainted for GPUs, or as preemptible."""
    tainted = ["nvidia.com/gpu"] if settings.gpus else []
    if settings.spot:
        # Of GKE and AKS; EKS and Karpenter have none unless an administrator chose one.
        tainted += ["cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"]
    pod["tolerations"] = [
        {"key": key, "operator": "Exists", "effect": "NoSchedule"} for key in tainted
    ]


@contextmanager
def _removed(name: str, settings: ClusterSettings) -> Iterator[None]:
    """Remove a cluster when the block ends, unless it is to be left or was there before."""
    try:
        yield
    except BaseException:
        if settings.name is None or not settings.leave:
            _remove(name, settings)
        raise
    if settings.leave:
        _LOG.warning("cluster %s is left; it ends after %g s", name, settings.idle_timeout_s)
    else:
        _remove(name, settings)


def _remove(name: str, settings: ClusterSettings) -> None:
    kr8s = require("kr8s", "kubernetes")
    try:
        api = kr8s.api(namespace=settings.namespace)
        for found in kr8s.get(KIND, name, namespace=api.namespace, api=api):
            found.delete()
            found.wait("delete", timeout=_REMOVE_S)
    except Exception:
        # Whatever it is: it must not hide why the run ends, and the idle timeout is set.
        _LOG.exception("cluster %s could not be removed", name)


def _check_namespace(kr8s: Any, api: Any) -> None:  # noqa: ANN401
    """Refuse a namespace that is not there, where we may look."""
    if _allowed(kr8s, "namespaces", api.namespace, api=api) == []:
        raise ResourceError(
            where=f"{WHERE}, namespace {api.namespace}",
            expected="a namespace that exists",
            found="none of that name",
            remedy="Add --cluster-set namespace=NAME, or make it: kubectl create namespace "
            f"{api.namespace}.",
        )


def _check_quota(kr8s: Any, api: Any, description: dict[str, Any]) -> None:  # noqa: ANN401
    """Refuse a cluster that a quota of the namespace would keep from starting in full."""
    quotas = _allowed(kr8s, "resourcequotas", namespace=api.namespace, api=api) or []
    short = list(shortfalls(needs(description), [dict(quota.raw) for quota in quotas]))
    if short:
        raise ResourceError(
            where=f"{WHERE}, namespace {api.namespace}",
            expected="a cluster within the quota of the namespace",
            found="; ".join(short),
            remedy="Ask for fewer or smaller workers, or raise the quota.",
        )


def _allowed(kr8s: Any, *words: str, **options: Any) -> list[Any] | None:  # noqa: ANN401
    """Objects of Kubernetes; None where we may not look at them."""
    try:
        return list(kr8s.get(*words, **options))
    except kr8s.ServerError as err:
        if err.response is None or err.response.status_code != 403:
            raise
        return None


def _new_name() -> str:
    return f"tilewright-{uuid4().hex[:8]}"


@contextmanager
def _in_our_words() -> Iterator[None]:
    """Tell what Kubernetes, or the client of its operator, refuses as an error of ours."""
    try:
        yield
    except Exception as err:
        # Of any of the packages below: their errors have no common type.
        ours = isinstance(err, OSError | RuntimeError | ValueError)
        if not ours and type(err).__module__.partition(".")[0] not in _PACKAGES:
            raise
        raise ResourceError(
            where=WHERE,
            expected="a Kubernetes cluster with the Dask operator that takes the request",
            found=f"{type(err).__name__}: {err}".strip(": "),
            remedy="Check KUBECONFIG, the namespace and its quota, your rights (kubectl auth can-i "
            "create daskclusters) and the operator (https://kubernetes.dask.org).",
        ) from err
