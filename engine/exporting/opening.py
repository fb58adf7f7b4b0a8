"""The tables of a result: which there are, whether one is complete, its parts."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from engine.checking import kept_passes
from engine.errors import InputError
from engine.ledger import Ledger, State
from engine.planning.elements import REPAIRS, SUSPECTS, shown_table
from engine.store import inspect_image
from engine.store.failures import read_error
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from engine.checking import Kept
    from engine.store import Location
    from tiling import Grid


@dataclass(frozen=True)
class Table:
    """A table that is complete.

    Parameters
    ----------
    place : Location
        The result.
    document : mapping
        Of its run.
    name : str
        Of the table.
    parts : tuple of Location
        In the order of planes, rows and columns.
    area : Box
        Part of each plane that the run made.
    """

    place: Location
    document: Mapping[str, Any]
    name: str
    parts: tuple[Location, ...]
    area: Box

    def read(self, part: Location) -> pa.Table:
        """Read a part.

        Raises
        ------
        InputError
            If it is missing or damaged.
        """
        try:
            return pq.read_table(io.BytesIO(part.read_bytes()))
        except (OSError, ValueError) as err:
            # Arrow says ArrowInvalid, a ValueError, or OSError of bytes that are no Parquet.
            raise InputError(
                where=f"'{part}'",
                expected="a part of a table",
                found=str(err),
                remedy=f"`tilewright verify {self.place} --repair`, then give the run again.",
            ) from err

    def scale(self) -> tuple[float, float]:
        """Pixels of level 0 of the image for each pixel of the level that was read: (y, x).

        Raises
        ------
        InputError
            If another level than 0 was read and the image is not there any more.
        """
        level = self.document["level"]
        if level == 0 or "image" in self.document["layers"]:
            return 1.0, 1.0
        source = self.document["source"]
        try:
            levels = inspect_image(source).levels
        except InputError as err:
            raise InputError(
                where=f"'{source}'",
                expected=f"the image, whose level {level} was read: outlines are in pixels of its "
                "level 0",
                found=err.found,
                remedy="Put it back there, or write a .csv, which needs no image.",
            ) from err
        y, x = (levels[level].scale[k] / levels[0].scale[k] for k in (-2, -1))
        return y, x


@dataclass(frozen=True)
class Tables:
    """Tables of a result.

    Parameters
    ----------
    place : Location
        The result.
    document : mapping
        Of its run.
    """

    place: Location
    document: Mapping[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them: those of objects, then the others."""
        objects = self.objects
        return (*objects, *sorted(set(self.document.get("tables_at", {})) - set(objects)))

    @property
    def objects(self) -> tuple[str, ...]:
        """Those of the objects of label images."""
        return tuple(n for n in self.document["layers"] if n in self.document.get("tables_at", {}))

    def choose(self, wanted: str | None) -> Table:
        """Open the table that is named, or the only one of objects.

        Raises
        ------
        InputError
            If there is none, or none of that name; if several could be meant; or if it is not
            complete.
        """
        found = [wanted] if wanted in self.names else []
        if wanted is None:
            found = list(self.objects)
        if len(found) != 1:
            expected = f"a result with a table '{wanted}'"
            if wanted is None:
                expected = "a result with one table of objects"
            named = "Name one with --table."
            raise InputError(
                where=f"'{self.place}'",
                expected=expected,
                found=", ".join(self.names) or "no table",
                remedy=named
                if self.names
                else "Give the OUT of `tilewright run` with a recipe that segments.",
            )
        return self._open(found[0])

    def _open(self, name: str) -> Table:
        """Table of a name that there is."""
        ledger, kept = Ledger(self.place), self._pass_of(name)
        area = _area(kept.grid, self.document["area"])
        rows, columns = area.coarsen(kept.grid.cell).slices()
        states = ledger.states(kept.name, kept.digest, kept.grid)[..., rows, columns]
        left = np.count_nonzero(states != State.DONE)
        if left:
            raise InputError(
                where=f"'{self.place}', table {name}",
                expected="a table that is complete",
                found=f"{left} of {states.size} shards of the pass {kept.name} to be done",
                remedy="Give the run again; `tilewright status` says what is missing.",
            )
        folder = shown_table(name)
        parts = [
            stored.name
            for record in ledger.records(kept.name, kept.digest, kept.grid)
            for stored in record.stored
            if stored.name.rpartition("/")[0] == folder
        ]
        # The name of a part is made of the indices of its plane, its rows and its columns.
        parts.sort(key=lambda part: [int(n) for n in re.findall(r"\d+", part.rpartition("/")[2])])
        at = self.place / self.document["tables_at"][name]
        places = tuple(at / part.rpartition("/")[2] for part in parts)
        return Table(self.place, self.document, name, places, area)

    def _pass_of(self, name: str) -> Kept:
        """Pass that writes a table."""
        classes = self.document["recipe"].get("classes") or {}
        kind = "labels"
        if name == REPAIRS:
            kind = "repair"
        elif name != SUSPECTS and name == (classes.get("objects") or {}).get("name"):
            kind = "objects"
        return next(kept for kept in kept_passes(self.document) if kept.name == kind)


def open_tables(place: Location) -> Tables:
    """Read what tables a result has.

    Raises
    ------
    InputError
        If there is no result, it is on a web server, or another one is being put in its place.
    OutputError
        If its documents are damaged.
    """
    if not place.can_list:
        raise InputError(
            where=f"'{place}'",
            expected="a result on a disk or in a bucket, whose records can be listed",
            found="a web server",
            remedy="Copy or mount the result and give its path.",
        )
    try:
        ledger = Ledger(place)
        exists = ledger.exists
    except OSError as err:
        raise read_error(f"'{place}'", err) from err
    if not exists:
        raise InputError(
            where=f"'{place}'",
            expected="a result of `tilewright run`",
            found="none" if place.exists() else "nothing there",
            remedy="Check the path.",
        )
    coming = ledger.read_next()
    if coming is not None and coming.get("publishing"):
        raise InputError(
            where=f"'{place}'",
            expected="one result",
            found="one that is being put in the place of another",
            remedy="Wait for the run, or give it again where it was stopped.",
        )
    return Tables(place, ledger.read_run())


def _area(grid: Grid, area: str) -> Box:
    """Part of each plane that a run makes: whole cells, in which the area lies that was wanted."""
    spans = [[int(n) for n in part.split(":")] for part in area.split(",")]
    (y0, y1), (x0, x1) = spans
    return Box((y0, x0), (y1, x1)).snap(grid.cell).clip(Box.of_shape(grid.extent))
