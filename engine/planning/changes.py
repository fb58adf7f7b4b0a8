"""What changed since a run was started: every difference named, old and new."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path


def compare_parts(old: dict[str, str], new: dict[str, str], out: Path) -> None:
    """Refuse to continue a run with something else that decides pixels.

    Raises
    ------
    OutputError
        Names every difference, old and new value.
    """
    names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    if names:
        changed = "; ".join(f"{k}: {_shown(old.get(k))} -> {_shown(new.get(k))}" for k in names)
        raise OutputError(
            where=f"OUT '{out}'",
            expected="the settings, model and input that it was started with",
            found=changed,
            remedy="Choose another OUT, or go back to the settings of this one.",
        )


def _shown(value: str | None) -> str:
    """Show a part of a digest: digests shortened, what is not there named so."""
    if value is None:
        return "absent"
    return value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value
