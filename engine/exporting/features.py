"""Rows of tables as features of GeoJSON, as QuPath reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from engine.exporting.shapes import Shapes
from engine.methods.rings import ring_area
from engine.planning.elements import CLASS_COLORS, REPAIRS, SUSPECTS
from engine.review.suspects import COLORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa

    from engine.exporting.opening import Table

    #: Features of a part of a table.
    Describe = Callable[[pa.Table], Iterator[dict[str, Any]]]

# Where something lies is said by its outline.
_PLACES = frozenset(f"{name}{unit}" for name in ("y", "x", "y0", "x0", "y1", "x1")
                    for unit in ("", "_um")) | {"key", "t", "z"}  # fmt: skip


def features(table: Table) -> Describe:
    """Say how the rows of a part become features.

    Raises
    ------
    InputError
        If the label image, or the image that was read at another level than 0, is not there.
    """
    scale = np.array(table.scale())
    if table.name == SUSPECTS:
        return lambda rows: (_suspect(row, scale) for row in rows.to_pylist())
    if table.name == REPAIRS:
        return lambda rows: (_repair(row, scale) for row in rows.to_pylist())
    shapes = Shapes(table.place / "labels" / table.name, table.area)

    def describe(rows: pa.Table) -> Iterator[dict[str, Any]]:
        for row, polygons in shapes.of(rows):
            about = (f"{table.name} {row['id']}", table.name, CLASS_COLORS[3])
            yield _feature(row, polygons, scale, about)

    return describe


def _suspect(row: dict[str, Any], scale: np.ndarray) -> dict[str, Any]:
    """Feature of a suspect; our pixels lie at their centre, QuPath's begin at their corner."""
    ring = np.array(row.pop("outline"), np.float64).reshape(-1, 2) + 0.5
    name = f"object {row['id']}" if row["id"] is not None else f"missing at {row['key']}"
    kind = row.pop("kind")
    return _feature(row, [[ring]], scale, (name, f"suspect {kind}", COLORS[kind]))


def _repair(row: dict[str, Any], scale: np.ndarray) -> dict[str, Any]:
    """Feature of a repair: the box around its patches."""
    y0, x0, y1, x1 = (row[name] for name in ("y0", "x0", "y1", "x1"))
    ring = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
    kind = "repair left as it was" if row["left"] else "repair"
    return _feature(row, [[ring]], scale, (f"{kind} at {y0}, {x0}", kind, CLASS_COLORS[5]))


def _feature(
    row: dict[str, Any],
    polygons: Iterable[Iterable[np.ndarray]],
    scale: np.ndarray,
    about: tuple[str, str, tuple[int, int, int]],
) -> dict[str, Any]:
    """Feature of a row: its outline, name, class and colour, and all numbers that it has."""
    name, kind, color = about
    coordinates = [
        [_ring(ring, scale, hole=k > 0) for k, ring in enumerate(polygon)] for polygon in polygons
    ]
    single = len(coordinates) == 1
    return {
        "type": "Feature",
        "geometry": {
            "type": "Polygon" if single else "MultiPolygon",
            "coordinates": coordinates[0] if single else coordinates,
            "plane": {"c": -1, "z": row.get("z", 0), "t": row.get("t", 0)},
        },
        "properties": {
            "objectType": "detection",
            "name": name,
            "classification": {"name": kind, "color": list(color)},
            "measurements": {
                n: float(value)
                for n, value in row.items()
                if n not in _PLACES and value is not None
            },
        },
    }


def _ring(ring: np.ndarray, scale: np.ndarray, *, hole: bool) -> list[list[float]]:
    """Positions (x, y) of a closed ring, in the direction that RFC 7946 asks for."""
    turned = ring if (ring_area(ring) > 0) != hole else ring[::-1]
    scaled = turned if (scale == 1).all() else turned * scale
    places: list[list[float]] = np.round(scaled[:, ::-1], 2).tolist()
    return [*places, places[0]]
