"""Integer arithmetic of tiled inference: boxes, grids, tiles, blending and seams. NumPy only."""

from tiling.blend import BlendPlan, Placement, TileRow
from tiling.box import Box
from tiling.grid import Grid, Region
from tiling.seams import Joins, disagreement, touching_pairs
from tiling.tiles import Blend, Lattice, TileAxis, Tiling

__all__ = [
    "Blend",
    "BlendPlan",
    "Box",
    "Grid",
    "Joins",
    "Lattice",
    "Placement",
    "Region",
    "TileAxis",
    "TileRow",
    "Tiling",
    "disagreement",
    "touching_pairs",
]
