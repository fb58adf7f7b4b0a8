"""Panels: the image and the maps made of it, side by side, with what it takes to read them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.review.keys import below, beside, class_key, text_size, value_key, words
from engine.review.pictures import heat_picture
from engine.review.png import png_path, write_png
from engine.review.scalebar import add_scale_bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

#: Pixels between panels.
_GAP = 8

#: What a byte of a map stands for at most: maps of bytes are shares, 255 for 1; others count.
_BYTE = 255


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture with a name.

    Parameters
    ----------
    title : str
        What it shows.
    picture : (Y, X, 3) uint8
        Red, green and blue.
    most : int or None
        Value of the brightest colour of a map of values that begins at 0; None for all else.
    """

    title: str
    picture: NDArray[np.uint8]
    most: int | None = None

    def __str__(self) -> str:
        return self.title if self.most is None else f"{self.title}, 0 to {self.most}"


def value_panel(title: str, values: NDArray[Any]) -> Panel:
    """Panel of a map of values: of shares, (Y, X) uint8 where 255 is 1, or of counts."""
    if values.dtype == np.uint8:
        return Panel(title, heat_picture(values, _BYTE), 1)
    most = int(values.max(initial=1))
    return Panel(title, heat_picture(values, most), most)


def write_panels(
    panels: Sequence[Panel],
    png: str | Path,
    *,
    pixel_size_um: float | None = None,
    classes: Mapping[int, str] | None = None,
    columns: int = 3,
) -> None:
    """Write panels of equal size as one picture, row by row.

    Below the first panel stands the scale bar of all, below a map of values the bar of its
    colours, and below all panels the colours of classes. Nothing stands on a panel, and what is
    wider than a panel moves the next one away.

    Parameters
    ----------
    panels : sequence of Panel
        At least one.
    png : str or Path
        Where to write; replaced in one step where it exists.
    pixel_size_um : float, optional
        Side of a pixel of the panels in micrometres; where it is not known the picture says so.
    classes : mapping of int to str, optional
        Name of each class of the panels that show classes.
    columns : int
        Panels in a row.

    Raises
    ------
    InputError
        If the pixel size is not positive and finite.
    OutputError
        If the path does not end in ``.png``, is a folder, or cannot be written.
    """
    path = png_path(png)
    height, width = panels[0].picture.shape[:2]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    size = text_size(max(columns * width, rows * height))
    first, *others = panels
    scaled = add_scale_bar(first.picture, pixel_size_um, unit=size // 10)
    cells = [below([words(first.title, size), scaled], size // 4)]
    cells += [_cell(panel, size) for panel in others]
    widest = np.zeros((0, max(cell.shape[1] for cell in cells), 3), np.uint8)
    lines = []
    for k in range(0, len(cells), columns):
        line = [below([cell, widest], 0) for cell in cells[k : k + columns]]
        highest = max(len(cell) for cell in line)
        line = [np.pad(cell, ((0, highest - len(cell)), (0, 0), (0, 0))) for cell in line]
        lines.append(beside(line, _GAP))
    if classes:
        lines.append(class_key(classes, size, lines[0].shape[1]))
    write_png(path, np.pad(below(lines, _GAP), ((_GAP, _GAP), (_GAP, _GAP), (0, 0))))


def _cell(panel: Panel, size: int) -> NDArray[np.uint8]:
    """Panel below its title, and above the bar of its values where it has some."""
    parts = [words(panel.title, size), panel.picture]
    if panel.most is not None:
        parts.append(value_key(panel.most, size, panel.picture.shape[1]))
    return below(parts, size // 4)
