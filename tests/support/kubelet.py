"""The node of a Kubernetes cluster on this machine: it runs the pods that are bound to it.

A kubelet without images and cgroups: images are names, their content is this machine's (its
Python, these sources); limits of memory and CPU are not enforced, liveness is not probed, user ids
are not taken on.
"""

import asyncio
import signal
import ssl
import sys
import warnings
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import kr8s
import pod_sandbox
from aiohttp import WSMsgType, web
from kr8s.asyncio.objects import Endpoints, Pod
from kr8s.asyncio.objects import Node as NodeObject
from pod_runner import Node, PodRunner, now

NAME = "this-machine"
PORT = 10250

#: What a node must say in time not to be given up.
BEAT_S = 10

SIZE = {"cpu": "16", "memory": "64Gi", "pods": "100", "ephemeral-storage": "100Gi"}

#: What deploy/docker's images set, where this machine has the commands, and what Kubernetes adds.
BASE = {
    "KUBERNETES_SERVICE_HOST": pod_sandbox.HOST,
    "KUBERNETES_SERVICE_PORT": str(pod_sandbox.API_PORT),
    "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "HOME": "/tmp",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
    "NUMBA_CACHE_DIR": "/tmp/numba",
    "MPLCONFIGDIR": "/tmp/matplotlib",
}


class Kubelet:
    """Runs the pods of the node until it is stopped."""

    def __init__(self, folder: Path, images: tuple[str, ...]) -> None:
        self.node = Node(folder, images, BASE)
        self.runners: dict[str, PodRunner] = {}
        self.endings: set[asyncio.Task[None]] = set()
        self.numbers = count(2)
        self.services: dict[tuple[str, str], str] = {}
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        self._write_hosts()

    async def run(self, certificates: Path) -> None:
        """Serve until cancelled; then end all pods."""
        node = await register()
        server = await self._serve(certificates)
        (self.node.folder / "ready").touch()
        try:
            await asyncio.gather(beat(node), self._watch_pods(), self._watch_services())
        finally:
            await asyncio.gather(*(runner.end(5) for runner in self.runners.values()))
            await server.cleanup()

    async def _watch_pods(self) -> None:
        mine = {"spec.nodeName": NAME}
        while True:
            async for event, pod in kr8s.asyncio.watch(
                Pod, namespace=kr8s.ALL, field_selector=mine
            ):
                self._seen(event, pod)

    def _seen(self, event: str, pod: Pod) -> None:
        uid = pod.metadata.uid
        if event == "DELETED":
            self._end(uid, None, 0)
        elif "deletionTimestamp" in pod.metadata:
            self._end(uid, pod, pod.metadata.get("deletionGracePeriodSeconds", 30))
        elif uid not in self.runners and pod.raw["status"].get("phase") == "Pending":
            number = next(self.numbers)
            address = f"10.88.{number // 250}.{number % 250 + 2}"
            self.runners[uid] = PodRunner(self.node, pod, address)

    def _end(self, uid: str, pod: Pod | None, grace_s: float) -> None:
        runner = self.runners.get(uid)
        if runner is not None and runner.ending:
            return

        async def end() -> None:
            if runner is not None:
                await runner.end(grace_s)
            if pod is not None:
                with suppress(kr8s.NotFoundError):
                    await pod.delete(force=True)

        task = asyncio.create_task(end())
        self.endings.add(task)
        task.add_done_callback(self.endings.discard)

    async def _watch_services(self) -> None:
        """Let pods find services by name: their first ready pod, as one without a proxy would.

        A service without any resolves too, and refuses; unless it is headless.
        """
        while True:
            async for event, found in kr8s.asyncio.watch(Endpoints, namespace=kr8s.ALL):
                subsets = found.raw.get("subsets") or []
                ready = [a["ip"] for s in subsets for a in s.get("addresses") or ()]
                headless = "service.kubernetes.io/headless" in found.labels
                key = (found.name, found.namespace)
                self.services.pop(key, None)
                if event != "DELETED" and (ready or not headless):
                    self.services[key] = ready[0] if ready else "127.0.0.1"
                self._write_hosts()

    def _write_hosts(self) -> None:
        lines = ["127.0.0.1 localhost"]
        for (name, namespace), address in self.services.items():
            full = f"{name}.{namespace}"
            lines.append(f"{address} {full} {full}.svc {full}.svc.cluster.local")
        # In place: pods have this very file mounted.
        self.node.hosts.write_text("\n".join(lines) + "\n")

    async def _serve(self, certificates: Path) -> web.AppRunner:
        """Answer what the API server asks nodes: logs, and ways to ports."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        app.router.add_get("/portForward/{namespace}/{pod}", self._forward)
        runner = web.AppRunner(app)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "apiserver.crt", certificates / "apiserver.key")
        await web.TCPSite(runner, pod_sandbox.HOST, PORT, ssl_context=context).start()
        return runner

    async def _logs(self, request: web.Request) -> web.Response:
        names = request.match_info
        log = self.node.log(names["namespace"], names["pod"], names["container"])
        return web.Response(text=log.read_text() if log.exists() else "")

    async def _forward(self, request: web.Request) -> web.WebSocketResponse:
        """Pass bytes between a web socket and a port: channel 0 data, channel 1 errors."""
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        names, port = request.match_info, int(request.query["port"])
        for channel in (b"\0", b"\1"):
            await socket.send_bytes(channel + port.to_bytes(2, "little"))
        try:
            address = self._address(names["namespace"], names["pod"])
            reader, writer = await asyncio.open_connection(address, port)
        except OSError as err:
            await socket.send_bytes(b"\1" + str(err).encode())
            await socket.close()
            return socket
        back = asyncio.create_task(pass_on(reader, socket))
        async for message in socket:
            if message.type == WSMsgType.BINARY and message.data[:1] == b"\0":
                writer.write(message.data[1:])
                await writer.drain()
        back.cancel()
        writer.close()
        return socket

    def _address(self, namespace: str, pod: str) -> str:
        for runner in self.runners.values():
            if (runner.namespace, runner.name) == (namespace, pod):
                return runner.address
        msg = f"no pod {namespace}/{pod}"
        raise OSError(msg)


async def pass_on(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(2**20):
            await socket.send_bytes(b"\0" + data)
    await socket.close()


async def register() -> NodeObject:
    """Let Kubernetes know the node."""
    labels = {"kubernetes.io/hostname": NAME, "tilewright/processes": "true"}
    node = await NodeObject(
        {"metadata": {"name": NAME, "labels": labels}, "spec": {"podCIDR": "10.88.0.0/16"}}
    )
    await node.create()
    await node.patch(
        {"status": state() | {"capacity": SIZE, "allocatable": SIZE}}, subresource="status"
    )
    return node


async def beat(node: NodeObject) -> None:
    """Say now and then that the node is alive."""
    while True:
        await asyncio.sleep(BEAT_S)
        await node.patch({"status": state()}, subresource="status")


def state() -> dict[str, Any]:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "lastHeartbeatTime": now(),
    }
    return {
        "conditions": [ready],
        "addresses": [{"type": "InternalIP", "address": pod_sandbox.HOST}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
    }


async def main(folder: Path, certificates: Path, images: tuple[str, ...]) -> None:
    running = asyncio.ensure_future(Kubelet(folder, images).run(certificates))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with suppress(asyncio.CancelledError):
        await running


if __name__ == "__main__":
    # The client knows newer servers only.
    warnings.filterwarnings("ignore", message="Kubernetes version", category=UserWarning)
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), tuple(sys.argv[3:])))
