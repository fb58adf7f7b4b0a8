"""What counts and what does not; damage is named and mended; nothing is lost between two steps."""

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from memory_store import MemoryStore, in_memory

from engine.errors import LeaseLostError, OutputError
from engine.ledger import (
    Count,
    Failure,
    Journal,
    Lease,
    Ledger,
    Mark,
    Record,
    RecordWriter,
    State,
    take_over,
)
from engine.ledger import scribe as scribe_module
from engine.store.checksums import StoredObject
from engine.store.location import Location
from tiling import Box, Grid, Region

GRID = Grid((), (1000, 1000), (100, 100))
DIGEST = "9f86d081884c7d659a2feaa0c55ad015"


@pytest.fixture(params=["disk", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Location]:
    if request.param == "disk":
        yield Location(str(tmp_path / "out"))
        return
    with in_memory():
        yield Location("s3://bucket/out")


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    with in_memory() as memory:
        yield memory


def region(y: int, x: int, side: int = 100) -> Region:
    return Region((), Box((y, x), (y + side, x + side)))


def record(at: Region, digest: str = DIGEST, pass_name: str = "regions") -> Record:
    return Record(
        pass_name,
        at,
        digest,
        1.25,
        2**30,
        "host:1",
        2,
        {"objects": 3, "counts": [1, 2]},
        (("0/c/0/0", "12-34"),),
        "e3069283",
        (StoredObject("labels/n/0/c/0/0", "e3069283--------", 17, "34"),),
    )


def begin(ledger: Ledger, *, repair: bool = False) -> tuple[Lease, Journal]:
    """A driver begins; the one before has gone."""
    if ledger.path("lease").children()[1]:
        epoch = max(ledger.path("lease").children()[1])[:6]
        ledger.path("lease", f"{epoch}.end").write_bytes(b"")
    lease = Lease.acquire(ledger)
    return lease, take_over(ledger, lease, repair=repair)


def states(ledger: Ledger, digest: str = DIGEST) -> dict[str, set[tuple[int, int]]]:
    """Cells by the name of their state, new ones left out."""
    codes = ledger.states("regions", digest, GRID)
    assert codes.dtype == np.uint8
    found: dict[str, set[tuple[int, int]]] = {}
    for y, x in np.argwhere(codes):
        found.setdefault(State(codes[y, x]).name, set()).add((int(y), int(x)))
    return found


def regions(ledger: Ledger, digest: str = DIGEST) -> list[Region]:
    return sorted(found.region for found in ledger.records("regions", digest, GRID))


def test_a_record_comes_back_as_it_was() -> None:
    mine = record(Region((2, 0), Box((256, 0), (512, 256))))
    line = mine.to_line()
    assert Record.from_line(line) == mine
    assert "\n" not in line
    assert json.loads(line)["pass"] == "regions"
    assert pickle.loads(pickle.dumps(mine)) == mine


def test_a_record_that_was_edited_is_none() -> None:
    line = record(region(0, 0)).to_line()
    for old, new in (('"objects":3', '"objects":4'), ("host", "hoax"), ("}", " }")):
        with pytest.raises(ValueError, match="checksum"):
            Record.from_line(line.replace(old, new, 1))


@pytest.mark.parametrize("state", [State.NEW, State.DONE])
def test_a_mark_needs_a_reason(state: State) -> None:
    with pytest.raises(ValueError, match="state must be"):
        Mark("regions", region(0, 0), DIGEST, state)


def test_records_count_from_the_moment_they_are_written(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    writer = pickle.loads(pickle.dumps(RecordWriter(out, lease.epoch)))
    some = [record(region(0, 0)), record(region(0, 100))]
    bundle = pickle.loads(pickle.dumps(writer.write(some)))
    assert bundle.records() == tuple(some)
    expected = {"DONE": {(0, 0), (0, 1)}}
    assert states(ledger) == expected
    journal.add(bundle)
    assert states(ledger) == expected
    journal.flush()
    assert states(ledger) == expected
    assert ledger.path("records", "000001", "regions").children()[1] == []
    assert sorted(ledger.records("regions", DIGEST, GRID), key=lambda r: r.region) == some
    begin(ledger)
    assert states(ledger) == expected
    assert ledger.counts() == {("regions", DIGEST): Count(2, 20000)}


def test_regions_of_any_size_and_plane_cover_their_cells(out: Location) -> None:
    ledger = Ledger(out)
    grid = Grid((3,), (250, 330), (100, 100))
    lease, _ = begin(ledger)
    some = [
        Region((2,), Box((0, 100), (200, 330))),
        Region((0,), Box((200, 300), (250, 330))),
        Region((1,), Box((0, 0), (250, 330))),
    ]
    RecordWriter(out, lease.epoch).write([record(at) for at in some])
    expected = np.zeros(grid.shape, np.uint8)
    for at in some:
        expected[grid.cells(at)] = State.DONE
    assert np.array_equal(ledger.states("regions", DIGEST, grid), expected)
    found = ledger.records("regions", DIGEST, grid)
    assert {found.region for found in found} == set(some)


def test_records_of_other_digests_and_passes_do_not_count(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    writer = RecordWriter(out, lease.epoch)
    # The names of objects hold the first characters alone.
    near = DIGEST[:16] + "0" * 16
    for some in (record(region(0, 0), near), record(region(0, 0), pass_name="labels")):
        journal.add(writer.write([some]))
    assert states(ledger) == {}
    journal.flush()
    assert states(ledger) == {}
    assert regions(ledger) == []
    assert states(ledger, near) == {"DONE": {(0, 0)}}


def test_a_region_of_another_image_is_refused(out: Location) -> None:
    ledger = Ledger(out)
    lease, _ = begin(ledger)
    RecordWriter(out, lease.epoch).write([record(region(0, 0))])
    for grid in (
        Grid((), (90, 90), (100, 100)),
        Grid((), (100, 90), (30, 30)),
        Grid((2,), (9, 9), (9, 9)),
    ):
        with pytest.raises(OutputError, match="0-100_0-100"):
            ledger.states("regions", DIGEST, grid)


def test_records_must_belong_together(out: Location) -> None:
    writer = RecordWriter(out, 1)
    with pytest.raises(ValueError, match="one pass and digest"):
        writer.write([])
    with pytest.raises(ValueError, match="one pass and digest"):
        writer.write([record(region(0, 0)), record(region(0, 0), "other")])


def test_a_task_that_ran_twice_counts_once(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    writer = RecordWriter(out, lease.epoch)
    bundle = writer.write([record(region(0, 0)), record(region(0, 100))])
    journal.add(bundle)
    journal.add(bundle)
    journal.flush()
    writer.write([record(region(0, 0)), record(region(0, 100))])
    assert regions(ledger) == [region(0, 0), region(0, 100)]
    assert ledger.counts() == {("regions", DIGEST): Count(2, 20000)}
    begin(ledger)
    assert regions(ledger) == [region(0, 0), region(0, 100)]


def test_regions_that_overlap_are_refused(out: Location) -> None:
    ledger = Ledger(out)
    lease, _ = begin(ledger)
    writer = RecordWriter(out, lease.epoch)
    writer.write([record(region(0, 0))])
    writer.write([record(region(0, 0, 200))])
    with pytest.raises(OutputError, match="overlaps"):
        regions(ledger)


def test_a_failure_holds_until_its_region_is_done(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    whole = region(0, 0, 200)
    journal.fail(Mark("regions", whole, DIGEST, State.FAILED, "out of luck", 4))
    journal.fail(Mark("regions", region(500, 0), DIGEST, State.FAILED, "no better", 4))
    assert len(states(ledger)["FAILED"]) == 5
    assert ledger.counts() == {}
    begin(ledger)
    lease, journal = begin(ledger)
    assert set(ledger.failures("regions", DIGEST, GRID)) == {
        Failure("regions", whole, "out of luck", 4),
        Failure("regions", region(500, 0), "no better", 4),
    }
    writer = RecordWriter(out, lease.epoch)
    # Regions may have another size when they are tried again.
    for y, x in ((0, 0), (0, 100), (100, 0)):
        writer.write([record(region(y, x))])
    assert states(ledger)["FAILED"] == {(1, 1), (5, 0)}
    assert len(list(ledger.failures("regions", DIGEST, GRID))) == 2
    journal.fail(Mark("regions", region(100, 100), DIGEST, State.FAILED, "again", 1))
    assert [f.message for f in ledger.failures("regions", DIGEST, GRID)] == ["again", "no better"]
    writer.write([record(region(100, 100))])
    assert [f.message for f in ledger.failures("regions", DIGEST, GRID)] == ["no better"]
    assert list(ledger.failures("regions", "other", GRID)) == []


def test_a_failure_takes_nothing_back(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    RecordWriter(out, lease.epoch).write([record(region(0, 0))])
    journal.fail(Mark("regions", region(0, 0), DIGEST, State.FAILED, "too slow", 4))
    assert states(ledger) == {"DONE": {(0, 0)}}
    assert list(ledger.failures("regions", DIGEST, GRID)) == []
    assert ledger.counts() == {("regions", DIGEST): Count(1, 10000)}


def test_what_is_taken_back_is_done_again(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    done = [region(0, x) for x in (0, 100, 200, 300)]
    journal.add(RecordWriter(out, lease.epoch).write([record(at) for at in done]))
    with pytest.raises(ValueError, match="too late"):
        journal.revoke([Mark("regions", done[0], DIGEST, State.MISSING)])
    journal.flush()
    lease, journal = begin(ledger)
    kinds = (State.MISSING, State.DAMAGED, State.CHANGED)
    journal.revoke(Mark("regions", at, DIGEST, s) for at, s in zip(done, kinds, strict=False))
    expected = {"MISSING": {(0, 0)}, "DAMAGED": {(0, 1)}, "CHANGED": {(0, 2)}, "DONE": {(0, 3)}}
    assert states(ledger) == expected
    assert ledger.counts() == {("regions", DIGEST): Count(1, 10000)}
    journal.fail(Mark("regions", done[1], DIGEST, State.FAILED, "no", 4))
    begin(ledger)
    lease, journal = begin(ledger)
    expected["FAILED"] = expected.pop("DAMAGED")
    assert states(ledger) == expected
    RecordWriter(out, lease.epoch).write([record(at) for at in done[:3]])
    assert states(ledger) == {"DONE": {(0, 0), (0, 1), (0, 2), (0, 3)}}
    assert regions(ledger) == done
    assert ledger.counts() == {("regions", DIGEST): Count(4, 40000)}
    begin(ledger)
    assert states(ledger) == {"DONE": {(0, 0), (0, 1), (0, 2), (0, 3)}}


def test_what_a_lost_epoch_writes_late_does_not_count(out: Location) -> None:
    ledger = Ledger(out)
    lost, journal = begin(ledger)
    writer = RecordWriter(out, lost.epoch)
    journal.add(writer.write([record(region(0, 0))]))
    _, present = begin(ledger)
    # The worker, then the driver of the lost epoch.
    late = writer.write([record(region(0, 100))])
    journal.add(late)
    journal.flush()
    journal.fail(Mark("regions", region(0, 200), DIGEST, State.FAILED))
    assert states(ledger) == {"DONE": {(0, 0)}}
    with pytest.raises(LeaseLostError):
        journal.forget([DIGEST])
    with pytest.raises(LeaseLostError):
        take_over(ledger, lost)
    begin(ledger)
    assert states(ledger) == {"DONE": {(0, 0)}}
    del present


def test_segments_are_written_as_the_run_goes(
    out: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scribe_module, "MOST_LINES", 10)
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    writer = RecordWriter(out, lease.epoch)
    for y in range(9):
        for x in range(0, 10, 2):
            some = [record(region(100 * y, 100 * (x + k))) for k in range(2)]
            journal.add(writer.write(some))
        left = ledger.path("records", "000001", "regions").children()[1]
        assert len(left) == 0
    assert len(ledger.path("segments").children()[1]) == 9
    assert len(regions(ledger)) == 90


def test_a_full_disk_loses_nothing_that_was_added(store: MemoryStore) -> None:
    ledger = Ledger(Location("s3://bucket/out"))
    lease, journal = begin(ledger)
    journal.add(RecordWriter(ledger.out, lease.epoch).write([record(region(0, 0))]))

    def full(effect: str, name: str) -> None:
        if effect == "write":
            raise OSError(28, "No space left on device", name)

    store.before = full
    with pytest.raises(OutputError, match="No space left") as caught:
        journal.flush()
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == 28
    with pytest.raises(OutputError, match="No space left"):
        RecordWriter(ledger.out, lease.epoch).write([record(region(0, 0))])
    store.before = lambda effect, name: None
    journal.flush()
    assert len(ledger.path("segments").children()[1]) == 1
    assert states(ledger) == {"DONE": {(0, 0)}}


def test_an_attempt_that_ended_leaves_nothing(out: Location) -> None:
    writer = RecordWriter(out, 3)
    with writer.attempt("regions-0-100-n2"):
        assert writer.attempts("regions-0-100-n2") == 1
        assert writer.attempts("regions-0-100-n3") == 0
    with pytest.raises(KeyError), writer.attempt("regions-0-100-n2"):
        raise KeyError
    assert writer.attempts("regions-0-100-n2") == 0


def test_an_attempt_that_died_is_counted(store: MemoryStore) -> None:
    writer = RecordWriter(Location("s3://bucket/out"), 3)

    def dead(effect: str, name: str) -> None:
        raise SystemExit

    with pytest.raises(SystemExit), writer.attempt("unit"):
        store.before = dead
    store.before = lambda effect, name: None
    assert writer.attempts("unit") == 1
    assert RecordWriter(writer.out, 4).attempts("unit") == 0


def test_reading_goes_on_while_a_driver_tidies_up(store: MemoryStore) -> None:
    ledger = Ledger(Location("s3://bucket/out"))
    lease, journal = begin(ledger)
    writer = RecordWriter(ledger.out, lease.epoch)
    for x in range(0, 1000, 100):
        journal.add(writer.write([record(region(0, x))]))
    reads = 0

    def tidy(effect: str, name: str) -> None:
        nonlocal reads
        reads += effect == "read"
        if reads == 6:
            reads += 1
            journal.flush()

    store.before = tidy
    assert len(regions(ledger)) == 10
    assert reads > 6


def damage(place: Location, how: str) -> None:
    data = place.read_bytes()
    damaged = {
        "cut": data[: data[:-2].rfind(b"\n") + 1],
        "cut in a line": data[:-20],
        "edited": data.replace(b"0", b"7", 1),
        "flipped": bytes([data[0] ^ 1]) + data[1:],
        "emptied": b"",
        "replaced": b"hello\n",
    }
    place.write_bytes(damaged[how])


HOWS = ["cut", "cut in a line", "edited", "flipped", "emptied", "replaced"]


def one_of_each(ledger: Ledger) -> tuple[Lease, Journal]:
    """A segment of epoch 1, a list, a mark and a loose object of epoch 2."""
    lease, journal = begin(ledger)
    some = [record(region(0, 0)), record(region(0, 100))]
    journal.add(RecordWriter(ledger.out, lease.epoch).write(some))
    journal.flush()
    lease, journal = begin(ledger)
    RecordWriter(ledger.out, lease.epoch).write([record(region(500, 0)), record(region(500, 100))])
    journal.revoke([Mark("regions", region(0, 100), DIGEST, State.CHANGED)])
    return lease, journal


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("kind", ["segments", "marks", "epochs", "records/000002/regions"])
def test_damage_is_named_and_mended(out: Location, kind: str, how: str) -> None:
    ledger = Ledger(out)
    one_of_each(ledger)
    name = ledger.path(kind).children()[1][-1]
    damage(ledger.path(kind, name), how)
    for read in (states, regions, lambda led: led.counts()):
        with pytest.raises(OutputError, match=name) as caught:
            read(ledger)
        assert "verify" in caught.value.remedy
    found = [place for place, _ in ledger.damaged()]
    assert found == [str(ledger.path(kind, name))]
    if kind != "segments":
        with pytest.raises(OutputError, match=name):
            begin(ledger)
    begin(ledger, repair=True)
    assert list(ledger.damaged()) == []
    mended = states(ledger)
    everything = {"DONE": {(0, 0), (5, 0), (5, 1)}, "CHANGED": {(0, 1)}}
    assert mended.get("DONE", set()) - everything["DONE"] <= (
        {(0, 1)} if kind == "marks" else set()
    )
    if how == "cut":
        assert mended == everything, "all lines are whole"
    begin(ledger)
    assert states(ledger) == mended


@pytest.mark.parametrize("kind", ["segments", "marks"])
def test_what_is_listed_and_missing_is_named_and_mended(out: Location, kind: str) -> None:
    ledger = Ledger(out)
    one_of_each(ledger)
    begin(ledger)
    name = ledger.path(kind).children()[1][0]
    ledger.path(kind, name).delete()
    with pytest.raises(OutputError, match=name):
        states(ledger)
    assert [place for place, _ in ledger.damaged()] == [str(ledger.path(kind, name))]
    begin(ledger, repair=True)
    assert list(ledger.damaged()) == []
    states(ledger)


def test_a_lost_list_is_named_and_what_was_taken_back_stays_so(out: Location) -> None:
    ledger = Ledger(out)
    one_of_each(ledger)
    ledger.path("epochs", "000002.jsonl").delete()
    with pytest.raises(OutputError, match="none after epoch 1"):
        states(ledger)
    assert [place for place, _ in ledger.damaged()] == [str(ledger.path("epochs"))]
    begin(ledger, repair=True)
    assert list(ledger.damaged()) == []
    assert states(ledger) == {"DONE": {(0, 0)}, "CHANGED": {(0, 1)}}


def test_leases_removed_by_hand_do_not_bring_an_epoch_back(out: Location) -> None:
    ledger = Ledger(out)
    one_of_each(ledger)
    ledger.path("lease").remove()
    lease, _ = begin(ledger)
    assert lease.epoch == 3
    assert states(ledger) == {"DONE": {(0, 0), (5, 0), (5, 1)}, "CHANGED": {(0, 1)}}


def test_forgetting_keeps_what_counts(out: Location) -> None:
    ledger = Ledger(out)
    lease, journal = begin(ledger)
    writer = RecordWriter(out, lease.epoch)
    journal.add(writer.write([record(region(0, 0)), record(region(0, 100))]))
    journal.add(writer.write([record(region(0, 0), "old")]))
    journal.revoke([Mark("labels", region(0, 0), "old", State.CHANGED)])
    begin(ledger)
    lease, journal = begin(ledger)
    journal.revoke([Mark("regions", region(0, 100), DIGEST, State.MISSING)])
    writer = RecordWriter(out, lease.epoch)
    writer.write([record(region(0, 200))])
    with writer.attempt("unit"):
        journal.fail(Mark("regions", region(0, 300), DIGEST, State.FAILED, "no", 1))
        before = states(ledger), ledger.path("segments").children()[1]
        journal.forget([DIGEST])
    assert states(ledger) == before[0]
    assert regions(ledger) == [region(0, 0), region(0, 200)]
    assert states(ledger, "old") == {}
    assert len(ledger.path("segments").children()[1]) == 1
    assert len(before[1]) == 2
    assert ledger.path("epochs").children()[1] == ["000003.jsonl"]
    assert ledger.path("lease").children()[1] == ["000003.beat", "000003.json"]
    assert ledger.path("records").children()[0] == ["000003"]
    assert ledger.path("attempts").children()[0] == []
    begin(ledger)
    assert states(ledger) == before[0]


RUN = {
    "digest": DIGEST,
    "parts": {"recipe": '"x"'},
    "source": "/data/in",
    "level": 0,
    "channels": [0],
    "layers": ["image"],
    "created": "2026-11-21",
}


def test_the_run_comes_back_as_it_was(out: Location) -> None:
    ledger = Ledger(out)
    assert not ledger.exists
    assert ledger.read_next() is None
    ledger.write_run(RUN)
    ledger.write_next(RUN | {"level": 1})
    assert ledger.exists
    assert ledger.read_run() == RUN | {"format": 2}
    assert ledger.read_next() == RUN | {"format": 2, "level": 1}
    ledger.clear_next()
    ledger.clear_next()
    assert ledger.read_next() is None


def without(name: str) -> Callable[[dict[str, object]], dict[str, object]]:
    return lambda document: {k: v for k, v in document.items() if k != name}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda d: d | {"format": 99}, "format 99"),
        (lambda d: d | {"format": 1}, "before its release"),
        (lambda d: d | {"level": 3}, "does not agree with its checksum"),
        (without("checksum"), "not agree with its checksum"),
        (without("parts"), "no proper parts"),
        (lambda d: d | {"channels": "0"}, "no proper channels"),
        (lambda d: d | {"level": True}, "no proper level"),
        (lambda d: d | {"parts": {"recipe": 3}}, "no text"),
        (lambda d: [d], "a JSON list"),
    ],
)
def test_a_run_that_was_changed_is_refused(
    out: Location, change: Callable[[dict[str, object]], object], found: str
) -> None:
    ledger = Ledger(out)
    ledger.write_run(RUN)
    place = ledger.path("run.json")
    place.write_bytes(json.dumps(change(json.loads(place.read_bytes()))).encode())
    with pytest.raises(OutputError, match=found):
        ledger.read_run()


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe"])
def test_a_run_that_is_no_json_is_refused(out: Location, data: bytes) -> None:
    ledger = Ledger(out)
    ledger.path("run.json").write_bytes(data)
    with pytest.raises(OutputError, match=r"run\.json: .*damaged JSON"):
        ledger.read_run()
    ledger.path("run.json").delete()
    with pytest.raises(OutputError, match="nothing there"):
        ledger.read_run()
