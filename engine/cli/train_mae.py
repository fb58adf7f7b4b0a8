"""The command that trains a masked autoencoder of class maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape

from engine.cli.train_options import (
    OUT,
    Epochs,
    LearningRate,
    Minutes,
    PrecisionName,
    Steps,
    Threads,
    numbers,
    show_epoch,
)
from engine.errors import RecipeError
from engine.networks.mae_folder import MaeConfig, open_mae

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.networks.mae_folder import ClassInput, Positions
    from engine.training.mae.options import MaeProgress
    from engine.training.schedule import Precision

#: Stands for all patches where a number is asked for.
ALL = -1

#: Shape of the network where neither options nor a model to start from decide it.
ENCODER, DECODER, NEAR = "96,6,3", "64,2,2", 3


def mae(
    labels: Annotated[Path, typer.Option(help="Folder of class maps, PNG or TIFF, or a stack.")],
    classes: Annotated[str, typer.Option(help="Names of the classes, background first: a,b,c.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    entropy: Annotated[
        Path | None, typer.Option(help="Entropy maps of the same names, uint8 (255 is 1).")
    ] = None,
    entropy_limit: Annotated[
        float, typer.Option(help="Pixels with more entropy do not count.")
    ] = 0.1,
    val_labels: Annotated[Path | None, typer.Option(help="Class maps for validation.")] = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Labels are ids of objects: make 2 classes.")
    ] = False,
    init: Annotated[
        str | None, typer.Option(help="Model to start from, whose shape is taken.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Width,blocks,heads; paper: 128,14,1.", show_default=ENCODER)
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Width,blocks,heads; paper: 64,7,8.", show_default=DECODER)
    ] = None,
    class_input: Annotated[
        str | None, typer.Option(help="onehot, or index as the paper.", show_default="onehot")
    ] = None,
    positions: Annotated[
        str | None, typer.Option(help="rotary, or sincos as the paper.", show_default="rotary")
    ] = None,
    near: Annotated[
        int | None,
        typer.Option(
            help="Patches from foreground within which patches count; -1: all.",
            show_default=str(NEAR),
        ),
    ] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="Weights of the classes: 1,2,2; else by how rare they are.")
    ] = None,
    blobs: Annotated[float, typer.Option(help="Share of windows masked in blobs.")] = 0.25,
    piece: Annotated[
        int, typer.Option(help="Side of the pieces of windows at the start; 0: none.")
    ] = 64,
    minutes: Minutes = None,
    epochs: Epochs = 1000,
    steps: Steps = 100,
    batch: Annotated[int, typer.Option(help="Windows per step.")] = 4,
    learning_rate: LearningRate = 3e-3,
    precision: PrecisionName = "bfloat16",
    half: Annotated[bool, typer.Option("--half", help="Write weights as float16.")] = False,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Of split, weights and batches.")] = 0,
) -> None:
    """Train a masked autoencoder; given again after a stop, it continues from its last epoch."""
    from engine.training.mae.options import MaeTrainOptions
    from engine.training.mae.training import train_mae

    shape = {
        "--encoder": encoder, "--decoder": decoder, "--class-input": class_input,
        "--positions": positions, "--near": near,
    }  # fmt: skip
    names = tuple(name.strip() for name in classes.split(","))
    options = MaeTrainOptions(
        labels=labels,
        out=out,
        config=_config(names, shape) if init is None else _taken(init, names, shape),
        init=init,
        entropy=entropy,
        entropy_limit=entropy_limit,
        val_labels=val_labels,
        foreground=foreground,
        class_weights=None if class_weights is None else numbers("--class-weights", class_weights),
        blobs=blobs,
        piece=piece,
        epochs=epochs,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        precision=cast("Precision", precision),
        budget_minutes=minutes,
        threads=threads,
        half=half,
        seed=seed,
    )
    folder = train_mae(options, _show)
    OUT.print(f"[bold]done[/bold] {escape(str(folder))}; its scores are in README.md there")


def _config(classes: tuple[str, ...], shape: Mapping[str, str | int | None]) -> MaeConfig:
    """Make the shape that options ask for."""
    asked = {option: value for option, value in shape.items() if value is not None}
    wide = _sizes("--encoder", str(asked.get("--encoder", ENCODER)))
    deep = _sizes("--decoder", str(asked.get("--decoder", DECODER)))
    near = asked.get("--near", NEAR)
    return MaeConfig(
        classes=classes,
        encoder_dim=wide[0],
        encoder_depth=wide[1],
        encoder_heads=wide[2],
        decoder_dim=deep[0],
        decoder_depth=deep[1],
        decoder_heads=deep[2],
        class_input=cast("ClassInput", asked.get("--class-input", "onehot")),
        positions=cast("Positions", asked.get("--positions", "rotary")),
        near_patches=None if near == ALL else int(near),
    )


def _taken(init: str, classes: tuple[str, ...], shape: Mapping[str, str | int | None]) -> MaeConfig:
    """Take the shape of the model to start from; the classes must be its."""
    for option, value in shape.items():
        if value is not None:
            raise RecipeError(
                where=option, expected="none beside --init, whose shape is taken",
                found=str(value), remedy=f"Leave out {option}, or --init.",
            )  # fmt: skip
    return replace(open_mae(init).config, classes=classes)


def _sizes(option: str, text: str) -> tuple[int, int, int]:
    """Width, blocks and heads."""
    found = numbers(option, text)
    if len(found) != 3 or not all(n.is_integer() for n in found):
        raise RecipeError(
            where=option, expected="width,blocks,heads, such as 96,6,3", found=text,
            remedy="Correct it.",
        )  # fmt: skip
    return int(found[0]), int(found[1]), int(found[2])


def _show(progress: MaeProgress) -> None:
    """Print a line for an epoch."""
    dice = " ".join(f"{value:.3f}" for value in progress.scores.dice)
    show_epoch(progress, beside=f", Dice {dice}")
