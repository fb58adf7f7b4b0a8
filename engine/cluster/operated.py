"""A cluster that Dask's operator keeps on Kubernetes: made, waited for, reached, removed."""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.cluster import configuration
from engine.cluster.extras import require
from engine.cluster.forwarding import WHERE, forwarded, is_inside
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_LOG = logging.getLogger(__name__)

#: Of kr8s, which is an extra.
Api: TypeAlias = Any
_Object: TypeAlias = Any

#: The operator's kinds of resource.
KIND = "daskclusters.kubernetes.dask.org"
_SCALER = "daskautoscalers.kubernetes.dask.org"
_VERSION = "kubernetes.dask.org/v1"

#: Marks all that belongs to tilewright; policies, budgets and quotas of deploy/k8s ask for it.
LABELS = {"app.kubernetes.io/part-of": "tilewright"}

#: Whose errors are told in our words.
_PACKAGES = ("kr8s", "httpx", "httpcore", "dask_kubernetes")

#: Port of schedulers, in the operator's service.
_PORT = 8786

#: How long the operator may take to see a new cluster; it is told at once.
_OPERATOR_S = 30

#: How long removing is waited for.
_REMOVE_S = 15

#: How often pods are looked at.
_LOOK_EACH_S = 0.5

#: Pods whose troubles are told; those of one cluster mostly have the same.
_TOLD = 3


def open_api(namespace: str | None) -> Api:
    """Reach the cluster of KUBECONFIG, or the one that this process runs in.

    Parameters
    ----------
    namespace : str or None
        None for the one that the configuration names.

    Raises
    ------
    ResourceError
        If neither names a cluster.
    """
    # Named, since kr8s gives the client it made before to whoever asks with the same words, and
    # the variable is none of them.
    config = os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        api = require("kr8s", "kubernetes").api(kubeconfig=config, namespace=namespace)
    except ValueError as err:
        raise ResourceError(
            where=WHERE,
            expected="a Kubernetes cluster that this machine knows",
            found=f"none in {config}, and this is no pod",
            remedy="Set KUBECONFIG to the file of your cluster; `kubectl get nodes` tries it.",
        ) from err
    api.timeout = configuration.CONNECT_TIMEOUT_S
    return api


@dataclass(frozen=True)
class Operated:
    """A cluster of the operator, which may not exist yet.

    Parameters
    ----------
    api : Api
        Of its namespace.
    name : str
        Its name.
    """

    api: Api
    name: str

    def make(self, description: Mapping[str, Any]) -> None:
        """Have it made."""
        self._new("DaskCluster", description).create()

    def scale(self, workers: int) -> None:
        """Have so many workers, whatever their number followed before."""
        for scaler in self._get(_SCALER, self.name):
            scaler.delete()
        self.found().patch({"spec": {"worker": {"replicas": workers}}})

    def adapt(self, least: int, most: int) -> None:
        """Let the number of workers follow the work."""
        spec = {"cluster": self.name, "minimum": least, "maximum": most}
        if found := self._get(_SCALER, self.name):
            found[0].patch({"spec": spec})
            return
        owner = self.found().raw
        reference = {
            "apiVersion": _VERSION,
            "kind": "DaskCluster",
            "name": self.name,
            "uid": owner["metadata"]["uid"],
        }
        metadata = {"name": self.name, "labels": LABELS, "ownerReferences": [reference]}
        self._new("DaskAutoscaler", {"metadata": metadata, "spec": spec}).create()

    def wait_for_scheduler(self, deadline: float) -> None:
        """Wait until its scheduler answers.

        Raises
        ------
        ResourceError
            If it does not in time; or if there is no operator that takes the cluster up.
        """
        patience = min(deadline, time.monotonic() + _OPERATOR_S)
        while not self._ready_pods("scheduler"):
            now = time.monotonic()
            if now > patience and not self.found().raw.get("status", {}).get("phase"):
                raise ResourceError(
                    where=f"{WHERE}, namespace {self.api.namespace}",
                    expected="the Dask operator to take up the cluster",
                    found="that it did not",
                    remedy="See whether it runs, and watches this namespace: "
                    "https://kubernetes.dask.org.",
                )
            if now > deadline:
                raise self._without_scheduler()
            time.sleep(_LOOK_EACH_S)

    @contextmanager
    def reached(self) -> Iterator[str]:
        """Address of its scheduler; from outside of Kubernetes, by way of the API server."""
        if is_inside():
            yield f"tcp://{self.name}-scheduler.{self.api.namespace}:{_PORT}"
            return
        with in_our_words():
            pods = self._ready_pods("scheduler")
        if not pods:
            raise self._without_scheduler()
        with forwarded(pods[0], _PORT) as port:
            yield f"tcp://127.0.0.1:{port}"

    def troubles(self, component: str) -> str:
        """Say why pods do not come; nothing where no reason is known.

        Parameters
        ----------
        component : str
            ``scheduler`` or ``worker``.
        """
        deployments = require("kr8s.objects", "kubernetes").Deployment
        listed = allowed(deployments, **self._options(component)) or ()
        found = [_kept_from(one.raw) for one in listed]
        found += [_waits_for(pod.raw) for pod in self._pods(component) if not _ready(pod)]
        told = list(dict.fromkeys(text for text in found if text))
        return "; ".join(told[:_TOLD])

    def remove(self) -> None:
        """Remove it, with what belongs to it; the operator may end what it is at with it first."""
        for found in self._get(KIND, self.name):
            found.delete()
        deadline = time.monotonic() + _REMOVE_S
        while self._get(KIND, self.name):
            if time.monotonic() > deadline:
                _LOG.warning("cluster %s is being removed; the operator takes its time", self.name)
                return
            time.sleep(_LOOK_EACH_S)

    def found(self) -> _Object:
        """Look it up.

        Raises
        ------
        ResourceError
            If there is none of that name.
        """
        found = self._get(KIND, self.name)
        if not found:
            raise ResourceError(
                where=f"{WHERE}, namespace {self.api.namespace}",
                expected=f"the cluster {self.name}",
                found="none of that name",
                remedy="Leave out name=, so that one is made.",
            )
        return found[0]

    def _without_scheduler(self) -> ResourceError:
        return ResourceError(
            where=f"{WHERE}, namespace {self.api.namespace}",
            expected="a scheduler that is ready in time",
            found=self.troubles("scheduler") or "none",
            remedy="Correct that, or raise wait_s.",
        )

    def _ready_pods(self, component: str) -> list[_Object]:
        return [pod for pod in self._pods(component) if _ready(pod)]

    def _pods(self, component: str) -> list[_Object]:
        # The class, not its name: of servers before 1.27 kr8s learns names that it does not know.
        pods = require("kr8s.objects", "kubernetes").Pod
        return list(require("kr8s", "kubernetes").get(pods, **self._options(component)))

    def _options(self, component: str) -> dict[str, Any]:
        labels = {"dask.org/cluster-name": self.name, "dask.org/component": component}
        return {"namespace": self.api.namespace, "label_selector": labels, "api": self.api}

    def _get(self, kind: str, name: str) -> list[_Object]:
        """Object of a name, if there is one."""
        kr8s = require("kr8s", "kubernetes")
        try:
            return list(kr8s.get(kind, name, namespace=self.api.namespace, api=self.api))
        except kr8s.NotFoundError:
            return []

    def _new(self, kind: str, document: Mapping[str, Any]) -> _Object:
        objects = require("kr8s.objects", "kubernetes")
        made = objects.new_class(kind, _VERSION, asyncio=False, plural=f"{kind.lower()}s")
        return made({**document}, namespace=self.api.namespace, api=self.api)


def allowed(*words: Any, **options: Any) -> list[_Object] | None:  # noqa: ANN401 - as kr8s.get takes
    """Objects of Kubernetes; None where we may not look at them."""
    kr8s = require("kr8s", "kubernetes")
    try:
        return list(kr8s.get(*words, **options))
    except kr8s.ServerError as err:
        if err.response is None or err.response.status_code != 403:
            raise
        return None


@contextmanager
def in_our_words() -> Iterator[None]:
    """Tell what Kubernetes, or its client, refuses as an error of ours."""
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


def _ready(pod: _Object) -> bool:
    conditions: Iterable[Mapping[str, str]] = pod.raw.get("status", {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _kept_from(deployment: Mapping[str, Any]) -> str:
    """Say why a deployment may not make its pods, such as a quota."""
    for each in deployment.get("status", {}).get("conditions") or ():
        if each["type"] == "ReplicaFailure" and each["status"] == "True":
            return str(each.get("message", each.get("reason", "")))
    return ""


def _waits_for(pod: Mapping[str, Any]) -> str:
    """Say what a pod waits for: a node, an image, a container that ends again and again."""
    status = pod.get("status", {})
    for each in status.get("conditions") or ():
        if each["type"] == "PodScheduled" and each["status"] == "False":
            return f"no node for a pod: {each.get('message', each.get('reason', ''))}"
    for each in status.get("containerStatuses") or ():
        waiting = each["state"].get("waiting")
        if waiting:
            words = (waiting.get("reason"), waiting.get("message"))
            return ": ".join(word for word in words if word)
    return f"a pod that is {status.get('phase', 'unknown').lower()} and not ready"
