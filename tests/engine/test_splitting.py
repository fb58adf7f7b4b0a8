"""What is set apart for validation: files at random, of one stack the last slices."""

import pytest

from engine.training.splitting import set_apart


@pytest.mark.parametrize("seed", range(20))
def test_slices_of_one_stack_are_cut_once_and_never_at_random(seed: int) -> None:
    apart = set_apart(["s"] * 12, 0.25, seed)
    assert apart == (False,) * 9 + (True,) * 3


@pytest.mark.parametrize("seed", range(20))
def test_no_file_stands_on_both_sides(seed: int) -> None:
    stacks = [
        name for name, slices in (("a", 4), ("b", 1), ("c", 3), ("d", 2)) for _ in range(slices)
    ]
    apart = set_apart(stacks, 0.5, seed)
    sides = {name: {a for s, a in zip(stacks, apart, strict=True) if s == name} for name in stacks}
    assert all(len(side) == 1 for side in sides.values())
    assert sum(True in side for side in sides.values()) == 2


def test_files_are_chosen_by_the_seed() -> None:
    found = {set_apart(list("abcdef"), 0.2, seed) for seed in range(20)}
    assert len(found) > 1
    assert all(sum(apart) == 1 for apart in found)


@pytest.mark.parametrize(("fraction", "count"), [(0.01, 1), (0.5, 2), (0.99, 3)])
@pytest.mark.parametrize("stacks", [["s"] * 4, list("abcd")])
def test_both_sides_have_some(stacks: list[str], fraction: float, count: int) -> None:
    assert sum(set_apart(stacks, fraction, 0)) == count
