"""Flags, step 1, on a device: features of many objects and their nearest ones, as on the host.

Beside a network on a GPU the host would take longer to compare a few thousand objects with those
of a variant than the network takes to find them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from engine.methods.starconvex import StarObjects

#: Distances that are computed at once.
_BLOCK = 2**24


def features(objects: StarObjects, device: str) -> np.ndarray:
    """Describe objects by box and centroid, as `engine.methods.flag_matching.features` does.

    Parameters
    ----------
    objects : StarObjects
        In the plane's coordinates.
    device : str
        Where to compute.

    Returns
    -------
    ndarray of shape (n, 6), float64
        (x0, y0, x1, y1, cx, cy) in pixels; the centroid differs from that of the host in its last
        bits, since sums are in another order.
    """
    if len(objects) == 0:
        return np.empty((0, 6))
    count = objects.rays.shape[1]
    angle = 2 * np.pi * np.arange(count) / count
    ahead = _put(np.stack([np.sin(angle), np.cos(angle)]), device)
    centre = _put(objects.points, device).to(torch.float64)
    rays = _put(objects.rays, device).to(torch.float64)
    local = (rays[:, None] * ahead).to(torch.float32).to(torch.float64)
    weight = rays * rays.roll(-1, 1)
    total = weight.sum(dim=1, keepdim=True)
    middle = (weight[:, None] * (local + local.roll(-1, 2))).sum(dim=2) / 3
    middle = middle / torch.where(total > 0, total, 1) + centre
    low, high = local.amin(dim=2) + centre, local.amax(dim=2) + centre
    found: np.ndarray = torch.cat([low, high, middle], dim=1)[:, [1, 0, 3, 2, 5, 4]].cpu().numpy()
    return found


def nearest(of: np.ndarray, among: np.ndarray, device: str) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest row of another array for each row, the first of equally near ones.

    Parameters
    ----------
    of, among : ndarray of shape (n, 6) and (m, 6), float64
        Features; both with a row at least.
    device : str
        Where to compute.

    Returns
    -------
    indices : ndarray of shape (n,), int64
        Rows of `among`.
    distances : ndarray of shape (n,), float64
        Euclidean.
    """
    rows, others = _put(of, device), _put(among, device)
    number = torch.arange(len(others), device=device)
    step = max(1, _BLOCK // len(others))
    indices, squares = [], []
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        square = torch.zeros((), dtype=torch.float64, device=device)
        for k in range(rows.shape[1]):
            square = square + (others[:, k] - block[:, k, None]) ** 2
        least = square.amin(dim=1)
        indices.append(torch.where(square == least[:, None], number, len(others)).amin(dim=1))
        squares.append(least)
    # The root on the host: torch's own is not correctly rounded everywhere.
    return torch.cat(indices).cpu().numpy(), np.sqrt(torch.cat(squares).cpu().numpy())


def _put(values: np.ndarray, device: str) -> Tensor:
    """Copy to a device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
