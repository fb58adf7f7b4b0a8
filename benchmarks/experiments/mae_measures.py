"""Measures of class maps against the truth, with 95 % intervals over scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from resampling import drawn_weights, limits
from scipy import ndimage
from skimage.restoration import denoise_tv_chambolle

from engine.evaluation.classes import ClassCounts, ErrorCounts, count_classes, count_errors
from engine.evaluation.plausibility import measure_plausibility
from engine.methods.entropy import uncertain_patches

PATCH = 4
RESAMPLES = 1000

#: The measures of table 2, in its order.
PLAUSIBILITY = (
    "end_points", "cycles", "boundary_to_area", "cristae_ratio", "background_ratio",
)  # fmt: skip

#: Standard deviation of the neighbourhood that votes on a pixel, pixels.
_REACH = 4.0

_EIGHT = np.ones((3, 3), int)


def interval(
    counts: np.ndarray, measure: Callable[[np.ndarray], float | None]
) -> list[float | None]:
    """Measure of the sums over scenes, and its 95 % interval by resampling scenes.

    Parameters
    ----------
    counts : ndarray
        Scenes first.
    measure : callable
        Of the sum over scenes; None where there is none.

    Returns
    -------
    list of float or None
        Value, 2.5 % and 97.5 % percentile; without an interval for a single scene.
    """
    value = measure(counts.sum(axis=0))
    scenes = len(counts)
    if value is None or scenes < 2:
        return [_rounded(value), None, None]
    weights = drawn_weights(scenes, RESAMPLES)
    several = [measure(np.tensordot(w, counts, axes=1)) for w in weights]
    low, high = limits([v for v in several if v is not None])
    return [_rounded(value), _rounded(low), _rounded(high)]


def ratio(sums: np.ndarray) -> float | None:
    """First over second; None where the second is 0."""
    return float(sums[0] / sums[1]) if sums[1] else None


@dataclass(frozen=True)
class Areas:
    """The uncertain patches of a scene.

    Parameters
    ----------
    where : ndarray of shape (Y, X), bool
        Their pixels.
    groups : ndarray of shape (Y, X), int32
        8-connected groups of them, from 1; 0 elsewhere.
    """

    where: np.ndarray
    groups: np.ndarray


def uncertain(entropy: np.ndarray, threshold: float) -> Areas:
    """Find the uncertain patches of an entropy map (Y, X) uint8, as the stage does."""
    height, width = entropy.shape
    pad = [(0, -height % PATCH), (0, -width % PATCH)]
    patches = uncertain_patches(np.pad(entropy, pad, mode="symmetric"), threshold, PATCH)
    groups, _ = ndimage.label(patches, _EIGHT)
    wide = groups.repeat(PATCH, axis=0).repeat(PATCH, axis=1)[:height, :width]
    return Areas(wide > 0, wide)


def dice_rows(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]],
    n_classes: int,
    wheres: Sequence[np.ndarray | None],
) -> np.ndarray:
    """Count pixels of (found, true) maps: (scenes, 3, C), both, predicted and true."""
    rows = []
    for (found, true), where in zip(pairs, wheres, strict=True):
        counts = count_classes(found, true, n_classes, where)
        rows.append([counts.both, counts.predicted, counts.true])
    return np.array(rows)


def micro(sums: np.ndarray) -> float | None:
    """Dice over all classes pooled."""
    return _counts(sums).micro


def mean_foreground(sums: np.ndarray) -> float | None:
    """Mean Dice over the classes above 0."""
    return _counts(sums).mean_foreground


def of_class(index: int) -> Callable[[np.ndarray], float | None]:
    """Dice of one class."""
    return lambda sums: _counts(sums).dice[index]


def show_dice(rows: np.ndarray, classes: Sequence[str]) -> dict[str, list[float | None]]:
    """Dice, pooled and of each class, with intervals."""
    named = {name: interval(rows, of_class(k)) for k, name in enumerate(classes)}
    return {
        "micro": interval(rows, micro), "mean_foreground": interval(rows, mean_foreground),
    } | named  # fmt: skip


def gain(before: np.ndarray, after: np.ndarray) -> list[float | None]:
    """Difference in pooled Dice, paired over scenes."""

    def difference(sums: np.ndarray) -> float | None:
        one, other = (_counts(part).micro for part in sums)
        return None if one is None or other is None else other - one

    return interval(np.stack([before, after], axis=1), difference)


def detector(
    entropies: Sequence[np.ndarray], wrongs: Sequence[np.ndarray]
) -> dict[str, list[float | None]]:
    """Entropy as a detector of wrong pixels."""
    rows = []
    for entropy, wrong in zip(entropies, wrongs, strict=True):
        found = count_errors(entropy, wrong)
        rows.append([found.wrong, found.right])
    every = np.array(rows)

    def lift(sums: np.ndarray) -> float | None:
        found = _errors(sums)
        return found.auprc / found.base_rate if found.auprc and found.base_rate else None

    return {
        "auprc": interval(every, lambda sums: _errors(sums).auprc),
        "base_rate": interval(every, lambda sums: _errors(sums).base_rate),
        "times_base_rate": interval(every, lift),
    }


def harm(
    areas: Sequence[Areas], triples: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> dict[str, list[float | None]]:
    """How often repair helped, harmed or did neither, in right pixels.

    Parameters
    ----------
    areas : sequence of Areas
        What was uncertain, by scene.
    triples : sequence of tuple
        Maps before, after, and the truth, by scene.

    Returns
    -------
    dict
        Shares of groups and of single patches, and pixels gained a repaired one.
    """
    rows = []
    for area, (before, after, true) in zip(areas, triples, strict=True):
        better = (after == true).astype(np.int64) - (before == true)
        count = int(area.groups.max(initial=0))
        sums = ndimage.sum_labels(better, area.groups, np.arange(1, count + 1))
        single = _by_patch(better)[_by_patch(area.where.astype(np.int64)) > 0]
        pixels = area.where.sum(), (before != after).sum(), better.sum()
        rows.append([
            *(int(n) for s in (sums, single) for n in ((s < 0).sum(), (s > 0).sum(), len(s))),
            *(int(n) for n in pixels),
        ])  # fmt: skip
    every = np.array(rows)
    return {
        "groups": [int(every[:, 2].sum())],
        "groups_harmed": interval(every[:, [0, 2]], ratio),
        "groups_helped": interval(every[:, [1, 2]], ratio),
        "patches": [int(every[:, 5].sum())],
        "patches_harmed": interval(every[:, [3, 5]], ratio),
        "patches_helped": interval(every[:, [4, 5]], ratio),
        "uncertain_pixels": [int(every[:, 6].sum())],
        "changed_of_uncertain": interval(every[:, [7, 6]], ratio),
        "right_pixels_gained_of_uncertain": interval(every[:, [8, 6]], ratio),
    }


def plausibility(maps: Sequence[np.ndarray], smallest: int) -> dict[str, list[float | None]]:
    """Measures of table 2 over all objects, with intervals over scenes."""
    rows = []
    for one in maps:
        objects = measure_plausibility(one, smallest=smallest).objects
        values = [[getattr(o, name) for o in objects] for name in PLAUSIBILITY]
        known = [[v for v in column if v is not None] for column in values]
        rows.append([[sum(column), len(column)] for column in known])
    every = np.array(rows, float)
    found: dict[str, list[float | None]] = {"objects": [int(every[:, 0, 1].sum())]}
    return found | {n: interval(every[:, k], ratio) for k, n in enumerate(PLAUSIBILITY)}


def fill_by_neighbours(classes: np.ndarray, doubtful: np.ndarray, n_classes: int) -> np.ndarray:
    """Fill doubtful pixels by a vote of trusted ones around, the nearer the heavier: a competitor.

    Parameters
    ----------
    classes : ndarray of shape (Y, X), uint8
        Class map.
    doubtful : ndarray of shape (Y, X), bool
        Pixels to fill.
    n_classes : int
        Classes.

    Returns
    -------
    ndarray of shape (Y, X), uint8
        Pixels far from any trusted one stay.
    """
    votes = np.stack([
        ndimage.gaussian_filter(((classes == k) & ~doubtful).astype(np.float32), _REACH)
        for k in range(n_classes)
    ])  # fmt: skip
    known = doubtful & (votes.sum(axis=0) > 0)
    return np.where(known, votes.argmax(axis=0), classes).astype(np.uint8)


def smooth_labels(probability: np.ndarray, weight: float) -> np.ndarray:
    """Classes with short borders: total variation of the probabilities (C, Y, X) is punished.

    The convex relative of a conditional random field with Potts terms between neighbours, by
    scikit-image (Chambolle 2004); like the source's dense field it changes any pixel.
    """
    smooth = denoise_tv_chambolle(probability, weight=weight, channel_axis=0)
    labels: np.ndarray = smooth.argmax(axis=0).astype(np.uint8)
    return labels


def _by_patch(values: np.ndarray) -> np.ndarray:
    """Add up over patches; the far edge is filled up with zeros."""
    padded = np.pad(values, [(0, -n % PATCH) for n in values.shape])
    rows, columns = (n // PATCH for n in padded.shape)
    sums: np.ndarray = padded.reshape(rows, PATCH, columns, PATCH).sum(axis=(1, 3))
    return sums


def _counts(sums: np.ndarray) -> ClassCounts:
    both, predicted, true = (tuple(int(n) for n in row) for row in sums)
    return ClassCounts(both, predicted, true)


def _errors(sums: np.ndarray) -> ErrorCounts:
    wrong, right = (tuple(int(n) for n in row) for row in sums)
    return ErrorCounts(wrong, right)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 5)
