"""A run that is given again: what it computes anew and why, what it refuses, what it keeps."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from journeys import Runner, read, save_image

from engine.api import verify
from engine.errors import InputError, OutputError
from engine.ledger import Ledger, State
from engine.running.publishing import _move_parts
from engine.store import Location, open_array

FLOAT = "segment.precision=float32"
ARRAYS = ("labels/nuclei/0", "labels/nuclei/1", "maps/probability/0", "maps/probability/1")


def shown(out: Path, group: str, level: int = 0) -> np.ndarray:
    """Pixels of a level as a viewer finds them: by the metadata of the group."""
    document = json.loads((out / group / "zarr.json").read_text())
    path = document["attributes"]["ome"]["multiscales"][0]["datasets"][level]["path"]
    return read(out, f"{group}/{path}".strip("/"))


def same(first: Path, second: Path) -> None:
    for group in ("labels/nuclei", "maps/probability", ""):
        for level in (0, 1, 2):
            assert np.array_equal(shown(first, group, level), shown(second, group, level)), group
    tables = [pq.read_table(o / "tables/nuclei.parquet").sort_by("id") for o in (first, second)]
    assert tables[0].equals(tables[1])
    assert tables[0].num_rows > 50


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray) -> Path:
    """An image that no test changes."""
    return save_image(tmp_path_factory.mktemp("resume") / "image.zarr", nuclei)


@pytest.fixture(scope="module")
def made(image: Path, run_recipe: Runner) -> Path:
    """Its result, computed once."""
    out = image.parent / "out.ome.zarr"
    assert run_recipe(image, out, FLOAT).complete
    return out


@pytest.fixture
def out(tmp_path: Path, made: Path) -> Path:
    """A copy of the result, with its times of change, for a test to break."""
    return Path(shutil.copytree(made, tmp_path / "out.ome.zarr"))


@pytest.fixture
def own_image(tmp_path: Path, nuclei: np.ndarray) -> Path:
    """An image for a test to change."""
    return save_image(tmp_path / "image.zarr", nuclei)


@pytest.fixture
def own_out(tmp_path: Path, own_image: Path, run_recipe: Runner) -> Path:
    """Its result."""
    out = tmp_path / "out.ome.zarr"
    assert run_recipe(own_image, out, FLOAT).complete
    return out


def test_nothing_is_computed_where_all_stands(image: Path, out: Path, run_recipe: Runner) -> None:
    before = {p: p.stat().st_mtime_ns for p in out.rglob("c/*/*") if p.is_file()}
    outcome = run_recipe(image, out, FLOAT)
    assert outcome.complete
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert not Ledger(Location.parse(out)).read_next()


def test_a_restart_stands_beside_until_it_is_complete(
    image: Path, out: Path, tmp_path: Path, run_recipe: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: read(out, name) for name in ARRAYS}
    new = [FLOAT, "tiling.overlap=96", "tiling.blend=crop"]
    with pytest.raises(OutputError, match=r"tiling\.overlap: 64 -> 96"):
        run_recipe(image, out, *new)

    def broken(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("engine.labels.write_part", broken)
        stopped = run_recipe(image, out, *new, "resources.retries=0", restart=True)
        assert not stopped.complete
    for name, pixels in before.items():
        assert np.array_equal(shown(out, name[:-2], int(name[-1])), pixels), name
    assert run_recipe(image, out, *new, restart=True).complete
    fresh = tmp_path / "fresh.ome.zarr"
    assert run_recipe(image, fresh, *new).complete
    same(fresh, out)
    assert verify(out).clean
    assert not list(out.glob("labels/nuclei/[0-9]"))
    assert not list(out.glob("maps/probability/[0-9]"))
    assert len(list((out / ".tilewright/objects").iterdir())) == 1


def test_only_what_a_change_reaches_is_computed(
    image: Path, out: Path, tmp_path: Path, run_recipe: Runner
) -> None:
    new = [FLOAT, "instances.name=cells"]
    network = read(out, "maps/probability/0")
    outcome = run_recipe(image, out, *new, recompute="changed")
    assert outcome.complete
    assert "regions" not in " ".join(outcome.report["seconds"])
    fresh = tmp_path / "fresh.ome.zarr"
    run_recipe(image, fresh, *new)
    assert np.array_equal(shown(out, "labels/cells"), shown(fresh, "labels/cells"))
    assert np.array_equal(read(out, "maps/probability/0"), network)
    assert not (out / "labels/nuclei").exists()
    assert not (out / "tables/nuclei.parquet").exists()
    assert verify(out).clean


def test_a_stage_is_computed_anew_on_request(
    image: Path, out: Path, tmp_path: Path, run_recipe: Runner
) -> None:
    fresh = tmp_path / "fresh.ome.zarr"
    run_recipe(image, fresh, FLOAT)
    outcome = run_recipe(image, out, FLOAT, recompute="labels")
    assert outcome.report["reasons"] == {"new": 6}
    same(fresh, out)
    assert (out / "labels/nuclei/e2/0").is_dir()


@pytest.mark.parametrize("how", ["delete", "flip", "truncate"])
@pytest.mark.parametrize(
    "name", ["labels/nuclei/0/c/0/1", "maps/probability/1/c/0/0", "tables", "objects"]
)
def test_what_was_damaged_is_found_named_and_mended(
    image: Path, out: Path, run_recipe: Runner, how: str, name: str
) -> None:
    path = next(p for p in sorted(out.rglob("*")) if p.is_file() and name in str(p))
    whole = path.read_bytes()
    pixels = {a: read(out, a) for a in ARRAYS}
    if how == "delete":
        path.unlink()
    elif how == "truncate":
        path.write_bytes(whole[: len(whole) // 2])
    else:
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 255]) + whole[41:])
    found = verify(out)
    assert [m.state for m in found.findings.marks] == [
        State.MISSING if how == "delete" else State.DAMAGED
    ]
    assert verify(out, repair=True).repaired
    outcome = run_recipe(image, out, FLOAT)
    assert outcome.complete
    assert outcome.report["reasons"] == {"missing" if how == "delete" else "damaged": 1}
    assert {a: np.array_equal(read(out, a), pixels[a]) for a in ARRAYS} == dict.fromkeys(
        ARRAYS, True
    )
    assert verify(out).clean


def test_a_run_finds_what_is_missing_by_a_check(image: Path, out: Path, run_recipe: Runner) -> None:
    (out / "labels/nuclei/0/c/1/1").unlink()
    assert run_recipe(image, out, FLOAT).report["complete"]
    assert not verify(out).clean
    outcome = run_recipe(image, out, FLOAT, check="listing")
    assert outcome.report["reasons"] == {"missing": 1}
    assert verify(out).clean


def change(image: Path, at: tuple[slice, slice]) -> None:
    """Turn a part of an image by half a turn: same values, other places."""
    array = open_array(image / "0", "r+")
    array[at] = np.asarray(array[at])[::-1, ::-1]


def test_changed_input_is_refused_then_computed_where_it_was_read(
    own_image: Path, own_out: Path, tmp_path: Path, run_recipe: Runner
) -> None:
    image, out = own_image, own_out
    before = read(out, "maps/probability/0")
    change(image, np.s_[256:512, 256:512])
    with pytest.raises(OutputError, match="--check listing"):
        run_recipe(image, out, FLOAT)
    outcome = run_recipe(image, out, FLOAT, "resources.region=256", check="listing")
    assert outcome.complete
    assert outcome.report["reasons"]["changed"] >= 2
    fresh = tmp_path / "fresh.ome.zarr"
    run_recipe(image, fresh, FLOAT)
    same(fresh, out)
    assert not np.array_equal(before, read(out, "maps/probability/0"))
    assert run_recipe(image, out, FLOAT).complete
    assert verify(out).clean


def test_input_that_was_only_copied_is_told_by_its_pixels(
    own_image: Path, own_out: Path, run_recipe: Runner
) -> None:
    image, out = own_image, own_out
    for path in image.rglob("c/*/*"):
        os.utime(path, ns=(1, 1))
    with pytest.raises(OutputError, match="--check bytes"):
        run_recipe(image, out, FLOAT)
    assert run_recipe(image, out, FLOAT, check="bytes").complete
    assert run_recipe(image, out, FLOAT).complete


def test_input_with_other_statistics_is_refused_and_nothing_changes(
    own_image: Path, own_out: Path, run_recipe: Runner
) -> None:
    image, out = own_image, own_out
    pixels = {a: read(out, a) for a in ARRAYS}
    array = open_array(image / "0", "r+")
    array[:256, :256] = np.asarray(array[:256, :256]) * 3
    with pytest.raises(InputError, match="--restart"):
        run_recipe(image, out, FLOAT, check="listing")
    assert all(np.array_equal(read(out, a), pixels[a]) for a in ARRAYS)
    assert run_recipe(image, out, FLOAT, restart=True).complete
    assert verify(out).clean
    fresh = out.with_name("fresh.ome.zarr")
    assert run_recipe(image, fresh, FLOAT).complete
    same(fresh, out)


def test_a_table_that_was_half_moved_is_moved_to_its_end(tmp_path: Path) -> None:
    out = Location.parse(tmp_path)
    for name in ("part-2", "part-3"):
        (out / "beside" / name).write_bytes(b"new")
    for name in ("part-1", "part-2", "part-9"):
        (out / "shown" / name).write_bytes(b"new" if name == "part-1" else b"old")
    _move_parts(out, "beside", "shown", {"part-1", "part-2", "part-3"})
    found = {name: (out / "shown" / name).read_bytes() for name in (out / "shown").children()[1]}
    assert found == dict.fromkeys(("part-1", "part-2", "part-3"), b"new")
