"""Files of a store, brought to scratch: shared, removed by the last, errors by their URL."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from object_store import serve_folder, web_server

from engine.errors import InputError, ResourceError
from engine.store import Location
from engine.store.sources import open_source, scratch, source_facts, with_axes
from engine.store.sources.scratch import scratch_root, sweep
from tiling.box import Box

PIXELS = np.arange(60 * 70, dtype=np.uint16).reshape(60, 70)
PART = Box((5, 6), (20, 30))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path]]:
    """Address of a web server and the folder behind it; scratch is this test's own."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    folder = tmp_path / "served"
    folder.mkdir()
    tifffile.imwrite(folder / "a b.tif", PIXELS)
    with web_server(serve_folder(folder)) as address:
        yield address, folder


def files() -> list[str]:
    return sorted(p.name for p in scratch_root().rglob("*.tif*"))


def test_a_file_is_brought_once_and_removed_by_the_last(
    store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = store
    url = f"{address}/a%20b.tif"
    monkeypatch.setattr("engine.store.sources.scratch._PART", 1000)
    with open_source(url) as first:
        assert np.array_equal(first.read({}, PART)[0], PIXELS[PART.slices()])
        (kept,) = scratch_root().rglob("*.tif")
        at = kept.stat().st_mtime_ns
        second = open_source(url, verify=False)
        assert first.fingerprint() == second.fingerprint()
        assert first.fingerprint()[0].size == (folder / "a b.tif").stat().st_size
        assert files() == ["a%20b.tif"]
    assert kept.stat().st_mtime_ns == at
    assert np.array_equal(second.read({}, PART)[0], PIXELS[PART.slices()])
    del second  # as a cache of open sources drops one
    assert files() == []


def test_many_threads_bring_one_file(store: tuple[str, Path]) -> None:
    url, wrong = f"{store[0]}/a%20b.tif", []

    def read() -> None:
        for _ in range(5):
            with open_source(url, verify=False) as source:
                if not np.array_equal(source.read({}, PART)[0], PIXELS[PART.slices()]):
                    wrong.append(source)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert files() == []


def test_whoever_lets_go_removes_no_file_that_another_brings(
    store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Location.parse(f"{store[0]}/a%20b.tif")
    found, data = scratch._stat(place), (store[1] / "a b.tif").read_bytes()
    troubles: list[str] = []

    def read_part(_: Location, start: int, size: int) -> bytes:
        time.sleep(0.0005 * (threading.get_ident() % 3))
        return data[start : start + size]

    monkeypatch.setattr(Location, "read_part", read_part)
    monkeypatch.setattr(Location, "stat", lambda _: found)

    def take() -> None:
        for _ in range(150):
            try:
                hold = scratch._hold(place, found)
                if hold.file.read_bytes() != data:
                    troubles.append("other bytes")
                hold.release()
            except OSError as err:
                troubles.append(repr(err))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert files() == []


def test_what_a_dead_process_left_is_swept_and_what_is_open_stays(store: tuple[str, Path]) -> None:
    left = scratch_root() / "left"
    left.mkdir(parents=True)
    (left / "old.tif").write_bytes(b"x")
    (left / "lock").touch()
    with open_source(f"{store[0]}/a%20b.tif"):
        assert files() == ["a%20b.tif"]
        sweep(scratch_root())
        assert files() == ["a%20b.tif"]


def test_errors_name_the_url(store: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    address, folder = store
    (folder / "bad.tif").write_bytes(b"II*\x00 no tiff")
    (folder / "s.mrxs").write_bytes(b"x")
    with pytest.raises(InputError, match="nothing there"):
        open_source(f"{address}/none.tif")
    with pytest.raises(InputError, match=f"^{address}/bad.tif"):
        open_source(f"{address}/bad.tif")
    with pytest.raises(InputError, match="whose pixels lie in other files"):
        open_source(f"{address}/s.mrxs")
    assert files() == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with pytest.raises(ResourceError, match="set TMPDIR"):
        open_source(f"{address}/a%20b.tif")


def test_axes_and_facts_of_a_file_that_is_brought(store: tuple[str, Path]) -> None:
    address, folder = store
    pixels = np.arange(40 * 50 * 2, dtype=np.uint16).reshape(40, 50, 2)
    tifffile.imwrite(folder / "last.tif", pixels)
    with pytest.raises(InputError, match=f"^{address}/last.tif: .*40 planes of 50 x 2 pixels"):
        open_source(f"{address}/last.tif")
    named = with_axes(f"{address}/last.tif", "yxc")
    with open_source(named) as source:
        assert np.array_equal(source.read({}, PART), pixels[PART.slices()].transpose(2, 0, 1))
    # Facts are kept: the file is not brought again.
    (folder / "last.tif").unlink()
    assert source_facts(named).shape == (2, 40, 50)
    assert files() == []
