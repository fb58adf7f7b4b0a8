"""The integer plan of average pooling: which piece of which tile adds to which output pixel.

A plan lists the tiles of a box row by row, in lattice order. Sums are made in that order and so
have the same bits for every box, whatever region asks. The weight of a pixel is the number of
tiles that count there; the lattice is a product of two axes, hence so is the weight, and it
needs no array of its own. After each row of tiles a band of output rows is final::

    tile row i      ██████████████
    tile row i+1          ██████████████
                    ├final┤                 rows above the first counted row of i+1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from tiling.box import Box

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tiling.tiles import Lattice, TileAxis


@dataclass(frozen=True, slots=True)
class Placement:
    """One tile's contribution.

    Parameters
    ----------
    tile : Box
        Input pixels of the tile, in the padded plane.
    source : Box
        Output pixels inside the tile that count here, relative to the tile.
    target : Box
        The same pixels relative to the wanted box; in output pixels, as `source`.
    """

    tile: Box
    source: Box
    target: Box


@dataclass(frozen=True, slots=True)
class TileRow:
    """A row of tiles and the band of output that is final after it.

    Parameters
    ----------
    tiles : tuple of Placement
        Left to right.
    band : Box
        Output pixels, relative to the wanted box, to which no later row adds; may be empty.
    """

    tiles: tuple[Placement, ...]
    band: Box


@dataclass(frozen=True)
class BlendPlan:
    """Plan of average pooling for one box.

    Parameters
    ----------
    lattice : Lattice
        All tiles of the plane.
    box : Box
        Wanted input pixels, inside the padded plane; corners on multiples of the scale.

    Raises
    ------
    ValueError
        If the box leaves the padded plane or does not lie on whole output pixels.

    Examples
    --------
    >>> from tiling.tiles import Lattice, Tiling
    >>> lattice = Lattice((8, 12), Tiling(tile=8, overlap=4, margin=0, phase=2, scale=2))
    >>> BlendPlan(lattice, Box((0, 0), (8, 12))).weight.tolist()[0]
    [1.0, 1.0, 2.0, 2.0, 1.0, 1.0]
    """

    lattice: Lattice
    box: Box

    def __post_init__(self) -> None:
        scale = self.lattice.tiling.scale
        if not self.lattice.padded.contains(self.box):
            msg = f"box must lie inside the padded plane, got {self.box} in {self.lattice.padded}"
            raise ValueError(msg)
        if any(n % scale for n in (*self.box.start, *self.box.stop)):
            msg = f"box must lie on multiples of the scale {scale}, got {self.box}"
            raise ValueError(msg)

    @property
    def output(self) -> Box:
        """The wanted box in output pixels."""
        return self.box.coarsen(self.lattice.tiling.scale)

    def rows(self) -> Iterator[TileRow]:
        """Rows of tiles, top to bottom, each with the band that is final after it."""
        rows, columns = self.lattice.touching(self.box)
        scale = self.lattice.tiling.scale
        height, width = self.output.shape
        done = 0
        for i in rows:
            tiles = tuple(self._place(i, j) for j in columns)
            final = height
            if i != rows[-1]:
                next_start = self.lattice.axes[0].counted(i + 1)[0]
                final = min(max((next_start - self.box.start[0]) // scale, done), height)
            yield TileRow(tiles, Box((done, 0), (final, width)))
            done = final

    @cached_property
    def weight(self) -> np.ndarray:
        """Number of tiles that count in each output pixel: (y, x) float32, >= 1."""
        y = _counts(self.lattice.axes[0], self.box.start[0], self.box.stop[0])
        x = _counts(self.lattice.axes[1], self.box.start[1], self.box.stop[1])
        weight: np.ndarray = y[:, None] * x[None, :]
        return weight

    @property
    def tiles(self) -> int:
        """Number of tiles to compute."""
        rows, columns = self.lattice.touching(self.box)
        return len(rows) * len(columns)

    def _place(self, i: int, j: int) -> Placement:
        scale = self.lattice.tiling.scale
        tile = self.lattice.tile_box((i, j))
        spans = [axis.counted(k) for axis, k in zip(self.lattice.axes, (i, j), strict=True)]
        counted = Box(tuple(s[0] for s in spans), tuple(s[1] for s in spans)).clip(self.box)
        back = tuple(-a for a in tile.start)
        home = tuple(-a for a in self.box.start)
        return Placement(
            tile, counted.shift(back).coarsen(scale), counted.shift(home).coarsen(scale)
        )


def _counts(axis: TileAxis, start: int, stop: int) -> np.ndarray:
    """Tiles that count at each output pixel of [start, stop): float32."""
    scale = axis.tiling.scale
    steps = np.zeros((stop - start) // scale + 1, np.int32)
    for k in axis.touching(start, stop):
        a, b = axis.counted(k)
        steps[(max(a, start) - start) // scale] += 1
        steps[(min(b, stop) - start) // scale] -= 1
    return np.cumsum(steps[:-1]).astype(np.float32)
