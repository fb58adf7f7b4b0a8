"""Finished pieces of a bank: one small file each, so that a stopped calibration goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from engine.errors import InputError
from engine.methods.defenses import Layout
from engine.store import write_atomic
from engine.training.defenses.pieces import Piece

_KEY = "tilewright.defense"


@dataclass(frozen=True)
class Part:
    """What came of a piece.

    Parameters
    ----------
    origin : str
        The piece.
    coefficients : ndarray
        (S, S, A) float16: the best defense; zeros where none raised F1.
    f1_before, f1_after : float
        F1 at IoU 0.75 in float32, without a defense and with these very coefficients.
    route : str
        What found it: ``gradient``, ``search``, or ``zero`` where nothing was found or sought.
    seconds : float
        It took, in its process.
    """

    origin: str
    coefficients: NDArray[np.float16]
    f1_before: float
    f1_after: float
    route: str
    seconds: float


def part_file(folder: Path, piece: Piece) -> Path:
    """Where the part of a piece lies."""
    y, x = piece.place
    return folder / f"{piece.image}_{y}_{x}.safetensors"


def write_part(part: Part, deciding: Mapping[str, str], file: Path) -> None:
    """Write a part; the file appears complete or not at all.

    Parameters
    ----------
    part : Part
        What to keep.
    deciding : mapping
        Options that decided it.
    file : Path
        As `part_file` names it.
    """
    facts = {
        "origin": part.origin, "f1_before": part.f1_before, "f1_after": part.f1_after,
        "route": part.route, "seconds": part.seconds, "deciding": dict(deciding),
    }  # fmt: skip
    content = save({"coefficients": part.coefficients}, {_KEY: json.dumps(facts)})
    write_atomic(file, content)


def read_part(file: Path, deciding: Mapping[str, str], layout: Layout) -> Part | None:
    """Read a part.

    Parameters
    ----------
    file : Path
        As `part_file` names it.
    deciding : mapping
        Options of the calibration that wants to go on.
    layout : Layout
        Of its defenses.

    Returns
    -------
    Part or None
        None where there is no file.

    Raises
    ------
    InputError
        If the file is damaged, or belongs to a calibration with other options.
    """
    if not file.is_file():
        return None
    try:
        with safe_open(file, framework="numpy") as handle:
            facts: dict[str, Any] = json.loads(handle.metadata()[_KEY])
            coefficients = handle.get_tensor("coefficients")
        then = facts.pop("deciding")
        part = Part(coefficients=coefficients, **facts)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as err:
        raise _refused(file, "a finished piece of this version", repr(err)) from err
    for name in sorted(then.keys() | deciding.keys()):
        if then.get(name) != deciding.get(name):
            raise _refused(
                file, f"{name} {then.get(name)}, as when this bank was begun",
                str(deciding.get(name)),
            )  # fmt: skip
    if coefficients.shape != layout.shape or coefficients.dtype != np.float16:
        raise _refused(
            file, f"float16 of shape {layout.shape}", f"{coefficients.dtype} {coefficients.shape}"
        )
    return part


def _refused(file: Path, expected: str, found: str) -> InputError:
    return InputError(
        where=str(file), expected=expected, found=found,
        remedy="Use the same options or another --out, or remove the folder to begin again.",
    )  # fmt: skip
