"""Faults inside the engine's processes: at the k-th effect on the store, or around a task.

A process with ``TILEWRIGHT_FAULTS`` in its environment looks into that folder for ``armed.json``
before and after each effect: an order that a test may write and take away while processes run. The
first process to which the order applies makes ``struck`` there, and does what it says.
"""

from __future__ import annotations

import datetime
import faulthandler
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

FOLDER = "TILEWRIGHT_FAULTS"
SKEW = "TILEWRIGHT_FAULTS_SKEW_S"
HOST = "TILEWRIGHT_FAULTS_HOST"
EXPIRY = "TILEWRIGHT_FAULTS_EXPIRY_S"

_right = time.time


def install() -> None:
    """Hook into this process, where the environment asks for it."""
    folder = os.environ.get(FOLDER)
    role = _role()
    if folder is None or not role:
        return
    # Asked for by the harness where something hangs; the others' logs then hold every stack.
    faulthandler.register(signal.SIGUSR1)
    _skew(float(os.environ.get(SKEW, "0")) * (-1 if role == "worker" else 1))
    agent = Agent(folder, role)
    agent.wrap_disk()
    patches: dict[str, Callable[[ModuleType], None]] = {
        "engine.store.buckets": agent.wrap_bucket,
        "engine.tasks": agent.wrap_tasks,
        "engine.ledger.identity": _rename_host,
        "engine.ledger.holding": _shorten_expiry,
        "engine.ledger.lease": _change_lease,
        "engine.running.documents": _skew_dates,
        "engine.running.driver": _skew_dates,
        "engine.running.logs": _skew_dates,
        "engine.ledger.beating": _quicken_heartbeat,
    }
    for name, patch in patches.items():
        if name in sys.modules:
            patch(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport(patches))


class Agent:
    """What watches the effects of one process.

    Parameters
    ----------
    folder : str
        Where orders appear.
    role : str
        "driver", "worker" or "cluster".
    """

    def __init__(self, folder: str, role: str) -> None:
        self._order_path = os.path.join(folder, "armed.json")  # noqa: PTH118 - no pathlib in hooks
        self._struck_path = os.path.join(folder, "struck")  # noqa: PTH118
        self._role = role
        self._read: tuple[int, int] = (0, 0)
        self._order: dict[str, Any] = {}
        self._seen = 0
        self._lock = threading.Lock()

    def order(self) -> dict[str, Any]:
        """Order that holds now for this role; empty where there is none."""
        try:
            found = os.stat(self._order_path)  # noqa: PTH116
        except OSError:
            return {}
        stamp = (found.st_mtime_ns, found.st_ino)
        with self._lock:
            if stamp != self._read:
                with open(self._order_path, encoding="utf-8") as file:  # noqa: PTH123
                    self._order = json.load(file)
                self._read, self._seen = stamp, 0
            return self._order if self._order["role"] == self._role else {}

    def strike(self, note: str) -> bool:
        """Whether this call is the first to strike; the others let things pass."""
        try:
            handle = _OPEN(self._struck_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        os.write(handle, f"{self._role} {os.getpid()}: {note}\n".encode())
        os.close(handle)
        return True

    def effect(self, note: str, act: Callable[[], Any]) -> Any:
        """Let an effect happen, and this process die or freeze before or after the chosen one."""
        order = self.order()
        if order.get("do") not in ("kill", "freeze") or not re.search(order["match"], note):
            return act()
        with self._lock:
            self._seen += 1
            chosen = self._seen == order["nth"]
        if chosen and order["when"] == "before" and self.strike(f"before {note}"):
            self._end(order)
        result = act()
        if chosen and order["when"] == "after" and self.strike(f"after {note}"):
            self._end(order)
        return result

    def _end(self, order: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGKILL if order["do"] == "kill" else signal.SIGSTOP)

    def wrap_disk(self) -> None:
        """Watch what makes and removes files: renames, exclusive creation, unlinking."""
        for name in ("replace", "rename"):
            setattr(os, name, self._renaming(getattr(os, name)))
        unlink = os.unlink

        @functools.wraps(unlink)
        def watched_unlink(path: Any, *args: Any, **kwargs: Any) -> None:
            note = f"delete {os.fspath(path)}"
            self.effect(note, lambda: unlink(path, *args, **kwargs))

        os.unlink = os.remove = watched_unlink

        @functools.wraps(_OPEN)
        def watched_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> Any:
            if flags & os.O_EXCL and flags & os.O_CREAT and not isinstance(path, int):
                note = f"create {os.fspath(path)}"
                return self.effect(note, lambda: _OPEN(path, flags, *args, **kwargs))
            return _OPEN(path, flags, *args, **kwargs)

        os.open = watched_open

    def _renaming(self, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def watched(source: Any, target: Any, *args: Any, **kwargs: Any) -> None:
            note = f"put {os.fspath(target)}"
            self.effect(note, lambda: original(source, target, *args, **kwargs))

        return watched

    def wrap_bucket(self, module: ModuleType) -> None:
        """Watch what goes into a bucket."""

        def watch(verb: str, method: str) -> None:
            original = getattr(module.Bucket, method)

            @functools.wraps(original)
            def watched(bucket: Any, name: Any, *args: Any) -> Any:
                names = [name] if isinstance(name, str) else list(name)
                note = f"{verb} {' '.join(names)}"
                given = names if not isinstance(name, str) else name
                return self.effect(note, lambda: original(bucket, given, *args))

            setattr(module.Bucket, method, watched)

        watch("put", "write")
        watch("create", "create")
        watch("delete", "delete")

    def wrap_tasks(self, module: ModuleType) -> None:
        """Let tasks be done twice and late, where the order says so."""
        original = module.perform

        @functools.wraps(original)
        def perform(*args: Any, **kwargs: Any) -> Any:
            order = self.order()
            if order.get("do") != "repeat":
                return original(*args, **kwargs)
            self.strike("a task was done again")
            time.sleep(random.random() * order["jitter_s"])
            twin = threading.Thread(target=original, args=args, kwargs=kwargs)
            if random.random() < 0.5:
                twin.start()
                result = original(*args, **kwargs)
            else:
                result = original(*args, **kwargs)
                twin.start()
            twin.join()
            return result

        module.perform = perform  # type: ignore[attr-defined]


_OPEN = os.open


class _AfterImport(importlib.abc.MetaPathFinder):
    """Changes modules once they are imported."""

    def __init__(self, patches: dict[str, Callable[[ModuleType], None]]) -> None:
        self._patches = patches
        self._busy = False

    def find_spec(
        self, fullname: str, path: Iterable[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        patch = self._patches.get(fullname)
        if patch is None or self._busy:
            return None
        self._busy = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._busy = False
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _role() -> str:
    """What this process is for; empty for one that does no work of a run."""
    words = " ".join(sys.orig_argv)
    if "resource_tracker" in words:
        return ""
    if "spawn_main" in words:
        return "worker"
    return "cluster" if "-m dask" in words else "driver"


def _skew(seconds: float) -> None:
    """Set the wall clock of this process wrong."""
    if not seconds:
        return
    time.time = lambda: _right() + seconds


def _skew_dates(module: ModuleType) -> None:
    """Let a module of the engine read the wrong clock as dates too; compiled ones cannot."""
    seconds = time.time() - _right()
    if abs(seconds) < 1:
        return

    class Skewed(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return datetime.datetime.now(tz) + datetime.timedelta(seconds=seconds)

    module.datetime = Skewed  # type: ignore[attr-defined]


def _rename_host(module: ModuleType) -> None:
    """Let this process seem to run on a machine of its own."""
    host = os.environ.get(HOST)
    if host:
        module._machine = lambda _host: host  # type: ignore[attr-defined]


def _shorten_expiry(module: ModuleType) -> None:
    """Let a lease expire sooner: tests do not wait half a minute."""
    if EXPIRY in os.environ:
        module.EXPIRY_S = float(os.environ[EXPIRY])  # type: ignore[attr-defined]


def _change_lease(module: ModuleType) -> None:
    """Let a lease expire sooner, under the wrong clock."""
    _shorten_expiry(module)
    _skew_dates(module)


def _quicken_heartbeat(module: ModuleType) -> None:
    """Beat often enough for a lease that expires sooner."""
    if EXPIRY in os.environ:
        module.beating.__wrapped__.__defaults__ = (float(os.environ[EXPIRY]) / 5,)
