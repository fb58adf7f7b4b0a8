"""A table of a result, written part by part: as CSV, or with outlines as GeoJSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.csv as pc

from engine.errors import OutputError
from engine.exporting.features import features
from engine.exporting.opening import open_tables
from engine.exporting.replacing import replacing
from engine.store import Location, local_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa

    from engine.exporting.opening import Table


@dataclass(frozen=True)
class Exported:
    """What was written.

    Parameters
    ----------
    table : str
        Name of the table.
    rows : int
        Its rows.
    others : tuple of str
        Tables of the result that were not written.
    """

    table: str
    rows: int
    others: tuple[str, ...]


def export_table(
    out: str | Path,
    file: str | Path,
    table: str | None = None,
    tell: Callable[[int, int], None] = lambda _done, _parts: None,
) -> Exported:
    """Write a table of a result to a file that other programs open.

    Parameters
    ----------
    out : str or Path
        A result whose table is complete, on a disk or in a bucket.
    file : str or Path
        A path that ends in ``.csv``, for a spreadsheet, or in ``.geojson``, for QuPath (File >
        Import objects); replaced in one step.
    table : str or None
        Name of a label image with a table, ``suspects`` or ``repairs``; the only table of objects
        where None.
    tell : callable
        Is told, after each part, how many parts are written, and of how many.

    Returns
    -------
    Exported
        What was written.

    Raises
    ------
    InputError
        If there is no result, no such table, or the table is not complete.
    OutputError
        If the path has another ending, is a folder, or cannot be written.

    Notes
    -----
    CSV has the columns of the table but outlines. GeoJSON is that of RFC 7946, in pixels of level 0
    of the image that was read, with what QuPath adds to it. Objects are outlined along the edges of
    their pixels, suspects by the star-convex shapes that were found, repairs by their boxes. Kept
    in memory are the rows of one part, some 2048 x 2048 px of labels, and the corners of the
    largest outline.
    """
    path = local_path(file, OutputError)
    writers = {".csv": _write_csv, ".geojson": _write_geojson}
    _check_path(path, tuple(writers))
    tables = open_tables(Location.parse(out))
    chosen = tables.choose(table)
    with replacing(path) as stream:
        rows = writers[path.suffix.lower()](chosen, stream, tell)
    others = tuple(name for name in tables.names if name != chosen.name)
    return Exported(chosen.name, rows, others)


def _check_path(path: Path, endings: tuple[str, ...]) -> None:
    """Refuse a path that cannot be written, before anything is read."""
    said, remedy = None, ""
    if path.suffix.lower() not in endings:
        said = f"the ending {path.suffix!r}"
        remedy = "Choose one of them: .geojson opens in QuPath, .csv in a spreadsheet."
    elif path.is_dir():
        said, remedy = "a folder", "Choose another name."
    elif not path.parent.is_dir():
        said, remedy = f"no folder '{path.parent}'", "Make the folder, or choose another one."
    if said is not None:
        expected = f"a path in a folder that ends in {' or '.join(endings)}"
        raise OutputError(where=f"'{path}'", expected=expected, found=said, remedy=remedy)


def _write_csv(table: Table, stream: BinaryIO, tell: Callable[[int, int], None]) -> int:
    """Write rows without outlines."""
    count = 0
    # Names of columns are made of letters, digits, - and _: nothing to quote.
    options = pc.WriteOptions(include_header=False)
    for rows in _parts(table, tell):
        flat = rows.drop_columns([n for n in rows.column_names if n == "outline"])
        if stream.tell() == 0:
            stream.write((",".join(flat.column_names) + "\n").encode())
        pc.write_csv(flat, stream, options)
        count += rows.num_rows
    return count


def _write_geojson(table: Table, stream: BinaryIO, tell: Callable[[int, int], None]) -> int:
    """Write detections with class, measurements and outline, one a line."""
    count, describe = 0, features(table)
    stream.write(b'{"type": "FeatureCollection", "features": [')
    for rows in _parts(table, tell):
        for feature in describe(rows):
            text = json.dumps(feature, allow_nan=False)
            stream.write((",\n" if count else "\n").encode() + text.encode())
            count += 1
    stream.write(b"\n]}\n")
    return count


def _parts(table: Table, tell: Callable[[int, int], None]) -> Iterator[pa.Table]:
    """Read the parts of a table, in order."""
    tell(0, len(table.parts))
    for k, part in enumerate(table.parts):
        yield table.read(part)
        tell(k + 1, len(table.parts))
