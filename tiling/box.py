"""Boxes: half-open integer rectangles in C order, the one way a place in an image is named."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise, product
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open box ``[start, stop)`` of pixels, one pair of integers per axis.

    Parameters
    ----------
    start : tuple of int
        First pixel on each axis; may be negative (a halo may reach over the image's edge).
    stop : tuple of int
        One past the last pixel on each axis; never below ``start``.

    Raises
    ------
    ValueError
        If the two differ in length or a stop lies before its start.

    Examples
    --------
    >>> core = Box((0, 2048), (2048, 4096))
    >>> core.grow(64).clip(Box.of_shape((3000, 4000)))
    Box(start=(0, 1984), stop=(2112, 4000))
    >>> core.shape
    (2048, 2048)
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.start) != len(self.stop):
            msg = f"start and stop must have as many axes, got {self.start} and {self.stop}"
            raise ValueError(msg)
        if any(b < a for a, b in zip(self.start, self.stop, strict=True)):
            msg = f"stop must be >= start on every axis, got {self.start} and {self.stop}"
            raise ValueError(msg)

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Self:
        """Box of a whole array of this shape."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @classmethod
    def around(cls, boxes: Sequence[Box]) -> Self:
        """Smallest box that holds some boxes, at least one."""
        return cls(
            tuple(map(min, *(box.start for box in boxes), boxes[0].start)),
            tuple(map(max, *(box.stop for box in boxes), boxes[0].stop)),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels on each axis."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def size(self) -> int:
        """Pixels in all; 0 where any axis is empty."""
        size = 1
        for n in self.shape:
            size *= n
        return size

    @property
    def empty(self) -> bool:
        """Whether the box holds no pixel."""
        return self.size == 0

    def slices(self, origin: Sequence[int] | None = None) -> tuple[slice, ...]:
        """Slices that cut this box out of an array whose first pixel lies at `origin`."""
        at = (0,) * len(self.start) if origin is None else origin
        return tuple(slice(a - o, b - o) for a, b, o in zip(self.start, self.stop, at, strict=True))

    def grow(self, margin: int | Sequence[int]) -> Box:
        """Box larger by `margin` on every side (smaller where negative; never below empty)."""
        per_axis = (margin,) * len(self.start) if isinstance(margin, int) else tuple(margin)
        start = tuple(a - m for a, m in zip(self.start, per_axis, strict=True))
        stop = tuple(max(a, b + m) for a, b, m in zip(start, self.stop, per_axis, strict=True))
        return Box(start, stop)

    def clip(self, bounds: Box) -> Box:
        """Part of this box inside `bounds`; empty, inside `bounds`, where they do not meet."""
        start = tuple(
            min(max(a, lo), hi)
            for a, lo, hi in zip(self.start, bounds.start, bounds.stop, strict=True)
        )
        stop = tuple(
            max(min(b, hi), a) for b, hi, a in zip(self.stop, bounds.stop, start, strict=True)
        )
        return Box(start, stop)

    def meets(self, other: Box) -> bool:
        """Whether the two boxes share a pixel."""
        return all(
            max(a, c) < min(b, d)
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def contains(self, other: Box) -> bool:
        """Whether every pixel of `other` lies in this box."""
        return all(
            a <= c and d <= b
            for a, b, c, d in zip(self.start, self.stop, other.start, other.stop, strict=True)
        )

    def holds(self, pixel: Sequence[int]) -> bool:
        """Whether a pixel lies in this box."""
        return all(a <= n < b for a, n, b in zip(self.start, pixel, self.stop, strict=True))

    def shift(self, by: Sequence[int]) -> Box:
        """Box moved by `by` pixels."""
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def snap(self, step: int | Sequence[int]) -> Box:
        """Smallest box around this one whose corners are multiples of `step`."""
        per_axis = (step,) * len(self.start) if isinstance(step, int) else tuple(step)
        return Box(
            tuple(a // s * s for a, s in zip(self.start, per_axis, strict=True)),
            tuple(-(-b // s) * s for b, s in zip(self.stop, per_axis, strict=True)),
        )

    def coarsen(self, factor: int | Sequence[int]) -> Box:
        """Box of the coarse pixels, each `factor` fine pixels wide, that this box touches."""
        per_axis = (factor,) * len(self.start) if isinstance(factor, int) else tuple(factor)
        return Box(
            tuple(a // s for a, s in zip(self.start, per_axis, strict=True)),
            tuple(-(-b // s) for b, s in zip(self.stop, per_axis, strict=True)),
        )

    def refine(self, factor: int | Sequence[int]) -> Box:
        """Box of the fine pixels inside this box of coarse ones: the inverse of `coarsen`."""
        per_axis = (factor,) * len(self.start) if isinstance(factor, int) else tuple(factor)
        return Box(
            tuple(a * s for a, s in zip(self.start, per_axis, strict=True)),
            tuple(b * s for b, s in zip(self.stop, per_axis, strict=True)),
        )

    def split(self, cell: Sequence[int]) -> Iterator[Box]:
        """Cut the box along the lines of a grid of `cell` pixels; parts in C order."""
        edges = [_edges(a, b, c) for a, b, c in zip(self.start, self.stop, cell, strict=True)]
        for pairs in product(*edges):
            yield Box(tuple(p[0] for p in pairs), tuple(p[1] for p in pairs))

    def __str__(self) -> str:
        return ",".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True))


def _edges(start: int, stop: int, cell: int) -> list[tuple[int, int]]:
    """Half-open intervals of [start, stop) between multiples of `cell`."""
    cuts = [start, *range((start // cell + 1) * cell, stop, cell), stop]
    return [(a, b) for a, b in pairwise(cuts) if b > a]
