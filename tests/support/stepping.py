"""Threads that stop before every effect and go on one effect at a time, as a test says."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class KilledError(BaseException):
    """Raised in a thread at its next effect: its process has died."""


_here = threading.local()


class Actor:
    """One thread of control; it runs only while `step` is called, up to its next effect.

    Parameters
    ----------
    body : callable
        What it does.
    """

    def __init__(self, body: Callable[[], None]) -> None:
        self._body = body
        self._go = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._killed = False
        self.at: tuple[str, str] = ("start", "")
        self.until = float("-inf")
        self.done = False
        self.fault = ""
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> None:
        """Let it do the effect before which it waits, and go on to the next one."""
        if not self.done:
            self._go.release()
            self._stopped.acquire()

    def kill(self) -> None:
        """Let it die before the effect at which it waits; whatever it would still do fails."""
        self._killed = True
        while not self.done:
            self.step()
        self._thread.join()

    def pause(self, effect: str, name: str, until: float = float("-inf")) -> None:
        """Wait, in its own thread, for the next step."""
        self.at, self.until = (effect, name), until
        if not self._killed:
            self._stopped.release()
            self._go.acquire()
        if self._killed:
            raise KilledError

    def _run(self) -> None:
        _here.actor = self
        self._go.acquire()
        try:
            if not self._killed:
                self._body()
        except KilledError:
            pass
        except BaseException as err:
            self.error = err
        finally:
            self.done = True
            self._stopped.release()


def current() -> Actor | None:
    """Actor whose thread this is; None for the test's own."""
    return getattr(_here, "actor", None)


class StepLock:
    """A lock for actors: who waits for it waits for a step."""

    def __init__(self) -> None:
        self._held = False

    def acquire(self, timeout: float = -1) -> bool:
        while self._held:
            actor = current()
            if timeout >= 0 or actor is None:
                return False
            actor.pause("lock", "")
        self._held = True
        return True

    def release(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()
