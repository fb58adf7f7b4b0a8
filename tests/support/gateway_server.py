"""A real dask-gateway-server with its local backend, on the loopback interface, for a test."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PASSWORD = "only for tests"

CONFIG = """
import sys
from dask_gateway_server.options import Float, Integer, Mapping, Options

c.DaskGateway.address = "127.0.0.1:{private}"
c.DaskGateway.backend_class = "dask_gateway_server.backends.local.UnsafeLocalBackend"
c.DaskGateway.authenticator_class = "dask_gateway_server.auth.SimpleAuthenticator"
c.SimpleAuthenticator.password = "{password}"
c.Proxy.address = "127.0.0.1:{public}"
c.Proxy.tcp_address = "127.0.0.1:{proxy}"
c.UnsafeLocalBackend.clusters_directory = "{folder}"
c.UnsafeLocalBackend.sigint_timeout = 1
c.UnsafeLocalBackend.sigterm_timeout = 1
# The scripts dask-scheduler and dask-worker are no more.
c.ClusterConfig.scheduler_cmd = [sys.executable, "-m", "dask", "scheduler"]
c.ClusterConfig.worker_cmd = [sys.executable, "-m", "dask", "worker"]
c.ClusterConfig.cluster_max_workers = 3
c.ClusterConfig.worker_cores = 1
c.ClusterConfig.worker_memory = "2 G"
c.ClusterConfig.adaptive_period = 1
c.ClusterConfig.idle_timeout = 120


def chosen(options):
    return {{
        "worker_memory": int(options.worker_memory * 2**30),
        "worker_cores_limit": options.worker_cores,
        "environment": dict(options.environment),
        "worker_cmd": [sys.executable, "-m", "dask", "worker", *options.arguments.split()],
    }}


from dask_gateway_server.options import String

c.Backend.cluster_options = Options(
    Float("worker_memory", 2.0, min=0.5, max=8),
    Integer("worker_cores", 1, min=1, max=2),
    Mapping("environment", {{}}),
    String("arguments", ""),
    handler=chosen,
)
"""


@dataclass(frozen=True)
class Server:
    """Where a server listens, and its process."""

    address: str
    proxy: str
    process: psutil.Process
    log: Path

    def settings(self) -> list[str]:
        """Words that let ``--cluster gateway`` reach it."""
        words = [f"address={self.address}", f"proxy_address={self.proxy}"]
        return [word for setting in words for word in ("--cluster-set", setting)]

    def clusters(self) -> list[psutil.Process]:
        """Schedulers, nannies and workers that run for it."""
        return [
            child
            for child in self.process.children(recursive=True)
            if "dask-gateway-proxy" not in " ".join(_words(child))
        ]

    def nannies(self) -> list[psutil.Process]:
        """Nannies of workers."""
        return [child for child in self.clusters() if {"dask", "worker"} <= {*_words(child)}]


@contextmanager
def gateway_server(folder: Path) -> Iterator[Server]:
    """Run a server until the block ends."""
    public, private, proxy = _free_ports(3)
    config, log = folder / "gateway_config.py", folder / "server.log"
    (folder / "clusters").mkdir()
    config.write_text(
        CONFIG.format(
            private=private,
            public=public,
            proxy=proxy,
            password=PASSWORD,
            folder=folder / "clusters",
        )
    )
    command = Path(sys.executable).with_name("dask-gateway-server")
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(command), "-f", str(config)], cwd=folder, stdout=stream, stderr=stream
        )
    watched = psutil.Process(process.pid)
    address = f"http://127.0.0.1:{public}"
    try:
        _wait(f"{address}/api/health", process, log)
        yield Server(address, f"gateway://127.0.0.1:{proxy}", watched, log)
    finally:
        children = watched.children(recursive=True)
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for child in children:
            if child.is_running():
                child.kill()


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [place.getsockname()[1] for place in taken]
    for place in taken:
        place.close()
    return ports


def _words(process: psutil.Process) -> list[str]:
    try:
        return [str(word) for word in process.cmdline()]
    except psutil.Error:
        return []
