"""Plans: what they count equals what is done, what they choose fits, and they only look."""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journeys import save_image

from engine.device import PROCESS_BYTES, Launch
from engine.errors import RecipeError, ResourceError
from engine.ledger import State
from engine.networks.model_folder import ModelFolder, StarDistConfig, Thresholds, open_model
from engine.planning import Job, Plan, SourceRef, make_ingest_plan, make_plan
from engine.planning.changes import named_changes
from engine.planning.cost import (
    LARGEST_LAUNCH,
    LARGEST_REGION,
    choose_launch,
    choose_region,
    choose_workers,
    count_tiles,
    memory_limit,
    worker_bytes,
)
from engine.planning.elements import Layer
from engine.planning.layers import disk_bytes, layer_bytes
from engine.planning.pending import pending_regions
from engine.recipe import Resources, Storage, load_settings
from engine.stages.base import Frame
from engine.store import Level, Location, free_bytes, make_axes
from engine.work import wider_halo
from tiling import BlendPlan, Box, Grid, Lattice, Region

CONFIG = StarDistConfig(grid=(2, 2))
WEIGHTS = Path(__file__)  # only its size is looked at
MODEL = ModelFolder(WEIGHTS.parent, CONFIG, Thresholds(0.5, 0.4), WEIGHTS, "0" * 64, "model")


def job_of(
    extent: tuple[int, int] = (5000, 7000),
    planes: tuple[int, ...] = (),
    channels: int = 1,
    dtype: str = "uint8",
    shard: int = 512,
    area: Box | None = None,
    overrides: Iterable[str] = (),
) -> Job:
    """Job that segments, on an image that is only described."""
    recipe = load_settings("nuclei", list(overrides)).recipe
    frame = Frame(planes, extent, channels, dtype)
    ref = SourceRef("image.zarr", foreign=False, level=0, channels=tuple(range(channels)))
    launch = Launch("cpu", "float32", 8)
    area = area or frame.bounds
    return Job(
        Location("/out"), ref, frame, recipe, (), area, shard, "", launch=launch, model=MODEL
    )


def regions_of(job: Job, side: int) -> list[Region]:
    """Cut the area into regions, one by one."""
    grid = Grid(job.frame.planes, job.frame.extent, (side, side))
    cut = [Region(region.plane, region.core.clip(job.area)) for region in grid]
    return [region for region in cut if not region.core.empty]


def tiles_of(job: Job, wanted: dict[str, Box]) -> int:
    """Tiles that the network stage computes for what is wanted, from the stages themselves."""
    tiling = job.stardist.tiling.with_network(max(CONFIG.divisor), CONFIG.grid[0])
    boxes = job.pipeline().fold(wanted)
    box = boxes["candidates"].clip(job.frame.bounds).snap(tiling.scale)
    return BlendPlan(Lattice(job.frame.extent, tiling), box).tiles


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    shard = draw(st.sampled_from([128, 256, 512]))
    extent = (draw(st.integers(2, 1500)), draw(st.integers(2, 1500)))
    tile = 16 * draw(st.integers(4, 20))
    overlap = draw(st.integers(0, tile // 2))
    margin = 2 * draw(st.integers(0, overlap // 4))
    y, x = (sorted(draw(st.integers(0, n)) for _ in range(2)) for n in extent)
    area = Box((y[0], x[0]), (y[1], x[1])).snap(shard).clip(Box.of_shape(extent))
    overrides = [
        f"tiling.tile={tile}",
        f"tiling.overlap={overlap}",
        f"tiling.margin={margin}",
        f"tiling.blend={draw(st.sampled_from(['average', 'crop']))}",
        f"instances.halo={draw(st.integers(16, 200))}",
    ]
    planes = draw(st.sampled_from([(), (3,), (2, 2)]))
    return job_of(extent, planes, 1, "uint8", shard, None if area.empty else area, overrides)


@settings(max_examples=60)
@given(job=jobs(), times=st.integers(1, 4))
def test_tiles_are_counted_as_the_stages_compute_them(job: Job, times: int) -> None:
    side = job.shard * times
    counted = count_tiles(job, side)
    assert counted.computed == sum(
        tiles_of(job, job.wanted(region.core)) for region in regions_of(job, side)
    )
    tiling = job.stardist.tiling.with_network(max(CONFIG.divisor), CONFIG.grid[0])
    lattice = Lattice(job.frame.extent, tiling)
    rows, columns = lattice.touching(job.area)
    planes = int(np.prod(job.frame.planes, dtype=int))
    assert counted.once == planes * len(rows) * len(columns)
    assert counted.twice >= 0


def test_one_region_computes_no_tile_twice_and_larger_regions_fewer() -> None:
    job = job_of((4096, 4096))
    shares = [count_tiles(job, side).twice for side in (512, 1024, 2048, 4096)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == 0


def test_the_default_region_computes_few_tiles_twice() -> None:
    """In a large image, where regions have a neighbour on every side."""
    assert count_tiles(job_of((65536, 65536), shard=2048), LARGEST_REGION).twice <= 0.15


@pytest.mark.parametrize("method", ["nuclei", "identity"])
def test_memory_grows_with_what_a_worker_holds(method: str) -> None:
    def projected(side: int = 1024, threads: int = 2, **facts: object) -> int:
        job = job_of((20000, 20000), **facts)  # type: ignore[arg-type]
        if method == "identity":
            job = replace(job, recipe=load_settings("identity").recipe, model=None, launch=None)
        return worker_bytes(job, side, threads)

    sides = [projected(side) for side in (512, 1024, 2048, 4096, 8192)]
    assert sides == sorted(sides)
    assert sides[0] < sides[-1]
    threads = [projected(4096, threads) for threads in (1, 2, 4, 8)]
    assert threads == sorted(set(threads))
    assert projected(4096) < projected(4096, channels=3)
    rgb = [projected(4096, channels=3, dtype=dtype) for dtype in ("uint8", "float32", "float64")]
    assert rgb == sorted(rgb)
    assert rgb[0] < rgb[-1]


def test_memory_grows_with_launch_tile_and_halo() -> None:
    plain, job = worker_bytes(job_of(), 1024, 2), job_of()
    assert plain < worker_bytes(
        job_of(overrides=["tiling.tile=512", "tiling.overlap=128"]), 1024, 2
    )
    assert plain < worker_bytes(job_of(overrides=["instances.halo=512"]), 1024, 2)
    assert job.launch is not None
    wide = replace(job, launch=replace(job.launch, tiles=64))
    assert plain < worker_bytes(wide, 1024, 2)


@pytest.mark.parametrize(("method", "per_pixel"), [("nuclei", 28), ("identity", 3 * 2)])
def test_copy_and_labels_never_take_less_than_a_shard(method: str, per_pixel: int) -> None:
    recipe = load_settings(method).recipe
    small, large = (
        worker_bytes(replace(job_of((40000, 40000), shard=n, dtype="uint16"), recipe=recipe), n, 2)
        for n in (8192, 16384)
    )
    assert large - small >= 2 * per_pixel * (16384**2 - 8192**2)


def test_the_pyramid_pass_is_projected() -> None:
    job = job_of((40000, 40000), shard=8192)
    job = replace(job, recipe=load_settings("identity").recipe, model=None, launch=None)
    level = Level("0", (40000, 40000), (1.0, 1.0), (0.0, 0.0))
    axes = make_axes("yx", "micrometer")
    layer = Layer("labels", "", "uint64", 1, axes, (level, level), 1024, 8192, is_label=True)
    read = (2 * 8192) ** 2 * 8
    assert worker_bytes(job, 8192, 1) < read
    assert worker_bytes(replace(job, layers=(layer,)), 8192, 1) > read


def test_memory_is_projected_for_a_widened_halo() -> None:
    job = job_of((40000, 40000))
    halo = job.stardist.instances.halo
    wide = job.pipeline(halo=2 * halo).memory(job.wanted(Box((8192, 8192), (10240, 10240))))
    assert worker_bytes(job, 2048, 1) > PROCESS_BYTES + wide
    assert wider_halo(0.1 * halo, halo, job) == halo
    assert wider_halo(1e9, halo, job) < 4 * halo + 64


def test_local_statistics_take_memory_for_each_pixel() -> None:
    plain, local = (job_of(overrides=[f"normalise.over={over}"]) for over in ("image", "local"))
    boxes = {"normalised": Box((0, 0), (1000, 1000))}
    plain_bytes, local_bytes = (j.pipeline().stages[0].memory(boxes) for j in (plain, local))
    # Levels of both ends for each pixel, in float32, each with its weighted copy.
    assert local_bytes - plain_bytes >= 4 * 4 * 1000**2


def test_memory_does_not_depend_on_the_size_of_the_image() -> None:
    sizes = [worker_bytes(job_of((n, n)), 2048, 2) for n in (8192, 16384, 10**6)]
    assert max(sizes) <= 1.01 * min(sizes)


def test_the_region_is_whole_shards_fits_and_leaves_work_for_all() -> None:
    job = job_of((20000, 20000), shard=512)
    plenty = Resources(memory_gib=1000)
    assert choose_region(job, plenty, 1) == LARGEST_REGION
    uneven = choose_region(job_of((20000, 20000), shard=1536), plenty, 1)
    assert LARGEST_REGION - 1536 < uneven <= LARGEST_REGION
    assert uneven % 1536 == 0
    assert choose_region(job_of((70000, 70000), shard=16384), plenty, 1) == 16384
    small = choose_region(job_of((4096, 4096), shard=512), plenty, 8)
    assert small % 512 == 0
    assert (4096 / small) ** 2 >= 2 * 8
    tight = Resources(memory_gib=worker_bytes(job, 1024, 2) / 2**30 + 0.001)
    assert choose_region(job, tight, 1) == 1024
    assert worker_bytes(job, 1024, 2) <= memory_limit(tight)


@pytest.mark.parametrize(("asked", "remedy"), [(100, 512), (600, 512), (1300, 1536)])
def test_a_region_that_is_no_whole_number_of_shards_is_refused(asked: int, remedy: int) -> None:
    with pytest.raises(RecipeError, match=f"multiple of the shard, 512.*Use {remedy}"):
        choose_region(job_of(), Resources(region=asked), 1)
    assert choose_region(job_of(), Resources(region=1536, memory_gib=100), 1) == 1536


def test_what_cannot_fit_is_refused() -> None:
    with pytest.raises(ResourceError, match=r"at most 0\.1 GiB"):
        choose_region(job_of(), Resources(memory_gib=0.1), 1)
    with pytest.raises(ResourceError, match="--workers 50"):
        choose_workers(job_of(), Resources(workers=50, memory_gib=10))
    with pytest.raises(ResourceError, match="regions of 4096"):
        choose_region(job_of(), Resources(region=4096, memory_gib=1.5), 1)


def test_workers_are_what_was_asked_for_or_what_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.planning.cost.cores", lambda: 16)
    job = job_of((20000, 20000), shard=512)
    each = worker_bytes(job, 512, 2) / 2**30
    assert choose_workers(job, Resources(workers=3, memory_gib=1000)) == 3
    assert choose_workers(job, Resources(memory_gib=1000)) == 16
    assert choose_workers(job, Resources(memory_gib=3.5 * each)) == 3
    assert choose_workers(job_of((700, 700), shard=512), Resources(memory_gib=1000)) == 4
    assert choose_workers(job, Resources(memory_gib=0.1)) == 1  # then the region is refused


def test_the_launch_is_what_was_asked_for_or_what_fits() -> None:
    job = job_of()

    def tiles(resources: Resources) -> int:
        launch = choose_launch(job, resources).launch
        assert launch is not None
        return launch.tiles

    assert tiles(Resources(launch=3, memory_gib=1000)) == 3
    assert tiles(Resources(memory_gib=1000)) == LARGEST_LAUNCH["cpu"] // 512**2
    one = worker_bytes(replace(job, launch=Launch("cpu", "float32", 1)), 512, 2) / 2**30
    assert tiles(Resources(memory_gib=one)) == 1


# --- whole plans -------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save_image(tmp_path / "image.zarr", np.zeros((2, 300, 500), np.uint8), "zyx")


def plan_of(
    image: Path, *overrides: str, recipe: str = "identity", within: Box | None = None
) -> Plan:
    chosen = load_settings(recipe, ["storage.chunk=64", "storage.shard=128", *overrides])
    return make_plan(str(image), image.parent / "out.ome.zarr", chosen, within)


@pytest.mark.parametrize(
    "setting",
    [
        "resources.region=256",
        "resources.launch=3",
        "resources.workers=1",
        "resources.threads=1",
        "resources.memory_gib=100",
        "resources.retries=0",
        "resources.device=cpu",
    ],
)
def test_resources_do_not_decide_the_digest(image: Path, model: str, setting: str) -> None:
    base = ["segment.precision=float32", f"segment.model={model}"]
    first = plan_of(image, *base, recipe="nuclei")
    assert plan_of(image, *base, setting, recipe="nuclei").job.digest == first.job.digest


def test_storage_area_weights_and_input_decide_the_digest(
    image: Path, tmp_path: Path, model: str
) -> None:
    other = save_image(tmp_path / "other.zarr", np.zeros((2, 300, 501), np.uint8), "zyx")
    plans = [
        plan_of(image),
        plan_of(image, "storage.chunk=128"),
        plan_of(image, "storage.shard=256"),
        plan_of(image, within=Box((0, 0), (128, 128))),
        plan_of(other),
        plan_of(image, recipe="nuclei"),
    ]
    assert len({plan.job.digest for plan in plans}) == len(plans)
    assert plans[-1].parts.keys() >= {"weights", "stage.network", "stage.instances", "device"}


def test_a_model_may_lie_elsewhere(image: Path, tmp_path: Path, model: str) -> None:
    folder = shutil.copytree(open_model(model).path, tmp_path / "moved")
    first = plan_of(image, f"segment.model={model}", recipe="nuclei")
    moved = plan_of(image, f"segment.model={folder}", recipe="nuclei")
    assert moved.job.digest == first.job.digest
    assert moved.job.digests == first.job.digests
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"ABCD")
    changed = plan_of(image, f"segment.model={folder}", recipe="nuclei")
    assert {k for k, v in changed.parts.items() if v != first.parts[k]} == {"weights"}


def test_how_many_defenses_look_decides_their_pass(image: Path) -> None:
    plans = [
        plan_of(image, f"flags.defenses={count}", recipe="nuclei-flags") for count in (50, 60, 50)
    ]
    different = [k for k, v in plans[0].parts.items() if v != plans[1].parts[k]]
    assert different == ["flags.defenses"]
    first, second = (plan.job.digests for plan in plans[:2])
    assert {name for name in first if first[name] != second[name]} >= {"flags", "labels"}
    assert first["regions"] == second["regions"]
    assert plans[2].job.digests == first


def test_a_plan_counts_regions_bytes_and_writes_nothing(image: Path) -> None:
    before = sorted(image.parent.rglob("*"))
    plan = plan_of(image, "resources.region=256")
    assert (plan.regions, plan.pending) == (2 * 2 * 2, 2 * 2 * 2)
    assert plan.read_bytes == 2 * 300 * 500
    levels = plan.job.layers[0].levels
    assert plan.write_bytes == sum(int(np.prod(level.shape)) for level in levels)
    assert plan.disk_bytes == disk_bytes(plan.job.layers)
    assert plan.write_bytes == layer_bytes(plan.job.layers[0])
    assert sorted(image.parent.rglob("*")) == before


def test_a_part_is_widened_to_whole_shards_and_counts_alone(image: Path) -> None:
    plan = plan_of(image, "resources.region=128", within=Box((130, 5), (140, 300)))
    assert plan.job.area == Box((128, 0), (256, 384))
    assert plan.regions == 2 * 3
    assert plan.read_bytes == 2 * 128 * 384


@pytest.mark.parametrize("side", [128, 256, 1024])
def test_pending_regions_cover_the_area_once_whatever_is_done(image: Path, side: int) -> None:
    plan = plan_of(image, within=Box((0, 100), (300, 300)))
    step = plan.job.passes()[0]
    states = np.zeros(step.grid.shape, np.uint8)
    every = [region for region, _ in pending_regions(step, states, 128, plan.job.area)]
    done = every[::3]
    for region in done:
        states[step.grid.cells(region)] = State.DONE
    left = [region for region, _ in pending_regions(step, states, side, plan.job.area)]
    seen = np.zeros((2, 300, 500), int)
    for region in [*done, *left]:
        seen[(*region.plane, *region.core.slices())] += 1
    within = np.zeros_like(seen)
    within[(slice(None), *plan.job.area.slices())] = 1
    assert np.array_equal(seen, within)


def test_disk_is_checked_before_a_run_starts(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = plan_of(image).disk_bytes
    monkeypatch.setattr("engine.planning.places.free_bytes", lambda _: needed)
    plan_of(image)
    monkeypatch.setattr("engine.planning.places.free_bytes", lambda _: needed - 1)
    with pytest.raises(ResourceError, match="disk of"):
        plan_of(image)
    assert free_bytes(image) > needed


@pytest.mark.parametrize(("chunk", "shard"), [(512, 1536), (100, 300), (64, 64), (33, 66)])
def test_chunks_of_maps_divide_their_shards(
    image: Path, chunk: int, shard: int, model: str
) -> None:
    storage = [f"storage.chunk={chunk}", f"storage.shard={shard}"]
    layers = plan_of(image, *storage, recipe="nuclei").job.layers
    assert {layer.name for layer in layers} == {"probability", "nuclei"}
    for layer in layers:
        assert layer.shard % layer.chunk == 0
        assert layer.shard * layer.scale == shard


def test_differences_are_named_from_old_to_new() -> None:
    old = {"tiling.tile": "256", "weights": "a" * 64, "gone": "1", "same": "x"}
    new = {"tiling.tile": "512", "weights": "b" * 64, "came": "2", "same": "x"}
    assert named_changes(old, new) == (
        "came: absent -> 2; gone: 1 -> absent; tiling.tile: 256 -> 512; "
        "weights: aaaaaaaaaaaa -> bbbbbbbbbbbb"
    )
    assert named_changes(old, dict(reversed(old.items()))) == ""


def test_the_source_of_an_ingest_decides_its_digest(tmp_path: Path) -> None:
    import tifffile

    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((50, 60), np.uint8))

    def digest(**options: float) -> str:
        plan = make_ingest_plan(
            str(path), tmp_path / "out.ome.zarr", Storage(), Resources(), **options
        )
        assert plan.parts["source.path"] == str(path)
        return plan.job.digest

    first = digest()
    assert digest() == first
    assert digest(pixel_size_um=0.5) != first
    tifffile.imwrite(path, np.ones((50, 60), np.uint8))
    assert digest() != first
