"""Why flags are wrong: how good the flagged objects are, and what lies under wrong candidates."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from flag_scores import FN_MAX_COVERED

from engine.methods.flag_extras import leaders, share_of
from engine.methods.starconvex import StarObjects, render
from tiling import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.training.defenses.pieces import Piece
    from engine.training.flags.judging import Judged
    from engine.training.flags.options import FlagSetting

#: IoU between which objects are counted.
EDGES = (0.0, 0.3, 0.5, 0.8, 1.01)


def reasons(
    pieces: Sequence[Piece],
    references: Sequence[StarObjects],
    judged: Sequence[Judged],
    setting: FlagSetting,
) -> dict[str, Any]:
    """Tell flagged from unflagged objects by their IoU, and count candidates in the void.

    Parameters
    ----------
    pieces, references, judged : sequence
        Images, what the network finds in them, and that held against the truth.
    setting : FlagSetting
        One vote suffices, whatever its ``min_votes``.

    Returns
    -------
    dict
        ``objects``: rows of least and largest best IoU of a polygon with a true object, objects,
        flagged ones. ``wrong_candidates``, and those of them whose box holds no true pixel.
    """
    best, flagged, shares = [], [], []
    for piece, reference, one in zip(pieces, references, judged, strict=True):
        best += [_best_iou(reference.take(np.array([k])), piece) for k in range(len(reference))]
        flagged.append(one.missing(setting.tau).any(axis=0))
        shares += _true_shares(piece, one, setting)
    iou, hit = np.array(best), np.concatenate(flagged)
    rows = [
        [low, min(high, 1.0), int(within.sum()), int((within & hit).sum())]
        for low, high in pairwise(EDGES)
        for within in ((iou >= low) & (iou < high),)
    ]
    return {
        "setting": [setting.strength, setting.tau, setting.merge],
        "objects": rows,
        "wrong_candidates": len(shares),
        "without_a_true_pixel": sum(share == 0 for share in shares),
    }


def _best_iou(one: StarObjects, piece: Piece) -> float:
    """Largest IoU of a polygon with a true object."""
    inside = render(one, Box.of_shape(piece.labels.shape)) > 0
    areas = np.bincount(piece.labels.ravel())
    shared = np.bincount(piece.labels[inside], minlength=len(areas))
    return float((shared / (areas + inside.sum() - shared))[1:].max(initial=0))


def _true_shares(piece: Piece, one: Judged, setting: FlagSetting) -> list[float]:
    """Share of true pixels in the box of each wrong candidate."""
    extra = ~(one.extra_mutual & (one.extra_distance <= setting.tau))
    boxes = one.boxes[extra]
    heads = np.unique(leaders(boxes, share_of(setting.merge)))
    wrong = (one.covered[extra][heads] <= FN_MAX_COVERED) & (one.hit[extra][heads] == 0)
    shares = []
    for x0, y0, x1, y1 in np.maximum(boxes[heads][wrong], 0).astype(int).tolist():
        pixels = piece.labels[y0 : y1 + 1, x0 : x1 + 1] > 0
        shares.append(float(pixels.mean()) if pixels.size else 0.0)
    return shares
