"""The commands that train models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape

from engine.cli.train_flags import flags
from engine.cli.train_mae import mae
from engine.cli.train_options import (
    OUT,
    Crops,
    Epochs,
    LearningRate,
    Minutes,
    Patience,
    PrecisionName,
    Steps,
    Threads,
    show_epoch,
)
from engine.cli.train_unet import unet
from engine.errors import RecipeError

if TYPE_CHECKING:
    from engine.networks.defense_bank import Mode
    from engine.training.defenses.options import DefenseProgress, Route
    from engine.training.schedule import Precision

app = typer.Typer(no_args_is_help=True, help="Train models on your own images.")
app.command()(flags)
app.command()(unet)
app.command()(mae)


@app.callback()
def group() -> None:
    """Hold the commands together, so that each keeps its name."""


@app.command()
def stardist(
    images: Annotated[Path, typer.Option(help="Folder of PNG or TIFF images.")],
    labels: Annotated[Path, typer.Option(help="Folder of label images with the same names.")],
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    val_images: Annotated[Path | None, typer.Option(help="Validation images.")] = None,
    val_labels: Annotated[Path | None, typer.Option(help="Their labels.")] = None,
    init: Annotated[str | None, typer.Option(help="Model to start from.")] = None,
    epochs: Epochs = 100,
    steps: Steps = 100,
    batch: Crops = 8,
    learning_rate: LearningRate = 1e-3,
    precision: PrecisionName = "float32",
    minutes: Minutes = None,
    patience: Patience = 40,
    threads: Threads = None,
    seed: Annotated[int, typer.Option(help="Of split, weights and batches.")] = 0,
) -> None:
    """Train a StarDist network; given again after a stop, it continues from its last epoch."""
    from engine.training.options import TrainOptions
    from engine.training.stardist import train_stardist

    if precision not in ("float32", "bfloat16"):
        raise RecipeError(
            where="--precision",
            expected="float32 or bfloat16",
            found=precision,
            remedy="bfloat16 is faster where the processor multiplies it, and costs no accuracy.",
        )
    options = TrainOptions(
        images=images,
        labels=labels,
        out=out,
        val_images=val_images,
        val_labels=val_labels,
        init=init,
        epochs=epochs,
        steps=steps,
        batch=batch,
        learning_rate=learning_rate,
        precision=cast("Precision", precision),
        budget_minutes=minutes,
        patience=patience,
        threads=threads,
        seed=seed,
    )
    folder = train_stardist(options, show_epoch)
    place = escape(str(folder))
    OUT.print(f"[bold]done[/bold] {place}: use it with --set segment.model={place}")


@app.command()
def defenses(
    model: Annotated[str, typer.Option(help="Model folder or bundled model.")],
    images: Annotated[Path, typer.Option(help="Folder of PNG or TIFF images.")],
    labels: Annotated[Path, typer.Option(help="Folder of label images with the same names.")],
    out: Annotated[Path, typer.Option(help="Bank to make, NAME.safetensors.")],
    degree: Annotated[int, typer.Option(help="Degree of the polynomials.")] = 9,
    blocks: Annotated[int, typer.Option(help="Blocks along each axis of 256 pixels.")] = 4,
    route: Annotated[str, typer.Option(help="search, gradient or both.")] = "both",
    mode: Annotated[
        str, typer.Option(help="Intensities: global (percentiles) or field (as the paper).")
    ] = "global",
    steps: Annotated[int, typer.Option(help="Steps of the gradient for a piece.")] = 40,
    evaluations: Annotated[int, typer.Option(help="Predictions of the search for a piece.")] = 160,
    margin: Annotated[float, typer.Option(help="F1 to gain at the least; 0: anything.")] = 0.0,
    limit: Annotated[int | None, typer.Option(help="Pieces to look at, at the most.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Time after which no piece is begun.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of a local cluster.")] = None,
    cluster: Annotated[
        str, typer.Option(help="local, or a scheduler's address: tcp://host:8786.")
    ] = "local",
    seed: Annotated[int, typer.Option(help="Of the order of pieces and of the search.")] = 0,
) -> None:
    """Make a bank of polynomial defenses; given again after a stop, it goes on."""
    from engine.running.calibrating import calibrate_on
    from engine.training.defenses.options import DefenseOptions

    options = DefenseOptions(
        model=model,
        images=images,
        labels=labels,
        out=out,
        degree=degree,
        blocks=blocks,
        route=cast("Route", route),
        mode=cast("Mode", mode),
        steps=steps,
        evaluations=evaluations,
        margin=margin,
        limit=limit,
        minutes=minutes,
        seed=seed,
    )
    bank = calibrate_on(cluster, workers, options, _show_piece)
    place = escape(str(bank))
    OUT.print(f"[bold]done[/bold] {place}, and what is known of it in {bank.stem}.md")


def _show_piece(progress: DefenseProgress) -> None:
    """Print a line for a piece."""
    line = (
        f"{progress.done:>4} of {progress.pieces}, {progress.kept} defenses of {progress.tried} "
        f"tried; {escape(progress.origin)}: F1 {progress.f1_before:.3f} to "
        f"{progress.f1_after:.3f}, {progress.seconds:.1f} s"
    )
    OUT.print(line, highlight=False)
