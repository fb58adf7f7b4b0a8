"""What people look at: the state of a run, and pictures of its result."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from rich.markup import escape

from engine.checking import kept_passes
from engine.errors import InputError, OutputError
from engine.ledger import Ledger, State, holder
from engine.review import write_preview
from engine.review.suspects import Outline, outlines, read_suspects
from engine.store import ImageReader, Location, inspect_image, read_json
from engine.suspects import FALSE_POSITIVE
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rich.console import Console

    from engine.store import ImageInfo

#: What a state of a region means for one who waits for it.
REASONS = {
    State.NEW: "new",
    State.FAILED: "failed before",
    State.MISSING: "output missing",
    State.DAMAGED: "output damaged",
    State.CHANGED: "input changed",
}

# Regions of a pass that a status names.
_LISTED = 20

#: Longest side of a preview in pixels.
PREVIEW_SIDE = 2048

#: Rows of the image that a preview reads at once.
STRIP_ROWS = 512


def show_status(console: Console, out: str) -> None:
    """Print how far a run is: regions by pass and reason, who works on it, the last report.

    Raises
    ------
    OutputError
        If no run was started there.
    """
    place = Location.parse(out, OutputError)
    ledger = Ledger(place)
    if not ledger.exists:
        raise OutputError(
            where=f"'{out}'",
            expected="a result of `tilewright run` or `tilewright ingest`",
            found="none" if place.exists() else "nothing there",
            remedy="Check the path.",
        )
    document, coming = ledger.read_run(), ledger.read_next()
    console.print(f"[bold]{escape(str(place))}[/bold]", highlight=False)
    _show_run(console, ledger, document)
    if coming is not None:
        console.print(f"  beside it, to replace it when complete ({coming['wish'] or 'input'}):")
        _show_run(console, ledger, coming)
    worker = holder(ledger)
    if worker is not None and (worker.who is None or worker.who.is_alive() is not False):
        console.print(f"  in work: {escape(str(worker))}", highlight=False)
    path = ledger.path("report.json")
    report = read_json(path, OutputError) if path.is_file() else {}
    for name, value in _facts(report):
        console.print(f"  {name:<24}{value}", highlight=False)
    complete = report.get("complete") is True and coming is None
    console.print("  complete" if complete else "  not complete: give the command again")


def _show_run(console: Console, ledger: Ledger, document: Mapping[str, Any]) -> None:
    """Print how far one run is."""
    console.print(
        f"  source {document['source']}, started {document['created']}",
        highlight=False,
        markup=False,
    )
    for kept in kept_passes(document):
        states = ledger.states(kept.name, kept.digest, kept.grid)
        counts = np.bincount(states.ravel(), minlength=len(State))
        words = ", ".join(f"{counts[s]} {REASONS[s]}" for s in State if counts[s] and s in REASONS)
        console.print(
            f"  {kept.name:<24}{counts[State.DONE]:>7} of {states.size} shards done"
            f"{f', {words}' if words else ''}",
            highlight=False,
        )
        for failure in islice(ledger.failures(kept.name, kept.digest, kept.grid), _LISTED):
            console.print(
                f"  [red]missing[/red] {failure.pass_name}, "
                f"{escape(f'{failure.region}: {failure.message}')}",
                highlight=False,
            )


def draw_preview(
    out: str | Path, png: Path, level: int | None, within: Box | None, *, suspects: bool = False
) -> str:
    """Draw the labels of a result over its image.

    Parameters
    ----------
    out : str or Path
        A result with one label image.
    png : Path
        Picture to write.
    level : int or None
        Level of the labels; the finest that gives at most `PREVIEW_SIDE` pixels where None.
    within : Box or None
        Part of the plane, in pixels of level 0.
    suspects : bool
        Draw what is flagged in red and yellow, all else pale.

    Returns
    -------
    str
        What is shown.

    Raises
    ------
    InputError
        If there are no labels, no such level, or the box lies outside.
    """
    place = Location.parse(out)
    labels = _label_image(place)
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
    image = _image_under(place, level, part, plane)
    size = labels.pixel_size_um
    pixel = None if size is None else size[1] * 2**level
    flagged = _suspects(place, plane, box, level) if suspects else None
    write_preview(image, drawn, png, pixel_size_um=pixel, suspects=flagged)
    said = f"level {level}, {part} of plane {plane or 0}"
    said += f", {np.count_nonzero(np.unique(drawn))} objects"
    if flagged is None:
        return said
    wrong = sum(one.kind == FALSE_POSITIVE for one in flagged)
    return f"{said}, {wrong} suspect (red), {len(flagged) - wrong} that may be missing (yellow)"


def _suspects(out: Location, plane: tuple[int, ...], box: Box, level: int) -> list[Outline]:
    """Outlines that meet a box of level 0, in pixels of the shown part of another level."""
    table = read_suspects(out)
    for name, index in zip((n for n in table.column_names if n in ("t", "z")), plane, strict=True):
        table = table.filter(pc.field(name) == index)
    near = (pc.field("y0") < box.stop[0]) & (pc.field("y1") > box.start[0])
    near &= (pc.field("x0") < box.stop[1]) & (pc.field("x1") > box.start[1])
    corner, step = np.array(box.coarsen(2**level).start) * 2**level, 2**level
    return [
        Outline(one.kind, (one.points + 0.5 - corner) / step - 0.5)
        for one in outlines(table.filter(near))
    ]


def _label_image(out: Location) -> ImageInfo:
    """Find the label image of a result."""
    inspect_image(out)
    folder = out / "labels"
    names = folder.children()[0]
    if len(names) != 1:
        raise InputError(
            where=f"'{out}'",
            expected="a result with one label image",
            found=f"{len(names)}: {', '.join(names)}" if names else "none",
            remedy="Give the OUT of `tilewright run` with a recipe that segments.",
        )
    return inspect_image(folder / names[0])


def _image_under(out: Location, level: int, part: Box, plane: tuple[int, ...]) -> np.ndarray:
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
