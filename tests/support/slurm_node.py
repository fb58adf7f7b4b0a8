"""A real Slurm of one node, on the loopback interface, for a test: munged, slurmctld, slurmd."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=60
KillWait=5
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=8000 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=60 State=UP
"""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "sbatch", "scancel")


def missing() -> str:
    """Why no Slurm can be run here; "" where it can."""
    absent = [name for name in PROGRAMS if _program(name) is None]
    if absent:
        return f"needs Debian's slurm-wlm and munge: no {', '.join(absent)}"
    return "" if os.geteuid() == 0 else "slurmd needs root"


@dataclass(frozen=True)
class Node:
    """A Slurm that runs, and the file that its commands are told by SLURM_CONF."""

    config: Path

    def jobs(self) -> list[str]:
        """Jobs that wait or run, by name."""
        return self._ask("squeue", "--noheader", "--format=%j").split()

    def _ask(self, *words: str) -> str:
        env = {**os.environ, "SLURM_CONF": str(self.config)}
        return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout


@contextmanager
def slurm_node(folder: Path) -> Iterator[Node]:
    """Run a Slurm until the block ends; `folder` is best short, and owned by root alone."""
    config = folder / "slurm.conf"
    with socket.create_server(("127.0.0.1", 0)) as a, socket.create_server(("127.0.0.1", 0)) as b:
        ctld, slurmd = a.getsockname()[1], b.getsockname()[1]
    config.write_text(
        CONFIG.format(host=socket.gethostname(), ctld=ctld, slurmd=slurmd, folder=folder)
    )
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    env = {**os.environ, "SLURM_CONF": str(config)}
    commands = (
        (
            *("munged", "--foreground", "--force", f"--key-file={key}"),
            *(f"--socket={folder}/munge.socket", f"--pid-file={folder}/munged.pid"),
            *(f"--log-file={folder}/munged.log", f"--seed-file={folder}/munged.seed"),
        ),
        ("slurmctld", "-D", "-c"),
        ("slurmd", "-D", "-N", socket.gethostname()),
    )
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name, *words in commands:
            with (folder / f"{name}.out").open("wb") as log:
                program = _program(name) or name
                started = subprocess.Popen([program, *words], env=env, stdout=log, stderr=log)
            processes.append(started)
            _settle(started, folder, name)
        node = Node(config)
        _wait_until_idle(node, folder)
        yield node
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _settle(process: "subprocess.Popen[bytes]", folder: Path, name: str) -> None:
    deadline = time.monotonic() + (20 if name == "munged" else 1)
    while time.monotonic() < deadline:
        assert process.poll() is None, _logs(folder)
        if name == "munged" and (folder / "munge.socket").exists():
            return
        time.sleep(0.1)


def _wait_until_idle(node: Node, folder: Path) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            if "idle" in node._ask("sinfo", "--noheader", "--format=%t"):
                return
        except subprocess.CalledProcessError:
            pass
        assert time.monotonic() < deadline, _logs(folder)
        time.sleep(0.3)


def _logs(folder: Path) -> str:
    files = [*folder.glob("*.out"), *folder.glob("*.log")]
    return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in files)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
