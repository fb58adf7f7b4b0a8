"""What is done to a run: drawn from a seed alone, the same every time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal[
    "kill worker",
    "kill driver",
    "stop driver",
    "kill scheduler",
    "worker dies writing",
    "driver dies writing",
    "tasks twice",
    "two drivers",
    "paused driver",
    "clock skew",
    "full disk",
    "store faults",
    "lost objects",
    "damaged objects",
    "lost records",
    "damaged records",
    "changed recipe",
    "changed weights",
    "changed pixels",
    "other image",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

#: Faults that need nothing special; they may come before any other.
SIMPLE: tuple[Kind, ...] = (
    "kill worker",
    "kill driver",
    "stop driver",
    "worker dies writing",
    "driver dies writing",
    "tasks twice",
)

#: Which need a network: copying has no weights, no settings and freezes no statistics.
NETWORK_ONLY: tuple[Kind, ...] = ("changed recipe", "changed weights", "other image")

Work = Literal["tiny", "copy", "bundled"]
Store = Literal["disk", "bucket"]
Cluster = Literal["own", "shared"]


@dataclass(frozen=True)
class Fault:
    """One fault, with the chances that decide its details.

    Parameters
    ----------
    kind : str
        Which.
    at : float
        Instant, as a share of the time that the run takes when nothing happens.
    nth : int
        Which effect on the store, where the fault waits for one.
    dice : int
        Seed of all else that is left to chance.
    """

    kind: Kind
    at: float
    nth: int
    dice: int

    def rng(self) -> random.Random:
        """Numbers for the details; the same at each call."""
        return random.Random(self.dice)


@dataclass(frozen=True)
class Scenario:
    """What one seed does.

    Parameters
    ----------
    seed : int
        The seed.
    work : {"tiny", "copy", "bundled"}
        A tiny network through all passes, a copy, or the bundled network on real nuclei.
    store : {"disk", "bucket"}
        Where image and result lie.
    cluster : {"own", "shared"}
        Workers that the driver starts itself, or a scheduler that runs already.
    region : int
        Side of regions, in shards, of the calls that come after the first fault.
    faults : tuple of Fault
        In this order; the last gives the seed its name. Each strikes a call of its own.
    """

    seed: int
    work: Work
    store: Store
    cluster: Cluster
    region: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Choice:
    """What may be drawn.

    Parameters
    ----------
    kinds : tuple of str
        Kinds of faults, each the first fault of every n-th seed.
    stores : tuple of str
        Stores.
    """

    kinds: tuple[Kind, ...] = KINDS
    stores: tuple[Store, ...] = ("disk", "bucket")

    def __post_init__(self) -> None:
        if not self.kinds or not self.stores:
            msg = f"kinds and stores must not be empty, got {self.kinds} and {self.stores}"
            raise ValueError(msg)


def draw(seed: int, choice: Choice, *, real: bool = False) -> Scenario:
    """Draw a scenario.

    Parameters
    ----------
    seed : int
        The seed.
    choice : Choice
        What may be drawn.
    real : bool
        Whether the bundled network computes.

    Examples
    --------
    >>> draw(3, Choice()) == draw(3, Choice())
    True
    >>> draw(3, Choice()).faults[-1].kind
    'kill scheduler'
    """
    rng = random.Random(seed)
    first = choice.kinds[seed % len(choice.kinds)]
    kinds = [first]
    others = [kind for kind in SIMPLE if kind in choice.kinds]
    while others and len(kinds) < 3 and rng.random() < 0.3:
        kinds.insert(0, rng.choice(others))
    work: Work = "bundled" if real else "tiny"
    if not real and first not in NETWORK_ONLY and rng.random() < 0.25:
        work = "copy"
    return Scenario(
        seed,
        work,
        _store(first, choice, rng),
        _cluster(kinds, rng),
        rng.choice((1, 1, 2)),
        tuple(_fault(kind, place, rng) for place, kind in enumerate(kinds)),
    )


def _store(first: Kind, choice: Choice, rng: random.Random) -> Store:
    if first == "full disk":
        return "disk"
    if first == "store faults":
        return "bucket"
    weights = [3 if store == "disk" else 1 for store in choice.stores]
    return rng.choices(choice.stores, weights)[0]


def _cluster(kinds: list[Kind], rng: random.Random) -> Cluster:
    if "clock skew" in kinds:
        # The clocks of workers are wrong as well, each in its own way.
        return "own"
    if "kill scheduler" in kinds or "paused driver" in kinds:
        return "shared"
    return "own" if rng.random() < 0.15 else "shared"


def _fault(kind: Kind, place: int, rng: random.Random) -> Fault:
    # What is left of a run that was interrupted before takes less time.
    at = rng.uniform(0.05, 0.9) / (place + 1)
    return Fault(kind, at, rng.randint(1, 20), rng.getrandbits(32))
