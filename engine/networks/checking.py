"""Rules that the values of model folders keep, and the error where one does not."""

import math
import re
from typing import TypeGuard

from engine.errors import ModelError

#: Names of classes: they become names of maps and columns of tables.
PLAIN_NAMES = "plain names: ASCII letters, digits, - and _, not digits alone"

_PLAIN = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)


def is_int(value: object, low: int) -> TypeGuard[int]:
    """Whether a value of a document is a whole number of at least `low`; true is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value of a document is a finite number; true is none."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def is_plain(name: str) -> bool:
    """Whether a class may have this name.

    Examples
    --------
    >>> [is_plain(name) for name in ("matrix", "type-2", "2", "a/b", "a b")]
    [True, True, False, False, False]
    """
    return _PLAIN.fullmatch(name) is not None


def require(ok: bool, field: str, rule: str, owner: object, where: str | None = None) -> None:
    """Refuse a value that does not keep its rule.

    Parameters
    ----------
    ok : bool
        Whether it does.
    field : str
        Its name.
    rule : str
        What would have been right.
    owner : object
        Has the value as an attribute of that name.
    where : str, optional
        The file that it stands in.

    Raises
    ------
    ModelError
        If it does not.
    """
    if not ok:
        raise ModelError(
            where=field if where is None else f"{where}: {field}", expected=rule,
            found=repr(getattr(owner, field)), remedy="Correct the value or take another model.",
        )  # fmt: skip
