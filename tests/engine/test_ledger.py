"""Records: written whole, read back equal, refused when damaged or newer."""

import json
from pathlib import Path

import pytest

from engine.errors import OutputError
from engine.ledger import Failure, Ledger, Record
from tiling import Box, Region


def record(digest: str = "d", at: int = 0) -> Record:
    region = Region((2, 0), Box((at, 0), (at + 256, 256)))
    return Record(
        "regions", region, digest, 1.25, 2**30, "host:1", {"objects": 3, "counts": [1, 2]}
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(record())
    ledger.write(record(at=256))
    assert list(ledger.records("regions", "d")) == [record(), record(at=256)]
    assert list(ledger.records("labels", "d")) == []


def test_records_of_other_settings_do_not_count(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(record("old"))
    assert list(ledger.records("regions", "new")) == []


def test_a_failure_is_forgotten_when_its_region_is_done(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    failure = Failure("regions", record().region, "out of luck", 4)
    ledger.write_failure(failure)
    assert list(ledger.failures()) == [failure]
    ledger.write(record())
    assert list(ledger.failures()) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"pass": "regions"}', ""])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    ledger = Ledger(tmp_path)
    ledger.write(record())
    path = next(ledger.path("records", "regions").glob("*.json"))
    path.write_text(text)
    with pytest.raises(OutputError, match=path.name):
        list(ledger.records("regions", "d"))


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.write_run({})
    ledger.path("run.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(OutputError, match="99"):
        ledger.read_run()
