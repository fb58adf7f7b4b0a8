"""A Kubernetes of one node on this machine, for tests: the real servers, and a kubelet of ours.

Run as root: `python tests/support/kubernetes_node.py BINARIES` (a folder that build_kubernetes.sh
filled) says which KUBECONFIG reaches it, and ends with Ctrl-C.
"""

import argparse
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pod_sandbox

SERVERS = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")

#: Ports of this machine: of the API server, and of the others above it on the loopback interface.
HOST, PORT = pod_sandbox.HOST, pod_sandbox.API_PORT

#: Images that can be pulled: names only, see kubelet.py.
IMAGES = ("ghcr.io/tilewright/tilewright:", "tilewright:")

KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters:
  - {{name: node, cluster: {{server: "https://{host}:{port}", certificate-authority: {ca}}}}}
users:
  - {{name: admin, user: {{token: {token}}}}}
contexts:
  - {{name: node, context: {{cluster: node, user: admin, namespace: default}}}}
current-context: node
"""


def missing(binaries: Path) -> str:
    """What is not here, or nothing."""
    absent = [name for name in SERVERS if not (binaries / name).exists()]
    if absent:
        return (
            f"{binaries} has no {', '.join(absent)}: tests/support/build_kubernetes.sh {binaries}"
        )
    tools = [name for name in ("etcd", "ip", "openssl", "unshare") if shutil.which(name) is None]
    if tools:
        return f"{', '.join(tools)} not on PATH: apt-get install etcd-server iproute2 openssl"
    return "" if os.geteuid() == 0 else "pods need namespaces of the kernel: run it as root"


class Servers:
    """Processes of a cluster, with their logs in one folder."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        self.config = folder / "kubeconfig"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start all, each when what it needs answers."""
        pod_sandbox.make_bridge()
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f'{token},admin,admin,"system:masters"\n')
        self._make_keys()
        self._start_etcd()
        self._start_api()
        ca = self.folder / "apiserver.crt"
        self.config.write_text(KUBECONFIG.format(host=HOST, port=PORT, ca=ca, token=token))
        self.config.chmod(0o600)
        self._wait(f"https://{HOST}:{PORT}/readyz")
        self._start_controllers()
        self._run(
            sys.executable, str(Path(__file__).with_name("kubelet.py")), str(self.folder / "node"),
            str(self.folder), *IMAGES,
        )  # fmt: skip
        self._until((self.folder / "node" / "ready").exists, "the kubelet")

    def end(self) -> None:
        """End all, the kubelet with its pods first."""
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        pod_sandbox.remove_bridge()

    def alive(self) -> bool:
        return all(process.poll() is None for process in self.processes)

    def _make_keys(self) -> None:
        """Make the certificate of the API server, and the key that signs tokens of accounts."""
        self._call("openssl", "genrsa", "-out", "accounts.key", "2048")
        self._call(
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "7"),
            *(
                "-subj",
                f"/CN={HOST}",
                "-addext",
                f"subjectAltName=IP:{HOST}",
            ),
            *("-keyout", "apiserver.key", "-out", "apiserver.crt"),
        )

    def _start_etcd(self) -> None:
        clients, peers = (f"http://127.0.0.1:{PORT + n}" for n in (1, 2))
        self._run(
            *("etcd", "--data-dir", "etcd", "--unsafe-no-fsync"),
            *("--listen-client-urls", clients, "--advertise-client-urls", clients),
            *("--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers),
            *("--initial-cluster", f"default={peers}"),
        )
        self._wait(f"{clients}/health")

    def _start_api(self) -> None:
        self._run(
            *(str(self.binaries / "kube-apiserver"), f"--etcd-servers=http://127.0.0.1:{PORT + 1}"),
            *(f"--bind-address={HOST}", f"--advertise-address={HOST}"),
            *(f"--secure-port={PORT}", "--endpoint-reconciler-type=none"),
            *("--tls-cert-file=apiserver.crt", "--tls-private-key-file=apiserver.key"),
            *("--service-cluster-ip-range=10.96.0.0/16", "--authorization-mode=RBAC"),
            *("--token-auth-file=tokens.csv", "--service-account-key-file=accounts.key"),
            *(
                "--service-account-signing-key-file=accounts.key",
                "--enable-priority-and-fairness=false",
            ),
            "--service-account-issuer=https://kubernetes.default.svc",
        )

    def _start_controllers(self) -> None:
        common = (f"--kubeconfig={self.config}", "--leader-elect=false", "--bind-address=127.0.0.1")
        self._run(
            *(str(self.binaries / "kube-controller-manager"), *common, f"--secure-port={PORT + 3}"),
            *("--cert-dir=controllers", "--service-account-private-key-file=accounts.key"),
            *("--root-ca-file=apiserver.crt", "--controllers=*,-nodeipam,-route,-service"),
        )
        self._run(
            *(str(self.binaries / "kube-scheduler"), *common, f"--secure-port={PORT + 4}"),
            "--cert-dir=scheduler",
        )

    def _run(self, *words: str) -> None:
        name = Path(words[1] if words[0] == sys.executable else words[0]).stem
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    env={**os.environ, "KUBECONFIG": str(self.config)},
                    start_new_session=True,
                )
            )  # fmt: skip

    def _call(self, *words: str) -> None:
        subprocess.run(words, cwd=self.folder, check=True, capture_output=True)

    def _wait(self, url: str) -> None:
        context = ssl._create_unverified_context()  # nothing is said to it

        def answers() -> bool:
            try:
                with urllib.request.urlopen(url, timeout=2, context=context) as answer:
                    return bool(answer.status == 200)
            except (urllib.error.URLError, OSError):
                return False

        self._until(answers, url)

    def _until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 60
        while not true():
            if not self.alive() or time.monotonic() > deadline:
                msg = f"no answer from {what}; logs are in {self.folder}"
                raise RuntimeError(msg)
            time.sleep(0.1)


@contextmanager
def kubernetes_node(binaries: Path, folder: Path) -> Iterator[Servers]:
    """Run it until the block ends."""
    servers = Servers(binaries, folder)
    try:
        servers.start()
        yield servers
    finally:
        servers.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=Path, help="folder that build_kubernetes.sh filled")
    parser.add_argument("--logs", type=Path, help="keep the logs in this new folder")
    asked = parser.parse_args()
    if wrong := missing(asked.binaries.resolve()):
        sys.stderr.write(f"{wrong}\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="kubernetes-") as place:
        folder = asked.logs or Path(place)
        folder.mkdir(exist_ok=asked.logs is None, parents=True)
        try:
            with kubernetes_node(asked.binaries.resolve(), folder.resolve()) as servers:
                sys.stdout.write(f"ready: export KUBECONFIG={servers.config}\n")
                sys.stdout.flush()
                while servers.alive():
                    time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
    sys.stderr.write("a server ended by itself; run it with --logs FOLDER to see why\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
