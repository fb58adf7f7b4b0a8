"""The lattice and the plan of average pooling: any cut equals no cut, bit for bit."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiling import BlendPlan, Box, Grid, Lattice, Tiling


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    scale = draw(st.sampled_from([1, 2]))
    phase = scale * draw(st.integers(1, 3))
    tile = phase * draw(st.integers(2, 6))
    overlap = draw(st.integers(0, tile - phase))
    margin = draw(st.integers(0, overlap // 2)) // scale * scale
    blend = draw(st.sampled_from(["average", "crop"]))
    return Tiling(tile, overlap, margin, phase, scale, blend)


@st.composite
def lattices(draw: st.DrawFn) -> Lattice:
    extent = draw(st.tuples(st.integers(1, 90), st.integers(1, 90)))
    return Lattice(extent, draw(tilings()))


def tile_output(tile: Box, scale: int) -> np.ndarray:
    """What a network might say of a tile: it depends on the place inside the tile as well."""
    y, x = np.mgrid[
        tuple(slice(a // scale, b // scale) for a, b in zip(tile.start, tile.stop, strict=False))
    ]
    place = np.sin(y * 12.9898 + x * 78.233) * 43.7
    return (place + np.cos(y - tile.start[0]) + np.sin(x - tile.start[1])).astype(np.float32)


def pool(lattice: Lattice, box: Box) -> np.ndarray:
    plan = BlendPlan(lattice, box)
    total = np.zeros(plan.output.shape, np.float32)
    for row in plan.rows():
        for place in row.tiles:
            values = tile_output(place.tile, lattice.tiling.scale)
            total[place.target.slices()] += values[place.source.slices()]
    return total / plan.weight


@given(lattices())
def test_every_pixel_is_counted_and_tiles_keep_to_the_phase(lattice: Lattice) -> None:
    tiling = lattice.tiling
    weight = BlendPlan(lattice, lattice.padded).weight
    assert weight.min() >= 1
    if tiling.blend == "crop":
        assert weight.max() == 1
    for axis in lattice.axes:
        assert axis.origins[0] == 0
        assert axis.origins[-1] + tiling.tile == axis.padded
        assert all(o % tiling.phase == 0 for o in axis.origins)
        steps = np.diff(axis.origins)
        assert (steps <= tiling.tile - tiling.overlap).all()
        assert (steps > 0).all()


@given(lattices(), st.integers(1, 5), st.integers(1, 5))
def test_any_cut_equals_no_cut(lattice: Lattice, a: int, b: int) -> None:
    scale = lattice.tiling.scale
    whole = pool(lattice, lattice.padded)
    parts = np.full_like(whole, np.nan)
    for region in Grid((), lattice.padded.shape, (a * 7 * scale, b * 5 * scale)):  # type: ignore[arg-type]
        parts[region.core.coarsen(scale).slices()] = pool(lattice, region.core)
    assert np.array_equal(whole, parts)


@given(lattices())
def test_bands_are_final_and_complete(lattice: Lattice) -> None:
    plan = BlendPlan(lattice, lattice.padded)
    rows = list(plan.rows())
    assert rows[0].band.start[0] == 0
    assert rows[-1].band.stop == plan.output.shape
    for row, later in itertools.pairwise(rows):
        assert row.band.stop[0] == later.band.start[0]
        assert all(p.target.start[0] >= row.band.stop[0] for p in later.tiles)


@given(lattices(), st.data())
def test_reach_holds_all_tiles_of_a_box(lattice: Lattice, data: st.DataObject) -> None:
    scale = lattice.tiling.scale
    y, x = (n // scale for n in lattice.padded.shape)
    a, c = data.draw(st.integers(0, y - 1)), data.draw(st.integers(0, x - 1))
    b, d = data.draw(st.integers(a + 1, y)), data.draw(st.integers(c + 1, x))
    box = Box((a, c), (b, d)).refine(scale)
    plan = BlendPlan(lattice, box)
    tiles = [p.tile for row in plan.rows() for p in row.tiles]
    assert len(tiles) == plan.tiles
    reach = lattice.reach(box)
    assert all(reach.contains(tile) for tile in tiles)
    assert lattice.padded.contains(reach)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 250, "overlap": 64, "margin": 0, "phase": 16}, "multiple of the phase"),
        ({"tile": 224, "overlap": 256, "margin": 0}, "overlap must be"),
        ({"tile": 256, "overlap": 64, "margin": 33}, "half the overlap"),
        ({"tile": 256, "overlap": 64, "margin": 3, "phase": 2, "scale": 2}, "multiple of scale"),
        ({"tile": 256, "overlap": 64, "margin": 3, "phase": 3, "scale": 2}, "phase must be"),
        ({"tile": 0, "overlap": 0, "margin": 0}, "tile must be"),
    ],
)
def test_refuses_sizes_that_contradict(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Tiling(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tile", "overlap"), [(224, 56), (224, 48), (256, 64), (512, 128)])
def test_the_tile_sizes_people_use(tile: int, overlap: int) -> None:
    lattice = Lattice((3000, 4000), Tiling(tile, overlap, 16, 16, 2))
    assert all(o % 16 == 0 for axis in lattice.axes for o in axis.origins)


def test_refuses_boxes_off_the_lattice() -> None:
    lattice = Lattice((64, 64), Tiling(32, 8, 0, 2, 2))
    with pytest.raises(ValueError, match="multiples of the scale"):
        BlendPlan(lattice, Box((1, 0), (10, 10)))
    with pytest.raises(ValueError, match="inside the padded plane"):
        BlendPlan(lattice, Box((0, 0), (66, 64)))
