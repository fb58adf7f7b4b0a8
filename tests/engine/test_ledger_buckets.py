"""The ledger in a bucket: the same as on a disk, against a server of the protocol."""

import threading
from pathlib import Path

import pytest
from object_store import bucket, point_at, s3_server  # noqa: F401 - fixtures

from engine.errors import LeaseLostError, OutputError
from engine.ledger import Lease, Ledger, Mark, Record, RecordWriter, State, holder, take_over
from engine.store.location import Location
from tiling import Box, Grid, Region

GRID = Grid((), (200, 300), (100, 100))


def record(x: int) -> Record:
    return Record("regions", Region((), Box((0, x), (100, x + 100))), "d" * 64, 1.0, 1, "w")


def test_a_life_in_a_bucket(bucket: str) -> None:  # noqa: F811
    ledger = Ledger(Location(f"{bucket}/plates/out.ome.zarr"))
    assert not ledger.exists
    assert holder(ledger) is None
    first = Lease.acquire(ledger)
    journal = take_over(ledger, first)
    writer = RecordWriter(ledger.out, first.epoch)
    with writer.attempt("unit"):
        assert writer.attempts("unit") == 1
        journal.add(writer.write([record(0)]))
    assert writer.attempts("unit") == 0
    journal.flush()
    writer.write([record(100)])
    with pytest.raises(OutputError, match="process"):
        Lease.acquire(ledger)
    first.release()

    second = Lease.acquire(ledger)
    with pytest.raises(LeaseLostError):
        first.beat()
    journal = take_over(ledger, second)
    writer.write([record(200)])
    journal.revoke([Mark("regions", record(0).region, "d" * 64, State.DAMAGED)])
    states = ledger.states("regions", "d" * 64, GRID)
    assert states.tolist() == [[State.DAMAGED, State.DONE, State.NEW], [State.NEW] * 3]
    journal.add(RecordWriter(ledger.out, second.epoch).write([record(0)]))
    journal.forget(["d" * 64])
    assert list(ledger.damaged()) == []
    found = sorted(record.region for record in ledger.records("regions", "d" * 64, GRID))
    assert found == [record(0).region, record(100).region]
    second.release()


def test_of_many_at_once_one_gets_the_lease(bucket: str) -> None:  # noqa: F811
    ledger = Ledger(Location(f"{bucket}/out"))
    got: list[int] = []
    gate = threading.Barrier(8)

    def run() -> None:
        gate.wait()
        try:
            got.append(Lease.acquire(ledger).epoch)
        except OutputError:
            return

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [1]


def test_a_bucket_that_does_not_exist(
    s3_server: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    point_at(s3_server, monkeypatch, tmp_path)
    ledger = Ledger(Location("s3://nobody-has-this/out"))
    with pytest.raises(OutputError, match="nobody-has-this") as caught:
        Lease.acquire(ledger)
    assert isinstance(caught.value.__cause__, OSError)
