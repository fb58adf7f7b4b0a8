"""One pod on a node: what Kubernetes wants of its containers, and what became of them."""

import asyncio
import base64
import re
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kr8s
import pod_sandbox
from kr8s.asyncio.objects import ConfigMap, Pod, Secret
from pod_sandbox import Command

#: How long a container that ended waits before it is started again: this, doubled each time.
PAUSE_S = 1


@dataclass
class Node:
    """What pods of a node share.

    Parameters
    ----------
    folder : Path
        Of all that pods write.
    images : tuple of str
        Beginnings of images that can be pulled; the contents are those of this machine.
    base : dict
        Variables that every image sets.
    """

    folder: Path
    images: tuple[str, ...]
    base: dict[str, str]

    @property
    def hosts(self) -> Path:
        """Names of services, as pods resolve them."""
        return self.folder / "hosts"

    def log(self, namespace: str, pod: str, container: str) -> Path:
        return self.folder / "logs" / f"{namespace}_{pod}_{container}.log"


@dataclass
class Container:
    """Where a container is."""

    spec: dict[str, Any]
    state: dict[str, Any] = field(
        default_factory=lambda: {"waiting": {"reason": "PodInitializing"}}
    )
    ready: bool = False
    restarts: int = 0
    process: asyncio.subprocess.Process | None = None

    def status(self) -> dict[str, Any]:
        return {
            "name": self.spec["name"],
            "image": self.spec["image"],
            "imageID": "",
            "ready": self.ready,
            "restartCount": self.restarts,
            "state": self.state,
        }


class PodRunner:
    """Runs a pod until it ends or is deleted."""

    def __init__(self, node: Node, pod: Pod, address: str) -> None:
        self.node, self.pod, self.address = node, pod, address
        self.name, self.namespace = pod.name, pod.namespace
        self.network = f"tw{pod.metadata.uid[:8]}"
        self.folder = node.folder / "pods" / pod.metadata.uid
        self.initial = [Container(c) for c in self.spec.get("initContainers", [])]
        self.containers = [Container(c) for c in self.spec["containers"]]
        self.since = now()
        self.task = asyncio.create_task(self._run())
        self.ending = False

    @property
    def spec(self) -> dict[str, Any]:
        return dict(self.pod.raw["spec"])

    async def end(self, grace_s: float) -> None:
        """End its processes, and what belongs to them."""
        self.ending = True
        running = [c.process for c in (*self.initial, *self.containers) if c.process]
        for process in running:
            pod_sandbox.terminate(process)
        if running:
            await asyncio.wait([asyncio.create_task(p.wait()) for p in running], timeout=grace_s)
        for process in running:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        pod_sandbox.remove_network(self.network)

    async def _run(self) -> None:
        pod_sandbox.add_network(self.network, self.address)
        try:
            await self.tell()
            for container in self.initial:
                await self._keep(container, always=False)
                if "exitCode" not in str(container.state) or self._failed([container]):
                    return
            always = self.spec.get("restartPolicy", "Always") == "Always"
            await asyncio.gather(*(self._keep(each, always) for each in self.containers))
        finally:
            await self.tell()
            pod_sandbox.remove_network(self.network)

    async def _keep(self, container: Container, always: bool) -> None:
        """Run a container, again where its pod says so."""
        never = self.spec.get("restartPolicy", "Always") == "Never"
        while not self.ending:
            await self._pull(container)
            container.process = await self._start(container)
            container.state = {"running": {"startedAt": now()}}
            probe = asyncio.create_task(self._probe(container))
            code = await container.process.wait()
            probe.cancel()
            container.process, container.ready = None, False
            container.state = {"terminated": {"exitCode": abs(code), "finishedAt": now()}}
            if never or (code == 0 and not always):
                break
            container.state = {
                "waiting": {"reason": "CrashLoopBackOff", "message": f"it ended with code {code}"}
            }
            await self.tell()
            await asyncio.sleep(PAUSE_S * 2 ** min(container.restarts, 5))
            container.restarts += 1
        await self.tell()

    async def _pull(self, container: Container) -> None:
        """Wait for ever for an image that nobody has."""
        image = container.spec["image"]
        while not image.startswith(self.node.images):
            message = f'Back-off pulling image "{image}": not found'
            container.state = {"waiting": {"reason": "ImagePullBackOff", "message": message}}
            await self.tell()
            await asyncio.sleep(3600)

    async def _start(self, container: Container) -> asyncio.subprocess.Process:
        spec, environment = container.spec, await self._environment(container.spec)
        words = [filled(w, environment) for w in (*spec.get("command", ()), *spec.get("args", ()))]
        security = spec.get("securityContext") or {}
        command = Command(
            words,
            environment,
            await self._mounts(spec),
            bool(security.get("readOnlyRootFilesystem")),
        )
        place = self.folder / f"{spec['name']}-{container.restarts}"
        log = self.node.log(self.namespace, self.name, spec["name"])
        return await pod_sandbox.start(command, self.network, place, self.node.hosts, log)

    async def _environment(self, spec: dict[str, Any]) -> dict[str, str]:
        found = dict(self.node.base)
        for source in spec.get("envFrom", ()):
            for key, kind in (("secretRef", Secret), ("configMapRef", ConfigMap)):
                if key in source:
                    texts = await self._texts(kind, source[key])
                    found |= {name: data.decode() for name, data in texts.items()}
        for each in spec.get("env") or ():
            if "valueFrom" in each:
                found[each["name"]] = self._fields()[each["valueFrom"]["fieldRef"]["fieldPath"]]
            else:
                found[each["name"]] = filled(each.get("value", ""), found)
        return found

    def _fields(self) -> dict[str, str]:
        return {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "status.podIP": self.address,
        }

    async def _mounts(self, spec: dict[str, Any]) -> list[tuple[Path, str]]:
        volumes = {each["name"]: each for each in self.spec.get("volumes", ())}
        return [
            (await self._volume(volumes[mount["name"]]), mount["mountPath"].rstrip("/"))
            for mount in spec.get("volumeMounts", ())
        ]

    async def _volume(self, volume: dict[str, Any]) -> Path:
        """Folder of a volume, filled."""
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            folder = self.node.folder / "claims" / f"{self.namespace}_{claim}"
        else:
            folder = self.node.folder / "volumes" / self.pod.metadata.uid / volume["name"]
        folder.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in volume:
            folder.chmod(0o1777)
        for key, kind, named in (
            ("secret", Secret, "secretName"),
            ("configMap", ConfigMap, "name"),
        ):
            if key in volume:
                reference = {**volume[key], "name": volume[key][named]}
                for name, data in (await self._texts(kind, reference)).items():
                    (folder / name).write_bytes(data)
        return folder

    async def _texts(self, kind: Any, reference: dict[str, Any]) -> dict[str, bytes]:
        """Entries of a Secret or ConfigMap."""
        try:
            found = await kind.get(reference["name"], namespace=self.namespace)
        except kr8s.NotFoundError:
            if reference.get("optional"):
                return {}
            raise
        data = found.raw.get("data") or {}
        if kind is Secret:
            return {name: base64.b64decode(text) for name, text in data.items()}
        return {name: text.encode() for name, text in data.items()}

    async def _probe(self, container: Container) -> None:
        """Tell that a container is ready when its probe says so; at once where it has none."""
        probe = container.spec.get("readinessProbe")
        await self.tell()
        if probe is None:
            container.ready = True
            await self.tell()
            return
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        ports = {p.get("name"): p["containerPort"] for p in container.spec.get("ports", ())}
        port = probe["httpGet"]["port"]
        url = f"http://{self.address}:{ports.get(port, port)}{probe['httpGet']['path']}"
        while True:
            ready = await asyncio.to_thread(answers, url)
            if ready != container.ready:
                container.ready = ready
                await self.tell()
            await asyncio.sleep(probe.get("periodSeconds", 10))

    @staticmethod
    def _failed(containers: list[Container]) -> bool:
        return any(c.state.get("terminated", {}).get("exitCode") for c in containers)

    def _phase(self) -> str:
        ended = all("terminated" in c.state for c in self.containers)
        if ended or self._failed(self.initial):
            return "Failed" if self._failed(self.containers + self.initial) else "Succeeded"
        started = any(c.process or c.restarts for c in self.containers)
        return "Running" if started else "Pending"

    async def tell(self) -> None:
        """Report its state."""
        ready = all(c.ready for c in self.containers)
        conditions = {
            "PodScheduled": True,
            "Initialized": all("terminated" in c.state for c in self.initial),
            "ContainersReady": ready,
            "Ready": ready,
        }
        status = {
            "phase": self._phase(),
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "hostIP": pod_sandbox.HOST,
            "startTime": self.since,
            "conditions": [
                {"type": kind, "status": str(true), "lastTransitionTime": now()}
                for kind, true in conditions.items()
            ],
            "containerStatuses": [c.status() for c in self.containers],
            "initContainerStatuses": [c.status() for c in self.initial],
        }
        with suppress(kr8s.NotFoundError):
            await self.pod.patch({"status": status}, subresource="status")


def filled(text: str, known: dict[str, str]) -> str:
    """Fill in variables as Kubernetes does: $(NAME), where there is one of that name."""
    return re.sub(r"\$\(([-._a-zA-Z0-9]+)\)", lambda match: known.get(match[1], match[0]), text)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status < 400)
    except (OSError, urllib.error.URLError):
        return False


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
