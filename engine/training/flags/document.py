"""What a search of the settings of flags found, in words and numbers; and a second choice."""

from __future__ import annotations

from dataclasses import asdict, astuple
from typing import TYPE_CHECKING, Any

from engine.training.flags.options import FlagSetting
from engine.training.flags.searching import FlagRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.training.flags.searching import FlagChoice


def most_right(rows: Sequence[FlagRow], precision: float) -> FlagRow | None:
    """Find the setting that finds most among those that are right often enough.

    Parameters
    ----------
    rows : sequence of FlagRow
        Settings.
    precision : float
        Least share of all flags that are right.

    Returns
    -------
    FlagRow or None
        The first with the most right flags; None where no setting is so precise. Ours: a list to
        look at wants precision, which F1 after heeding the flags says little about.
    """
    good = [row for row in rows if row.precision >= precision > 0]
    return max(good, key=lambda row: row.fp_right + row.fn_right, default=None)


def document(choice: FlagChoice, precision: float) -> dict[str, Any]:
    """Put a choice into words and numbers for JSON or YAML.

    Parameters
    ----------
    choice : FlagChoice
        Of `search_flags`.
    precision : float
        Of ``precise``, see `most_right`.

    Returns
    -------
    dict
        ``settings`` by the names that ``--set`` takes, what they are worth, and the whole table.
    """
    best, precise = choice.best, most_right(choice.rows, precision)
    return {
        "settings": best.setting.overrides(),
        "model_sha256": choice.model_sha256,
        "bank_sha256": choice.bank_sha256,
        "images": choice.images,
        "images_below_0.95": choice.counted,
        "f1_before": choice.before,
        "objective": best.objective,
        "precision": best.precision,
        "precise": None if precise is None else precise.setting.overrides(),
        "average_precision": [
            {"strength": x, "tau": tau, "value": value}
            for (x, tau), value in choice.average_precision.items()
        ],
        "columns": [*FlagSetting.__slots__, *FlagRow.__slots__[1:]],
        "rows": [[*asdict(row.setting).values(), *astuple(row)[1:]] for row in choice.rows],
    }
