"""The comparison finds what differs: a pixel, a row, a document, something left over."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from engine.store.location import Location
from tests.faults.compare import Snapshot, decode_object, shown
from tests.faults.material import draw_pixels, save_image

Change = Callable[[Path], object]


def result(root: Path) -> Path:
    save_image(root, draw_pixels("first"), 128)
    table = root / "tables" / "nuclei.parquet"
    table.mkdir(parents=True)
    pq.write_table(pa.table({"id": [1, 2], "area": [5, 6]}), table / "part-a.parquet")
    pq.write_table(pa.table({"id": [3], "area": [7]}), table / "part-b.parquet")
    (root / ".tilewright").mkdir()
    (root / ".tilewright" / "run.json").write_text("{}")
    return root


def change_pixel(root: Path) -> None:
    array = zarr.open_array(root / "0", mode="r+")
    array[3, 4] = np.asarray(array[3, 4]) + 1


def change_document(root: Path) -> None:
    path = root / "zarr.json"
    path.write_text(path.read_text().replace("micrometer", "nanometer"))


def move_to_edition(root: Path) -> None:
    (root / "e2").mkdir()
    (root / "e2" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    (root / "0").rename(root / "e2" / "0")
    document = json.loads((root / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "e2/0"
    (root / "zarr.json").write_text(json.dumps(document))


def cut_otherwise(root: Path) -> None:
    folder = root / "tables" / "nuclei.parquet"
    for part in folder.iterdir():
        part.unlink()
    pq.write_table(pa.table({"id": [3, 2, 1], "area": [7, 6, 5]}), folder / "part-c.parquet")


SAME: dict[str, Change] = {
    "nothing": lambda root: None,
    "records": lambda root: (root / ".tilewright" / "run.json").write_text("other"),
    "an edition": move_to_edition,
    "rows in other parts": cut_otherwise,
}
OTHER: dict[str, Change] = {
    "0 differs in 1 of 327680 pixels": change_pixel,
    "documents: zarr.json has another content": change_document,
    "a stray object 0/c/0/.0.partial": lambda root: (root / "0/c/0/.0.partial").touch(),
    "2 rows, not 3": lambda root: (root / "tables/nuclei.parquet/part-b.parquet").unlink(),
    "documents: labels/zarr.json is new": lambda root: (
        (root / "labels").mkdir(),
        (root / "labels" / "zarr.json").write_text("{}"),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_what_is_no_part_of_a_result_does_not_count(tmp_path: Path, name: str) -> None:
    before = Snapshot.of(Location(str(result(tmp_path / "a"))))
    after = result(tmp_path / "b" / "a")
    SAME[name](after)
    assert before.differences(Snapshot.of(Location(str(after)))) == []


@pytest.mark.parametrize("name", OTHER)
def test_what_differs_is_named(tmp_path: Path, name: str) -> None:
    before = Snapshot.of(Location(str(result(tmp_path / "a"))))
    after = result(tmp_path / "b" / "a")
    OTHER[name](after)
    found = before.differences(Snapshot.of(Location(str(after))))
    assert len(found) == 1
    assert name in found[0]


def test_one_object_decoded(tmp_path: Path) -> None:
    root = result(tmp_path / "a")
    out = Location(str(root))
    pixels = decode_object(out, "0/c/1/2")
    assert pixels is not None
    assert np.array_equal(pixels, draw_pixels("first")[128:256, 256:384])
    data = bytearray((root / "0/c/1/2").read_bytes())
    (root / "0/c/1/2").write_bytes(data[: len(data) // 2])
    assert decode_object(out, "0/c/1/2") is None


def test_what_a_viewer_sees(tmp_path: Path) -> None:
    root = result(tmp_path / "a")
    move_to_edition(root)
    seen = shown(Location(str(root)))
    assert list(seen) == [""]
    assert np.array_equal(seen[""], draw_pixels("first"))
