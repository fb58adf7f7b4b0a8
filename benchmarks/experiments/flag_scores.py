"""What flags are worth over many images: precision, recall, average precision, intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from resampling import drawn, limits

from engine.methods.flag_extras import share_of
from engine.methods.flag_votes import votes_needed
from engine.training.flags.searching import GOOD_F1, average_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.training.flags.judging import Counts, Judged, Voted
    from engine.training.flags.options import FlagSetting

#: As in the recipe.
FN_MAX_COVERED = 0.5

#: Draws of images, with replacement, for the 95 % intervals.
DRAWS = 1000

Values = dict[str, float]


def vote(judged: Sequence[Judged], setting: FlagSetting) -> list[Voted]:
    """Count the votes of all images."""
    return [j.vote(setting.tau, share_of(setting.merge), FN_MAX_COVERED) for j in judged]


def scores(voted: Sequence[Voted], min_votes: float) -> dict[str, Any]:
    """Score the flags of images, with 95 % intervals over images.

    Parameters
    ----------
    voted : sequence of Voted
        One per image.
    min_votes : float
        Share of the variants.

    Returns
    -------
    dict
        Counts of all images and of those above and below F1 0.95, and `_ratios` with intervals.
    """
    needed = votes_needed(voted[0].judged.variants, min_votes)
    counts = [v.counts(needed) for v in voted]
    good = [c for c in counts if c.f1 >= GOOD_F1]
    poor = [c for c in counts if c.f1 < GOOD_F1]
    return {
        "needed": needed,
        "all": _sums(counts),
        "above_0.95": _sums(good) | {"images": len(good)},
        "below_0.95": _sums(poor) | {"images": len(poor)},
        "f1_before_deleted_added": [
            round(float(np.mean([getattr(c, name) for c in poor])), 4)
            for name in ("f1", "f1_deleted", "f1_added")
        ],
        "ratios": _intervals(counts, _ratios) | _intervals([_parts(v) for v in voted], _areas),
    }


def curve(voted: Sequence[Voted]) -> list[dict[str, float | None]]:
    """Precision and recall of both kinds of flags at every number of votes."""
    rows: list[dict[str, float | None]] = []
    for needed in range(1, voted[0].judged.variants + 1):
        counts = [v.counts(needed) for v in voted]
        rows.append({"needed": needed} | {k: _number(v) for k, v in _ratios(counts).items()})
    return rows


def by_probability(judged: Sequence[Judged], scores: Sequence[np.ndarray]) -> Values:
    """Average precision of the plainest flag: objects by falling doubt of the network itself."""
    right = np.concatenate([j.partner == 0 for j in judged])
    rank = np.argsort(np.argsort(-np.concatenate(list(scores)), kind="stable")) + 1
    area = average_precision(rank, right)
    return {"fp_average_precision": round(area, 4), "fp_share": round(float(right.mean()), 4)}


def claim(rows: dict[str, Any], setting: str, asked: float) -> dict[str, Any] | None:
    """Whether defenses are as precise as asked, and more so than each noise beyond chance.

    Parameters
    ----------
    rows : dict
        By kind: what each of its settings is worth, as `scores` says.
    setting : str
        Name of the settings that are compared; a kind without them is left out.
    asked : float
        Least precision.

    Returns
    -------
    dict or None
        ``beyond`` tells of each noise whether the whole interval of the defenses lies above its
        own, or null where it flags nothing. None where the defenses flag nothing.
    """
    found = {k: row[setting]["ratios"]["precision"] for k, row in rows.items() if setting in row}
    defenses = found.pop("pd", [None])
    if None in defenses:
        return None
    return {
        "precision": defenses,
        "as_asked": defenses[0] >= asked,
        "beyond": {k: None if None in v else defenses[1] > v[2] for k, v in found.items()},
    }


def _sums(counts: Sequence[Counts]) -> dict[str, int]:
    names = ("fp_right", "fp_wrong", "fn_right", "fn_wrong", "fp_all", "fn_found", "fn_all")
    return {name: sum(getattr(c, name) for c in counts) for name in names}


def _ratios(counts: Sequence[Counts]) -> Values:
    """Precision and recall of all flags and of each kind."""
    s = _sums(counts)
    right = s["fp_right"] + s["fn_right"]
    return {
        "precision": _over(right, right + s["fp_wrong"] + s["fn_wrong"]),
        "fp_precision": _over(s["fp_right"], s["fp_right"] + s["fp_wrong"]),
        "fn_precision": _over(s["fn_right"], s["fn_right"] + s["fn_wrong"]),
        "fp_recall": _over(s["fp_right"], s["fp_all"]),
        "fn_recall": _over(s["fn_found"], s["fn_all"]),
    }


def _parts(voted: Voted) -> tuple[np.ndarray, ...]:
    """Votes and truth of one image: of its objects, of its candidates, and what is missed."""
    missed = np.array([voted.judged.missed])
    return voted.against, voted.judged.partner == 0, voted.votes, _first_hits(voted), missed


def _areas(parts: Sequence[tuple[np.ndarray, ...]]) -> Values:
    """Average precision over the votes: of false positives, and of missed true objects.

    A second candidate of the same missed object counts as wrong.
    """
    against, invented, votes, hits, missed = (
        np.concatenate(several) for several in zip(*parts, strict=True)
    )
    share = _over(int(hits.sum()), int(missed.sum()))
    return {
        "fp_average_precision": average_precision(against, invented),
        "fn_average_precision": average_precision(votes, hits) * share,
    }


def _first_hits(voted: Voted) -> np.ndarray:
    """Candidates that are the best supported one of a missed true object: (c,) bool."""
    order = np.argsort(-voted.votes, kind="stable")
    truths, first = np.unique(voted.hit[order], return_index=True)
    hits = np.zeros(len(order), bool)
    hits[order[first[truths > 0]]] = True
    return hits


def _intervals(
    rows: Sequence[Any], measure: Callable[[Sequence[Any]], Values]
) -> dict[str, list[float | None]]:
    """Value, and its 2.5 and 97.5 percentiles over draws of rows."""
    measured = [measure([rows[k] for k in draw]) for draw in drawn(len(rows), DRAWS)]
    result: dict[str, list[float | None]] = {}
    for name, value in measure(rows).items():
        several = np.array([m[name] for m in measured])
        result[name] = [_number(v) for v in (value, *limits(several[~np.isnan(several)]))]
    return result


def _number(value: float) -> float | None:
    """Four digits, or null in JSON where there is no number."""
    return None if np.isnan(value) else round(float(value), 4)


def _over(part: int, whole: int) -> float:
    """Ratio; no number where there is nothing to divide by."""
    return part / whole if whole else float("nan")
