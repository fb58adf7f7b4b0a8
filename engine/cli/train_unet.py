"""The command that trains an ensemble of U-Nets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape

from engine.cli.train_options import (
    OUT,
    Crops,
    LearningRate,
    Patience,
    PrecisionName,
    Steps,
    Threads,
    show_epoch,
)
from engine.errors import RecipeError

if TYPE_CHECKING:
    from engine.networks.unet_config import Norm
    from engine.training.schedule import Precision
    from engine.training.unet.options import UNetProgress

_SOURCES = "Folder of PNG or TIFF images, a TIFF stack, or an OME-Zarr image."
_OBJECTS = "background,object"


def unet(
    images: Annotated[str, typer.Option(help=_SOURCES)],
    labels: Annotated[str, typer.Option(help="The same for labels: a class at each pixel.")],
    out: Annotated[Path, typer.Option(help="Ensemble folder to make.")],
    classes: Annotated[
        str, typer.Option(help="Names, commas between; labels hold their places from 0.")
    ] = _OBJECTS,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Labels are ids of objects: all are class 1.")
    ] = False,
    slices: Annotated[
        str | None, typer.Option(help="FIRST:LAST, images to train on; LAST is not one of them.")
    ] = None,
    val_images: Annotated[str | None, typer.Option(help="Validation images.")] = None,
    val_labels: Annotated[str | None, typer.Option(help="Their labels.")] = None,
    val_fraction: Annotated[
        float, typer.Option(help="Share of images set apart where none are given.")
    ] = 0.15,
    members: Annotated[int, typer.Option(help="U-Nets to train.")] = 4,
    share: Annotated[float, typer.Option(help="Share of the images that a member sees.")] = 0.65,
    stardist: Annotated[
        str | None, typer.Option(help="StarDist model to add as a last member.")
    ] = None,
    widths: Annotated[str, typer.Option(help="Channels of each level.")] = "12,24,48,96",
    convs: Annotated[int, typer.Option(help="Convolutions per level.")] = 2,
    norm: Annotated[str, typer.Option(help="Normalisation: batch or group.")] = "batch",
    groups: Annotated[int, typer.Option(help="Groups of --norm group.")] = 4,
    epochs: Annotated[int, typer.Option(help="Epochs of a member at the most.")] = 100,
    steps: Steps = 50,
    batch: Crops = 8,
    size: Annotated[int, typer.Option(help="Side of a crop.")] = 128,
    learning_rate: LearningRate = 3e-3,
    precision: PrecisionName = "float32",
    minutes: Annotated[
        float | None, typer.Option(help="Time to train a member; the schedule ends with it.")
    ] = None,
    patience: Patience = 40,
    threads: Threads = None,
    half: Annotated[bool, typer.Option("--half", help="Store convolutions as float16.")] = False,
    seed: Annotated[int, typer.Option(help="Of split, subsets, weights and batches.")] = 0,
) -> None:
    """Train an ensemble of U-Nets; given again after a stop, it continues from its last epoch."""
    from engine.training.unet.options import UNetOptions
    from engine.training.unet.training import train_unet

    options = UNetOptions(
        images=images,
        labels=labels,
        out=out,
        classes=tuple(name.strip() for name in classes.split(",")),
        foreground=foreground,
        slices=None if slices is None else _span(slices),
        val_images=val_images,
        val_labels=val_labels,
        val_fraction=val_fraction,
        members=members,
        share=share,
        stardist=stardist,
        widths=_widths(widths),
        convs=convs,
        norm=cast("Norm", norm),
        groups=groups,
        epochs=epochs,
        steps=steps,
        batch=batch,
        size=size,
        learning_rate=learning_rate,
        precision=cast("Precision", precision),
        budget_minutes=minutes,
        patience=patience,
        threads=threads,
        half=half,
        seed=seed,
    )
    folder = train_unet(options, _show)
    OUT.print(f"[bold]done[/bold] {escape(str(folder))}: its README.md says how good it is")


def _widths(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between."""
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as err:
        raise _wrong("--widths", "whole numbers with commas between, such as 12,24", text) from err


def _span(text: str) -> tuple[int, int]:
    """Two whole numbers with a colon between."""
    try:
        first, last = (int(word) for word in text.split(":"))
    except ValueError as err:
        raise _wrong("--slices", "FIRST:LAST, such as 0:11", text) from err
    return first, last


def _wrong(option: str, expected: str, found: str) -> RecipeError:
    return RecipeError(where=option, expected=expected, found=found, remedy="Correct it.")


def _show(progress: UNetProgress) -> None:
    """Print a line for an epoch."""
    show_epoch(progress, before=f"member {progress.member + 1} of {progress.members}, ")
