"""The demo: a real image, tiled to 4000 x 3000, segmented on a local cluster, scored and drawn."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import numpy as np
import tifffile
from rich.console import Console
from skimage.measure import label
from stardist.data import test_image_nuclei_2d

import engine
from engine.cli.progress import TerminalProgress
from engine.cli.show import show_outcome, show_plan, show_scores
from engine.drawing import View, draw_preview
from engine.review import export_suspects
from tiling import Box

#: Rows and columns of the demo image: a frame of a large sensor.
EXTENT = (3000, 4000)

#: Side of a pixel in micrometres. The image comes without; this is a common 20x objective.
PIXEL_SIZE_UM = 0.5

#: Part that is drawn larger, and the part in which objects are flagged: whole shards.
DETAIL = Box((1850, 1750), (2350, 2500))
PART = Box((1536, 1536), (2560, 2560))

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
    _CONSOLE.rule("2. run: the recipe nuclei on a local cluster of 2 workers")
    if not _run(image, out, "nuclei", None):
        return 3
    _CONSOLE.rule("3. evaluate: against the truth that comes with the image")
    from engine.evaluation import evaluate_paths

    show_scores(_CONSOLE, evaluate_paths(str(out), str(truth), (0.5, 0.75, 0.9)))
    _CONSOLE.rule("4. preview: labels over the image")
    for name, within in (("overview", None), ("detail", DETAIL)):
        shown = draw_preview(out, folder / f"{name}.png", View(within=within))
        _CONSOLE.print(f"{folder / name}.png  {shown}", highlight=False)
    _CONSOLE.rule("5. flags: what should be looked at twice, in a part of the image")
    flagged = folder / "flagged.ome.zarr"
    if not _run(image, flagged, "nuclei-flags", PART, "storage.shard=512"):
        return 3
    shown = draw_preview(flagged, folder / "suspects.png", View(within=PART), suspects=True)
    _CONSOLE.print(f"{folder / 'suspects.png'}  {shown}", highlight=False)
    for name in ("suspects.geojson", "suspects.csv"):
        count = export_suspects(flagged, folder / name)
        _CONSOLE.print(f"{folder / name}  {count} suspects", highlight=False)
    _CONSOLE.print(f"everything took {time.perf_counter() - started:.0f} s")
    return 0


def _run(image: Path, out: Path, recipe: str, within: Box | None, *more: str) -> bool:
    """Run a recipe with two workers; whether it is complete."""
    settings = ["resources.workers=2", *more]
    show_plan(_CONSOLE, engine.plan(image, out, recipe, overrides=settings, within=within))
    with TerminalProgress(_CONSOLE) as progress:
        outcome = engine.run(
            image, out, recipe, overrides=settings, within=within, listener=progress
        )
    show_outcome(_CONSOLE, outcome)
    return outcome.complete


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo")))
