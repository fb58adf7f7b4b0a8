"""Containers of a pod as processes of this machine, with a network and files of their own.

Needs root, and iproute2. A container sees the files of this machine, and what it writes is gone
with it, as if an image held them; the volumes of its pod are mounted over that.
"""

import asyncio
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

BRIDGE = "tilewright0"
HOST = "10.88.0.1"
API_PORT = 16443
"""Address of this machine, as pods see it, and port of the API server there."""

#: What must be seen whatever is mounted above it: the interpreter, its packages, the sources.
SEEN = (sys.base_prefix, sys.prefix, str(Path(__file__).parents[2]))

#: Arguments: folder, file of hosts, "ro" or "rw", number of mounts, each "source target"; command.
ENTER = """
set -eu
folder=$1 hosts=$2 mode=$3 count=$4
shift 4
mount -t tmpfs pod "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
root=$folder/root
mount -t overlay pod -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --bind "$hosts" "$root/etc/hosts"
while [ "$count" -gt 0 ]; do
  # As the container resolves it: a link such as /var/run leads out of its files otherwise.
  place=$(chroot "$root" realpath -m "$2")
  mkdir -p "$root$place"
  mount --bind "$1" "$root$place"
  shift 2
  count=$((count - 1))
done
[ "$mode" = rw ] || mount -o remount,ro "$root"
exec chroot "$root" env -i "$@"
"""


@dataclass(frozen=True)
class Command:
    """What a container runs.

    Parameters
    ----------
    words : sequence of str
        Command and arguments.
    environment : mapping
        All variables that it sees.
    mounts : sequence of (Path, str)
        Folders of this machine, and where they are seen.
    read_only : bool
        Whether nothing but mounts can be written to.
    """

    words: Sequence[str]
    environment: Mapping[str, str]
    mounts: Sequence[tuple[Path, str]]
    read_only: bool


def make_bridge() -> None:
    """Connect pods with each other and with this machine, and with nothing else."""
    remove_bridge()
    _ip("link", "add", BRIDGE, "type", "bridge")
    _ip("addr", "add", f"{HOST}/16", "dev", BRIDGE)
    _ip("link", "set", BRIDGE, "up")


def remove_bridge() -> None:
    subprocess.run(["ip", "link", "del", BRIDGE], check=False, capture_output=True)


def add_network(name: str, address: str) -> None:
    """Make a network that has one address."""
    _ip("netns", "add", name)
    _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
    _ip("link", "set", name, "master", BRIDGE, "up")
    _ip("-n", name, "addr", "add", f"{address}/16", "dev", "eth0")
    for device in ("eth0", "lo"):
        _ip("-n", name, "link", "set", device, "up")
    # It leads nowhere; but by it processes find out which address is theirs.
    _ip("-n", name, "route", "add", "default", "dev", "eth0")


def remove_network(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


async def start(
    command: Command, network: str, folder: Path, hosts: Path, log: Path
) -> asyncio.subprocess.Process:
    """Start a container; it ends, with all that it started, when the process given does."""
    folder.mkdir(parents=True, exist_ok=True)
    mounts = [*command.mounts, *((Path(path), path) for path in SEEN)]
    words = [str(word) for pair in mounts for word in pair]
    mode = "ro" if command.read_only else "rw"
    environment = [f"{name}={value}" for name, value in command.environment.items()]
    with log.open("ab") as stream:
        return await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", network),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"),
            *("sh", "-c", ENTER, "sh", str(folder), str(hosts), mode, str(len(mounts)), *words),
            *environment,
            *command.words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )


def terminate(process: asyncio.subprocess.Process) -> None:
    """Ask the first process of a container to end: the only one that Kubernetes asks."""
    try:
        for child in psutil.Process(process.pid).children():
            child.terminate()
    except psutil.NoSuchProcess:
        return


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
