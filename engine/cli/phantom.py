"""The command that draws phantom scenes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

OUT = Console(soft_wrap=True)


def phantom(
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    scenes: Annotated[int, typer.Option(help="How many.")] = 8,
    seed: Annotated[int, typer.Option(help="The same seed gives the same scenes.")] = 0,
    size: Annotated[int, typer.Option(help="Side of a scene in pixels.")] = 512,
    unseen: Annotated[
        bool, typer.Option("--unseen", help="Draw from ranges kept for scoring.")
    ] = False,
) -> None:
    """Draw phantom mitochondria: images, and class maps that are true by construction."""
    from dataclasses import replace

    from engine.phantom import SEEN, UNSEEN, write_scenes

    parameters = replace(UNSEEN if unseen else SEEN, size=size)
    written = write_scenes(out, parameters, scenes, seed)
    count = sum(1 for _ in track(written, "drawing", scenes, console=OUT, transient=True))
    OUT.print(f"{out}: {count} scenes of {size} x {size} pixels", highlight=False)
