"""How plausible segmented mitochondria are, without a truth: boundaries and skeletons of objects.

The measures of Sauer et al. (BioMaeRef, table 2). The inner region is what the inner membrane
encloses: cristae and matrix. Boundaries are inner boundaries: pixels of a region with one of their
4 neighbours outside it; beyond the image is not outside.

The source does not say in words what its skeleton and its boundary to area are taken of. Read here
as the inner region, by its numbers: a boundary of 12 % of the area means a body about 16 pixels
thick, which cristae of 3 to 5 pixels are not (theirs is 50 % and more), and 3.6 end points are few
for a mitochondrion of several cristae, each with two.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from skimage.measure import euler_number
from skimage.morphology import skeletonize
from skimage.segmentation import find_boundaries

from engine.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

_CRISTAE, _MATRIX = 2, 3

#: 8-connected.
_EIGHT = np.ones((3, 3), int)


@dataclass(frozen=True, slots=True)
class ObjectPlausibility:
    """Measures of one mitochondrion that has an inner region.

    Parameters
    ----------
    label : int
        Of the object.
    end_points : int
        Pixels of the skeleton with one neighbour among 8.
    cycles : int
        Components of the skeleton minus its Euler number, 8-connected: how many loops it has.
    boundary_to_area : float
        Pixels of the inner region on its boundary, a share of all of them.
    cristae_ratio : float or None
        Share of the inner region's boundary that is cristae; None where it has no boundary.
    background_ratio : float or None
        Share of the object's boundary where the inner region lies bare, without intermembrane
        space; None where the object has no boundary: it fills the image.

    Examples
    --------
    >>> classes = np.pad(np.full((2, 6), 3, np.uint8), 3)
    >>> measure_plausibility(classes).objects[0].background_ratio
    1.0
    """

    label: int
    end_points: int
    cycles: int
    boundary_to_area: float
    cristae_ratio: float | None
    background_ratio: float | None


@dataclass(frozen=True, slots=True)
class MeanPlausibility:
    """Means over objects, each over those that have the measure; None where none has.

    Parameters
    ----------
    count : int
        Objects with an inner region.
    end_points, cycles, boundary_to_area, cristae_ratio, background_ratio : float or None
        As of `ObjectPlausibility`.
    """

    count: int
    end_points: float | None
    cycles: float | None
    boundary_to_area: float | None
    cristae_ratio: float | None
    background_ratio: float | None


@dataclass(frozen=True, slots=True)
class Plausibility:
    """Measures of the mitochondria of one or more images.

    Parameters
    ----------
    objects : tuple of ObjectPlausibility
        Those with an inner region.
    without_inner : int
        Objects of intermembrane space only; they have no measures.
    """

    objects: tuple[ObjectPlausibility, ...]
    without_inner: int

    @property
    def mean(self) -> MeanPlausibility:
        """Mean of each measure over the objects."""
        found = self.objects
        return MeanPlausibility(
            len(found),
            _mean(one.end_points for one in found),
            _mean(one.cycles for one in found),
            _mean(one.boundary_to_area for one in found),
            _mean(one.cristae_ratio for one in found),
            _mean(one.background_ratio for one in found),
        )

    def add(self, other: Plausibility) -> Plausibility:
        """Put the objects of another image beside these; labels may then repeat.

        Parameters
        ----------
        other : Plausibility
            Of the other image.

        Returns
        -------
        Plausibility
            Of both.
        """
        return Plausibility(self.objects + other.objects, self.without_inner + other.without_inner)


def measure_plausibility(
    classes: np.ndarray, instances: np.ndarray | None = None, *, smallest: int = 1
) -> Plausibility:
    """Measure each mitochondrion of a class map.

    Parameters
    ----------
    classes : ndarray of shape (Y, X), integer
        0 background, 1 intermembrane space, 2 cristae, 3 matrix.
    instances : ndarray of shape (Y, X), integer, optional
        Object that each pixel belongs to, 0 = none; without it, objects are the 8-connected
        components of classes above 0.
    smallest : int
        Objects of fewer pixels are left out.

    Returns
    -------
    Plausibility
        Objects by rising label.

    Raises
    ------
    InputError
        If there are other classes, not two axes, or `instances` differs in shape.

    Notes
    -----
    The ratios are those of METHODS part 004; the source gives their denominators in words only.
    Skeletons are Lee's, in 2-D.
    """
    _check(classes, instances)
    if instances is None:
        instances, _ = ndimage.label(classes > 0, _EIGHT)
    measured, without_inner = [], 0
    for label, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        # One pixel more, so that the boundary of the object is seen; none beyond the image.
        seen = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        own = np.where(instances[seen] == label, classes[seen], 0)
        if np.count_nonzero(own) < smallest:
            continue
        if own.max() < _CRISTAE:
            without_inner += bool(own.any())
            continue
        measured.append(_measure(label, own))
    return Plausibility(tuple(measured), without_inner)


def _measure(label: int, classes: np.ndarray) -> ObjectPlausibility:
    """Measure one object, alone in its window."""
    inner = classes >= _CRISTAE
    rim = find_boundaries(inner, mode="inner")
    outer_rim = find_boundaries(classes > 0, mode="inner")
    cristae_rim = find_boundaries(classes == _CRISTAE, mode="inner")
    skeleton = skeletonize(inner, method="lee") > 0
    neighbours = ndimage.convolve(skeleton.astype(int), _EIGHT, mode="constant") - 1
    _, components = ndimage.label(skeleton, _EIGHT)
    return ObjectPlausibility(
        label,
        end_points=int(np.count_nonzero(skeleton & (neighbours == 1))),
        cycles=int(components - euler_number(skeleton, connectivity=2)),
        boundary_to_area=float(rim.sum() / inner.sum()),
        cristae_ratio=_share(cristae_rim & rim, rim),
        background_ratio=_share(rim & outer_rim, outer_rim),
    )


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    """Share of True pixels; None where there is none in the whole."""
    total = int(np.count_nonzero(whole))
    return int(np.count_nonzero(part)) / total if total else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values there are."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _check(classes: np.ndarray, instances: np.ndarray | None) -> None:
    """Refuse what is no class map of mitochondria."""
    if classes.ndim != 2 or classes.dtype.kind not in "iu":
        raise InputError(
            where="class map",
            expected="integers on axes y, x",
            found=f"{classes.dtype} of shape {classes.shape}",
            remedy="Measure a volume slice by slice.",
        )
    if classes.size and not 0 <= int(classes.min()) <= int(classes.max()) <= _MATRIX:
        unknown = [int(one) for one in np.unique(classes) if not 0 <= one <= _MATRIX]
        raise InputError(
            where="class map",
            expected="classes 0 background, 1 intermembrane space, 2 cristae, 3 matrix",
            found=f"also {', '.join(map(str, unknown[:5]))}",
            remedy="Map your classes to these first.",
        )
    if instances is not None and instances.shape != classes.shape:
        raise InputError(
            where="instances",
            expected=f"the shape of the class map, {classes.shape}",
            found=str(instances.shape),
            remedy="Give the objects of the same image.",
        )
