"""The lattice of overlapping tiles: a function of the image alone, never of regions.

One axis, tile t, overlap v, margin m, and the two ways to blend::

    tile k      ├──m──┤·········counted·········├──m──┤
    tile k+1                        ├──m──┤·········counted·········├──m──┤
                                    ├───── v ─────┤
    average     kkkkkkkkkkkkkkkkkkkkkkkkkk│ (k+k+1)/2 │k+1 k+1 k+1 …        margins do not count
    crop        kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk│k+1 k+1 k+1 …              cut half-way, no average

At the image's edge the margin counts, since nothing else has seen those pixels. The far edge is
padded to a multiple of the phase, and the last tile is shifted back until it ends there::

    image       ├───────────────────────────────────────────┤pad│
    tiles       ├──── 0 ────┤   ├──── 2 ────┤               │   │
                        ├──── 1 ────┤   ├──── 3 ────┤       │   │
                                                    ├──── 4 ────┤   shifted: a larger overlap
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tiling.box import Box

Blend = Literal["average", "crop"]


@dataclass(frozen=True, slots=True)
class Tiling:
    """Settings of tiled inference, alike on both axes.

    Parameters
    ----------
    tile : int
        Side of a tile in pixels; a multiple of `phase`.
    overlap : int
        Pixels that neighbours share at least: the stride is rounded down to a multiple of `phase`.
    margin : int
        Outer pixels of a tile that do not count, except at the image's edge.
    phase : int
        What the network divides by: tile origins are multiples of it, else the pixels that a
        network pools together would differ from tile to tile.
    scale : int
        Input pixels per output pixel on each axis (StarDist's grid).
    blend : {"average", "crop"}
        Average what overlaps inside the margins, or cut half-way between neighbours.

    Raises
    ------
    ValueError
        If the sizes contradict each other.

    Examples
    --------
    >>> Tiling(tile=224, overlap=56, margin=8, phase=16, scale=2, blend="average").stride
    160
    """

    tile: int
    overlap: int
    margin: int
    phase: int = 1
    scale: int = 1
    blend: Blend = "average"

    def __post_init__(self) -> None:
        def need(rule: bool, text: str) -> None:
            if not rule:
                raise ValueError(text)

        need(self.tile >= 1, f"tile must be >= 1, got {self.tile}")
        need(self.scale >= 1, f"scale must be >= 1, got {self.scale}")
        need(
            self.phase >= 1 and self.phase % self.scale == 0,
            f"phase must be a multiple of scale, got {self.phase} and {self.scale}",
        )
        need(
            self.tile % self.phase == 0,
            f"tile must be a multiple of the phase, got {self.tile} and {self.phase}",
        )
        need(
            0 <= self.overlap <= self.tile - self.phase,
            f"overlap must be >= 0 and leave a stride of at least the phase, "
            f"got overlap {self.overlap}, tile {self.tile}, phase {self.phase}",
        )
        need(
            0 <= 2 * self.margin <= self.overlap,
            f"margin must be >= 0 and at most half the overlap, "
            f"got margin {self.margin}, overlap {self.overlap}",
        )
        need(
            self.margin % self.scale == 0,
            f"margin must be a multiple of scale, got {self.margin} and {self.scale}",
        )

    @property
    def stride(self) -> int:
        """Distance of tile origins: the largest multiple of the phase that keeps the overlap."""
        return (self.tile - self.overlap) // self.phase * self.phase


@dataclass(frozen=True)
class TileAxis:
    """Tiles along one axis of `length` pixels.

    Parameters
    ----------
    length : int
        Pixels of the image on this axis.
    tiling : Tiling
        The settings.

    Examples
    --------
    >>> axis = TileAxis(600, Tiling(tile=256, overlap=64, margin=16, phase=16))
    >>> axis.padded, axis.origins
    (608, (0, 192, 352))
    >>> [axis.counted(k) for k in range(3)]
    [(0, 240), (208, 432), (368, 608)]
    """

    length: int
    tiling: Tiling

    def __post_init__(self) -> None:
        if self.length < 1:
            msg = f"length must be >= 1, got {self.length}"
            raise ValueError(msg)

    @cached_property
    def padded(self) -> int:
        """Length after padding at the far end: a multiple of the phase, at least one tile."""
        phase = self.tiling.phase
        return max(self.tiling.tile, -(-self.length // phase) * phase)

    @cached_property
    def origins(self) -> tuple[int, ...]:
        """First pixel of every tile, ascending."""
        last = self.padded - self.tiling.tile
        return (*range(0, last, self.tiling.stride), last)

    def counted(self, k: int) -> tuple[int, int]:
        """Half-open interval of the pixels that count in tile `k`."""
        return self._starts[k], self._stops[k]

    def touching(self, start: int, stop: int) -> range:
        """Tiles whose counted pixels meet [start, stop)."""
        return range(bisect_right(self._stops, start), bisect_left(self._starts, stop))

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        if self.tiling.blend == "crop":
            return (0, *self._cuts)
        return (0, *(o + self.tiling.margin for o in self.origins[1:]))

    @cached_property
    def _stops(self) -> tuple[int, ...]:
        if self.tiling.blend == "crop":
            return (*self._cuts, self.padded)
        inner = self.tiling.tile - self.tiling.margin
        return (*(o + inner for o in self.origins[:-1]), self.padded)

    @cached_property
    def _cuts(self) -> tuple[int, ...]:
        """Half-way points of all overlaps, on whole output pixels."""
        tile, scale = self.tiling.tile, self.tiling.scale
        pairs = zip(self.origins, self.origins[1:], strict=False)
        return tuple((a + tile + b) // 2 // scale * scale for a, b in pairs)


@dataclass(frozen=True)
class Lattice:
    """All tiles of a plane.

    Parameters
    ----------
    extent : tuple of int
        (Y, X) of the plane.
    tiling : Tiling
        The settings.

    Examples
    --------
    >>> lattice = Lattice((600, 300), Tiling(tile=256, overlap=64, margin=16, phase=16))
    >>> len(lattice), lattice.tile_box((2, 1))
    (6, Box(start=(352, 48), stop=(608, 304)))
    """

    extent: tuple[int, int]
    tiling: Tiling

    @cached_property
    def axes(self) -> tuple[TileAxis, TileAxis]:
        """Tiles along y and along x."""
        return TileAxis(self.extent[0], self.tiling), TileAxis(self.extent[1], self.tiling)

    @property
    def padded(self) -> Box:
        """The plane with its far edges padded; every tile lies inside."""
        return Box.of_shape([axis.padded for axis in self.axes])

    def __len__(self) -> int:
        return len(self.axes[0].origins) * len(self.axes[1].origins)

    def tile_box(self, index: tuple[int, int]) -> Box:
        """Pixels of one tile, in the padded plane."""
        start = tuple(axis.origins[k] for axis, k in zip(self.axes, index, strict=True))
        return Box(start, tuple(a + self.tiling.tile for a in start))

    def touching(self, box: Box) -> tuple[range, range]:
        """Rows and columns of the tiles whose counted pixels meet `box`."""
        spans = zip(self.axes, box.start, box.stop, strict=True)
        rows, columns = (axis.touching(a, b) for axis, a, b in spans)
        return rows, columns

    def reach(self, box: Box) -> Box:
        """Smallest box, in the padded plane, that holds every tile counted somewhere in `box`."""
        rows, columns = self.touching(box)
        if not rows or not columns:
            return Box(box.start, box.start)
        first = self.tile_box((rows[0], columns[0]))
        last = self.tile_box((rows[-1], columns[-1]))
        return Box(first.start, last.stop)
