"""Axes of an image: named and typed by its metadata, never guessed from its shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from engine.store.files import describe

if TYPE_CHECKING:
    from collections.abc import Sequence

AXIS_TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}
"""The axis names that tilewright takes, with the type that each has."""

# Units that OME-NGFF recommends for space, and spellings that writers in the field use for them.
_UM_PER_UNIT = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "micrometer": 1.0,
    "micron": 1.0,
    "um": 1.0,
    "\N{MICRO SIGN}m": 1.0,
    "\N{GREEK SMALL LETTER MU}m": 1.0,
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "inch": 25_400.0,
    "meter": 1e6,
}

_REMEDY = "Correct the axes in the image's metadata, or ingest the image again from its source."


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of an image.

    Parameters
    ----------
    name : str
        One of ``t``, ``c``, ``z``, ``y``, ``x``.
    type : str
        ``time``, ``channel`` or ``space``, as the name demands.
    unit : str or None
        Unit of the scale and translation along this axis; None where it is not known.

    Raises
    ------
    InputError
        If the name is unknown or the type is not the one of the name.

    Examples
    --------
    >>> Axis("y", "space", "micrometer")
    Axis(name='y', type='space', unit='micrometer')
    """

    name: str
    type: str
    unit: str | None = None

    def __post_init__(self) -> None:
        known = AXIS_TYPES.get(self.name)
        if known is None:
            raise InputError(
                where=f"axis {self.name!r}",
                expected="a name out of t, c, z, y, x",
                found=repr(self.name),
                remedy=_REMEDY,
            )
        if self.type != known:
            raise InputError(
                where=f"axis {self.name!r}",
                expected=f"type {known!r}",
                found=repr(self.type),
                remedy=_REMEDY,
            )


def make_axes(names: str, unit: str | None = None) -> tuple[Axis, ...]:
    """Axes with these one-letter names, `unit` on those of space.

    Parameters
    ----------
    names : str
        Such as ``"tczyx"``; ``y`` and ``x`` last.
    unit : str or None
        Unit of z, y and x; None where the physical size is not known.

    Returns
    -------
    tuple of Axis
        One per letter.

    Raises
    ------
    InputError
        If a name is unknown or repeated, or y and x are not the last two.

    Examples
    --------
    >>> [axis.unit for axis in make_axes("cyx", "micrometer")]
    [None, 'micrometer', 'micrometer']
    """
    kinds = [(name, AXIS_TYPES.get(name, "")) for name in names]
    axes = tuple(Axis(name, kind, unit if kind == "space" else None) for name, kind in kinds)
    return check_axes(axes, where=f"axes {names!r}")


def check_axes(axes: Sequence[Axis], *, where: str) -> tuple[Axis, ...]:
    """Axes as given, refused unless they are unique and end in y and x.

    Parameters
    ----------
    axes : sequence of Axis
        In the order of the array.
    where : str
        What the error names.

    Returns
    -------
    tuple of Axis
        The same axes.

    Raises
    ------
    InputError
        If an axis is repeated or missing, or y and x are not the last two.
    """
    names = [axis.name for axis in axes]
    if len(set(names)) != len(names) or names[-2:] != ["y", "x"]:
        raise InputError(
            where=where,
            expected="distinct axes with y and x as the last two",
            found=", ".join(names) or "no axes",
            remedy=_REMEDY,
        )
    return tuple(axes)


def parse_axes(document: object, *, where: str) -> tuple[Axis, ...]:
    """Axes out of the metadata of OME-NGFF 0.4 and 0.5.

    Parameters
    ----------
    document : object
        The list under ``axes`` as JSON gave it. The type of an axis may be left out, as the
        specification allows: the name then decides.
    where : str
        What the error names.

    Returns
    -------
    tuple of Axis
        In the order of the array.

    Raises
    ------
    InputError
        If the list is missing or malformed, or an axis is unknown, repeated or missing.

    Notes
    -----
    https://ngff.openmicroscopy.org/0.5/#axes-md
    """
    if not isinstance(document, list) or not document:
        raise InputError(
            where=where, expected="a list of axes", found=describe(document), remedy=_REMEDY
        )
    return check_axes([_parse_axis(entry, where) for entry in document], where=where)


def _parse_axis(entry: object, where: str) -> Axis:
    """Read one entry of the list of axes."""
    fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
    name, unit = fields.get("name"), fields.get("unit")
    if not isinstance(name, str) or not (unit is None or isinstance(unit, str)):
        raise InputError(
            where=where,
            expected="an axis with a name and, where known, a unit, both strings",
            found=describe(entry),
            remedy=_REMEDY,
        )
    try:
        return Axis(name, str(fields.get("type", AXIS_TYPES.get(name, ""))), unit)
    except InputError as err:
        raise InputError(
            where=f"{where}, {err.where}",
            expected=err.expected,
            found=err.found,
            remedy=err.remedy,
        ) from err


def micrometres(value: float, unit: str | None) -> float | None:
    """Length in micrometres; None where the unit is missing or not a known one of length.

    Parameters
    ----------
    value : float
        Length in `unit`.
    unit : str or None
        Unit as the metadata names it.

    Returns
    -------
    float or None
        The same length in micrometres.

    Examples
    --------
    >>> micrometres(250.0, "nanometer")
    0.25
    """
    factor = _UM_PER_UNIT.get(unit or "")
    return None if factor is None else value * factor
