"""The command that runs an archive of many images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from engine.api import on_cluster
from engine.cli.options import (
    Cluster,
    ClusterSet,
    Device,
    Recipe,
    Region,
    Set,
    Workers,
    settings_of,
)
from engine.cli.progress import Bars, speed_since

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.batch.document import Row
    from engine.store import Location

OUT = Console(soft_wrap=True)

#: Images that are done that a table lists; all others are listed.
_LISTED = 200


def batch(
    images: Annotated[
        str, typer.Argument(help="A file with one path a line, a glob, a folder or s3://prefix.")
    ],
    out: Annotated[str, typer.Option("--out", help="Folder for results.")],
    recipe: Recipe = "nuclei",
    set_: Set = None,
    region: Region = None,
    workers: Workers = None,
    device: Device = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, max=64, help="Images in work at a time.")
    ] = None,
    keep_ingested: Annotated[
        bool, typer.Option("--keep-ingested/--drop-ingested", help="Keep copies of foreign images.")
    ] = True,
    pixel_size: Annotated[
        float | None, typer.Option(help="Micrometres per pixel of all foreign images.")
    ] = None,
    cluster: Cluster = "local",
    cluster_set: ClusterSet = None,
) -> None:
    """Run a recipe on many images: OME-Zarr, or slides and TIFFs that are ingested on the way."""
    from engine.batch.driving import run_batch
    from engine.batch.options import Options

    settings, asked = on_cluster(
        settings_of(recipe, set_, region, workers, device), cluster, cluster_set or ()
    )
    options = Options(settings, cluster, asked, at_once, keep_ingested, pixel_size)
    with BatchProgress(OUT) as progress:
        outcome = run_batch(images, out, options, progress)
    show_table(OUT, outcome.dest, outcome.rows)
    OUT.print(f"{outcome.dest}: batch.json, summary.json, summary.md", highlight=False)
    if not outcome.complete:
        OUT.print("Give the same command again to try just what is not done.")
        raise typer.Exit(3)


def show_batch(console: Console, folder: Location, rows: Iterable[Row]) -> None:
    """Print how far a batch is, also while it runs."""
    from engine.ledger import Ledger, holder

    console.print(f"[bold]{escape(str(folder))}[/bold]", highlight=False)
    worker = holder(Ledger(folder))
    if worker is not None:
        console.print(f"  in work: {escape(str(worker))}", highlight=False)
    show_table(console, folder, rows)


def show_table(console: Console, folder: Location, rows: Iterable[Row]) -> None:
    """Print totals and a table; what is not done comes last, where it is seen."""
    from engine.batch.looking import seen_cells
    from engine.batch.summary import HEADS, totals, words

    listed = sorted(rows, key=lambda row: row.state != "done")
    done = sum(row.state == "done" for row in listed)
    table = Table(box=None, pad_edge=False)
    for head in HEADS:
        right = head in ("objects", "regions", "seconds")
        table.add_column(head, justify="right" if right else "left", no_wrap=head != "reason")
    for row in listed[max(0, done - _LISTED) :]:
        table.add_row(*map(escape, seen_cells(folder, row)))
    if done > _LISTED:
        console.print(f"{done - _LISTED} more that are done: see summary.md")
    console.print(table, highlight=False)
    console.print(words(totals(listed)), highlight=False)


class BatchProgress(Bars):
    """A listener that draws one bar for all images, and prints a line for each that ends.

    Parameters
    ----------
    console : rich.console.Console
        Where to draw.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(
            console,
            TextColumn("images"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[regions]} regions  {task.fields[speed]:>7.1f} Mpx/s"),
            TimeElapsedColumn(),
        )
        self._task = self._bars.add_task("images", visible=False, regions=0, speed=0.0)
        self._begun = time.perf_counter()
        self._pixels = self._regions = 0
        self._told = ""

    def images_found(self, images: int, done: int) -> None:
        """Set the length of the bar."""
        self._bars.update(self._task, total=images, visible=True)
        self._console.print(f"{images} images" + (f", {done} done before" if done else ""))

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Print, once, where Dask shows its workers."""
        if dashboard != self._told:
            self._told = dashboard
            super().cluster_started(dashboard, workers)

    def image_started(self, name: str) -> None:
        """Do nothing: the bar moves when an image ends."""

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Count regions and pixels."""
        self._regions += regions
        self._pixels += pixels
        speed = speed_since(self._begun, self._pixels)
        self._bars.update(self._task, regions=self._regions, speed=speed)

    def image_ended(self, row: Row) -> None:
        """Move the bar on; say of an image that failed why."""
        self._bars.update(self._task, advance=1)
        if row.reason:
            text = f"[red]{escape(row.name)} {row.state}:[/red] {escape(row.reason)}"
            self._console.print(text, highlight=False)
