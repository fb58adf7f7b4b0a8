"""The demo: a real image, tiled to 4000 x 3000, segmented on a local cluster, scored and drawn."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tifffile
from rich.console import Console
from skimage.measure import label
from stardist.data import test_image_nuclei_2d

import engine
from engine.cli.progress import TerminalProgress
from engine.cli.show import show_outcome, show_plan, show_scores
from engine.report import draw_preview
from engine.review import export_suspects
from tiling import Box

if TYPE_CHECKING:
    from engine.running import Outcome

#: Rows and columns of the demo image: a frame of a large sensor.
EXTENT = (3000, 4000)

#: Side of a pixel in micrometres. The image comes without; this is a common 20x objective.
PIXEL_SIZE_UM = 0.5

#: Segments nuclei, and flags those that cannot be trusted.
RECIPE = "nuclei-flags"

#: Pictures: name, part of the image, whether suspects stand out.
VIEWS = (
    ("overview", None, False),
    ("detail", Box((1850, 1750), (2350, 2500)), False),
    ("suspects", Box((1850, 1750), (2350, 2500)), True),
)

#: File that says that the demo made its folder.
MARK = "DEMO.txt"

_CONSOLE = Console(soft_wrap=True)


def mirrored(image: np.ndarray, extent: tuple[int, int]) -> np.ndarray:
    """Repeat an image by reflection until it fills `extent`: (Y, X), same dtype."""
    pad = [(0, n - have) for n, have in zip(extent, image.shape, strict=True)]
    return np.pad(image, pad, mode="symmetric")


def mirrored_labels(labels: np.ndarray, extent: tuple[int, int]) -> np.ndarray:
    """Repeat labels by reflection: (Y, X) uint32; an object cut by a mirror line becomes one.

    Each copy gets ids of its own; where two copies of an object meet at a mirror line they are
    one object in the picture, and so in the truth.
    """
    pattern = mirrored(labels.astype(np.int64), extent)
    connected: np.ndarray = label(pattern, connectivity=1, background=0)
    return connected.astype(np.uint32)


def make_image(folder: Path) -> tuple[Path, Path]:
    """Write the demo image and its truth as TIFF files; return their paths."""
    image, truth = test_image_nuclei_2d(return_mask=True)
    paths = folder / "nuclei.tif", folder / "truth.tif"
    tifffile.imwrite(paths[0], mirrored(image, EXTENT), compression="zlib")
    tifffile.imwrite(paths[1], mirrored_labels(truth, EXTENT), compression="zlib")
    return paths


def main(folder: Path) -> int:
    """Run the demo into a folder; return the exit code."""
    if folder.exists():
        if any(folder.iterdir()) and not (folder / MARK).is_file():
            _CONSOLE.print(f"{folder} holds something else: name a folder that can be made anew.")
            return 2
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).write_text("Made by the demo of tilewright, and replaced by it.\n")
    started = time.perf_counter()
    source, truth = make_image(folder)
    image, out = folder / "nuclei.ome.zarr", folder / "segmented.ome.zarr"
    _CONSOLE.rule("1. ingest: TIFF to OME-Zarr")
    with TerminalProgress(_CONSOLE) as progress:
        engine.ingest(source, image, pixel_size_um=PIXEL_SIZE_UM, listener=progress)
    _CONSOLE.rule("2. run: the recipe nuclei-flags on a local cluster of 2 workers")
    outcome = _segment(image, out)
    show_outcome(_CONSOLE, outcome)
    if not outcome.complete:
        return 3
    _CONSOLE.rule("3. evaluate: against the truth that comes with the image")
    from engine.evaluation import evaluate_paths

    show_scores(_CONSOLE, evaluate_paths(str(out), str(truth), (0.5, 0.75, 0.9)))
    _CONSOLE.rule("4. preview: labels over the image, and what should be looked at twice")
    for name, within, suspects in VIEWS:
        shown = draw_preview(out, folder / f"{name}.png", None, within, suspects=suspects)
        _CONSOLE.print(f"{folder / name}.png  {shown}", highlight=False)
    for name in ("suspects.geojson", "suspects.csv"):
        count = export_suspects(out, folder / name)
        _CONSOLE.print(f"{folder / name}  {count} suspects", highlight=False)
    _CONSOLE.print(f"everything took {time.perf_counter() - started:.0f} s")
    return 0


def _segment(image: Path, out: Path) -> Outcome:
    """Run the recipe with two workers."""
    settings = ["resources.workers=2"]
    prepared = engine.plan(image, out, RECIPE, overrides=settings)
    show_plan(_CONSOLE, prepared)
    with TerminalProgress(_CONSOLE) as progress:
        return engine.run(image, out, RECIPE, overrides=settings, listener=progress)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
