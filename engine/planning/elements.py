"""What a job is made of: where pixels come from, what is written, and one sweep over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from engine.store import Axis, Level
    from tiling import Grid

#: Largest region, in pixels, of the passes that compute no tiles, which gain nothing from size, and
#: of the one that computes them for each defense, of which minutes are lost with a region.
LARGEST_DRAWN = 4096

#: Rows of a pyramid's level that are made at once: temporaries stay a small part of a region.
BAND = 256

#: Folder, below OUT, of the tables as users see them.
SHOWN_TABLES = "tables"

#: Name of the table of objects that are suspect, and group of the map of votes.
SUSPECTS = "suspects"
VOTES_GROUP = "maps/flag_votes"

#: Names of the class maps, of their uncertainty, and of the table of repairs.
CLASSES, INITIAL, ENTROPY, REPAIRS = "classes", "classes_initial", "entropy", "repairs"

#: Rays for which candidates of false negatives are looked for where the image has no object.
LEAST_REACH = 16.0

#: Colours of classes that all eyes tell apart (Okabe and Ito 2008, "Color Universal Design"); the
#: first class is background.
CLASS_COLORS = (
    (0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (213, 94, 0),
    (204, 121, 167), (0, 114, 178),
)  # fmt: skip

PassKind = Literal[
    "statistics",
    "regions",
    "flags",
    "labels",
    "repair",
    "join",
    "objects",
    "seams",
    "copy",
    "pyramid",
]


def shown_table(name: str) -> str:
    """Folder, below OUT, of the parts of a table, where users look for it."""
    return f"{SHOWN_TABLES}/{name}.parquet"


def probability_layer(name: str) -> str:
    """Name of the layer of a class's mean probability."""
    return f"probability-{name}"


@dataclass(frozen=True)
class SourceRef:
    """Where pixels come from.

    Parameters
    ----------
    path : str
        An OME-Zarr image, or a foreign file, folder or glob.
    foreign : bool
        Whether `path` is ingested rather than read as OME-Zarr.
    level : int
        Resolution level of an OME-Zarr image.
    channels : tuple of int
        Channels that are read, in the order in which they are wanted.
    """

    path: str
    foreign: bool
    level: int
    channels: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A pyramid that the run writes.

    Parameters
    ----------
    name : str
        "image", "probability", or the name of a label image.
    group : str
        Its group inside OUT; "" is the root.
    dtype : str
        NumPy dtype as stored.
    scale : int
        Pixels of the level that is read per pixel of the layer's level 0.
    axes : tuple of Axis
        Axes of its arrays.
    levels : tuple of Level
        Finest first; paths are relative to the group.
    chunk, shard : int
        Sides in pixels of the layer.
    is_label : bool
        Whether pixels are ids, which are never averaged.
    made_with : str
        Name of the layer in whose edition level 0 is written; its own where "".
    """

    name: str
    group: str
    dtype: str
    scale: int
    axes: tuple[Axis, ...]
    levels: tuple[Level, ...]
    chunk: int
    shard: int
    is_label: bool = False
    made_with: str = ""

    @property
    def channels(self) -> int:
        """Channels; 1 where there is no such axis."""
        names = [axis.name for axis in self.axes]
        return self.levels[0].shape[names.index("c")] if "c" in names else 1

    def leading(self, plane: tuple[int, ...], channel: int) -> tuple[int, ...]:
        """Index on every axis before y and x."""
        rest = iter(plane)
        return tuple(channel if axis.name == "c" else next(rest) for axis in self.axes[:-2])


@dataclass(frozen=True)
class Pass:
    """One sweep over an array, in regions; the next starts when it is done.

    Parameters
    ----------
    name : str
        Name of its records.
    kind : str
        What a task of it does.
    grid : Grid
        Its cells: what is written, or counted, as a whole.
    layer : str
        Name of the layer it writes; "" for none.
    level : int
        Level of that layer; of the tree of blocks where objects are joined.
    shrink : int
        Pixels of the level that is read per pixel of the grid.
    after : str
        Name of the pass that must be complete before; "" for none.
    tables : tuple of str
        Names of the tables whose parts it writes.
    field : int
        Side of the squares, in pixels, that it computes as a whole: a region smaller than one
        would be computed once for each of its neighbours too. 1 where there are none.
    digest : str
        Of everything that decides what it writes; "" while a plan is being made.
    """

    name: str
    kind: PassKind
    grid: Grid
    layer: str = ""
    level: int = 0
    shrink: int = 1
    after: str = ""
    tables: tuple[str, ...] = ()
    field: int = 1
    digest: str = ""

    @property
    def written(self) -> str:
        """Name, among editions, of what it writes."""
        if self.kind == "pyramid":
            return f"{self.layer}/pyramid"
        return self.layer or ("probability" if self.kind == "regions" else self.kind)
