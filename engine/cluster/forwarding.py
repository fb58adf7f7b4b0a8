"""A way from outside of Kubernetes to a port of a pod, through the API server."""

from __future__ import annotations

import os
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from engine.cluster import configuration
from engine.cluster.extras import require
from engine.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Of kr8s, which is an extra.
_Api: TypeAlias = Any
_Pod: TypeAlias = Any

WHERE = "--cluster kubernetes"

#: How often a way that is being made is tried.
_TRY_EACH_S = 0.2


def is_inside() -> bool:
    """Whether this process runs in a pod, where names of services resolve."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def check_rights(api: _Api) -> None:
    """Refuse where ports of pods may not be forwarded: kr8s would try for ever.

    Raises
    ------
    ResourceError
        If so.
    """
    if not _may_forward(api):
        raise ResourceError(
            where=f"{WHERE}, namespace {api.namespace}",
            expected="the right to get pods/portforward, by which the scheduler is reached",
            found="that you have it not",
            remedy="Ask for it (deploy/k8s/base/rbac.yaml has it), or run in a pod.",
        )


@contextmanager
def forwarded(pod: _Pod, port: int) -> Iterator[int]:
    """Port of this machine that leads to one of a pod.

    Raises
    ------
    ResourceError
        If nobody speaks there in time.
    """
    # Not its context: that waits, in its end, for connections that are tried again for ever.
    here = _free_port()
    way = pod.portforward(port, local_port=here)
    way.start()
    try:
        _wait_for_answer(here, f"pod {pod.name}, port {port}")
        yield here
    finally:
        way.stop()


def _wait_for_answer(port: int, what: str) -> None:
    """Wait until Dask greets who connects, as it does at once."""
    deadline = time.monotonic() + configuration.CONNECT_TIMEOUT_S
    problem = "nothing"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(("127.0.0.1", port), left) as way:
                if way.recv(1):
                    return
        except OSError as err:
            problem = str(err)
        time.sleep(_TRY_EACH_S)
    raise ResourceError(
        where=f"{WHERE}, {what}",
        expected=f"an answer by way of the API server within {configuration.CONNECT_TIMEOUT_S} s",
        found=problem,
        remedy="See whether `kubectl port-forward` works with this pod, or run in a pod.",
    )


def _may_forward(api: _Api) -> bool:
    """Whether Kubernetes lets us, as far as it tells."""
    kr8s = require("kr8s", "kubernetes")
    review = require("kr8s.objects", "kubernetes").new_class(
        "SelfSubjectAccessReview", "authorization.k8s.io/v1", asyncio=False, namespaced=False
    )
    # A web socket begins as a GET.
    what = {"resource": "pods", "subresource": "portforward", "verb": "get"}
    asked = review(
        {
            "metadata": {"name": "asked"},
            "spec": {"resourceAttributes": what | {"namespace": api.namespace}},
        },
        api=api,
    )
    try:
        asked.create()
    except kr8s.ServerError:
        # Who may not even ask will see.
        return True
    return bool(asked.raw.get("status", {}).get("allowed"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])
