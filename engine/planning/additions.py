"""What a method adds to a job, and the channels that its networks see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import ModelError, RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.planning.elements import Layer
    from engine.store import ImageInfo


@dataclass(frozen=True)
class Addition:
    """What one method adds to a job.

    Parameters
    ----------
    layers : tuple of Layer
        What it writes.
    facts : dict of str to str
        What decides its pixels beside the recipe.
    """

    layers: tuple[Layer, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


def find_channels(info: ImageInfo, wanted: Sequence[int | str]) -> tuple[int, ...]:
    """Find the channels that a recipe names.

    Raises
    ------
    RecipeError
        If the image has no such channel.
    """
    chosen = []
    for name in wanted:
        index = info.channel_names.index(name) if name in info.channel_names else name
        if not isinstance(index, int) or not 0 <= index < info.n_channels:
            names = ", ".join(f"{k} ({n})" for k, n in enumerate(info.channel_names))
            raise RecipeError(
                where="input.channels",
                expected=f"channels of '{info.path}': {names}",
                found=repr(name),
                remedy="Choose one with --set input.channels=[0].",
            )
        chosen.append(index)
    return tuple(chosen)


def wrong_channels(where: str, wanted: int, found: int) -> ModelError:
    """Say that a network was trained on another number of channels than the recipe names."""
    example = "[" + ",".join(map(str, range(wanted))) + "]"
    return ModelError(
        where=where,
        expected=f"{wanted} input channels, as it was trained",
        found=f"{found} in input.channels",
        remedy=f"Name as many, such as --set input.channels={example}.",
    )
