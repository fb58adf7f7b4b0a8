"""Panels: the image and the maps made of it, side by side under their names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from engine.planning.elements import CLASS_COLORS
from engine.review.overlay import stretch
from engine.review.png import png_path, write_png

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_CLASS_COLORS = np.array(CLASS_COLORS, np.float32)

#: From little to much: black, violet, red, orange, pale yellow; brightness rises all the way.
_HEAT = np.array(
    [(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], np.float32
)

#: Share of a class's colour over the image.
_TINT = 0.55

#: Pixels between panels, and height of a title.
_GAP, _TITLE = 8, 22


@dataclass(frozen=True, eq=False)
class Panel:
    """One picture with a name.

    Parameters
    ----------
    title : str
        What it shows.
    picture : (Y, X, 3) uint8
        Red, green and blue.
    """

    title: str
    picture: NDArray[np.uint8]


def gray_picture(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Contrast-stretched image, (Y, X) or (3, Y, X), as (Y, X, 3) uint8."""
    shown = stretch(image)
    return np.moveaxis(np.stack([shown] * 3) if shown.ndim == 2 else shown, 0, -1)


def class_picture(image: NDArray[Any], classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Image tinted by class; where it is background, as it is.

    Parameters
    ----------
    image : (Y, X) or (3, Y, X), any real dtype
        The image.
    classes : (Y, X) uint8
        Class of each pixel; colours repeat from the ninth on.

    Returns
    -------
    (Y, X, 3) uint8
    """
    gray = gray_picture(image).astype(np.float32)
    index = np.where(classes > 0, (classes - 1) % (len(_CLASS_COLORS) - 1) + 1, 0)
    tint = np.where(classes > 0, np.float32(_TINT), np.float32(0))[..., None]
    mixed: NDArray[np.uint8] = np.rint(gray * (1 - tint) + _CLASS_COLORS[index] * tint).astype(
        np.uint8
    )
    return mixed


def heat_picture(values: NDArray[Any], most: float) -> NDArray[np.uint8]:
    """Map of values from 0 to `most`, dark to bright: (Y, X) to (Y, X, 3) uint8."""
    share = np.clip(values.astype(np.float32) / max(most, 1e-9), 0, 1) * (len(_HEAT) - 1)
    low = np.minimum(share.astype(np.int64), len(_HEAT) - 2)
    part = (share - low)[..., None]
    heat: NDArray[np.uint8] = np.rint(_HEAT[low] * (1 - part) + _HEAT[low + 1] * part).astype(
        np.uint8
    )
    return heat


def write_panels(panels: Sequence[Panel], png: str | Path, columns: int = 3) -> None:
    """Write panels of equal size as one picture, row by row.

    Parameters
    ----------
    panels : sequence of Panel
        At least one.
    png : str or Path
        Where to write; replaced in one step where it exists.
    columns : int
        Panels in a row.

    Raises
    ------
    OutputError
        If the path does not end in ``.png``, is a folder, or cannot be written.
    """
    path = png_path(png)
    height, width = panels[0].picture.shape[:2]
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    sheet = Image.new(
        "RGB", (columns * (width + _GAP) + _GAP, rows * (height + _TITLE + _GAP) + _GAP)
    )
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for k, panel in enumerate(panels):
        left = _GAP + k % columns * (width + _GAP)
        top = _GAP + k // columns * (height + _TITLE + _GAP)
        draw.text((left, top), panel.title, fill=(255, 255, 255), font=font)
        sheet.paste(Image.fromarray(panel.picture), (left, top + _TITLE))
    write_png(path, np.asarray(sheet))
