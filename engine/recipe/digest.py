"""The digest of a recipe: one name for everything that decides pixels, and its parts."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel


def digest_parts(recipe: BaseModel, extra: Mapping[str, str]) -> dict[str, str]:
    """Everything that decides pixels, flat: dotted setting to its value as JSON.

    Parameters
    ----------
    recipe : Recipe
        The recipe with nothing left to choose (no "auto"); sections that are absent decide
        nothing.
    extra : mapping of str to str
        Facts beside the recipe: digests of weights and input, versions of stages.

    Raises
    ------
    ValueError
        If a fact has the name of a setting, which it would hide.
    """
    flat: dict[str, str] = {}

    def walk(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        else:
            flat[prefix] = json.dumps(value)

    walk("", recipe.model_dump(mode="json", exclude_none=True))
    if hidden := flat.keys() & extra.keys():
        msg = f"facts named as settings are: {', '.join(sorted(hidden))}"
        raise ValueError(msg)
    return {**flat, **extra}


def digest(parts: Mapping[str, str]) -> str:
    """SHA-256, in hexadecimal, of the parts in canonical order."""
    text = json.dumps(dict(sorted(parts.items())), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
