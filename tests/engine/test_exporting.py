"""Exports say what the tables say, and their outlines fill to the labels."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
import zarr
from command_line import Command, commands_in
from journeys import Runner, make_bank, read, revoke, save_image
from object_store import bucket, s3_client, s3_server  # noqa: F401 - fixtures
from semantics import make_ensemble, make_mae
from skimage.draw import polygon

from engine.errors import InputError, OutputError
from engine.exporting import export_table
from engine.exporting.shapes import Shapes
from engine.ledger import Ledger, State
from engine.networks.model_folder import open_model
from engine.store import (
    ArraySpec,
    ImageMetadata,
    Level,
    Location,
    create_array,
    make_axes,
    open_array,
    write_image_metadata,
)
from tiling import Box

RECIPE = """
method: stardist
tiling: {{tile: 224, overlap: 56, margin: 20}}
segment: {{model: {model}, precision: bfloat16}}
flags: {{bank: {bank}, min_votes: 0.25}}
classes:
  ensemble: {ensemble}
  repair: {{model: {mae}, threshold: 0.5}}
  objects: {{name: parts, min_area: 9}}
"""


@pytest.fixture(autouse=True)
def codecs() -> Iterator[None]:
    """The setting of the codecs is put back."""
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        yield


@pytest.fixture(scope="module")
def result(
    tmp_path_factory: pytest.TempPathFactory, nuclei: np.ndarray, model: str, run_recipe: Runner
) -> Path:
    """All four tables, of two planes, in parts of 64 pixels: objects lie across them."""
    place, names = tmp_path_factory.mktemp("result"), ("background", "object")
    recipe = place / "all.yaml"
    recipe.write_text(
        RECIPE.format(
            model=model,
            bank=make_bank(place / "bank.safetensors", open_model(model).sha256, 4),
            ensemble=make_ensemble(place / "ensemble", names, 2),
            mae=make_mae(place / "mae", names),
        )
    )
    pixels = np.stack([nuclei[:150, :190], nuclei[200:350, 100:290]])
    image = save_image(place / "image.zarr", pixels, "zyx")
    settings = ("storage.chunk=64", "storage.shard=64", "resources.region=64")
    assert run_recipe(image, place / "out.ome.zarr", *settings, recipe=str(recipe)).complete
    return place / "out.ome.zarr"


@pytest.fixture
def copied(result: Path, tmp_path: Path) -> Path:
    """One that may be damaged."""
    return Path(shutil.copytree(result, tmp_path / "out.ome.zarr"))


def table(out: Path, name: str) -> pa.Table:
    return pq.read_table(out / f"tables/{name}.parquet")


def features(path: Path) -> list[dict[str, Any]]:
    document = json.loads(path.read_text())
    assert document["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = document["features"]
    return found


def rings(feature: dict[str, Any]) -> list[list[np.ndarray]]:
    """Polygons of a feature, each a shell and its holes: closed rings of (x, y)."""
    geometry = feature["geometry"]
    several = geometry["type"] == "MultiPolygon"
    polygons = geometry["coordinates"] if several else [geometry["coordinates"]]
    assert len(polygons) > 1 or not several
    return [[np.array(ring) for ring in one] for one in polygons]


def painted(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Label image that the outlines of a file fill to."""
    labels = np.zeros(shape, np.int64)
    for feature in features(path):
        at, name = feature["geometry"]["plane"], feature["properties"]["measurements"]["id"]
        assert (at["c"], at["t"]) == (-1, 0)
        for one in rings(feature):
            inside = np.zeros(shape[-2:], np.bool_)
            for ring in one:
                assert ring[0].tolist() == ring[-1].tolist()
                # QuPath's pixels begin at whole numbers; skimage's lie there.
                inside[polygon(ring[:-1, 1] - 0.5, ring[:-1, 0] - 0.5, shape[-2:])] ^= True
            assert not labels[at["z"]][inside].any()
            labels[at["z"]][inside] = name
    return labels


@pytest.mark.parametrize("block", [8, 1024])
@pytest.mark.parametrize("name", ["nuclei", "parts"])
def test_outlines_fill_to_the_labels(
    result: Path, tmp_path: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.exporting.shapes.BLOCK", block)
    done = export_table(result, tmp_path / "a.geojson", name)
    labels = read(result, f"labels/{name}/0")
    np.testing.assert_array_equal(painted(tmp_path / "a.geojson", labels.shape), labels)
    rows = {row["id"]: row for row in table(result, name).to_pylist()}
    assert done.rows == len(features(tmp_path / "a.geojson")) == len(rows) > 10
    # Some are larger than a block, and some lie across the parts of the table.
    sides = [max(row["y1"] - row["y0"], row["x1"] - row["x0"]) for row in rows.values()]
    assert max(sides) > 8
    assert any(row["y0"] // 64 < (row["y1"] - 1) // 64 for row in rows.values())
    # Parts that touch at a point alone are one object of a class map.
    found = [rings(feature) for feature in features(tmp_path / "a.geojson")]
    assert any(len(polygons) > 1 for polygons in found) == (name == "parts")
    for feature in features(tmp_path / "a.geojson"):
        about = feature["properties"]
        measured = about["measurements"]
        row = rows[measured["id"]]
        assert about["objectType"] == "detection"
        assert about["classification"]["name"] == name
        assert about["name"] == f"{name} {row['id']}"
        assert all(measured[key] == row[key] for key in measured)
        wanted = {"area", "area_um2", "probability" if name == "nuclei" else "entropy"}
        wanted |= {"votes", "suspect"} if name == "nuclei" else {"pixels_object"}
        assert wanted < set(measured)


@pytest.mark.parametrize("name", ["nuclei", "parts", "suspects", "repairs"])
def test_csv_is_the_table(result: Path, tmp_path: Path, name: str) -> None:
    done = export_table(result, tmp_path / "a.csv", name)
    rows = table(result, name)
    rows = rows.drop_columns([n for n in rows.column_names if n == "outline"])
    options = pc.ConvertOptions(column_types=rows.schema, strings_can_be_null=True)
    found = pc.read_csv(tmp_path / "a.csv", convert_options=options)
    assert found.column_names == rows.column_names
    keys = [(n, "ascending") for n in ("z", "y0", "x0", "y1", "x1")]
    assert found.sort_by(keys).equals(rows.sort_by(keys))
    assert done.rows == len(rows) > 0
    assert {done.table, *done.others} == {"nuclei", "parts", "suspects", "repairs"}
    planes = found["z"].to_pylist()
    assert planes == sorted(planes)


def test_suspects_and_repairs_have_outlines(result: Path, tmp_path: Path) -> None:
    export_table(result, tmp_path / "suspects.geojson", "suspects")
    for feature, row in zip(
        features(tmp_path / "suspects.geojson"), rows_in_order(result, "suspects"), strict=True
    ):
        ((ring,),) = rings(feature)
        known = np.array(row["outline"]).reshape(-1, 2)[:, ::-1] + 0.5
        # Vertices of the same polygon; the direction is GeoJSON's.
        assert {tuple(p) for p in np.round(known, 2).tolist()} == {tuple(p) for p in ring.tolist()}
        assert signed_area(ring) > 0
        assert feature["geometry"]["plane"]["z"] == row["z"]
        assert feature["properties"]["classification"]["name"] == f"suspect {row['kind']}"
        assert feature["properties"]["measurements"]["votes"] == row["votes"]
    export_table(result, tmp_path / "repairs.geojson", "repairs")
    for feature, row in zip(
        features(tmp_path / "repairs.geojson"), rows_in_order(result, "repairs"), strict=True
    ):
        ((ring,),) = rings(feature)
        box = [*ring.min(axis=0).tolist(), *ring.max(axis=0).tolist()]
        assert box == [row["x0"], row["y0"], row["x1"], row["y1"]]
        assert signed_area(ring) == (row["x1"] - row["x0"]) * (row["y1"] - row["y0"])
        assert feature["properties"]["measurements"]["changed"] == row["changed"]


def rows_in_order(out: Path, name: str) -> list[dict[str, Any]]:
    """Rows by part, in the order of planes, rows and columns."""
    parts = (out / f"tables/{name}.parquet").glob("*.parquet")

    def place(part: Path) -> list[int]:
        return [int(n) for n in part.stem.removeprefix("part-").replace("_", "-").split("-")]

    return [row for part in sorted(parts, key=place) for row in pq.read_table(part).to_pylist()]


def signed_area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def test_a_result_in_a_bucket(
    result: Path,
    tmp_path: Path,
    s3_server: str,  # noqa: F811 - a fixture
    bucket: str,  # noqa: F811 - a fixture
) -> None:
    client, name = s3_client(s3_server), bucket.removeprefix("s3://")
    for file in filter(Path.is_file, result.rglob("*")):
        client.upload_file(str(file), name, f"out.ome.zarr/{file.relative_to(result)}")
    for ending in ("csv", "geojson"):
        for place, out in (("far", f"{bucket}/out.ome.zarr"), ("near", result)):
            export_table(out, tmp_path / f"{place}.{ending}", "parts")
        far, near = (tmp_path / f"{place}.{ending}" for place in ("far", "near"))
        assert far.read_bytes() == near.read_bytes()


@pytest.fixture
def coarse(tmp_path: Path, nuclei: np.ndarray, run_recipe: Runner) -> Path:
    """Result of level 1 of an image, of a part of it alone."""
    image, axes = tmp_path / "image.zarr", make_axes("yx", "micrometer")
    fine = nuclei[:400, :400].repeat(2, axis=0).repeat(2, axis=1)
    levels = []
    for k, pixels in enumerate((fine, nuclei[:400, :400])):
        spec = ArraySpec(pixels.shape, pixels.dtype.name, (128, 128), (256, 256), axes)
        create_array(image, str(k), spec)
        open_array(image / str(k), "r+")[...] = pixels
        levels.append(Level(str(k), pixels.shape, (0.5 * 2**k,) * 2, (0.25 * k,) * 2))
    write_image_metadata(image, ImageMetadata("image", axes, tuple(levels), fine.dtype.name))
    out, part = tmp_path / "coarse.ome.zarr", Box((0, 0), (256, 256))
    assert run_recipe(image, out, "input.level=1", within=part).complete
    return out


def test_outlines_are_in_pixels_of_level_0(coarse: Path, tmp_path: Path) -> None:
    export_table(coarse, tmp_path / "a.geojson")
    labels = read(coarse, "labels/nuclei/0").repeat(2, axis=0).repeat(2, axis=1)
    assert labels.any()
    found = painted(tmp_path / "a.geojson", (1, *labels.shape))
    np.testing.assert_array_equal(found[0], labels)
    (tmp_path / "image.zarr").rename(tmp_path / "away.zarr")
    with pytest.raises(InputError, match=r"level 1 was read.*write a \.csv"):
        export_table(coarse, tmp_path / "b.geojson")
    assert not (tmp_path / "b.geojson").exists()
    assert export_table(coarse, tmp_path / "b.csv").rows > 10


def test_an_object_that_shows_no_pixel_is_its_box(result: Path) -> None:
    shapes = Shapes(Location.parse(result / "labels/nuclei"), Box((0, 0), (0, 0)))
    first = table(result, "nuclei").sort_by("id").slice(0, 3)
    for row, polygons in shapes.of(first):
        ((ring,),) = polygons
        assert [*ring.min(axis=0), *ring.max(axis=0)] == [row[n] for n in ("y0", "x0", "y1", "x1")]


def test_a_table_that_is_not_complete_is_refused(copied: Path, tmp_path: Path) -> None:
    revoke(copied, State.MISSING, labels=slice(0, 1))
    for name in ("nuclei", "suspects"):
        with pytest.raises(InputError, match=r"1 of 18 shards of the pass labels"):
            export_table(copied, tmp_path / "a.csv", name)
    assert export_table(copied, tmp_path / "b.csv", "repairs").rows > 0
    assert [path.name for path in tmp_path.glob("*.csv")] == ["b.csv"]


def test_a_result_that_is_being_replaced_is_refused(copied: Path, tmp_path: Path) -> None:
    ledger = Ledger(Location.parse(copied))
    # One that is made beside it disturbs nothing until it is put in its place.
    for publishing in (False, True):
        ledger.write_next({**ledger.read_run(), "publishing": publishing})
        if not publishing:
            assert export_table(copied, tmp_path / "a.csv", "nuclei").rows > 0
    with pytest.raises(InputError, match="put in the place of another"):
        export_table(copied, tmp_path / "a.csv", "nuclei")


def test_damage_is_refused_and_nothing_is_left(copied: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.geojson"
    target.write_text("as it was")
    labels = open_array(copied / "labels/nuclei/0", "r+")
    pixels = np.asarray(labels[...])
    labels[...] = np.where(pixels == pixels.max(), 0, pixels)
    with pytest.raises(InputError, match=rf"object {pixels.max()}: .* found 0"):
        export_table(copied, target, "nuclei")
    part = max((copied / "tables/parts.parquet").iterdir())
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"{part.name}.*verify"):
        export_table(copied, target, "parts")
    part.unlink()
    with pytest.raises(InputError, match=part.name):
        export_table(copied, target, "parts")
    assert target.read_text() == "as it was"
    assert not list(tmp_path.glob(".*"))


def test_a_disk_that_is_full_leaves_what_stood(
    result: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.exporting.replacing.os.fsync", full)
    (tmp_path / "a.csv").write_text("as it was")
    with pytest.raises(OutputError, match="No space left"):
        export_table(result, tmp_path / "a.csv", "nuclei")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.csv", "as it was")]


@pytest.fixture
def tilewright(
    coarse: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    assert coarse.is_dir()
    return commands_in(tmp_path, monkeypatch, capsys)


def test_the_command(tilewright: Command, result: Path, coarse: Path, tmp_path: Path) -> None:
    for file in ("a.csv", "a.GeoJSON"):
        answer = tilewright("export", coarse, file)
        assert (answer.code, answer.err, answer.touched) == (0, "", (file,))
        count = len(table(coarse, "nuclei"))
        assert answer.out.splitlines()[-1] == f"{file}: {count} objects of nuclei"
        assert "1/1 parts" in answer.out
    assert len(features(tmp_path / "a.GeoJSON")) == count
    answer = tilewright("export", result, "a.csv", "--table", "suspects")  # replaces it
    assert answer.code == 0
    assert answer.touched == ("a.csv",)
    expected = f"a.csv: {len(table(result, 'suspects'))} suspects; also there, with --table: "
    assert answer.out.splitlines()[-1] == expected + "nuclei, parts, repairs"
    assert (tmp_path / "a.csv").read_text().startswith("kind,id,key,z,y,x,")


def test_what_the_command_refuses(
    tilewright: Command, result: Path, coarse: Path, tmp_path: Path
) -> None:
    names = "nuclei, parts, repairs, suspects"
    answer = tilewright("export", result, "a.csv")
    answer.refuses("one table of objects", names, "--table")
    assert answer.out == ""
    tilewright("export", result, "a.csv", "--table", "classes").refuses("'classes'", names)
    tilewright("export", coarse, "a.csv", "--table", "suspects").refuses("found nuclei")
    tilewright("export", "image.zarr", "a.csv").refuses("a result of `tilewright run`", "none")
    tilewright("export", "absent.zarr", "a.csv").refuses("nothing there", "Check the path")
    tilewright("export", "http://host/a.zarr", "a.csv").refuses("a web server", "Copy or mount")
    tilewright("export", result, "a.xlsx").refuses("'.xlsx'", ".csv or .geojson")
    tilewright("export", result, "no/a.csv").refuses("no folder", "Make the folder")
    tilewright("export", result, "s3://bucket/a.csv").refuses("a URL (s3)")
    (tmp_path / "folder.csv").mkdir()
    tilewright("export", result, "folder.csv").refuses("a folder", "another name")
