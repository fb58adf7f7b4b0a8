"""What is left of a pass: its regions, lazily, and how many there are for which reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.ledger import State
from engine.planning.elements import LARGEST_DRAWN
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.planning.elements import Pass
    from tiling import Region

#: Pixels of a task, where single regions are smaller; below, records and messages cost more than
#: pixels. At most so many regions: they share one record object.
BUNDLE_PIXELS = 4 * 2048**2
MOST_BUNDLED = 50

# Stands for a cell outside the part of the image that is done.
_OUTSIDE = 255


@dataclass(frozen=True)
class StepCount:
    """How much of a pass is left.

    Parameters
    ----------
    name : str
        The pass.
    regions : int
        Its regions in all.
    reasons : mapping of State to int
        Regions that are left, by the reason: new, failed before, output missing, output damaged,
        input changed. That of a region is that of its first pixel.
    """

    name: str
    regions: int
    reasons: Mapping[State, int] = field(default_factory=dict)

    @property
    def pending(self) -> int:
        """Regions that are left."""
        return sum(self.reasons.values())


def count_regions(step: Pass, states: np.ndarray, region: int, area: Box) -> StepCount:
    """Count what is left of a pass; array arithmetic, since a million regions may be.

    Parameters
    ----------
    step : Pass
        The pass.
    states : ndarray of the shape of its grid, uint8
        `State` of every cell.
    region : int
        Side of a region in pixels of the level that is read.
    area : Box
        Part of every plane that is done, in the same pixels.
    """
    times = _cells(step, region)
    within = _within(step, area)
    blocks = _blocks(states, step, times, within)
    inside = blocks != _OUTSIDE
    left = inside & (blocks != State.DONE)
    some = inside.any(axis=-1)
    whole = some & ~(inside & ~left).any(axis=-1)
    first = np.take_along_axis(blocks, inside.argmax(axis=-1)[..., None], axis=-1)[..., 0]
    counts = np.bincount(first[whole], minlength=256)
    rows = left[~whole].reshape(-1, times, times)
    begins = rows.copy()
    begins[:, :, 1:] &= ~rows[:, :, :-1]
    counts += np.bincount(blocks[~whole].reshape(-1, times, times)[begins], minlength=256)
    reasons = {state: int(counts[state]) for state in State if counts[state]}
    return StepCount(step.name, int(some.sum()), reasons)


def pending_regions(
    step: Pass, states: np.ndarray, region: int, area: Box
) -> Iterator[tuple[Region, State]]:
    """Regions of a pass that are still to be done, each with the reason.

    Parameters
    ----------
    step, states, region, area
        As in `count_regions`.
    """
    times, cell = _cells(step, region), step.grid.cell
    side = (cell[0] * times, cell[1] * times)
    for left in step.grid.missing(states == State.DONE, side, _within(step, area)):
        first = states[step.grid.cells(left)].flat[0]
        yield left, State(int(first))


def pending_pixels(step: Pass, states: np.ndarray, area: Box) -> int:
    """Pixels of a pass that are still to be done, over all planes."""
    grid, within = step.grid, _within(step, area)
    sides = []
    for k, (cells, cell) in enumerate(zip(grid.shape[-2:], grid.cell, strict=True)):
        low = np.maximum(np.arange(cells) * cell, within.start[k])
        high = np.minimum(np.arange(1, cells + 1) * cell, within.stop[k])
        sides.append(np.maximum(high - low, 0))
    left = (states != State.DONE).reshape(-1, *grid.shape[-2:]).sum(axis=0)
    return int(sides[0] @ left @ sides[1])


def bundle_size(step: Pass, region: int, pending: int, threads: int) -> int:
    """Regions of a task: several where they are small, while every thread has a few tasks."""
    side = _cells(step, region) * step.grid.cell[0]
    return max(1, min(MOST_BUNDLED, BUNDLE_PIXELS // side**2, pending // (4 * max(1, threads))))


def waves(passes: Sequence[Pass]) -> list[list[Pass]]:
    """Group passes so that each needs only passes of earlier groups.

    Examples
    --------
    >>> from engine.planning import Pass
    >>> from tiling import Grid
    >>> grid = Grid((), (1, 1), (1, 1))
    >>> first, beside = Pass("a", "regions", grid), Pass("b", "copy", grid)
    >>> [[p.name for p in w] for w in waves([first, Pass("c", "labels", grid, after="a"), beside])]
    [['a', 'b'], ['c']]
    """
    depth: dict[str, int] = {}
    groups: list[list[Pass]] = []
    for step in passes:
        depth[step.name] = depth[step.after] + 1 if step.after else 0
        if depth[step.name] == len(groups):
            groups.append([])
        groups[depth[step.name]].append(step)
    return groups


def _cells(step: Pass, region: int) -> int:
    """Cells along a side of a region: pyramids and statistics take single ones."""
    if step.kind in ("pyramid", "statistics"):
        return 1
    return max(1, region_side(step, region) // step.grid.cell[0])


def region_side(step: Pass, region: int) -> int:
    """Side of the regions of a pass that may have several cells, in pixels, before it is rounded.

    Parameters
    ----------
    step : Pass
        The pass.
    region : int
        Side of a region of the regions pass.
    """
    if step.kind == "regions":
        return region
    return max(step.field, min(region, LARGEST_DRAWN) // step.field * step.field)


def _within(step: Pass, area: Box) -> Box:
    """Part of the pass's planes that is done; statistics are of the whole image."""
    bounds = Box.of_shape(step.grid.extent)
    if step.kind == "statistics":
        return bounds
    return area.coarsen(step.shrink).snap(step.grid.cell).clip(bounds)


def _blocks(states: np.ndarray, step: Pass, times: int, within: Box) -> np.ndarray:
    """States of the cells of each region: (regions, cells of one), `_OUTSIDE` beyond the area."""
    grid = step.grid
    rows, columns = (-(-n // times) * times for n in grid.shape[-2:])
    padded = np.full((*grid.planes, rows, columns), _OUTSIDE, np.uint8)
    y, x = (
        slice(a // c, -(-b // c))
        for a, b, c in zip(within.start, within.stop, grid.cell, strict=True)
    )
    padded[..., y, x] = states[..., y, x]
    shaped = padded.reshape(-1, rows // times, times, columns // times, times)
    return shaped.swapaxes(2, 3).reshape(-1, times * times)
