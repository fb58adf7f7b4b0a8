"""What a seed draws: the same every time, every kind as first, nothing that cannot be."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.plan import KINDS, NETWORK_ONLY, SIMPLE, Choice, draw

SEEDS = st.integers(0, 10**6)


@given(SEEDS, st.booleans())
def test_a_seed_draws_the_same_every_time(seed: int, real: bool) -> None:
    assert draw(seed, Choice(), real=real) == draw(seed, Choice(), real=real)


def test_seeds_differ() -> None:
    drawn = {draw(seed, Choice(("kill driver",))).faults[-1].at for seed in range(50)}
    assert len(drawn) == 50


def test_every_kind_has_its_share() -> None:
    named = Counter(draw(seed, Choice()).faults[-1].kind for seed in range(10 * len(KINDS)))
    assert named == dict.fromkeys(KINDS, 10)


@given(SEEDS, st.booleans())
def test_a_scenario_is_possible(seed: int, real: bool) -> None:
    scenario = draw(seed, Choice(), real=real)
    kinds = [fault.kind for fault in scenario.faults]
    assert set(kinds[:-1]) <= set(SIMPLE)
    assert scenario.store == "bucket" or kinds[-1] != "store faults"
    assert scenario.store == "disk" or kinds[-1] != "full disk"
    assert scenario.cluster == "own" or kinds[-1] != "clock skew"
    assert scenario.cluster == "shared" or kinds[-1] not in ("kill scheduler", "paused driver")
    assert scenario.work != "copy" or kinds[-1] not in NETWORK_ONLY
    assert (scenario.work == "bundled") == real
    assert all(0 < fault.at < 1 and fault.nth >= 1 for fault in scenario.faults)


def test_only_what_may_be_drawn_is_drawn() -> None:
    choice = Choice(("kill driver", "lost objects"), ("bucket",))
    scenarios = [draw(seed, choice) for seed in range(100)]
    assert {fault.kind for s in scenarios for fault in s.faults} == set(choice.kinds)
    assert {s.store for s in scenarios} == {"bucket"}
    with pytest.raises(ValueError, match="must not be empty"):
        Choice(())


def test_all_that_varies_varies() -> None:
    scenarios = [draw(seed, Choice()) for seed in range(400)]
    assert {s.work for s in scenarios} == {"tiny", "copy"}
    assert {s.store for s in scenarios} == {"disk", "bucket"}
    assert {s.cluster for s in scenarios} == {"own", "shared"}
    assert {len(s.faults) for s in scenarios} == {1, 2, 3}
    assert {s.region for s in scenarios} == {1, 2}
