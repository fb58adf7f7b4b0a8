"""Mitochondria: a phantom stack whose truth is known, its class map before and after repair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import tifffile
import zarr
from rich.table import Table

from engine.demo.common import CONSOLE, ingest, run
from engine.drawing import View, draw_panels
from engine.evaluation.classes import ClassCounts, count_classes
from engine.evaluation.plausibility import Plausibility, measure_plausibility
from engine.phantom import CLASSES, UNSEEN, make_scene
from engine.review.panels import Panel, value_panel, write_panels
from engine.review.pictures import class_picture, enlarge, gray_picture
from tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

#: Scenes of the stack, from ranges that no network was trained on, and their seed.
PLANES, SEED = 4, 404

#: Side of a pixel in micrometres: expanded cells under a confocal microscope.
PIXEL_SIZE_UM = 0.01

#: Part that is drawn larger, and how much.
DETAIL, ENLARGED = Box((128, 128), (384, 384)), 2

#: Pixels of the smallest object whose shape is measured: the recipe's.
SMALLEST = 64


def main(folder: Path) -> bool:
    """Run the demo into a folder; whether it is complete."""
    CONSOLE.rule("1. phantom: a stack of scenes drawn from rules")
    scenes = [make_scene(UNSEEN, SEED, k) for k in range(PLANES)]
    source, image = folder / "stack.tif", folder / "stack.ome.zarr"
    stack = np.stack([scene.image for scene in scenes])
    tifffile.imwrite(source, stack, metadata={"axes": "ZYX"}, compression="zlib")
    ingest(source, image, PIXEL_SIZE_UM)
    CONSOLE.rule("2. run: the recipe mitochondria")
    out = folder / "mitochondria.ome.zarr"
    if not run(image, out, "mitochondria", "storage.shard=512", "storage.chunk=256"):
        return False
    CONSOLE.rule("3. before and after repair, against the truth")
    truth = np.stack([scene.classes for scene in scenes])
    _compare(out, truth)
    CONSOLE.rule("4. pictures")
    _draw(folder / "before_after.png", out, stack, truth)
    shown = draw_panels(out, folder / "maps.png", View())
    CONSOLE.print(f"{folder / 'maps.png'}  {shown}", highlight=False)
    return True


def _compare(out: Path, truth: np.ndarray) -> None:
    """Print Dice of the classes, and how plausible the shapes are."""
    found = {name: _read(out, f"labels/{name}") for name in ("classes_initial", "classes")}
    maps = {"ensemble": found["classes_initial"], "repaired": found["classes"], "truth": truth}
    repaired = found["classes_initial"] != found["classes"]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in maps:
        table.add_column(name, justify="right")
    counts = {name: count_classes(one, truth, len(CLASSES)) for name, one in maps.items()}
    for k, name in enumerate(CLASSES):
        table.add_row(f"Dice of {name}", *(_number(c.dice[k]) for c in counts.values()))
    table.add_row(
        "Dice where repair changed", *(_inside(m, truth, repaired) for m in maps.values())
    )
    shapes = {name: _shape(one) for name, one in maps.items()}
    for label, field in (
        ("end points", "end_points"), ("cycles", "cycles"),
        ("boundary to area", "boundary_to_area"), ("cristae ratio", "cristae_ratio"),
        ("background ratio", "background_ratio"),
    ):  # fmt: skip
        table.add_row(label, *(_number(getattr(s.mean, field)) for s in shapes.values()))
    CONSOLE.print(table, highlight=False)


def _inside(found: np.ndarray, truth: np.ndarray, where: np.ndarray) -> str:
    counts: ClassCounts = count_classes(found, truth, len(CLASSES), where)
    return _number(counts.micro)


def _shape(classes: np.ndarray) -> Plausibility:
    planes = [measure_plausibility(plane, smallest=SMALLEST) for plane in classes]
    total = planes[0]
    for plane in planes[1:]:
        total = total.add(plane)
    return total


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _read(out: Path, name: str) -> np.ndarray:
    return np.asarray(zarr.open_array(out / name / "0", mode="r")[...])


def _draw(png: Path, out: Path, stack: np.ndarray, truth: np.ndarray) -> None:
    """Draw one part of one scene before and after, with entropy and truth, enlarged."""
    part = DETAIL.slices()
    image = enlarge(stack[0][part], ENLARGED)
    maps = {
        "truth": truth,
        "before": _read(out, "labels/classes_initial"),
        "after repair": _read(out, "labels/classes"),
    }
    panels = [
        Panel("image", gray_picture(image)),
        value_panel("entropy", enlarge(_read(out, "maps/entropy")[0][part], ENLARGED)),
    ]
    panels += [
        Panel(title, class_picture(image, enlarge(classes[0][part], ENLARGED)))
        for title, classes in maps.items()
    ]
    names = dict(enumerate(CLASSES))
    write_panels(panels, png, pixel_size_um=PIXEL_SIZE_UM / ENLARGED, classes=names)
    CONSOLE.print(f"{png}  {'; '.join(str(panel) for panel in panels)}", highlight=False)
