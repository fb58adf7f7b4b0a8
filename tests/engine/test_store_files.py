"""Documents are read with a clear error and replaced in one step."""

import json
import stat
from pathlib import Path

import pytest

from engine.errors import InputError, OutputError
from engine.store import files


def test_write_atomic_keeps_the_old_bytes_when_the_swap_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "deep" / "zarr.json"
    files.write_atomic(path, b"old")

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "replace", refuse)
    with pytest.raises(OutputError, match="No space left"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["zarr.json"]


def test_written_files_are_readable_by_others_as_the_umask_says(tmp_path: Path) -> None:
    plain, atomic = tmp_path / "plain", tmp_path / "atomic"
    plain.write_bytes(b"")
    files.write_atomic(atomic, b"")
    assert stat.S_IMODE(atomic.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


def test_write_json_leaves_an_equal_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"b": 1, "a": [1.5, None]})
    before = path.stat()
    files.write_json(path, {"b": 1, "a": [1.5, None]})
    assert path.stat().st_ino == before.st_ino
    files.write_json(path, {"b": 2})
    assert files.read_json(path) == {"b": 2}


@pytest.mark.parametrize("value", [float("nan"), {1, 2}])
def test_write_json_refuses_what_json_cannot_hold(tmp_path: Path, value: object) -> None:
    with pytest.raises(OutputError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"value": value})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[1]"])
def test_damaged_json_is_an_input_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "zarr.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"zarr\.json.*JSON"):
        files.read_json(path)
    with pytest.raises(OutputError):
        files.read_json(path, OutputError)


def test_read_json_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        files.read_json(tmp_path / "none.json")


def test_free_bytes_of_a_place_not_made_yet(tmp_path: Path) -> None:
    assert files.free_bytes(tmp_path / "a" / "b" / "c") > 0


@pytest.mark.parametrize("url", ["s3://bucket/a.zarr", "https://host/a.zarr", "file:///a.zarr"])
def test_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="local"):
        files.local_path(url)
    with pytest.raises(OutputError, match="local"):
        files.local_path(url, OutputError)


def test_json_is_written_for_people(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": {"b": 1}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": {"b": 1}}
    assert text.count("\n") > 2
