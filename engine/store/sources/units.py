"""Lengths and times as files write them, in micrometers and seconds."""

from __future__ import annotations

import math

# OME 2016-06 schema, UnitsLength and UnitsTime (with the ASCII spellings that writers use), and
# the spellings found in ImageJ's "unit" field, which is free text.
_MICROMETERS = {
    "m": 1e6,
    "meter": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "centimeter": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "in": 25400.0,
    "inch": 25400.0,
    "inches": 25400.0,
}
_SECONDS = {
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "seconds": 1.0,
    "ms": 1e-3,
    "msec": 1e-3,
    "µs": 1e-6,
    "us": 1e-6,
    "ns": 1e-9,
    "min": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "d": 86400.0,
}

# A TIFF or PNG resolution above this many micrometers per pixel (below 1270 dpi) is that of a
# screen or a printer: writers fill in 72, 96 or 300 dpi unasked.
PRINT_PIXEL_UM = 20.0


def _key(unit: str) -> str:
    """Spelling to look up: trimmed, lower case, one character for micro (U+00B5 and U+03BC)."""
    plain = unit.strip().replace("\\u00B5", "µ").replace("\u03bc", "µ")
    return plain.lower()


def micrometers(value: float, unit: str) -> float | None:
    """Length in micrometers.

    Parameters
    ----------
    value : float
        Length in `unit`.
    unit : str
        As the file spells it.

    Returns
    -------
    float or None
        None where the unit is no length ("pixel") or the value is not positive and finite.

    Examples
    --------
    >>> micrometers(500.0, "nm"), micrometers(1.0, "pixel")
    (0.5, None)
    """
    return _convert(value, unit, _MICROMETERS)


def seconds(value: float, unit: str) -> float | None:
    """Time in seconds.

    Parameters
    ----------
    value : float
        Time in `unit`.
    unit : str
        As the file spells it.

    Returns
    -------
    float or None
        None where the unit is no time or the value is not positive and finite.
    """
    return _convert(value, unit, _SECONDS)


def _convert(value: float, unit: str, table: dict[str, float]) -> float | None:
    factor = table.get(_key(unit))
    if factor is None or not math.isfinite(value) or value <= 0:
        return None
    # 12 digits: 500 nm is 0.5 micrometers, not 0.5000000000000001.
    return float(f"{value * factor:.12g}")
