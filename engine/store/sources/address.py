"""The address of a source: where it lies and, where the user said so, which axes its array has.

It is one string, such as ``cells.tif|axes:yxc``, so that a plan, a worker and a report that know
where a source lies also know how it is read.
"""

from __future__ import annotations

from engine.errors import InputError
from engine.store.sources.base import AXES

_MARK = "|axes:"


def with_axes(path: str, axes: str | None) -> str:
    """Address of a source.

    Parameters
    ----------
    path : str
        File, folder, pattern or URL.
    axes : str or None
        Letters of t, c, z, y and x, one for each axis of the array that a file holds, in its
        order; None where the source itself decides.

    Returns
    -------
    str
        `path` itself where `axes` is None.

    Raises
    ------
    InputError
        If `axes` has another letter, one twice, or not both y and x.

    Examples
    --------
    >>> with_axes("cells.tif", "YXC")
    'cells.tif|axes:yxc'
    """
    if axes is None:
        return path
    letters = axes.lower()
    found = set(letters)
    if not {"y", "x"} <= found <= set(AXES) or len(found) < len(letters):
        raise InputError(
            where="--axes",
            expected="letters of t, c, z, y and x, each at most once, with both y and x",
            found=repr(axes),
            remedy="Name each axis of the array in its order, such as --axes yxc.",
        )
    return f"{path}{_MARK}{letters}"


def split_axes(address: str) -> tuple[str, str | None]:
    """Path and axes of an address; None where it names no axes.

    Examples
    --------
    >>> split_axes("cells.tif|axes:yxc"), split_axes("cells.tif")
    (('cells.tif', 'yxc'), ('cells.tif', None))
    """
    path, mark, axes = address.rpartition(_MARK)
    return (path, axes) if mark and axes and set(axes) <= set(AXES) else (address, None)
