"""What changed since a run was started: every difference named, old and new."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def named_changes(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """List every difference with its old and its new value.

    Examples
    --------
    >>> named_changes({"tiling.overlap": "64"}, {"tiling.overlap": "96", "weights": "0" * 64})
    'tiling.overlap: 64 -> 96; weights: absent -> 000000000000'
    """
    names = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
    return "; ".join(f"{k}: {_shown(old.get(k))} -> {_shown(new.get(k))}" for k in names)


def _shown(value: str | None) -> str:
    """Show a part of a digest: digests shortened, what is not there named so."""
    if value is None:
        return "absent"
    return value[:12] if re.fullmatch("[0-9a-f]{64}", value) else value
