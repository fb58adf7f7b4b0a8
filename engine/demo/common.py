"""What the demos share: their folder, their console, a run that says what it does."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console

import engine
from engine.cli.progress import TerminalProgress
from engine.cli.show import show_outcome, show_plan

if TYPE_CHECKING:
    from pathlib import Path

    from tiling import Box

#: Rows and columns of a frame of a large sensor.
EXTENT = (3000, 4000)

#: Side of a pixel in micrometres. The image comes without; this is a common 20x objective.
PIXEL_SIZE_UM = 0.5

#: File that says that a demo made its folder.
_MARK = "DEMO.txt"

CONSOLE = Console(soft_wrap=True)


def prepare_folder(folder: Path) -> bool:
    """Make the folder of a demo anew; False where it holds something else."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / _MARK).is_file():
            CONSOLE.print(f"{folder} holds something else: name a folder that can be made anew.")
            return False
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / _MARK).write_text("Made by the demo of tilewright, and replaced by it.\n")
    return True


def ingest(source: Path, image: Path, pixel_size_um: float) -> None:
    """Copy a TIFF file into OME-Zarr."""
    with TerminalProgress(CONSOLE) as progress:
        engine.ingest(source, image, pixel_size_um=pixel_size_um, listener=progress)


def run(image: Path, out: Path, recipe: str, *more: str, within: Box | None = None) -> bool:
    """Run a recipe with two workers; whether it is complete."""
    settings = ["resources.workers=2", *more]
    show_plan(CONSOLE, engine.plan(image, out, recipe, overrides=settings, within=within))
    with TerminalProgress(CONSOLE) as progress:
        outcome = engine.run(
            image, out, recipe, overrides=settings, within=within, listener=progress
        )
    show_outcome(CONSOLE, outcome)
    return outcome.complete


def mirrored(image: np.ndarray, extent: tuple[int, int]) -> np.ndarray:
    """Repeat an image by reflection until it fills `extent`: (Y, X), same dtype."""
    pad = [(0, n - have) for n, have in zip(extent, image.shape, strict=True)]
    return np.pad(image, pad, mode="symmetric")
