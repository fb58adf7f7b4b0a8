"""Progress of an export: how many parts of a table are written, and how long the others take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from engine.cli.progress import Bars

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import TaskID


class ExportProgress(Bars):
    """One bar, which begins once it is known what there is to write.

    Parameters
    ----------
    console : rich.console.Console
        Where to draw.
    name : str
        What is written.
    """

    def __init__(self, console: Console, name: str) -> None:
        super().__init__(
            console,
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("parts"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._name = name
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        return self  # a refusal prints nothing but its message

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            super().__exit__(kind, error, trace)

    def tell(self, done: int, parts: int) -> None:
        """Move the bar on."""
        if self._task is None:
            self._bars.start()
            self._task = self._bars.add_task(escape(self._name), total=parts)
        self._bars.update(self._task, completed=done)
