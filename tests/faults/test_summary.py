"""The table counts what struck apart from what did not, and what passed apart from what failed."""

from tests.faults.attempt import Verdict
from tests.faults.plan import Fault, Kind, Scenario
from tests.faults.summary import document, rows, table


def verdict(
    seed: int, *faults: tuple[Kind, bool], error: str = "", seconds: float = 2.0
) -> Verdict:
    drawn = tuple(Fault(kind, 0.5, 1, 0) for kind, _ in faults)
    scenario = Scenario(seed, "tiny", "disk", "shared", 1, drawn)
    return Verdict(scenario, tuple(struck for _, struck in faults), error, seconds)


VERDICTS = [
    verdict(0, ("kill driver", True), ("lost objects", True)),
    verdict(1, ("kill driver", False), seconds=4.0),
    verdict(2, ("kill driver", True), error="another result"),
    verdict(3, ("kill driver", False), ("lost objects", True)),
]


def test_rows() -> None:
    found = {row.kind: row for row in rows(VERDICTS)}
    assert list(found) == ["kill driver", "lost objects"]
    kills = found["kill driver"]
    assert (kills.tried, kills.struck, kills.passed, kills.failed) == (4, 2, 1, 1)
    assert kills.seconds == 2.5
    losses = found["lost objects"]
    assert (losses.tried, losses.struck, losses.passed, losses.failed) == (2, 2, 2, 0)


def test_table() -> None:
    text = table(VERDICTS, {"full disk": "not permitted"})
    assert "4 seeds: 2 passed, 1 in which no fault struck in time, 1 failed" in text
    assert "not tried: full disk, not permitted" in text


def test_document() -> None:
    found = document(VERDICTS, {}, jobs=2)
    assert found["seeds"] == 4
    assert found["passed"] == 2
    assert found["no_fault_struck"] == [1]
    assert found["failed"] == {"2": "another result"}
    assert found["jobs"] == 2
    assert found["versions"]["tilewright"]


def test_a_document_names_no_folder_of_a_machine() -> None:
    said = (
        "run '/work/a-b/seed-3/image.zarr' s3://b/seed-3/out.zarr changed ['.tilewright/x/y'] at "
    )
    said += "http://127.0.0.1:8787/status"
    found = document([verdict(3, ("kill driver", True), error=said)], {})["failed"]["3"]
    assert found == said.replace("/work/a-b/seed-3/", "")
