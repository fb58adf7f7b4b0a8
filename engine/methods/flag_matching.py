"""Flags, step 1: which reference object a variant of the image still shows, by boxes and centroids.

Jain, Shao, Hecht 2025 (source 000), Algorithm 1. We depart from it in two things: box and centroid
are those of the polygon and not of its painted mask, on both sides alike, and no object at all is
an infinite distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from engine.device import Device
    from engine.methods.starconvex import StarObjects

#: Numbers that describe an object.
FEATURES = 6

#: Distances that differ by less than this part count as a tie, and are decided by their squares.
_TIE = 1e-9


@dataclass(frozen=True)
class Comparison:
    """What one variant of the image says of the reference.

    Parameters
    ----------
    missing : ndarray of shape (n,), bool
        Reference objects that the variant does not show: suspect false positives.
    distance : ndarray of shape (n,), float32
        Distance to the nearest variant object; infinite beyond tau, so that it does not depend on
        how far around an object one looks.
    extra : ndarray of shape (m,), bool
        Variant objects that the reference does not show: candidates of false negatives.
    """

    missing: np.ndarray
    distance: np.ndarray
    extra: np.ndarray


@dataclass(frozen=True)
class Pairing:
    """Nearest objects of a reference and a variant, before a largest distance is chosen.

    Parameters
    ----------
    distance : ndarray of shape (n,), float64
        From each reference object to its nearest variant object; infinite where there is none.
    mutual : ndarray of shape (n,), bool
        Whether the nearest of that nearest one is the object itself.
    variant_distance : ndarray of shape (m,), float64
        The same from the variant.
    variant_mutual : ndarray of shape (m,), bool
        The same from the variant.

    Examples
    --------
    >>> one = np.array([[0.0, 0, 9, 9, 4, 4]])
    >>> found = pair(one, one + 1).at(tau=15)
    >>> found.missing.tolist(), found.extra.tolist(), round(float(found.distance[0]) ** 2, 3)
    ([False], [False], 6.0)
    """

    distance: np.ndarray
    mutual: np.ndarray
    variant_distance: np.ndarray
    variant_mutual: np.ndarray

    def at(self, tau: float) -> Comparison:
        """Decide what is missing and what is extra.

        Parameters
        ----------
        tau : float
            Largest distance of a match, at least 0.

        Raises
        ------
        ValueError
            If tau is negative or no number.
        """
        if not tau >= 0:
            msg = f"tau must be >= 0, got {tau}"
            raise ValueError(msg)
        near = self.distance <= tau
        distance = np.where(near, self.distance, np.inf).astype(np.float32)
        extra = ~(self.variant_mutual & (self.variant_distance <= tau))
        return Comparison(~(self.mutual & near), distance, extra)


def features(objects: StarObjects, device: Device = "cpu") -> np.ndarray:
    """Describe objects by box and centroid of their polygons.

    Parameters
    ----------
    objects : StarObjects
        In the plane's coordinates.
    device : {"cpu", "cuda"}
        Where to compute.

    Returns
    -------
    ndarray of shape (n, 6), float64
        (x0, y0, x1, y1, cx, cy) in pixels: smallest and largest coordinates of the vertices, and
        the centroid of the polygon's area.

    Notes
    -----
    Algorithm 1 takes first and last pixel of a mask and its rounded centroid. Vertices are
    added to the centre in float64, where that is exact: an object is described alike wherever in
    the plane it lies. The triangle of rays k and k + 1 has the area r_k r_(k+1) sin(2 pi / R) / 2.
    """
    if device == "cuda":
        from engine.methods import flag_device

        return flag_device.features(objects, device)
    centre = objects.points.astype(np.float64)
    local = _around_zero(objects).astype(np.float64)
    following = np.roll(local, -1, axis=2)
    rays = objects.rays.astype(np.float64)
    weight = rays * np.roll(rays, -1, axis=1)
    total = weight.sum(axis=1)
    centroid = (weight[:, None] * (local + following)).sum(axis=2) / 3
    centroid /= np.where(total > 0, total, 1)[:, None]
    low = local.min(axis=2, initial=np.inf) + centre
    high = local.max(axis=2, initial=-np.inf) + centre
    return np.concatenate([low[:, ::-1], high[:, ::-1], (centroid + centre)[:, ::-1]], axis=1)


def pair(reference: np.ndarray, variant: np.ndarray, device: Device = "cpu") -> Pairing:
    """Find the nearest objects of each side on the other.

    Parameters
    ----------
    reference, variant : ndarray of shape (n, 6) and (m, 6), float64
        As `features` gives them, the objects in the order of `suppress`: of equally near ones the
        first counts, which does not depend on where objects came from.
    device : {"cpu", "cuda"}
        Where to compute.

    Returns
    -------
    Pairing
        Euclidean distances of all six numbers; a shift by d pixels along an axis is sqrt(3) d.
    """
    to_variant, distance = _nearest(reference, variant, device)
    to_reference, variant_distance = _nearest(variant, reference, device)
    return Pairing(
        distance,
        _returns(to_variant, to_reference),
        variant_distance,
        _returns(to_reference, to_variant),
    )


def compare(
    reference: np.ndarray, variant: np.ndarray, tau: float, device: Device = "cpu"
) -> Comparison:
    """Compare a reference with one variant of the image, both as `features` gives them.

    Parameters
    ----------
    reference, variant : ndarray of shape (n, 6) and (m, 6), float64
        In the order of `suppress`.
    tau : float
        Largest distance of a match (15 in the paper).
    device : {"cpu", "cuda"}
        Where to compute.

    Returns
    -------
    Comparison
        A reference object is missing where its nearest variant object is not mutually nearest, or
        lies beyond tau; a variant object is extra by the same rule.

    Raises
    ------
    ValueError
        If tau is negative or no number.
    """
    return pair(reference, variant, device).at(tau)


def _around_zero(objects: StarObjects) -> np.ndarray:
    """Vertices relative to each centre: (n, 2, R) float32, rows then columns."""
    from engine.methods.starconvex import StarObjects

    moved = StarObjects(np.zeros_like(objects.points), objects.scores, objects.rays)
    return moved.outlines()


def _nearest(of: np.ndarray, among: np.ndarray, device: Device) -> tuple[np.ndarray, np.ndarray]:
    """Index, (n,) int64, and distance, (n,) float64; -1 and infinity where there is none."""
    if len(of) == 0 or len(among) == 0:
        return np.full(len(of), -1, np.int64), np.full(len(of), np.inf)
    if device == "cuda":
        from engine.methods import flag_device

        return flag_device.nearest(of, among, device)
    from scipy.spatial import cKDTree  # not on the path of planning

    distances, indices = cKDTree(among).query(of, k=min(2, len(among)))
    distances, indices = distances.reshape(len(of), -1), indices.reshape(len(of), -1)
    nearest = indices[:, 0].astype(np.int64)
    # The tree gives any of several that are equally near.
    for row in np.flatnonzero(distances[:, -1] <= distances[:, 0] * (1 + _TIE)):
        nearest[row] = np.argmin(((among - of[row]) ** 2).sum(axis=1))
    return nearest, np.sqrt(((among[nearest] - of) ** 2).sum(axis=1))


def _returns(there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Mask of the objects to which the nearest of their nearest points: (n,) bool."""
    if len(back) == 0:
        return np.zeros(len(there), bool)
    returns: np.ndarray = back[there] == np.arange(len(there))
    return returns
