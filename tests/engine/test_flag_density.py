"""The density of flags is laid out by the distance to lines as it says."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.methods.flag_votes import Votes
from engine.methods.starconvex import StarObjects
from engine.stages.flags import Flagged

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("flag_density")


def test_the_nearest_line_is_on_either_side_and_axis(script: Any) -> None:
    points = np.array([[64, 30], [63, 30], [100, 130], [96, 96], [30, 127]])
    assert script.distance(points, 64).tolist() == [0, 1, 2, 32, 1]


def test_votes_near_over_those_elsewhere(script: Any) -> None:
    near = np.arange(400) % 2 == 0
    found, low, high = script.ratio(np.where(near, 0.3, 0.1), near)
    assert found == pytest.approx(3)
    assert low == pytest.approx(3)
    assert high == pytest.approx(3)
    few = np.zeros(400)
    few[0] = 1
    assert script.ratio(few, near) is None


def test_objects_near_the_edge_of_an_image_are_left_out(script: Any) -> None:
    points = np.array([[65, 90], [80, 90], [200, 200], [64, 10]])
    objects = StarObjects(points, np.ones(4, np.float32), np.ones((4, 32), np.float32))
    votes = Votes(np.array([4, 0, 2, 4]), np.full(4, 4), np.zeros(4, np.float32))
    suspect = np.array([True, False, False, True])
    some = objects.take(np.array([1]))
    flagged = Flagged(objects, votes, suspect, some, np.ones(1), np.ones(1))
    edge = np.zeros((256, 256), bool)
    edge[64, 10] = True
    result = script.density(flagged, edge, 4)
    assert (result["objects"], result["suspects"], result["missing"]) == (3, 1, 1)
    first = result["blocks"]["rows"][0]
    assert (first["objects"], first["votes"], first["suspects"]) == (1, 100, 100)
    assert sum(row["objects"] for row in result["fields"]["rows"]) == 3
    assert sum(row["missing"] * row["objects"] for row in result["blocks"]["rows"]) == 100
