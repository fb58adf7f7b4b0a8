"""Labels are scored against truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.evaluation import Evaluation
    from engine.evaluation.labels import LabelArray


def evaluate(
    pred: str | Path | LabelArray,
    truth: str | Path | LabelArray,
    thresholds: Sequence[float] | None = None,
) -> Evaluation:
    """Score labels against truth: F1 and more over IoU, Dice, pixel IoU, HD95.

    Parameters
    ----------
    pred, truth : str, Path or array of integers (..., Y, X)
        A result of `run`, an OME-Zarr label image, a label TIFF or PNG; or arrays, also such as
        lie on disk. Both must be paths or both arrays.
    thresholds : sequence of float or None
        IoU from which an object counts as found, in [0.5, 1]; 0.5, 0.55, … 0.95 where None.

    Returns
    -------
    Evaluation
        `as_json` gives it as a list of objects, one for each threshold.

    Raises
    ------
    InputError
        If the labels cannot be read or do not fit each other.
    """
    from engine.evaluation import evaluate as evaluate_arrays
    from engine.evaluation import evaluate_paths
    from engine.evaluation.scoring import THRESHOLDS

    wanted = THRESHOLDS if thresholds is None else thresholds
    if isinstance(pred, str | Path) and isinstance(truth, str | Path):
        return evaluate_paths(str(pred), str(truth), wanted)
    if isinstance(pred, str | Path) or isinstance(truth, str | Path):
        raise InputError(
            where="evaluate",
            expected="two paths or two arrays",
            found=f"{type(pred).__name__} and {type(truth).__name__}",
            remedy="Open the labels of a result with engine.open_result.",
        )
    return evaluate_arrays(pred, truth, wanted)
