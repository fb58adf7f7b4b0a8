"""A Dask batch engine for microscopy images of any size.

The public functions; each is imported when it is first used, so that planning needs neither torch
nor Dask's scheduler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.api import evaluate, ingest, plan, run, verify
    from engine.result import open_result

__all__ = ["evaluate", "ingest", "open_result", "plan", "run", "verify"]

_HOME = {
    "evaluate": "engine.api",
    "ingest": "engine.api",
    "open_result": "engine.result",
    "plan": "engine.api",
    "run": "engine.api",
    "verify": "engine.api",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in _HOME:
        msg = f"module 'engine' has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
