"""What a search of the settings of flags tries, and on which images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from engine.errors import RecipeError

#: What is tried where nothing else is asked: the ranges of the paper, and shares of votes.
STRENGTHS = (0.3, 0.5, 0.7, 0.9)
TAUS = (3.0, 5.0, 7.0, 10.0, 12.0, 15.0, 20.0, 25.0, 35.0)
MERGES = (1.0, 1.35, 1.7, 2.0, 2.5, 3.0)
MIN_VOTES = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class FlagSetting:
    """One point of the search.

    Parameters
    ----------
    strength, tau, merge, min_votes : float
        X, tau, R and the share of votes, as in a recipe's ``flags``.
    min_votes_missing : float or None
        The share for what only defenses show; as `min_votes` where None.
    """

    strength: float
    tau: float
    merge: float
    min_votes: float
    min_votes_missing: float | None = None

    def overrides(self) -> dict[str, float | None]:
        """Name the recipe's settings as ``--set`` takes them."""
        return {f"flags.{name}": getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class FlagOptions:
    """What is searched, and on which images.

    Parameters
    ----------
    model, bank : str
        Model and defenses: bundled names or paths.
    images, labels : Path
        Folders of PNG or TIFF files with the same names: validation images, never test images.
    strengths : tuple of float
        X, in [0, 1]; each costs a pass of the network over all images and defenses.
    taus : tuple of float
        Largest distances, at least 0.
    merges : tuple of float
        R, at least 0.
    min_votes : tuple of float
        Shares of the defenses, in [0, 1]; 0 means one vote.
    min_votes_missing : tuple of float, optional
        The same for what only defenses show; where None, as each of `min_votes` in a grid, and
        apart from it where trials are asked.
    trials : int, optional
        Settings that a sampler proposes between the least and the largest of each list but that
        of strengths; where None, all combinations are tried.
    seed : int
        Of the sampler.
    fn_max_covered : float
        As in the recipe.
    device : str
        auto, cpu or cuda.

    Raises
    ------
    RecipeError
        If a list is empty or a value out of its range.
    """

    model: str
    bank: str
    images: Path
    labels: Path
    strengths: tuple[float, ...] = STRENGTHS
    taus: tuple[float, ...] = TAUS
    merges: tuple[float, ...] = MERGES
    min_votes: tuple[float, ...] = MIN_VOTES
    min_votes_missing: tuple[float, ...] | None = None
    trials: int | None = None
    seed: int = 0
    fn_max_covered: float = 0.5
    device: str = "auto"

    def __post_init__(self) -> None:
        for name, most in (
            ("strengths", 1), ("taus", math.inf), ("merges", math.inf), ("min_votes", 1),
            ("min_votes_missing", 1),
        ):  # fmt: skip
            values = getattr(self, name)
            if values is None:
                continue
            if not values or not all(0 <= v <= most and v < math.inf for v in values):
                raise RecipeError(
                    where=name.replace("_", " "),
                    expected="one or more numbers " + ("in [0, 1]" if most == 1 else ">= 0"),
                    found=", ".join(map(str, values)) or "none",
                    remedy="Write them with commas between.",
                )
        for name, value, least in (("trials", self.trials, 1), ("seed", self.seed, 0)):
            if value is not None and value < least:
                raise RecipeError(
                    where=name, expected=f">= {least}", found=str(value), remedy="Correct it."
                )
