"""What people look at: the state of a run, and pictures of its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from engine.errors import InputError, OutputError
from engine.ledger import Ledger
from engine.review import write_preview
from engine.store import ImageReader, inspect_image, read_json
from tiling import Box

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from engine.store import ImageInfo

#: Longest side of a preview in pixels.
PREVIEW_SIDE = 2048

#: Rows of the image that a preview reads at once.
STRIP_ROWS = 512


def show_status(console: Console, out: Path) -> None:
    """Print how far a run is: records by pass, failures with their reasons, the last report.

    Raises
    ------
    OutputError
        If no run was started there.
    """
    ledger = Ledger(out)
    if not ledger.exists:
        raise OutputError(
            where=f"'{out}'",
            expected="a result of `tilewright run` or `tilewright ingest`",
            found="none" if out.exists() else "nothing there",
            remedy="Check the path.",
        )
    document = ledger.read_run()
    console.print(f"[bold]{escape(str(out))}[/bold]", highlight=False)
    console.print(
        f"  source {document['source']}, started {document['created']}",
        highlight=False,
        markup=False,
    )
    folder = ledger.path("records")
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    for name in names:
        records = list(ledger.records(name, document["digest"]))
        pixels = sum(r.region.core.size for r in records)
        console.print(
            f"  {name:<24}{len(records):>7} regions done, {pixels / 1e6:.1f} Mpx", highlight=False
        )
    failures = list(ledger.failures())
    for failure in failures:
        console.print(
            f"  [red]missing[/red] {failure.pass_name}, "
            f"{escape(f'{failure.region}: {failure.message}')}",
            highlight=False,
        )
    path = ledger.path("report.json")
    report = read_json(path, OutputError) if path.is_file() else {}
    for name, value in _facts(report):
        console.print(f"  {name:<24}{value}", highlight=False)
    complete = report.get("complete") is True
    console.print("  complete" if complete else "  not complete: give the command again")


def draw_preview(out: Path, png: Path, level: int | None, within: Box | None) -> str:
    """Draw the labels of a result over its image.

    Parameters
    ----------
    out : Path
        A result with one label image.
    png : Path
        Picture to write.
    level : int or None
        Level of the labels; the finest that gives at most `PREVIEW_SIDE` pixels where None.
    within : Box or None
        Part of the plane, in pixels of level 0.

    Returns
    -------
    str
        What is shown.

    Raises
    ------
    InputError
        If there are no labels, no such level, or the box lies outside.
    """
    labels = _label_image(out)
    bounds = Box.of_shape(labels.extent)
    box = within or bounds
    if box.empty or not bounds.contains(box):
        raise InputError(
            where=f"--within {within}",
            expected=f"a box inside {bounds}",
            found=str(within),
            remedy="Choose a part of the image.",
        )
    if level is None:
        fits = [k for k in range(len(labels.levels)) if max(box.shape) >> k <= PREVIEW_SIDE]
        level = fits[0] if fits else len(labels.levels) - 1
    reader = ImageReader(labels.path, level)
    part = box.coarsen(2**level).clip(Box.of_shape(reader.extent))
    plane = (0,) * len(reader.plane_shape)
    drawn = reader.read(plane, (0,), part)[0]
    image = _image_under(out, level, part, plane)
    size = labels.pixel_size_um
    pixel = None if size is None else size[1] * 2**level
    write_preview(image, drawn, png, pixel_size_um=pixel)
    return (
        f"level {level}, {part} of plane {plane or 0}, {np.count_nonzero(np.unique(drawn))} objects"
    )


def _label_image(out: Path) -> ImageInfo:
    """Find the label image of a result."""
    inspect_image(out)
    folder = out / "labels"
    names = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    if len(names) != 1:
        raise InputError(
            where=f"'{out}'",
            expected="a result with one label image",
            found=f"{len(names)}: {', '.join(names)}" if names else "none",
            remedy="Give the OUT of `tilewright run` with a recipe that segments.",
        )
    return inspect_image(folder / names[0])


def _image_under(out: Path, level: int, part: Box, plane: tuple[int, ...]) -> np.ndarray:
    """Read the image below the labels: from OUT where it was copied, else from the run's source."""
    ledger = Ledger(out)
    document: dict[str, Any] = ledger.read_run() if ledger.exists else {"layers": ["image"]}
    channels = tuple(document.get("channels", (0,)))
    if "image" in document["layers"]:
        path, base = str(out), 0
    else:
        path, base = document["source"], document["level"]
    info = inspect_image(path)
    usable = min(base + level, len(info.levels) - 1)
    reader = ImageReader(path, usable)
    finer = 2 ** (base + level - usable)
    box = part.refine(finer).clip(Box.of_shape(reader.extent))
    # In strips: an image without a pyramid may be far larger than the picture made of it.
    strips = box.split((finer * max(1, STRIP_ROWS // finer), box.shape[1] + box.start[1]))
    rows = [reader.read(plane, channels, strip)[:, ::finer, ::finer] for strip in strips]
    pixels = np.concatenate(rows, axis=1)
    return pixels if len(pixels) == 3 else pixels[0]


def _facts(report: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines of a report that a status shows."""
    names = ("objects", "longest_ray", "halo", "seconds_total", "finished")
    return [(name, str(report[name])) for name in names if name in report]
