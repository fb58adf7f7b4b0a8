"""A Dask-Gateway in Kubernetes mode: server and controller with the values of deploy/gateway.

Their chart brings traefik, which leads clients to schedulers; for a test a few lines do.
"""

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from deployed import Document, documents
from gateway_files import lines_on_kubernetes
from kubernetes_target import image, kubectl, objects

PASSWORD = "only for tests"
SPACE = "dask-gateway"

#: What the server and its controller write; the chart has more of each schema.
KINDS = (
    ("gateway.dask.org", "v1alpha1", "DaskCluster"),
    ("traefik.io", "v1alpha1", "IngressRoute"),
    ("traefik.io", "v1alpha1", "IngressRouteTCP"),
)

#: What the chart adds to our values: addresses, and the kind of authentication.
ADDED = """
c.DaskGateway.address = c.KubeController.address = ":8000"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
"""

#: The chart's two programs, with the rights of an administrator; it gives them narrower ones.
PROGRAMS = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: dask-gateway}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: default, namespace: dask-gateway}]
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: dask-gateway}
spec:
  selector: {app: server}
  ports: [{port: 8000}]
"""


@contextmanager
def gateway(namespace: str) -> Iterator[list[str]]:
    """Run one until the block ends; words that let ``--cluster gateway`` reach it."""
    lines = lines_on_kubernetes("values", image=image(), api="http://api.dask-gateway:8000/api")
    definitions = [_definition(*kind) for kind in KINDS]
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SPACE}}
    config = {"dask_gateway_config.py": lines + ADDED}
    files = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _named("config"), "data": config}
    programs = [_program("server"), _program("controller", "kube-controller")]
    made = [space, *definitions, files, *documents(PROGRAMS), *programs]
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": made})
    kubectl("create", "--filename=-", text=listed)
    try:
        ready = ("rollout", "status", "--timeout=60s", "--namespace", SPACE)
        kubectl(*ready, "deployment/server")
        kubectl(*ready, "deployment/controller")
        (server,) = objects("pods", SPACE, "app=server")
        with way_to_scheduler(namespace) as proxy:
            yield [
                *("--cluster-set", f"address=http://{server['status']['podIP']}:8000"),
                *("--cluster-set", f"proxy_address=gateway://{proxy}"),
            ]
    finally:
        kubectl("delete", "--filename=-", "--timeout=120s", text=listed)


def _named(name: str) -> Document:
    return {"name": name, "namespace": SPACE}


def _program(name: str, *words: str) -> Document:
    """Deployment of the server, or of its controller."""
    folder = "/etc/dask-gateway"
    command = ["python", "-m", "dask_gateway_server", *words]
    container = {
        "name": name,
        "image": image(),
        "command": [*command, "-f", f"{folder}/dask_gateway_config.py"],
        "env": [{"name": "TILEWRIGHT_GATEWAY_PASSWORD", "value": PASSWORD}],
        "readinessProbe": {"httpGet": {"port": 8000, "path": "/api/health"}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": folder}],
    }
    if words:
        # A controller serves nothing that could be asked for.
        del container["readinessProbe"]
    volume = {"name": "config", "configMap": {"name": "config"}}
    pod = {"containers": [container], "volumes": [volume]}
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _named(name), "spec": spec}


def _definition(group: str, version: str, kind: str) -> Document:
    """Custom resource that may hold anything."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"kind": kind, "singular": kind.lower(), "plural": f"{kind.lower()}s"}
    one = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": [one]},
    }


@contextmanager
def way_to_scheduler(namespace: str) -> Iterator[str]:
    """Lead every connection to the scheduler of the one cluster that there is."""

    class Way(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            pods = objects("pods", namespace, "app.kubernetes.io/component=dask-scheduler")
            with (
                suppress(OSError),
                socket.create_connection((pods[0]["status"]["podIP"], 8786)) as there,
            ):
                back = threading.Thread(target=_pass_on, args=(there, self.request), daemon=True)
                back.start()
                _pass_on(self.request, there)
                back.join()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Way) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(2**16):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
