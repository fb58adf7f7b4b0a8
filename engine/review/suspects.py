"""Suspects as a list: read from the table of a result, drawn on a picture."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import InputError
from engine.store import Location
from engine.suspects import FALSE_NEGATIVE, FALSE_POSITIVE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

#: Colour of each kind, red, green and blue, in pictures and in QuPath.
COLORS = {FALSE_POSITIVE: (255, 64, 64), FALSE_NEGATIVE: (255, 200, 0)}

_TABLE = "tables/suspects.parquet"


@dataclass(frozen=True)
class Outline:
    """Outline of a suspect.

    Parameters
    ----------
    kind : str
        "false positive" or "false negative".
    points : ndarray of shape (n, 2), float32
        Vertices (y, x), in pixels of the level that was read; whole numbers are pixel centres.
    """

    kind: str
    points: NDArray[np.float32]


def read_suspects(out: str | Path | Location) -> pa.Table:
    """Read the table of suspects of a result, sorted by plane, kind and place.

    Raises
    ------
    InputError
        If the result has none: its recipe flags nothing, or it is not complete.
    """
    place = out if isinstance(out, Location) else Location.parse(out)
    folder = place / _TABLE
    names = sorted(n for n in folder.children()[1] if n.endswith(".parquet"))
    if not names:
        raise InputError(
            where=f"'{folder}'",
            expected="the table of suspects of a complete run",
            found="nothing",
            remedy="Run a recipe that flags, such as --recipe nuclei-flags, to its end.",
        )
    parts = [pq.read_table(io.BytesIO((folder / name).read_bytes())) for name in names]
    table = pa.concat_tables(parts)
    planes = [name for name in table.column_names if len(name) == 1 and name not in "yx"]
    keys = [(name, "ascending") for name in (*planes, "kind", "key")]
    return table.sort_by(keys)


def outlines(table: pa.Table) -> list[Outline]:
    """Outlines of the suspects of a table, in its order."""
    kinds = table["kind"].to_pylist()
    points = (np.array(p, np.float32).reshape(-1, 2) for p in table["outline"].to_pylist())
    return [Outline(kind, one) for kind, one in zip(kinds, points, strict=True)]


def draw_outlines(
    picture: NDArray[np.uint8], found: Sequence[Outline], origin: tuple[float, float], scale: float
) -> None:
    """Draw outlines of suspects on a picture, in place, thick enough to be seen first.

    Parameters
    ----------
    picture : (Y, X, 3) uint8
        The picture.
    found : sequence of Outline
        In pixels of the level that was read.
    origin : tuple of float
        Pixel of that level, (y, x), at the corner of the picture.
    scale : float
        Pixels of the picture per pixel of that level.
    """
    from skimage.draw import polygon_perimeter

    for one in found:
        local = (one.points + 0.5 - np.array(origin)) * scale - 0.5
        for grown in (0, 1):
            centre = local.mean(axis=0)
            away = np.sign(local - centre) * grown
            y, x = polygon_perimeter(*(local + away).T, shape=picture.shape[:2], clip=False)
            picture[y, x] = COLORS[one.kind]
