"""Progress on the terminal: a line per pass with regions, megapixels per second and time left."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from engine.api import Silent

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console
    from rich.progress import ProgressColumn, TaskID

    from engine.ledger import Failure


class Bars:
    """Bars that are drawn while a block lasts, and the lines between them.

    Parameters
    ----------
    console : rich.console.Console
        Where to draw.
    *columns : rich.progress.ProgressColumn
        What a bar shows.
    """

    def __init__(self, console: Console, *columns: ProgressColumn) -> None:
        self._console = console
        self._bars = Progress(*columns, console=console)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def waiting(self, reason: str) -> None:
        """Print why nothing happens yet."""
        self._console.print(escape(reason))

    def cluster_started(self, dashboard: str, workers: int) -> None:
        """Print where Dask shows its workers."""
        self._console.print(f"{workers} workers; Dask dashboard at {dashboard}")


class TerminalProgress(Bars):
    """A listener that draws one bar for each pass; all pyramids share one, and all that joins.

    Parameters
    ----------
    console : rich.console.Console
        Where to draw.
    is_stopping : callable
        Whether the user has asked to stop: Python drops an interrupt that comes while it clears
        away an object, so it is asked for again at each region.

    Attributes
    ----------
    computed : int
        Regions that were done while this listened.
    """

    def __init__(self, console: Console, is_stopping: Callable[[], bool] = lambda: False) -> None:
        super().__init__(
            console,
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("regions  {task.fields[speed]:>7.1f} Mpx/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.computed = 0
        self._is_stopping = is_stopping
        self._tasks: dict[str, TaskID] = {}
        self._begun: dict[str, float] = {}
        self._pixels: dict[str, int] = {}

    def pass_started(self, name: str, regions: int, done: int, pixels: int) -> None:
        """Add a bar."""
        if done:
            self._console.print(f"{name}: {done} of {regions} regions stand already")
        shown = _shown(name)
        if shown in self._tasks:
            task = self._bars.tasks[self._bars.task_ids.index(self._tasks[shown])]
            total = (task.total or 0) + regions
            self._bars.update(task.id, total=total, advance=done)
            return
        self._tasks[shown] = self._bars.add_task(shown, total=regions, completed=done, speed=0.0)
        self._begun[shown] = time.perf_counter()
        self._pixels[shown] = 0

    def regions_done(self, name: str, regions: int, pixels: int) -> None:
        """Move a bar on."""
        if self._is_stopping():
            raise KeyboardInterrupt
        self.computed += regions
        shown = _shown(name)
        self._pixels[shown] += pixels
        speed = speed_since(self._begun[shown], self._pixels[shown])
        self._bars.update(self._tasks[shown], advance=regions, speed=speed)

    def region_failed(self, failure: Failure) -> None:
        """Print why a region is given up."""
        tries = "1 try" if failure.attempts == 1 else f"{failure.attempts} tries"
        self._console.print(
            f"[red]{failure.pass_name}, {escape(str(failure.region))} failed after {tries}:[/red] "
            f"{escape(failure.message)}",
            highlight=False,
        )


def speed_since(begun: float, pixels: int) -> float:
    """Megapixels per second since a time of `time.perf_counter`."""
    return pixels / 1e6 / max(time.perf_counter() - begun, 1e-9)


def _shown(name: str) -> str:
    """Name of the bar of a pass."""
    if name.startswith("pyramid-"):
        return "pyramids"
    return "joining" if name.startswith("join-") else name


class CheckProgress(Bars, Silent):
    """Counts the regions that a check has looked at, one line for each pass.

    Parameters
    ----------
    console : rich.console.Console
        Where to draw.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(
            console,
            TextColumn("checked {task.description:<22}"),
            TextColumn("{task.completed:>8} regions"),
            TimeElapsedColumn(),
        )
        self._tasks: dict[str, TaskID] = {}

    def tell(self, name: str, regions: int) -> None:
        """Count regions that were looked at."""
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(name, total=None)
        self._bars.update(self._tasks[name], advance=regions)
