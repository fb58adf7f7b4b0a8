"""The commands that look at a result: its state, its checks, its scores, its pictures."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from engine.cli.batch import show_batch
from engine.cli.exporting import ExportProgress
from engine.cli.progress import CheckProgress
from engine.cli.show import show_class_scores, show_scores, show_verification
from engine.errors import OutputError, RecipeError
from engine.planning.elements import REPAIRS, SUSPECTS

if TYPE_CHECKING:
    from tiling import Box

OUT = Console(soft_wrap=True)

Within = Annotated[str | None, typer.Option(help="Only a part of each plane: y0:y1,x0:x1.")]


def status(
    out: Annotated[str, typer.Argument(help="OUT.ome.zarr, or the folder of a batch.")],
) -> None:
    """Say how far a run or a batch is, who works on it, what is missing and why."""
    from engine.batch.document import read_document
    from engine.report import show_status
    from engine.store import Location

    folder = Location.parse(out, OutputError)
    document = read_document(folder)
    if document is None:
        show_status(OUT, out)
    else:
        show_batch(OUT, folder, document.rows.values())


def verify(
    out: Annotated[str, typer.Argument(help="OUT.ome.zarr")],
    repair: Annotated[bool, typer.Option(help="Mark what is wrong, to be computed again.")] = False,
    check: Annotated[str, typer.Option(help="listing or bytes.")] = "bytes",
) -> None:
    """Compare every stored object with its record."""
    from engine.api import verify as verify_result

    with CheckProgress(OUT) as progress:
        found = verify_result(
            out, repair=repair, check=check, tell=progress.tell, listener=progress
        )
    show_verification(OUT, found)
    if not found.clean:
        raise typer.Exit(3)


def evaluate(
    pred: Annotated[str, typer.Argument(help="OUT, an OME-Zarr label image, TIFF or PNG.")],
    truth: Annotated[str, typer.Argument(help="The same, with the truth.")],
    classes: Annotated[
        bool, typer.Option(help="Score the class map of OUT, not its objects.")
    ] = False,
    label: Annotated[
        str | None, typer.Option(help="Label image of PRED, where there are several.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score labels against truth: F1 and more over IoU, Dice, HD95; or Dice of classes."""
    from engine.evaluation import Evaluation, evaluate_classes, evaluate_paths

    if classes and label is not None:
        raise RecipeError(
            where="--label",
            expected="nothing beside --classes, which names the label image itself",
            found=label,
            remedy="Leave one of them out.",
        )
    scores = (
        evaluate_classes(pred, truth) if classes else evaluate_paths(pred, truth, pred_label=label)
    )
    if as_json:
        sys.stdout.write(json.dumps(scores.as_json(), indent=2) + "\n")
    elif isinstance(scores, Evaluation):
        show_scores(OUT, scores)
    else:
        show_class_scores(OUT, scores)


def preview(
    out: Annotated[str, typer.Argument(help="OUT.ome.zarr")],
    png: Annotated[str, typer.Argument(help="Picture to write.")],
    level: Annotated[int | None, typer.Option(help="Resolution level of the labels.")] = None,
    within: Within = None,
    labels: Annotated[
        str | None, typer.Option(help="Label image, where there are several.")
    ] = None,
    plane: Annotated[
        str | None, typer.Option(help="Index on every axis before y and x, such as 0 or 0,3.")
    ] = None,
    suspects: Annotated[bool, typer.Option(help="Show what is flagged, all else pale.")] = False,
    maps: Annotated[
        bool, typer.Option(help="Show every map and label image, side by side.")
    ] = False,
) -> None:
    """Draw the labels over the image."""
    from engine.drawing import View, draw_panels, draw_preview

    if maps and (labels or suspects):
        raise RecipeError(
            where="--maps",
            expected="neither --labels nor --suspects beside it",
            found="--labels" if labels else "--suspects",
            remedy="Make two pictures.",
        )
    view = View(level, parse_box(within), parse_plane(plane))
    if maps:
        shown = draw_panels(out, png, view)
    else:
        shown = draw_preview(out, png, view, labels=labels, suspects=suspects)
    OUT.print(f"{png}: {shown}", highlight=False)


def export(
    out: Annotated[str, typer.Argument(help="OUT.ome.zarr")],
    file: Annotated[
        str, typer.Argument(help="FILE.csv for a spreadsheet, FILE.geojson for QuPath; replaced.")
    ],
    table: Annotated[
        str | None,
        typer.Option(
            help="Name of a label image with a table; or suspects, or repairs. Where left out, the "
            "only table of objects."
        ),
    ] = None,
) -> None:
    """Write all objects, a row or an outline each; or, with --table, suspects or repairs.

    The .csv has the columns of the table. The .geojson has outlines along the
    edges of pixels, in pixels of level 0 of the image, each on its plane, with
    the table's columns as measurements. On a result with flags, suspects alone
    are written with --table suspects.
    """
    from engine.exporting import export_table

    with ExportProgress(OUT, Path(file).name) as progress:
        done = export_table(out, file, table, progress.tell)
    said = done.table if done.table in (SUSPECTS, REPAIRS) else f"objects of {done.table}"
    more = f"; also there, with --table: {', '.join(done.others)}" if done.others else ""
    OUT.print(f"{file}: {done.rows} {said}{more}", highlight=False, markup=False)


def parse_box(text: str | None) -> Box | None:
    """Box of ``y0:y1,x0:x1``."""
    if text is None:
        return None
    from tiling import Box

    match = re.fullmatch(r"(\d+):(\d+),(\d+):(\d+)", text.strip())
    if not match or int(match[1]) >= int(match[2]) or int(match[3]) >= int(match[4]):
        raise RecipeError(
            where=f"--within {text}",
            expected="y0:y1,x0:x1 in pixels, such as 0:2048,4096:8192",
            found=f"'{text}'",
            remedy="Give the first pixel and one past the last on both axes.",
        )
    y0, y1, x0, x1 = (int(n) for n in match.groups())
    return Box((y0, x0), (y1, x1))


def parse_plane(text: str | None) -> tuple[int, ...] | None:
    """Read the index of a plane."""
    if text is None:
        return None
    words = text.split(",")
    if not all(word.strip().isdigit() for word in words):
        raise RecipeError(
            where=f"--plane {text}",
            expected="indices such as 0 or 0,3",
            found=text,
            remedy="Give one for each axis before y and x.",
        )
    return tuple(int(word) for word in words)
