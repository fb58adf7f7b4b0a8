"""Results can be read anywhere: no file names a folder of the machine that it came from."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"

# A slash where a word may begin, a name and a slash; not that of s3://bucket/name or of a/b.
ABSOLUTE = re.compile(r"(?<![\w:/.*)-])/[\w.+-]+/")


def texts(value: Any) -> Iterator[str]:
    """All names and words of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.name)
def test_no_result_names_a_folder_of_a_machine(file: Path) -> None:
    found = [text for text in texts(json.loads(file.read_text())) if ABSOLUTE.search(text)]
    assert not found


@pytest.mark.parametrize("text", ["/work/try/x", "run '/home/me/a.zarr'", "in\n/tmp/x/out"])
def test_a_folder_of_a_machine_is_seen(text: str) -> None:
    assert ABSOLUTE.search(text)


@pytest.mark.parametrize(
    "text", ["s3://b/c/d", "a/b/c", "1/2", "http://h:1/a/b", "../shared/data/x"]
)
def test_other_places_may_be_named(text: str) -> None:
    assert not ABSOLUTE.search(text)
