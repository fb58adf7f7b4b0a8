"""The whole chain: two frames of 4000 x 3000 through StarDist, flags, ensemble, entropy, repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
from stardist.data import test_image_nuclei_2d

from engine.demo.common import CONSOLE, EXTENT, PIXEL_SIZE_UM, ingest, mirrored, run
from engine.drawing import View, draw_panels, draw_preview
from engine.exporting import export_table
from tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

#: Part that is drawn larger.
DETAIL = Box((1850, 1750), (2350, 2500))

#: Defenses that look at each frame: few of the 202, so that a laptop is done in minutes.
DEFENSES = 12


def turned_frames(count: int) -> np.ndarray:
    """Frames of real nuclei, each turned by a right angle more: (T, Y, X) uint16."""
    image = np.asarray(test_image_nuclei_2d())
    return np.stack([mirrored(np.rot90(image, k), EXTENT) for k in range(count)])


def main(folder: Path) -> bool:
    """Run the demo into a folder; whether it is complete."""
    CONSOLE.rule("1. ingest: a stack of two frames")
    frames = turned_frames(2)
    source, stack = folder / "frames.tif", folder / "frames.ome.zarr"
    tifffile.imwrite(source, frames, metadata={"axes": "TYX"}, compression="zlib")
    ingest(source, stack, PIXEL_SIZE_UM)
    CONSOLE.rule("2. run: the recipe nuclei-refined")
    out = folder / "refined.ome.zarr"
    if not run(stack, out, "nuclei-refined", f"flags.defenses={DEFENSES}"):
        return False
    CONSOLE.rule("3. pictures of each map, and the list of suspects")
    for frame in (0, 1):
        png = folder / f"maps-{frame}.png"
        shown = draw_panels(out, png, View(within=DETAIL, plane=(frame,)))
        CONSOLE.print(f"{png}  {shown}", highlight=False)
    png = folder / "suspects.png"
    shown = draw_preview(out, png, View(within=DETAIL, plane=(0,)), suspects=True)
    CONSOLE.print(f"{png}  {shown}", highlight=False)
    count = export_table(out, folder / "suspects.geojson", "suspects").rows
    CONSOLE.print(f"{folder / 'suspects.geojson'}  {count} suspects", highlight=False)
    return True
