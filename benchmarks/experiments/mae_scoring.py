"""Class maps before and after repair, and its competitors, against the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from mae_maps import THRESHOLD, Maps, Networks
from mae_measures import (
    PLAUSIBILITY,
    Areas,
    detector,
    dice_rows,
    fill_by_neighbours,
    gain,
    harm,
    interval,
    mean_foreground,
    micro,
    plausibility,
    show_dice,
    smooth_labels,
    uncertain,
)

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
TV_WEIGHTS = (0.1, 0.3, 1.0)

#: Thresholds at which the joined repair is tried, and weights of the autoencoder's prior.
JOINED_THRESHOLDS = (0.2, 0.3, 0.4)
WEIGHTS = (0.25, 0.5, 1.0)


KeyT = TypeVar("KeyT", float, str)


@dataclass(frozen=True)
class Case:
    """Some planes of a run, and the truth.

    Parameters
    ----------
    maps : Maps
        Of a stack.
    planes : range
        Those that count.
    truths : list of ndarray of shape (Y, X), uint8
        Class maps of these planes.
    classes : tuple of str
        Names.
    smallest : int or None
        Pixels of the smallest object whose plausibility counts; None where classes are not those
        of mitochondria.
    """

    maps: Maps
    planes: range
    truths: list[np.ndarray]
    classes: tuple[str, ...]
    smallest: int | None

    @property
    def initial(self) -> list[np.ndarray]:
        """Class maps of the ensemble."""
        return [self.maps.initial[p] for p in self.planes]

    @property
    def entropy(self) -> list[np.ndarray]:
        """255 times the entropy."""
        return [self.maps.entropy[p] for p in self.planes]

    def areas(self, threshold: float) -> list[Areas]:
        """Uncertain patches."""
        return [uncertain(one, threshold) for one in self.entropy]

    def counts(self, found: list[np.ndarray], areas: list[Areas] | None = None) -> np.ndarray:
        """Count pixels by scene, inside areas where they are given."""
        wheres = [None] * len(found) if areas is None else [area.where for area in areas]
        pairs = list(zip(found, self.truths, strict=True))
        return dice_rows(pairs, len(self.classes), wheres)

    def plausibility(self, found: list[np.ndarray]) -> dict[str, Any]:
        """Measures of table 2, where the classes have them."""
        return {} if self.smallest is None else plausibility(found, self.smallest)


def choose(case: Case, networks: Networks) -> dict[str, Any]:
    """Sweep threshold and smoothing on validation planes: what has the best mean Dice there."""
    swept: dict[float, dict[str, Any]] = {}
    smooth: dict[float, dict[str, Any]] = {}
    joined: dict[str, dict[str, Any]] = {}
    for threshold in THRESHOLDS:
        repaired, left = networks.repair(case.maps, case.planes, threshold)
        areas = case.areas(threshold)
        rows, before, after = (
            case.counts(list(repaired)),
            case.counts(case.initial, areas), case.counts(list(repaired), areas),
        )  # fmt: skip
        swept[threshold] = {
            "mean_foreground": interval(rows, mean_foreground), "micro": interval(rows, micro),
            "uncertain": round(float(np.mean([a.where.mean() for a in areas])), 5),
            "inside_before": interval(before, micro), "inside_after": interval(after, micro),
            "windows_left": left, "plausibility": case.plausibility(list(repaired)),
        }  # fmt: skip
    for weight in TV_WEIGHTS:
        labels = [smooth_labels(case.maps.mean(p), weight) for p in case.planes]
        smooth[weight] = {"mean_foreground": interval(case.counts(labels), mean_foreground)}
    for threshold in JOINED_THRESHOLDS:
        for weight in WEIGHTS:
            found, _ = networks.repair(case.maps, case.planes, threshold, weight)
            after = case.counts(list(found), case.areas(threshold))
            joined[f"{threshold}, {weight}"] = {
                "mean_foreground": interval(case.counts(list(found)), mean_foreground),
                "inside_after": interval(after, micro),
            }
    return {
        "planes": len(case.planes),
        "initial": show_dice(case.counts(case.initial), case.classes),
        "control_plausibility": case.plausibility(case.truths),
        "initial_plausibility": case.plausibility(case.initial),
        "threshold": swept, "smoothing": smooth, "joined": joined,
        "chosen": {
            "threshold": _best(swept), "smoothing": _best(smooth), "joined": _best(joined),
            "joined at 0.4": _best({k: v for k, v in joined.items() if k.startswith("0.4")}),
        },
    }  # fmt: skip


def score(case: Case, networks: Networks, chosen: dict[str, Any]) -> dict[str, Any]:
    """Everything about some planes: table 2, Dice, harm, entropy as a detector."""
    areas = case.areas(THRESHOLD)
    filled = _filled(case, networks, areas)
    found = (
        {"initial": case.initial}
        | filled
        | {
            "mae, chosen": list(networks.repair(case.maps, case.planes, chosen["threshold"])[0]),
            "smoothing": [
                smooth_labels(case.maps.mean(p), chosen["smoothing"]) for p in case.planes
            ],
        }
    )
    joined_areas = {}
    for title, key in (("joined", "joined at 0.4"), ("joined, chosen", "joined")):
        threshold, weight = (float(word) for word in chosen[key].split(", "))
        maps, _ = networks.repair(case.maps, case.planes, threshold, weight)
        found[title] = list(maps)
        joined_areas[title] = case.areas(threshold)
    wrong = [one != true for one, true in zip(case.initial, case.truths, strict=True)]
    table = {"control": case.truths} | found
    chosen_areas = case.areas(chosen["threshold"])
    return {
        "planes": len(case.planes),
        "table_2": {title: case.plausibility(maps) for title, maps in table.items()},
        "dice": {t: show_dice(case.counts(maps), case.classes) for t, maps in found.items()},
        **{f"inside, {title}": inside(case, maps, areas) for title, maps in filled.items()},
        "inside, mae, chosen": inside(case, found["mae, chosen"], chosen_areas),
        **{f"inside, {t}": inside(case, found[t], where) for t, where in joined_areas.items()},
        "detector": detector(case.entropy, wrong),
    }


def _filled(case: Case, networks: Networks, areas: list[Areas]) -> dict[str, list[np.ndarray]]:
    """Fill the same uncertain patches by each competitor that knows the class map alone."""
    pairs = list(zip(case.initial, areas, strict=True))
    count, other = len(case.classes), networks.autoencoder
    found = {
        "mae": [case.maps.repaired[p] for p in case.planes],
        "neighbours": [fill_by_neighbours(one, area.where, count) for one, area in pairs],
    }
    if other is not None:
        found["cnn-ae"] = [other.fill(one, area.where) for one, area in pairs]
    return found


def inside(case: Case, repaired: list[np.ndarray], areas: list[Areas]) -> dict[str, Any]:
    """Dice inside the uncertain patches before and after, and how often repair did harm."""
    before, after = case.counts(case.initial, areas), case.counts(repaired, areas)
    triples = list(zip(case.initial, repaired, case.truths, strict=True))
    return {
        "share": round(float(np.mean([area.where.mean() for area in areas])), 5),
        "before": show_dice(before, case.classes), "after": show_dice(after, case.classes),
        "gain": gain(before, after), "harm": harm(areas, triples),
    }  # fmt: skip


def nearer(table: dict[str, dict[str, list[float | None]]], title: str) -> dict[str, bool | None]:
    """Whether each measure of table 2 moved towards the control."""
    found: dict[str, bool | None] = {}
    for name in PLAUSIBILITY:
        aim, before, after = (table[row][name][0] for row in ("control", "initial", title))
        if aim is None or before is None or after is None:
            found[name] = None
        else:
            found[name] = abs(after - aim) < abs(before - aim)
    return found


def _best(tried: dict[KeyT, dict[str, Any]]) -> KeyT:
    return max(tried, key=lambda key: tried[key]["mean_foreground"][0] or 0)
