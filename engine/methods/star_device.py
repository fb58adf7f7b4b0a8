"""Star-convex suppression on a device: the survivors are those of the stardist package.

Candidates never leave the device; survivors do. Greedy suppression in parallel: the plane is cut
into cells, and an open candidate that is the best one in every cell its box touches cannot be
suppressed any more by another, so all such leaders are kept at once, and suppress what they
overlap; then the next ones lead. The survivors are those of one candidate after the other.

::

    cells │ 1 1 1 │ 1 3 3 │   1 and 2 lead in the first round; 3 shares a cell with 1 and waits:
          │ 1 1 1 │ 1 3 3 │   1 suppresses it, or it leads in the second round
          │ 2 2 . │ . . . │
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from stardist.nms import non_maximum_suppression_inds
from torch import Tensor

from engine.methods.pruning import EXACT, largest_sum
from engine.methods.star_overlap import Polygons, sharing
from engine.methods.starconvex import LARGEST_COORDINATE, StarObjects, refuse_outlines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tiling import Box

#: Cells that all boxes of candidates touch together, per candidate, at most.
_CELLS = 16


@dataclass(frozen=True)
class DeviceObjects:
    """Star-convex polygons on a device; like `StarObjects`, of tensors.

    Parameters
    ----------
    points : Tensor of shape (n, 2), int64
        Centre pixel (y, x) of every polygon.
    scores : Tensor of shape (n,), float32
        Object probability in [0, 1].
    rays : Tensor of shape (n, R), float32
        Distances to the outline in pixels.

    Examples
    --------
    >>> one = StarObjects(np.array([[5, 5]]), np.ones(1, "f4"), np.full((1, 32), 3, "f4"))
    >>> DeviceObjects.of(one, "cpu").on_host().points.tolist()
    [[5, 5]]
    """

    points: Tensor
    scores: Tensor
    rays: Tensor

    @classmethod
    def of(cls, objects: StarObjects, device: str) -> DeviceObjects:
        """Copy to a device."""
        arrays = (objects.points, objects.scores, objects.rays)
        return cls(*(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))

    @classmethod
    def concatenate(cls, parts: Sequence[DeviceObjects]) -> DeviceObjects:
        """Join at least one part, in order."""
        return cls(
            torch.cat([part.points for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.rays for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.points)

    def take(self, which: Tensor) -> DeviceObjects:
        """Objects by index or by mask."""
        return DeviceObjects(self.points[which], self.scores[which], self.rays[which])

    def inside(self, box: Box) -> Tensor:
        """Mask of the objects whose anchor lies in a box: (n,) bool."""
        start, stop = (torch.tensor(e, device=self.points.device) for e in (box.start, box.stop))
        return ((self.points >= start) & (self.points < stop)).all(dim=1)

    def on_host(self) -> StarObjects:
        """Copy to the host."""
        return StarObjects(*(t.cpu().numpy() for t in (self.points, self.scores, self.rays)))

    @property
    def reach(self) -> float:
        """Longest ray in pixels; 0 where there is no object."""
        return float(self.rays.max()) if self.rays.numel() else 0.0


def suppress_on(device: str, candidates: StarObjects, threshold: float) -> StarObjects:
    """Suppress on a device what lies on the host; survivors lie there again."""
    return suppress(DeviceObjects.of(candidates, device), threshold).on_host()


def suppress(candidates: DeviceObjects, threshold: float) -> DeviceObjects:
    """Keep the best of overlapping candidates, as `engine.methods.starconvex.suppress` does.

    Parameters
    ----------
    candidates : DeviceObjects
        In any order.
    threshold : float
        A candidate goes where it overlaps a better one by more than this share of the smaller.

    Returns
    -------
    DeviceObjects
        Survivors, ordered by (-score, y, x), on the device of the candidates.

    Raises
    ------
    ValueError
        If a ray is not finite or reaches beyond `LARGEST_COORDINATE`.

    Notes
    -----
    So far from the plane's first pixel that the package's float32 areas are rounded, only the
    package knows them: there it decides all.
    """
    if len(candidates) == 0:
        return candidates
    reach = candidates.rays.amax(dim=1).to(torch.float64)
    far = candidates.points.amax(dim=1) + reach
    good = torch.isfinite(candidates.rays).all(dim=1) & (far <= LARGEST_COORDINATE)
    if not bool(good.all()):
        refuse_outlines(candidates.points.cpu().numpy(), good.cpu().numpy())
    ordered = candidates.take(_best_first(candidates))
    highest = candidates.points.abs().amax(dim=1) + reach
    if float(largest_sum(highest, reach).max()) >= EXACT:
        kept = _by_package(ordered.on_host(), threshold, tree=True)
        return ordered.take(torch.from_numpy(kept).to(ordered.points.device))
    return ordered.take(survivors(ordered, threshold))


def survivors(ordered: DeviceObjects, threshold: float) -> Tensor:
    """Decide which candidates, the best first, survive: (n,) bool.

    Notes
    -----
    A pair that `sharing` leaves open waits until the worse one leads; most of those are
    suppressed by another before. Then the package decides on the host, two polygons at a time.
    """
    polygons = Polygons.of(ordered.points, ordered.rays)
    near = _Near(polygons)
    who, cell = _cells(polygons)
    count, cells = len(ordered), int(cell.max()) + 1
    is_open = torch.ones(count, dtype=torch.bool, device=who.device)
    kept = torch.zeros_like(is_open)
    undecided = torch.empty((0, 2), dtype=torch.int64, device=who.device)
    while len(who):
        best = torch.full((cells,), count, device=who.device)
        best = best.scatter_reduce(0, cell, who, "amin")[cell]
        leads = is_open.clone()
        leads[who[best != who]] = False
        undecided = undecided[is_open[undecided[:, 1]]]
        now = leads[undecided[:, 1]]
        lost = _lost(ordered, undecided[now], threshold)
        leads[lost] = False
        is_open[lost] = False
        undecided = undecided[~now]
        kept |= leads
        is_open &= ~leads
        meet = leads[best] & is_open[who]
        pairs = near.of(_distinct(best[meet], who[meet], count))
        share = sharing(polygons, pairs[:, 0], pairs[:, 1], threshold)
        above, below = share.above(threshold), share.below(threshold)
        is_open[pairs[above, 1]] = False
        undecided = torch.cat([undecided, pairs[~above & ~below]])
        stays = is_open[who]
        who, cell = who[stays], cell[stays]
    return kept


class _Near:
    """The pairs that the package looks at: within the longest ray of all and that of the better."""

    def __init__(self, polygons: Polygons) -> None:
        self._points = polygons.points.to(torch.float32)
        self._reach = polygons.rays.amax(dim=1)
        self._longest = self._reach.max()

    def of(self, pairs: Tensor) -> Tensor:
        """Those of (m, 2) pairs."""
        better, worse = pairs.unbind(dim=1)
        distance = ((self._points[better] - self._points[worse]) ** 2).sum(dim=1)
        return pairs[distance < (self._longest + self._reach[better]) ** 2]


def _best_first(objects: DeviceObjects) -> Tensor:
    """Order objects by (-score, y, x): indices."""
    order = torch.arange(len(objects), device=objects.points.device)
    for key in (objects.points[:, 1], objects.points[:, 0], -objects.scores):
        order = order[torch.argsort(key[order], stable=True)]
    return order


def _cells(polygons: Polygons) -> tuple[Tensor, Tensor]:
    """Cells that the box of each polygon touches: whose, and which, numbered from 0."""
    side = 4
    while True:
        first = torch.div(polygons.low, side, rounding_mode="floor")
        sides = torch.div(polygons.high, side, rounding_mode="floor") - first + 1
        counts = sides.prod(dim=1)
        if int(counts.sum()) <= _CELLS * len(counts):
            break
        side *= 2
    who = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    place = torch.arange(len(who), device=who.device) - (counts.cumsum(0) - counts)[who]
    width = sides[who, 1]
    row = first[who, 0] + torch.div(place, width, rounding_mode="floor")
    column = first[who, 1] + place % width
    # Coordinates are below 2^31: both fit one number.
    return who, torch.unique(row * 2**32 + column, return_inverse=True)[1]


def _distinct(better: Tensor, worse: Tensor, count: int) -> Tensor:
    """Put pairs of indices below `count` in order, each once: (m, 2) int64."""
    number = torch.unique(better * count + worse)
    return torch.stack([number // count, number % count], dim=1)


def _lost(ordered: DeviceObjects, pairs: Tensor, threshold: float) -> Tensor:
    """Worse ones of (m, 2) pairs that the package suppresses, pair by pair."""
    some = ordered.take(pairs.flatten()).on_host()
    lost = [
        k
        for k in range(len(pairs))
        # Two at a time the package would look less far than it does among all.
        if not _by_package(some.take(np.arange(2 * k, 2 * k + 2)), threshold, tree=False)[1]
    ]
    return pairs[torch.tensor(lost, dtype=torch.int64, device=pairs.device), 1]


def _by_package(objects: StarObjects, threshold: float, *, tree: bool) -> np.ndarray:
    """Which of some objects, the best first, survive the package's suppression: (n,) bool."""
    kept: np.ndarray = non_maximum_suppression_inds(
        objects.rays,
        objects.points.astype(np.int32),
        scores=objects.scores,
        thresh=threshold,
        use_kdtree=tree,
        verbose=False,
    )
    return kept
