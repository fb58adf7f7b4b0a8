"""Who holds a lease, and whether that process still lives."""

from __future__ import annotations

import getpass
import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Identity:
    """A process on a machine.

    Parameters
    ----------
    user, host : str
        For people.
    machine : str
        Tells apart what has process numbers of its own: machines, their boots, containers; empty
        where that is not known.
    pid : int
        Number of the process.
    started : str
        When it started, in ticks since boot: numbers are used again.
    """

    user: str
    host: str
    machine: str
    pid: int
    started: str

    @classmethod
    def of_this_process(cls) -> Identity:
        """Describe the process that asks."""
        host = socket.gethostname()
        return cls(_user(), host, _machine(host), os.getpid(), _started(os.getpid()) or "")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Identity:
        """Make it from a JSON object.

        Raises
        ------
        KeyError, TypeError, ValueError
            If it is none.
        """
        user, host, machine = (str(data[name]) for name in ("user", "host", "machine"))
        return cls(user, host, machine, int(data["pid"]), str(data["started"]))

    def to_json(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return asdict(self)

    def is_alive(self) -> bool | None:
        """Whether the process lives; None where this machine cannot know."""
        if not self.machine or not self.started or self.machine != _machine(socket.gethostname()):
            return None
        return _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"{self.user} on {self.host} (process {self.pid})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())


@cache
def _machine(host: str) -> str:
    """Host name, boot and process namespace; empty where they are not known."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        space = (_PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{host}/{boot}/{space}"


def _started(pid: int) -> str | None:
    """When a process started; None where it is gone, or dead and not yet waited for."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold anything.
    state, *rest = text.rsplit(")", 1)[1].split()
    return None if state in "ZX" else rest[18]
