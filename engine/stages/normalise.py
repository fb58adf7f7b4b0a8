"""The stage that maps intensities by statistics of the whole image, so that it makes no seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.methods.intensity import interpolate_cells, normalise
from engine.stages.base import Made, Place, Raster, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.stages.base import Frame
    from tiling import Box


@dataclass(frozen=True)
class Levels:
    """Intensities that become 0 and 1; frozen with the run.

    Parameters
    ----------
    low, high : ndarray, float32
        (C,) for the whole image, (planes, C) by plane, or (planes, C, n, m) on a lattice.
    cell : int
        Side of a lattice cell in pixels; 0 where there is no lattice.
    """

    low: np.ndarray
    high: np.ndarray
    cell: int = 0

    def at(self, plane: int, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Levels of a plane and box: (C,) or (C, Y, X) float32 each."""
        if self.low.ndim == 1:
            return self.low, self.high
        if self.low.ndim == 2:
            return self.low[plane], self.high[plane]
        rows, columns = (np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True))
        low, high = (
            interpolate_cells(cells[plane], self.cell, rows, columns)
            for cells in (self.low, self.high)
        )
        return low, high


@dataclass(frozen=True)
class Normalise(Stage):
    """Image to float32, 0 at the low percentile and 1 at the high one.

    Parameters
    ----------
    frame : Frame
        The image.
    levels : Levels or None
        Statistics of pass 0; None while only planning.
    nonfinite : {"refuse", "zero"}
        "zero" makes NaN and infinity 0 when all else is normalised, as dark as the low percentile,
        which counts finite pixels only; with "refuse", pass 0 found none.
    local : bool
        Whether the levels lie on a lattice, for the projection of memory.
    """

    frame: Frame
    levels: Levels | None
    nonfinite: str
    local: bool = False
    name = "normalise"
    version = 3

    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Ask for the image where the normalised image is wanted."""
        return {"image": wanted["normalised"].clip(self.frame.bounds)}

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the result, a temporary and a mask; on a lattice also of levels for each pixel.

        While the second of these is interpolated: the first, two rows of cells taken to the
        columns, each with its weighted copy, and their sum.
        """
        maps = 6 if self.local else 2
        return (4 * maps + 1) * wanted["normalised"].size * self.frame.channels

    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Normalise what is wanted of one plane."""
        if self.levels is None:
            msg = "a stage without statistics can plan but not run"
            raise ValueError(msg)
        box = wanted["normalised"].clip(self.frame.bounds)
        values = given["image"].cut(box)
        unknown = None
        if self.nonfinite == "zero" and values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                # What float32 cannot hold is infinite, as pass 0 counts it.
                values = values.astype(np.float32)
            unknown = ~np.isfinite(values)
            values[unknown] = 0
        plane = int(np.ravel_multi_index(place.plane, self.frame.planes)) if place.plane else 0
        result = normalise(values, *self.levels.at(plane, box))
        if unknown is not None:
            result[unknown] = 0
        return Made({"normalised": Raster(box, result)})
