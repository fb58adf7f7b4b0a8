"""What a Kubernetes API server answers to the first questions, over HTTP, for a test."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CORE = {"namespaces": ("Namespace", False), "resourcequotas": ("ResourceQuota", True)}
DASK = {"daskclusters": ("DaskCluster", True)}


@dataclass
class Stub:
    """Objects that it knows, and what it was asked.

    Parameters
    ----------
    namespaces : tuple of str
        That exist.
    quotas : list of dict
        Of every namespace.
    operator : bool
        Whether the operator's resources are installed.
    forbidden : tuple of str
        Plurals that may not be listed.
    refusal : str
        What it says to whoever wants to make something.
    may_forward : bool
        Whether ports of pods may be forwarded.
    """

    namespaces: tuple[str, ...] = ("default",)
    quotas: list[dict[str, Any]] = field(default_factory=list)
    operator: bool = True
    forbidden: tuple[str, ...] = ()
    refusal: str = "exceeded quota: none"
    may_forward: bool = True
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and document of a GET."""
        self.asked.append(path)
        parts = urlsplit(path)
        match parts.path.strip("/").split("/"):
            case ["version"]:
                return 200, {"major": "1", "minor": "33", "gitVersion": "v1.33.0"}
            case ["api"]:
                return 200, {"kind": "APIVersions", "versions": ["v1"]}
            case ["apis"]:
                groups = [_group("kubernetes.dask.org")] if self.operator else []
                return 200, {"kind": "APIGroupList", "groups": groups}
            case ["api", "v1"]:
                return 200, _resources("v1", CORE)
            case ["apis", "kubernetes.dask.org", "v1"] if self.operator:
                return 200, _resources("kubernetes.dask.org/v1", DASK)
            case [*_, plural]:
                return self._list(plural, parse_qs(parts.query))
        return 404, {"kind": "Status", "code": 404, "message": "not found"}

    def _list(self, plural: str, query: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        if plural in self.forbidden:
            return 403, {"kind": "Status", "code": 403, "message": f"{plural} is forbidden"}
        found: list[dict[str, Any]] = []
        if plural == "namespaces":
            wanted = "".join(query.get("fieldSelector", [])).strip(",")
            names = [n for n in self.namespaces if not wanted or wanted == f"metadata.name={n}"]
            found = [{"kind": "Namespace", "metadata": {"name": n}} for n in names]
        elif plural == "resourcequotas":
            found = self.quotas
        elif plural != "daskclusters":
            return 404, {"kind": "Status", "code": 404, "message": "not found"}
        return 200, {"kind": "List", "apiVersion": "v1", "metadata": {}, "items": found}


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resources(group: str, known: dict[str, tuple[str, bool]]) -> dict[str, Any]:
    listed = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": namespaced,
            "kind": kind,
            "verbs": ["get", "list", "create", "delete"],
        }
        for plural, (kind, namespaced) in known.items()
    ]
    return {"kind": "APIResourceList", "groupVersion": group, "resources": listed}


@contextmanager
def kubernetes_stub(stub: Stub, folder: Path) -> Iterator[Path]:
    """Serve it until the block ends; yields a kubeconfig for it."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("/selfsubjectaccessreviews"):
                return self._say(201, {"status": {"allowed": stub.may_forward}})
            stub.asked.append(f"POST {self.path}")
            return self._say(403, {"kind": "Status", "code": 403, "message": stub.refusal})

        def do_GET(self) -> None:
            self._say(*stub.answer(self.path))

        def _say(self, status: int, document: dict[str, Any]) -> None:
            text = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield kubeconfig(folder, f"http://127.0.0.1:{server.server_address[1]}")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def kubeconfig(folder: Path, address: str) -> Path:
    """File that names an API server."""
    file = folder / f"kubeconfig-{address.rpartition(':')[2]}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "t", "cluster": {"server": address}}],
        "users": [{"name": "t", "user": {"token": "t"}}],
        "contexts": [
            {"name": "t", "context": {"cluster": "t", "user": "t", "namespace": "default"}}
        ],
        "current-context": "t",
    }
    file.write_text(json.dumps(document))
    return file
