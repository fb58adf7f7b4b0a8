"""Settings of flags chosen on val: by what heeding them does to F1, and by their precision."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
from flag_scores import vote

from engine.methods.flag_votes import votes_needed
from engine.training.flags.options import MERGES, MIN_VOTES, TAUS, FlagSetting
from engine.training.flags.searching import GOOD_F1

if TYPE_CHECKING:
    from engine.training.flags.judging import Judged

#: Precision that the issue asks for.
PRECISION = 0.73


@dataclass(frozen=True)
class Tuned:
    """What was chosen on val, and what it is worth there.

    Parameters
    ----------
    tuned : FlagSetting
        The first with the highest objective of `tilewright train flags`.
    precise : FlagSetting or None
        The one with the most right flags among those whose precision is at least `PRECISION`.
    values : dict
        Of val: mean F1 below 0.95 before, the objective, right and wrong flags of `precise`.
    """

    tuned: FlagSetting
    precise: FlagSetting | None
    values: dict[str, float]


def tune(by_strength: dict[float, list[Judged]]) -> Tuned:
    """Try every combination of settings on the images of val."""
    best: FlagSetting | None = None
    precise: FlagSetting | None = None
    values: dict[str, float] = {"objective": -1, "right": 0, "wrong": 0}
    for (x, judged), tau, merge in product(by_strength.items(), TAUS, MERGES):
        voted = vote(judged, FlagSetting(x, tau, merge, 0))
        for share in MIN_VOTES:
            counts = [v.counts(votes_needed(judged[0].variants, share)) for v in voted]
            poor = [c for c in counts if c.f1 < GOOD_F1]
            objective = float(np.mean([(c.f1_deleted + c.f1_added) / 2 for c in poor]))
            if objective > values["objective"]:
                best = FlagSetting(x, tau, merge, share)
                values["objective"] = objective
                values["f1_before"] = float(np.mean([c.f1 for c in poor]))
            right = sum(c.fp_right + c.fn_right for c in counts)
            wrong = sum(c.fp_wrong + c.fn_wrong for c in counts)
            if right > values["right"] and right >= PRECISION * (right + wrong):
                precise = FlagSetting(x, tau, merge, share)
                values |= {"right": right, "wrong": wrong}
    if best is None:
        raise RuntimeError("there is no setting to choose")
    return Tuned(best, precise, {name: round(value, 4) for name, value in values.items()})
