"""What is left of a pass is counted without going through it, and counted right."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from engine.ledger import State
from engine.planning import Pass
from engine.planning.pending import bundle_size, count_regions, pending_pixels, pending_regions
from tiling import Box, Grid

states = st.sampled_from([0, 0, 1, 1, 1, 2, 4])


@st.composite
def journeys(draw: st.DrawFn) -> tuple[Pass, np.ndarray, int, Box]:
    planes = tuple(draw(st.lists(st.integers(1, 3), max_size=1)))
    extent = (draw(st.integers(1, 60)), draw(st.integers(1, 60)))
    cell = draw(st.integers(1, 16))
    step = Pass("regions", "regions", Grid(planes, extent, (cell, cell)))
    found = draw(arrays(np.uint8, step.grid.shape, elements=states))
    low = [draw(st.integers(0, n - 1)) for n in extent]
    high = [draw(st.integers(a + 1, n)) for a, n in zip(low, extent, strict=True)]
    area = Box((low[0], low[1]), (high[0], high[1])).snap(cell).clip(Box.of_shape(extent))
    return step, found, cell * draw(st.integers(1, 4)), area


@given(journeys())
def test_counts_are_those_of_the_regions_themselves(
    journey: tuple[Pass, np.ndarray, int, Box],
) -> None:
    step, found, side, area = journey
    left = list(pending_regions(step, found, side, area))
    count = count_regions(step, found, side, area)
    assert count.pending == len(left)
    assert count.reasons == Counter(reason for _, reason in left)
    assert pending_pixels(step, found, area) == sum(region.core.size for region, _ in left)
    everything = np.zeros_like(found)
    assert count.regions == len(list(pending_regions(step, everything, side, area)))


def test_what_is_done_is_nowhere_left() -> None:
    step = Pass("regions", "regions", Grid((), (64, 64), (16, 16)))
    done = np.full(step.grid.shape, State.DONE, np.uint8)
    assert count_regions(step, done, 32, Box((0, 0), (64, 64))).pending == 0


def test_small_regions_are_bundled_and_every_thread_has_some() -> None:
    step = Pass("regions", "regions", Grid((), (25600, 25600), (256, 256)))
    assert bundle_size(step, 256, 10_000, threads=4) == 50
    assert bundle_size(step, 256, 40, threads=4) == 2
    assert bundle_size(step, 256, 3, threads=4) == 1
    large = Pass("regions", "regions", Grid((), (25600, 25600), (8192, 8192)))
    assert bundle_size(large, 8192, 10_000, threads=4) == 1


def cut(step: Pass, region: int, area: Box) -> list[Box]:
    """Cores of all regions of a pass of which nothing is done."""
    new = np.zeros(step.grid.shape, np.uint8)
    cores = [found.core for found, _ in pending_regions(step, new, region, area)]
    assert count_regions(step, new, region, area).regions == len(cores)
    assert pending_pixels(step, new, area) == sum(core.size for core in cores)
    return cores


def test_a_pyramid_is_done_where_the_image_is_shard_by_shard() -> None:
    half = Pass("pyramid-1", "pyramid", Grid((), (500, 500), (64, 64)), shrink=2)
    cores = cut(half, 512, Box((256, 0), (512, 130)))
    assert cores == [Box((y, x), (min(y + 64, 500), x + 64)) for y in (128, 192) for x in (0, 64)]


def test_statistics_are_of_the_whole_image_cell_by_cell() -> None:
    step = Pass("statistics", "statistics", Grid((), (200, 100), (64, 64)))
    assert len(cut(step, 512, Box((64, 64), (128, 100)))) == 4 * 2


def test_only_passes_that_compute_tiles_gain_from_large_regions() -> None:
    grid, whole = Grid((), (16384, 8192), (1024, 1024)), Box((0, 0), (16384, 8192))
    for kind, expected in (("regions", 2), ("labels", 8), ("copy", 8)):
        assert len(cut(Pass(kind, kind, grid), 8192, whole)) == expected  # type: ignore[arg-type]


def test_no_region_is_smaller_than_what_is_computed_as_a_whole() -> None:
    step = Pass("flags", "flags", Grid((), (5000, 4000), (512, 512)), field=2048)
    everything = Box((0, 0), (5000, 4000))
    for region in (512, 2048, 2560, 3584):
        found = cut(step, region, everything)
        assert [box.start for box in found] == [(y, x) for y in (0, 2048, 4096) for x in (0, 2048)]
    assert len(cut(step, 4096, everything)) == 2
    inside = cut(step, 512, Box((1024, 1536), (2048, 3072)))
    assert inside == [Box((1024, 1536), (2048, 2048)), Box((1024, 2048), (2048, 3072))]
