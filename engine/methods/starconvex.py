"""Star-convex objects: candidates, suppression, outlines and rendering in one absolute frame.

Polygons are decided by the stardist package's own geometry (Schmidt et al. 2018, "Cell Detection
with Star-convex Polygons"; package stardist). It truncates vertices to integers, so an object's
shape depends on where its coordinates begin. Here they always begin at the plane's first pixel:
whichever region looks at an object, it sees the same polygon.

Geometry is imported where it is used: a plan asks stages for their memory and nothing else, and
stardist, scikit-image and what they import take half of the time of a command that only plans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import numpy as np

if TYPE_CHECKING:
    from engine.device import Device
    from tiling import Box

#: Output pixels at the image's edge where StarDist takes no candidate (its default ``b``).
BORDER = 2

#: Coordinates beyond this overflow the integers of the package's geometry, which then ends the
#: process instead of raising.
LARGEST_COORDINATE = 2**30


@dataclass(frozen=True)
class StarObjects:
    """Star-convex polygons of one plane.

    Parameters
    ----------
    points : ndarray of shape (n, 2), int64
        Centre pixel (y, x) of every polygon: the object's anchor.
    scores : ndarray of shape (n,), float32
        Object probability in [0, 1].
    rays : ndarray of shape (n, R), float32
        Distance from the centre to the outline, in pixels, along R equally spaced directions:
        ray k points to (sin, cos)(2 pi k / R).

    Examples
    --------
    >>> one = StarObjects(np.array([[5, 5]]), np.ones(1, "f4"), np.full((1, 32), 3, "f4"))
    >>> one.boxes().tolist()
    [[2, 2, 9, 9]]
    """

    points: np.ndarray
    scores: np.ndarray
    rays: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def none(cls, n_rays: int) -> StarObjects:
        """No object."""
        return cls(
            np.empty((0, 2), np.int64), np.empty(0, np.float32), np.empty((0, n_rays), np.float32)
        )

    @classmethod
    def concatenate(cls, parts: list[StarObjects], n_rays: int) -> StarObjects:
        """All objects of several parts, in their order."""
        parts = [cls.none(n_rays), *parts]
        return cls(
            np.concatenate([p.points for p in parts]),
            np.concatenate([p.scores for p in parts]),
            np.concatenate([p.rays for p in parts]),
        )

    def take(self, which: np.ndarray) -> StarObjects:
        """Objects by index or by mask."""
        return StarObjects(self.points[which], self.scores[which], self.rays[which])

    def inside(self, box: Box) -> np.ndarray:
        """Mask of the objects whose anchor lies in a box: (n,) bool."""
        inside: np.ndarray = (self.points >= box.start) & (self.points < box.stop)
        return _rows(inside)

    def boxes(self) -> np.ndarray:
        """Boxes (y0, x0, y1, x1) that hold every pixel of each polygon: (n, 4) int64."""
        outline = self.outlines().astype(np.float64)
        low = np.floor(outline.min(axis=2, initial=np.inf)).astype(np.int64)
        high = np.ceil(outline.max(axis=2, initial=-np.inf)).astype(np.int64) + 1
        return np.concatenate([low, high], axis=1)

    def meeting(self, box: Box) -> np.ndarray:
        """Mask of the objects whose polygon may reach into a box: (n,) bool."""
        edges = self.boxes()
        return _rows((edges[:, :2] < box.stop) & (edges[:, 2:] > box.start))

    def outlines(self) -> np.ndarray:
        """Vertices in the plane's coordinates: (n, 2, R) float32, rows then columns."""
        if len(self) == 0:
            return np.empty((0, 2, self.rays.shape[1]), np.float32)
        from stardist.geometry import dist_to_coord

        outlines: np.ndarray = dist_to_coord(self.rays, self.points)
        return np.asarray(outlines, np.float32)

    @property
    def reach(self) -> float:
        """Longest ray in pixels; 0 where there is no object."""
        return float(self.rays.max(initial=0.0))


def _rows(mask: np.ndarray) -> np.ndarray:
    """Rows of a mask that are true throughout."""
    rows: np.ndarray = np.logical_and.reduce(mask, axis=1)
    return rows


def keys(points: np.ndarray, plane: int, extent: tuple[int, int]) -> np.ndarray:
    """Name objects by where they are: 1 + the place of the anchor in the image, in C order.

    Parameters
    ----------
    points : ndarray of shape (n, 2), int64
        Anchors (y, x).
    plane : int
        Number of the plane in C order.
    extent : tuple of int
        (Y, X) of a plane.

    Returns
    -------
    ndarray of shape (n,), uint64
        Neighbouring regions name an object alike without talking to each other.
    """
    place = (np.int64(plane) * extent[0] + points[:, 0]) * extent[1] + points[:, 1]
    names: np.ndarray = (place + 1).astype(np.uint64)
    return names


def suppress(candidates: StarObjects, threshold: float, device: Device = "cpu") -> StarObjects:
    """Keep the best of overlapping candidates.

    Parameters
    ----------
    candidates : StarObjects
        In any order.
    threshold : float
        A candidate goes where it overlaps a better one by more than this share of the smaller.
    device : {"cpu", "cuda"}
        Where to decide; the survivors are the same.

    Returns
    -------
    StarObjects
        Survivors, ordered by (-score, y, x): the order does not depend on where candidates came
        from, so ties are broken alike everywhere.

    Raises
    ------
    ValueError
        If a ray is not finite or reaches beyond `LARGEST_COORDINATE`.
    """
    if device == "cuda":
        from engine.methods.star_device import suppress_on

        return suppress_on(device, candidates, threshold)
    _check_outlines(candidates)
    order = np.lexsort((candidates.points[:, 1], candidates.points[:, 0], -candidates.scores))
    ordered = candidates.take(order)
    if len(ordered) == 0:
        return ordered
    from engine.methods.pruning import survivors

    keep = survivors(ordered.points, ordered.rays, ordered.scores, threshold)
    return ordered.take(keep)


def _check_outlines(objects: StarObjects) -> None:
    """Refuse polygons that integer geometry cannot hold."""
    if len(objects) == 0:
        return
    far = objects.rays.max(axis=1).astype(np.float64) + objects.points.max(axis=1)
    good = np.isfinite(objects.rays).all(axis=1) & (far <= LARGEST_COORDINATE)
    if not good.all():
        refuse_outlines(objects.points, good)


def refuse_outlines(points: np.ndarray, good: np.ndarray) -> NoReturn:
    """Raise for polygons that integer geometry cannot hold.

    Parameters
    ----------
    points : ndarray of shape (n, 2), int64
        Centres (y, x).
    good : ndarray of shape (n,), bool
        Those that it can hold; not all.

    Raises
    ------
    ValueError
        Always, naming the first of the others.
    """
    worst = points[np.flatnonzero(~good)[0]].tolist()
    msg = (
        f"outlines must be finite and within 2^30 pixels, got {np.count_nonzero(~good)} of "
        f"{len(good)} that are not, the first at (y, x) = {tuple(worst)}: the network gave "
        "rays that are no distances; look at the intensities there, or at the weights"
    )
    raise ValueError(msg)


def render(objects: StarObjects, box: Box) -> np.ndarray:
    """Paint polygons; where two overlap, the one with the higher score lies on top.

    Parameters
    ----------
    objects : StarObjects
        In the plane's coordinates.
    box : Box
        Pixels of the plane to paint.

    Returns
    -------
    ndarray of shape box.shape, int32
        0 for background, else 1 + index of the object.

    Notes
    -----
    Vertices are float32 in the plane's frame and are moved to the polygon's own corner in
    float64, which is exact: a polygon has the same pixels in every box. Equals
    ``stardist.geometry.polygons_to_label`` on the whole plane.
    """
    from engine.methods.filling import fill

    boxes = objects.boxes()
    meeting = np.flatnonzero(objects.meeting(box))
    points, scores = objects.points[meeting], objects.scores[meeting]
    order = meeting[np.lexsort((-points[:, 1], -points[:, 0], scores))]
    canvas = np.zeros(box.size, np.int32)
    for rank, y, x in fill(objects.outlines()[order].astype(np.float64), boxes[order]):
        inside = (y >= box.start[0]) & (y < box.stop[0]) & (x >= box.start[1]) & (x < box.stop[1])
        place = (y[inside] - box.start[0]) * box.shape[1] + (x[inside] - box.start[1])
        np.maximum.at(canvas, place, rank[inside].astype(np.int32) + 1)
    labels = np.concatenate([np.zeros(1, np.int32), order.astype(np.int32) + 1])
    painted: np.ndarray = labels[canvas].reshape(box.shape)
    return painted
