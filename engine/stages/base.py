"""What a stage is: it says what it needs for what is wanted, and makes it.

The plan asks the last stage first and hands each answer up to the stage before, so that halos are
derived and never configured. Boxes are in pixels of the level that is read, whatever the scale of
the product that they name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from engine.device import Launch

#: What a pipeline notes of each of its stages, beside what the stage says itself.
SECONDS = "seconds"


@dataclass(frozen=True)
class Frame:
    """What a stage knows of the image before it sees a pixel.

    Parameters
    ----------
    planes : tuple of int
        Length of every leading axis (t, z).
    extent : tuple of int
        (Y, X) of a plane.
    channels : int
        Channels that are read.
    dtype : str
        NumPy dtype of the image.
    """

    planes: tuple[int, ...]
    extent: tuple[int, int]
    channels: int
    dtype: str

    @property
    def bounds(self) -> Box:
        """The pixels of a plane."""
        return Box.of_shape(self.extent)


@dataclass(frozen=True)
class Raster:
    """A map over a box: (C, Y, X) in its own pixels, each `scale` pixels of the level wide.

    Parameters
    ----------
    box : Box
        Pixels of the level that the map covers.
    data : ndarray
        (C, Y, X), any dtype.
    scale : int
        Pixels of the level per pixel of the map.
    """

    box: Box
    data: np.ndarray
    scale: int = 1

    def cut(self, box: Box) -> np.ndarray:
        """Part of the map inside `box`: (C, y, x)."""
        own, want = self.box.coarsen(self.scale), box.coarsen(self.scale)
        part: np.ndarray = self.data[(slice(None), *want.slices(own.start))]
        return part


@dataclass(frozen=True)
class Place:
    """Where and how a stage works now.

    Parameters
    ----------
    plane : tuple of int
        Index on every leading axis.
    launch : Launch
        Device, precision and tiles per launch.
    """

    plane: tuple[int, ...]
    launch: Launch


@dataclass(frozen=True)
class Made:
    """What a stage made, and what it has to say of it.

    Parameters
    ----------
    products : mapping of str to product
        By name; a `Raster`, or sparse objects.
    notes : mapping of str to int or float
        Counts and measures for the record of the region.
    """

    products: Mapping[str, Any]
    notes: Mapping[str, float] = field(default_factory=dict)


class Stage(ABC):
    """One step of a pipeline; holds settings and no pixels, and pickles.

    Attributes
    ----------
    name : str
        Name in messages and records.
    version : int
        Raised whenever the output changes for the same input; part of the digest.
    """

    name: str
    version: int

    @abstractmethod
    def needs(self, wanted: Mapping[str, Box]) -> Mapping[str, Box]:
        """Boxes of the products that this stage takes, for the boxes that are wanted of it."""

    @abstractmethod
    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes that the stage takes at its peak, beyond what it is given."""

    def kept(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of its products that stay while later stages run, where that is much."""
        return 0

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of them that lie on the device; 0 for a stage that does not use it."""
        return 0

    @abstractmethod
    def run(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Make what is wanted.

        Parameters
        ----------
        given : mapping of str to product
            At least what `needs` asked for.
        wanted : mapping of str to Box
            Boxes of this stage's products.
        place : Place
            Plane and device.
        """


@dataclass(frozen=True)
class Pipeline:
    """Stages in order, folded from the last to the first.

    Parameters
    ----------
    stages : sequence of Stage
        Each takes products of those before it, or "image".
    """

    stages: Sequence[Stage]

    def fold(self, wanted: Mapping[str, Box]) -> dict[str, Box]:
        """Boxes of everything that must exist so that `wanted` can be made.

        Returns
        -------
        dict of str to Box
            By product, "image" included; where several stages ask, the box around all.
        """
        boxes = dict(wanted)
        for stage in reversed(self.stages):
            for name, box in stage.needs(boxes).items():
                boxes[name] = Box.around([boxes[name], box]) if name in boxes else box
        return boxes

    def memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the largest stage at its peak, with what earlier ones keep."""
        boxes, kept, most = self.fold(wanted), 0, 0
        for stage in self.stages:
            most = max(most, kept + stage.memory(boxes))
            kept += stage.kept(boxes)
        return most

    def device_memory(self, wanted: Mapping[str, Box]) -> int:
        """Bytes of the largest stage on the device."""
        boxes = self.fold(wanted)
        return max((stage.device_memory(boxes) for stage in self.stages), default=0)

    def run(self, image: Raster, wanted: Mapping[str, Box], place: Place) -> Made:
        """Make what is wanted from the image.

        Parameters
        ----------
        image : Raster
            Covers the box that `fold` gives for "image".
        wanted : mapping of str to Box
            Products and their boxes.
        place : Place
            Plane and device.
        """
        return self.run_from({"image": image}, wanted, place)

    def run_from(self, given: Mapping[str, Any], wanted: Mapping[str, Box], place: Place) -> Made:
        """Make what is wanted from products that are there already.

        Parameters
        ----------
        given : mapping of str to product
            What the stages take beside what they make for each other.
        wanted, place
            As for `run`.

        Returns
        -------
        Made
            Products that are wanted, and sparse ones of all stages; notes of each stage under its
            name, the seconds that it took among them.
        """
        boxes = self.fold(wanted)
        products: dict[str, Any] = dict(given)
        notes: dict[str, float] = {}
        for k, stage in enumerate(self.stages):
            start = perf_counter()
            made = stage.run(products, boxes, place)
            seconds = round(perf_counter() - start, 3)
            products.update(made.products)
            notes.update({f"{stage.name}.{key}": value for key, value in made.notes.items()})
            notes[f"{stage.name}.{SECONDS}"] = seconds
            later = {name for one in self.stages[k + 1 :] for name in one.needs(boxes)}
            for name in [n for n, one in products.items() if isinstance(one, Raster)]:
                # A map that nobody takes any more would wait for what is written.
                if name not in later and name not in wanted:
                    del products[name]
        return Made(products, notes)
