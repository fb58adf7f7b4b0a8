"""Nuclei: a real image, tiled to 4000 x 3000, segmented, scored, drawn, and flagged in part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
from skimage.measure import label
from stardist.data import test_image_nuclei_2d

from engine.cli.show import show_scores
from engine.demo.common import CONSOLE, EXTENT, PIXEL_SIZE_UM, ingest, mirrored, run
from engine.drawing import View, draw_preview
from engine.evaluation import evaluate_paths
from engine.exporting import export_table
from tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

#: Part that is drawn larger.
DETAIL = Box((1850, 1750), (2350, 2500))

#: Part in which objects are flagged: whole shards, inside one of the fields (2048 px) that early
#: stop leaves as a whole; and the defenses that look at it, some of the 202.
PART = Box((1024, 1024), (2048, 2048))
FLAGGING = ("storage.shard=512", "flags.defenses=24")


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


def main(folder: Path) -> bool:
    """Run the demo into a folder; whether it is complete."""
    source, truth = make_image(folder)
    image, out = folder / "nuclei.ome.zarr", folder / "segmented.ome.zarr"
    CONSOLE.rule("1. ingest: TIFF to OME-Zarr")
    ingest(source, image, PIXEL_SIZE_UM)
    CONSOLE.rule("2. run: the recipe nuclei on a local cluster of 2 workers")
    if not run(image, out, "nuclei"):
        return False
    CONSOLE.rule("3. evaluate: against the truth that comes with the image")
    show_scores(CONSOLE, evaluate_paths(str(out), str(truth), (0.5, 0.75, 0.9)))
    CONSOLE.rule("4. preview: labels over the image")
    for name, within in (("overview", None), ("detail", DETAIL)):
        shown = draw_preview(out, folder / f"{name}.png", View(within=within))
        CONSOLE.print(f"{folder / name}.png  {shown}", highlight=False)
    CONSOLE.rule("5. flags: what should be looked at twice, in a part of the image")
    flagged = folder / "flagged.ome.zarr"
    if not run(image, flagged, "nuclei-flags", *FLAGGING, within=PART):
        return False
    shown = draw_preview(flagged, folder / "suspects.png", View(within=PART), suspects=True)
    CONSOLE.print(f"{folder / 'suspects.png'}  {shown}", highlight=False)
    for name in ("suspects.geojson", "suspects.csv"):
        count = export_table(flagged, folder / name, "suspects").rows
        CONSOLE.print(f"{folder / name}  {count} suspects", highlight=False)
    return True
