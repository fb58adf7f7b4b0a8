"""Options that commands which train networks share, and the line they print for an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from engine.errors import RecipeError

if TYPE_CHECKING:
    from engine.training.progress import EpochProgress

OUT = Console(soft_wrap=True)

Epochs = Annotated[int, typer.Option(help="Epochs at the most.")]
Steps = Annotated[int, typer.Option(help="Steps per epoch.")]
Crops = Annotated[int, typer.Option(help="Crops per step.")]
LearningRate = Annotated[float, typer.Option(help="Highest learning rate.")]
PrecisionName = Annotated[str, typer.Option(help="float32 or bfloat16.")]
Minutes = Annotated[float | None, typer.Option(help="Time to train; the schedule ends with it.")]
Patience = Annotated[int, typer.Option(help="Epochs without progress before it ends.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the network.")]


def show_epoch(progress: EpochProgress, before: str = "", beside: str = "") -> None:
    """Print a line for an epoch.

    Parameters
    ----------
    progress : EpochProgress
        What to tell.
    before, beside : str
        More of it, in front of the line and after the losses.
    """
    line = (
        f"{before}epoch {progress.epoch:>4}, {progress.done:>4.0%} done, "
        f"loss {progress.loss:.4f}, validation {progress.val_loss:.4f} "
        f"(best {progress.best_val_loss:.4f}){beside}, {progress.elapsed_s / 60:.1f} min"
    )
    OUT.print(line, highlight=False)


def numbers(option: str, text: str, *, example: str = "") -> tuple[float, ...]:
    """Read numbers with commas between.

    Parameters
    ----------
    option, text : str
        The option and its value.
    example : str
        What a message adds to what it expected.

    Returns
    -------
    tuple of float
        In their order.

    Raises
    ------
    RecipeError
        If a word is no number.
    """
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError as err:
        raise RecipeError(
            where=option, expected=f"numbers with commas between{example}", found=text,
            remedy="Correct it.",
        ) from err  # fmt: skip
