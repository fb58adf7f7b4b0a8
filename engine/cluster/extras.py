"""Packages that only some clusters need."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from engine.errors import ResourceError

if TYPE_CHECKING:
    from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import a package of an extra.

    Raises
    ------
    ResourceError
        If it is not installed, with the command that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise ResourceError(
            where=f"--cluster {extra}",
            expected=f"the package {module.partition('.')[0]}",
            found="that it is not installed",
            remedy=f"Install it: python -m pip install 'tilewright[{extra}]'",
        ) from err
