"""Which images, files or slices are set apart for validation: one rule for every training."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def set_apart(stacks: Sequence[str], fraction: float, seed: int) -> tuple[bool, ...]:
    """Choose what validates: whole files at random; of a single stack the last slices.

    Parameters
    ----------
    stacks : sequence of str
        Of each item, the file or stack it belongs to; at least two items.
    fraction : float
        Share that is set apart, in (0, 1); at least one file or slice on each side.
    seed : int
        Of the random choice of files.

    Returns
    -------
    tuple of bool
        For each item, whether it validates.

    Notes
    -----
    Neighbouring slices resemble each other: chosen at random among them, validation would measure
    what the network has nearly seen, and early stop and the card's scores would flatter. So a stack
    is cut once, and slices of one file never stand on both sides where there are several files.

    Examples
    --------
    >>> set_apart(["a", "a", "a", "a"], 0.25, seed=0)
    (False, False, False, True)
    >>> set_apart(["a", "a", "b"], 0.5, seed=0)
    (True, True, False)
    """
    files = list(dict.fromkeys(stacks))
    if len(files) == 1:
        first = len(stacks) - _count(len(stacks), fraction)
        return tuple(place >= first for place in range(len(stacks)))
    order = np.random.default_rng(seed).permutation(len(files))
    chosen = {files[i] for i in order[: _count(len(files), fraction)]}
    return tuple(stack in chosen for stack in stacks)


def split(
    items: Sequence[T], stacks: Sequence[str], fraction: float, seed: int
) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """Divide items into what trains and what validates, both in their order.

    Parameters
    ----------
    items : sequence
        At least two.
    stacks, fraction, seed
        As for `set_apart`.
    """
    apart = set_apart(stacks, fraction, seed)
    train = tuple(item for item, val in zip(items, apart, strict=True) if not val)
    return train, tuple(item for item, val in zip(items, apart, strict=True) if val)


def _count(items: int, fraction: float) -> int:
    return min(max(1, round(items * fraction)), items - 1)
