"""Many images in one run: names, quarantine, resume, ingest on the way, buckets."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import tifffile
from command_line import Answer, Command, commands_in
from journeys import save_image
from object_store import bucket, s3_client, s3_server  # noqa: F401

from engine.batch.document import Row, read_document
from engine.batch.finding import find_images
from engine.batch.naming import common_root, name_images, safe_name
from engine.batch.summary import page, totals
from engine.errors import InputError, ResourceError
from engine.planning import Plan, make_plan
from engine.store import Location, open_array, write_json

Batch = Callable[..., Answer]

IDENTITY = "method: identity\nstorage: {chunk: 64, shard: 64}\nresources: {retries: 0}\n"
NAMES = ("a", "b", "c", "d")


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (130, 140), dtype=np.uint8)


@pytest.fixture
def tilewright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    (tmp_path / "copy.yaml").write_text(IDENTITY)
    return commands_in(tmp_path, monkeypatch, capsys)


@pytest.fixture
def batch(tilewright: Command, cluster_address: str) -> Batch:
    """`tilewright batch` with a recipe that copies, on the cluster of the tests."""

    def run(what: object, *words: object, out: str = "out") -> Answer:
        own = ("--out", out, "--recipe", "copy.yaml", "--cluster", cluster_address)
        return tilewright("batch", what, *own, *words)

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Four images in two folders."""
    for seed, name in enumerate(NAMES):
        save_image(tmp_path / f"images/{'x' if seed < 2 else 'y'}/{name}.ome.zarr", pixels(seed))
    return tmp_path / "images"


def rows(out: Path) -> dict[str, Row]:
    document = read_document(Location.parse(out))
    assert document is not None
    return document.rows


def states(out: Path) -> dict[str, str]:
    return {name: row.state for name, row in rows(out).items()}


def result(out: Path, name: str) -> np.ndarray:
    return np.asarray(open_array(out / f"{name}.ome.zarr/0")[...])


def test_a_damaged_image_is_quarantined_and_only_it_is_tried_again(
    batch: Batch, tilewright: Command, images: Path, tmp_path: Path
) -> None:
    damaged = images / "x/b.ome.zarr/zarr.json"
    whole, out = damaged.read_bytes(), tmp_path / "out"
    damaged.write_bytes(whole[:50])
    answer = batch("images")
    assert answer.code == 3, answer
    assert "x__b quarantined:" in answer.out
    assert states(out) == {
        "x__a": "done", "x__b": "quarantined", "y__c": "done", "y__d": "done",
    }  # fmt: skip
    assert "zarr.json" in rows(out)["x__b"].reason
    assert not (out / "x__b.ome.zarr").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["images"] == {
        "all": 4, "done": 3, "incomplete": 0, "quarantined": 1, "waiting": 0,
    }  # fmt: skip
    assert [one["name"] for one in summary["failed"]] == ["x__b"]
    assert "zarr.json" in (out / "summary.md").read_text()
    status = tilewright("status", "out")
    assert (status.code, status.touched) == (0, ())
    assert "3 of 4 images done, 1 quarantined" in status.out
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and "/0/" in str(p)}
    assert before
    damaged.write_bytes(whole)
    again = batch("images")
    assert again.code == 0, again
    assert "4 images, 3 done before" in again.out
    assert set(states(out).values()) == {"done"}
    assert [row.tries for row in rows(out).values()] == [1, 2, 1, 1]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for seed, (folder, name) in enumerate(zip("xxyy", NAMES, strict=True)):
        assert np.array_equal(result(out, f"{folder}__{name}"), pixels(seed))


def test_a_region_that_fails_leaves_its_image_incomplete(
    batch: Batch, images: Path, tmp_path: Path
) -> None:
    chunk = images / "y/d.ome.zarr/0/c/0/0"
    whole, at = chunk.read_bytes(), chunk.stat().st_mtime_ns
    chunk.write_bytes(bytes([whole[0] ^ 255]) + whole[1:])
    os.utime(chunk, ns=(at, at))
    answer = batch("images")
    assert answer.code == 3, answer
    row = rows(tmp_path / "out")["y__d"]
    assert row.state == "incomplete"
    assert "regions are missing, the first copy" in row.reason
    assert 0 < row.regions_done < row.regions
    chunk.write_bytes(whole)
    os.utime(chunk, ns=(at, at))
    assert batch("images").code == 0
    row = rows(tmp_path / "out")["y__d"]
    assert (row.state, row.reason, row.regions_done) == ("done", "", row.regions)
    assert np.array_equal(result(tmp_path / "out", "y__d"), pixels(3))


def test_a_batch_that_was_stopped_goes_on(
    batch: Batch, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        from engine.cli.batch import BatchProgress

        def stop(self: BatchProgress, row: Row) -> None:
            raise KeyboardInterrupt

        patch.setattr(BatchProgress, "image_ended", stop)
        answer = batch("images", "--at-once", "1")
    assert answer.code == 130, answer
    assert "give the same command again" in answer.err
    kept = states(out)
    assert list(kept.values()).count("done") == 1
    assert list(kept.values()).count("waiting") == 3
    assert batch("images", "--at-once", "2").code == 0
    assert set(states(out).values()) == {"done"}
    assert [row.tries for row in rows(out).values()].count(1) == 4


def test_a_lost_document_loses_nothing_that_is_done(
    batch: Batch, images: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert batch("images").code == 0
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and "/0/" in str(p)}
    document = json.loads((out / "batch.json").read_text())
    for row in document["images"]:
        row["state"] = "waiting"
    (out / "batch.json").write_text(json.dumps(document))
    assert batch("images").code == 0
    assert set(states(out).values()) == {"done"}
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_other_settings_and_other_folders_are_refused(
    batch: Batch, tilewright: Command, images: Path, tmp_path: Path
) -> None:
    assert batch("images/x").code == 0
    batch("images/x", "--set", "storage.chunk=32").refuses("storage.chunk: 64 -> 32")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    batch("images", out="full").refuses("a folder that holds 'notes.txt'")
    batch("out").refuses("a folder apart from the images")
    batch("out/a.ome.zarr").refuses("a folder apart from the images")
    batch("images", out="one.ome.zarr").refuses("the name of one result")
    tilewright("status", "full").refuses("full")


@pytest.mark.usefixtures("images")
def test_what_no_image_can_do_without_is_refused_and_leaves_no_trace(
    batch: Batch,
    tilewright: Command,
    cluster_address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ("batch", "images", "--out", "out")
    tilewright(*words, "--cluster", "nope").refuses("--cluster nope")
    tilewright(*words, "--cluster", cluster_address, "--workers", "3").refuses("--workers", "3")
    tilewright(*words, "--set", "segment.model=none").refuses("model", "none")
    with monkeypatch.context() as patch:
        error = ResourceError(where="a", expected="b", found="c", remedy="d.")
        patch.setattr("engine.running.sharing.open_cluster", Mock(side_effect=error))
        batch("images").refuses("error a: expected b, found c. d.")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty.txt", "at least one image"),
        ("nothing", "found nothing"),
        ("*.nope", "at least one image"),
        ("empty", "at least one image"),
        ("binary.txt", "one path a line"),
    ],
)
def test_no_images_are_an_error(batch: Batch, tmp_path: Path, what: str, message: str) -> None:
    (tmp_path / "empty.txt").write_text("# none\n\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    batch(what).refuses(message)


def test_names_that_collide_are_refused(batch: Batch, images: Path, tmp_path: Path) -> None:
    shutil.copytree(images / "x/a.ome.zarr", images / "x/A.ome.zarr")
    batch("images").refuses("x/a.ome.zarr", "x/A.ome.zarr", "Rename")
    (tmp_path / "list.txt").write_text("images/y/c.ome.zarr\nimages/y/c.ome.zarr\n")
    batch("list.txt").refuses("each image once")


def test_lists_globs_folders_and_files_name_their_images(images: Path, tmp_path: Path) -> None:
    dest = Location.parse(images / "out")
    (tmp_path / "list.txt").write_text(
        f"# two\n{images}/y/c.ome.zarr\n\nimages/x/a.ome.zarr\nimages/z.svs\ns3://b/e.ome.zarr\n"
    )

    def found(what: object) -> list[tuple[str, bool]]:
        return [
            (url.removeprefix(f"{images}/"), foreign)
            for url, foreign in find_images(str(what), dest).sources
        ]

    assert found(tmp_path / "list.txt") == [
        ("y/c.ome.zarr", False), ("x/a.ome.zarr", False), ("z.svs", True),
        ("s3://b/e.ome.zarr", False),
    ]  # fmt: skip
    save_image(images / "out/x__a.ome.zarr", pixels(9))
    (images / "y/slide.SVS").write_bytes(b"")
    (images / "y/notes.txt").write_text("")
    (images / "y/lost.ome.zarr").mkdir()
    everything = [(f"{f}/{n}.ome.zarr", False) for f, n in zip("xxyy", NAMES, strict=True)]
    everything += [("y/lost.ome.zarr", False), ("y/slide.SVS", True)]
    assert found(images) == everything
    assert found(f"{images}/*") == everything
    assert found(f"{images}/y/*.ome.zarr") == everything[2:5]
    assert found(images / "x/a.ome.zarr") == everything[:1]
    assert find_images(f"{images}/y/[cd].ome.zarr", dest).root == f"{images}/y/"


def test_names_are_safe_and_stay(tmp_path: Path) -> None:
    assert safe_name("a b/../ü.tiff") == "a_b___"
    assert safe_name("x" * 300) != safe_name("x" * 301)
    assert len(safe_name("x" * 300)) < 220
    with pytest.raises(InputError, match=r"'/d/1\.tif' and '/d/1\.svs'"):
        name_images([("/d/1.tif", True), ("/d/1.svs", True)], "/d/", {})
    first = name_images([("/d/e/1.zarr", False)], "/d/e/", {})
    root = common_root(["/d/e/1.zarr", "/d/f/1.zarr"])
    known = {image.source: image.name for image in first}
    both = name_images([("/d/e/1.zarr", False), ("/d/f/1.zarr", False)], root, known)
    assert [image.name for image in both] == ["1", "f__1"]


def test_a_summary_is_one_page() -> None:
    bad = Row("b|c", "/b", False, "quarantined", reason="line 1\nline *2*")
    text = page("x", [Row("a", "/a", False, "done", objects=5, regions=2, regions_done=2), bad])
    assert "| a | done | 5 | 2/2 |" in text
    assert "- **b\\|c** (quarantined): line 1 line \\*2\\*" in text
    assert totals([bad])["complete"] is False


def test_tiffs_are_ingested_on_the_way(batch: Batch, images: Path, tmp_path: Path) -> None:
    for seed in (4, 5):
        tifffile.imwrite(images / f"y/t{seed}.tif", pixels(seed))
    (images / "y/bad.tif").write_bytes(b"II*\x00 no tiff")
    out = tmp_path / "out"
    answer = batch("images/y", "--drop-ingested", "--pixel-size", "0.5")
    assert answer.code == 3, answer
    expected = dict.fromkeys(("c", "d", "t4", "t5"), "done") | {"bad": "quarantined"}
    assert states(out) == expected
    assert np.array_equal(result(out, "t4"), pixels(4))
    assert not (out / "ingested").exists()
    assert rows(out)["t4"].foreign
    before = rows(out)["t4"]
    (images / "y/bad.tif").unlink()
    tifffile.imwrite(images / "y/t5.tif", pixels(6))
    again = batch("images/y", "--drop-ingested", "--pixel-size", "0.5")
    assert rows(out)["t4"] == before
    assert again.code == 3, again
    assert rows(out)["t5"].state == "quarantined"
    shutil.rmtree(out / "t5.ome.zarr")
    assert batch("images/y", "--pixel-size", "0.5").code == 0
    assert np.array_equal(result(out, "t5"), pixels(6))
    assert (out / "ingested/t5.ome.zarr").is_dir()


def test_a_copy_is_dropped_only_when_its_image_is_known_to_be_done(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "one.tif", pixels(1))
    out = tmp_path / "out"

    def dying(place: Location, document: dict[str, list[dict[str, str]]]) -> None:
        if place.name == "batch.json" and "done" in {row["state"] for row in document["images"]}:
            raise KeyboardInterrupt
        write_json(place, document)

    with monkeypatch.context() as patch:
        patch.setattr("engine.batch.driving.write_json", dying)
        assert batch("one.tif", "--drop-ingested").code == 130
    assert (out / "ingested/one.ome.zarr").is_dir()
    assert states(out) == {"one": "waiting"}
    assert batch("one.tif", "--drop-ingested").code == 0
    assert states(out) == {"one": "done"}
    assert not (out / "ingested").exists()


@pytest.mark.usefixtures("images")
def test_a_defect_is_the_matter_of_one_image_and_in_the_log(
    batch: Batch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(image: str, *rest: object) -> Plan:
        if "b.ome.zarr" in image:
            raise ZeroDivisionError("by zero")
        return make_plan(image, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("engine.batch.working.make_plan", broken)
        assert batch("images/x").code == 3
    out = tmp_path / "out"
    assert states(out) == {"a": "done", "b": "quarantined"}
    assert rows(out)["b"].reason == "a defect of tilewright, ZeroDivisionError: by zero"
    (log,) = (out / ".tilewright/logs").iterdir()
    assert "ZeroDivisionError: by zero" in log.read_text()


@pytest.mark.usefixtures("images")
def test_a_bucket_holds_images_slides_and_results(
    batch: Batch,
    tilewright: Command,
    tmp_path: Path,
    bucket: str,  # noqa: F811
    s3_server: str,  # noqa: F811
) -> None:
    tifffile.imwrite(tmp_path / "images/t 1.tif", pixels(7))
    client = s3_client(s3_server)
    for path in (tmp_path / "images").rglob("*"):
        if path.is_file() and not path.is_relative_to(tmp_path / "images/y"):
            client.put_object(
                Bucket=bucket.removeprefix("s3://"),
                Key=f"in/{path.relative_to(tmp_path / 'images')}",
                Body=path.read_bytes(),
            )
    out = f"{bucket}/in/results"
    answer = batch(f"{bucket}/in", out=out)
    assert (answer.code, answer.err) == (0, ""), answer
    document = read_document(Location.parse(out))
    assert document is not None
    assert list(document.rows) == ["t_1", "x__a", "x__b"]
    kept = json.loads((Location.parse(out) / "summary.json").read_bytes())
    assert (kept["images"]["done"], kept["complete"]) == (3, True)
    found = open_array(Location.parse(out) / "t_1.ome.zarr/0")
    assert np.array_equal(np.asarray(found[...]), pixels(7))
    again = batch(f"{bucket}/in", out=out)
    assert "3 images, 3 done before" in again.out
    assert read_document(Location.parse(out)) == document
    assert "3 of 3 images done" in tilewright("status", out).out
    batch(f"{bucket}/none", out=f"{bucket}/other").refuses("found nothing")


@pytest.mark.slow
def test_twenty_images_with_one_damaged_on_a_cluster_of_their_own(
    tilewright: Command, nuclei: np.ndarray, tmp_path: Path
) -> None:
    for k in range(20):
        save_image(tmp_path / f"in/n{k:02d}.ome.zarr", np.roll(nuclei, 31 * k, axis=1)[:256, :256])
    damaged = tmp_path / "in/n07.ome.zarr/0/zarr.json"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    words = ("batch", "in", "--out", "out", "--workers", "2")
    assert tilewright(*words).code == 3
    found = rows(tmp_path / "out")
    assert [name for name, row in found.items() if row.state != "done"] == ["n07"]
    assert all(row.objects and row.objects > 10 for row in found.values() if row.state == "done")
    damaged.write_bytes(whole)
    before = {name: row for name, row in found.items() if row.state == "done"}
    assert tilewright(*words).code == 0
    after = rows(tmp_path / "out")
    assert {name: after[name] for name in before} == before
    assert after["n07"].state == "done"
    alone = tilewright("run", "in/n07.ome.zarr", "alone.ome.zarr", "--workers", "1")
    assert alone.code == 0
    for name in ("labels/nuclei/0", "maps/probability/0"):
        one, other = (tmp_path / out / name for out in ("alone.ome.zarr", "out/n07.ome.zarr"))
        assert np.array_equal(np.asarray(open_array(one)[...]), np.asarray(open_array(other)[...]))
