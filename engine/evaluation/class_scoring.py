"""Class maps of a result against truth: before and after repair, and entropy as a detector."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from engine.errors import InputError
from engine.evaluation.classes import ClassCounts, ErrorCounts, count_classes, count_errors
from engine.evaluation.loading import open_labels
from engine.store import Location, inspect_image, open_array, read_plane
from engine.store.resolve import read_group
from tiling import Box

if TYPE_CHECKING:
    import numpy as np

    from engine.evaluation.labels import LabelPlane

#: Side of the cells that are read at once, in pixels.
CELL = 2048

#: Label images and map of a result, and what they are called in a table.
_FINAL, _BEFORE, _ENTROPY = "classes", "classes_initial", "entropy"


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well the class map of a result agrees with truth.

    Parameters
    ----------
    names : tuple of str
        Classes; their indices are their places.
    before : ClassCounts or None
        Of the class map as the ensemble made it; None where nothing was repaired.
    after : ClassCounts
        Of the final class map.
    changed_before, changed_after : ClassCounts or None
        Of the pixels that repair changed, alone.
    errors : ErrorCounts or None
        Wrong pixels of the ensemble's class map by entropy; None where there is no such map.
    """

    names: tuple[str, ...]
    before: ClassCounts | None
    after: ClassCounts
    changed_before: ClassCounts | None
    changed_after: ClassCounts | None
    errors: ErrorCounts | None

    def add(self, other: ClassScores) -> ClassScores:
        """Pool with another part of the same result."""
        return ClassScores(
            self.names,
            _sum(self.before, other.before),
            self.after.add(other.after),
            _sum(self.changed_before, other.changed_before),
            _sum(self.changed_after, other.changed_after),
            self.errors.add(other.errors) if self.errors and other.errors else None,
        )

    def as_json(self) -> dict[str, Any]:
        """Scores as plain values."""
        rows = {
            "before": self.before, "after": self.after, "changed_before": self.changed_before,
            "changed_after": self.changed_after,
        }  # fmt: skip
        found: dict[str, Any] = {
            name: {
                "dice": dict(zip(self.names, counts.dice, strict=True)),
                "right": counts.micro,
                "pixels": sum(counts.true),
            }
            for name, counts in rows.items()
            if counts is not None
        }
        if self.errors is not None:
            found["entropy"] = {"auprc": self.errors.auprc, "base_rate": self.errors.base_rate}
        return found


def evaluate_classes(out: str, truth: str) -> ClassScores:
    """Score the class map of a result, read cell by cell.

    Parameters
    ----------
    out : str
        A result with ``labels/classes``.
    truth : str
        A class map of the same shape, as `engine.evaluation.open_labels` takes it; the same
        numbers mean the same classes.

    Returns
    -------
    ClassScores
        Over all planes.

    Raises
    ------
    InputError
        If the result has no class map, shapes differ, or the truth has a class that it has not.
    """
    place = Location.parse(out)
    known = read_group(place / "labels").ome.get("labels", []) if place.is_folder() else []
    final = open_labels(out, label=_FINAL)
    names = _names(place)
    true = open_labels(truth)
    if final.shape != true.shape:
        raise InputError(
            where=f"{out} against {truth}",
            expected="equal shapes",
            found=f"{final.shape} and {true.shape}",
            remedy="Score a class map of the same image at the same level.",
        )
    before = open_labels(out, label=_BEFORE) if _BEFORE in known else None
    info = inspect_image(place / "maps" / _ENTROPY)
    entropy = open_array(Location(info.path) / info.levels[0].path)
    total: ClassScores | None = None
    firsts = before.planes if before is not None else (None,) * len(final.planes)
    for after, initial, right in zip(final.planes, firsts, true.planes, strict=True):
        for box in Box.of_shape(final.shape[-2:]).split((CELL, CELL)):
            doubt = read_plane(entropy, after.index, box)
            part = _score(names, (after, initial, right), box, doubt)
            total = part if total is None else total.add(part)
    if total is None:
        msg = "a label image has at least one pixel"
        raise ValueError(msg)
    return total if before is not None else replace(total, before=None)


def _score(
    names: tuple[str, ...],
    planes: tuple[LabelPlane, LabelPlane | None, LabelPlane],
    box: Box,
    entropy: np.ndarray,
) -> ClassScores:
    """Score one box of a plane."""
    n = len(names)
    after, right = planes[0].read(box), planes[2].read(box)
    if right.max() >= n:
        raise InputError(
            where=f"{planes[2].source.name}, {box}",
            expected=f"classes 0 to {n - 1}: {', '.join(names)}",
            found=str(right.max()),
            remedy="Give a class map with the numbers of the result's classes.",
        )
    initial = after if planes[1] is None else planes[1].read(box)
    changed = initial != after
    repaired = planes[1] is not None
    return ClassScores(
        names,
        count_classes(initial, right, n),
        count_classes(after, right, n),
        count_classes(initial, right, n, changed) if repaired else None,
        count_classes(after, right, n, changed) if repaired else None,
        count_errors(entropy, initial != right),
    )


def _names(out: Location) -> tuple[str, ...]:
    """Names of the classes, as the label image tells them."""
    found = read_group(out / "labels" / _FINAL).ome.get("image-label", {}).get("properties", [])
    names = tuple(str(entry["class"]) for entry in found if "class" in entry)
    if not names:
        raise InputError(
            where=f"'{out}', labels/{_FINAL}",
            expected="a class map with the names of its classes",
            found="a label image without them",
            remedy="Give the OUT of a recipe that makes a class map.",
        )
    return names


def _sum(one: ClassCounts | None, other: ClassCounts | None) -> ClassCounts | None:
    return one.add(other) if one is not None and other is not None else None
