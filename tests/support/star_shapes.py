"""Candidates of star-convex objects as a network gives them, and the package's word on them."""

from __future__ import annotations

import numpy as np
from stardist.nms import non_maximum_suppression_inds

from engine.methods.starconvex import StarObjects


def directions(count: int) -> np.ndarray:
    """Unit vectors (y, x) of the rays: (count, 2)."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.sin(angle), np.cos(angle)], axis=1)


def cells(
    seed: int,
    *,
    grid: int = 2,
    side: int = 160,
    radius: float = 12,
    noise: float = 0.03,
    rays: int = 32,
    origin: int = 0,
) -> StarObjects:
    """Candidates as a network gives them: one per pixel of overlapping ellipses, ordered.

    Rays end on the ellipse, times log-normal noise; scores fall off towards the edge, with noise
    and ties.
    """
    rng = np.random.default_rng(seed)
    count = max(2, int(side**2 / (3 * radius**2) * rng.uniform(0.3, 1)))
    centres = rng.uniform(0, side, (count, 2))
    axes = rng.uniform(0.4, 1, (count, 2)) * radius
    turn = rng.uniform(0, np.pi, count)
    frame = np.stack([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    frame = np.moveaxis(frame, 2, 0) / axes[:, :, None]  # (count, 2, 2): pixels to unit circle
    points = np.stack(np.mgrid[0:side:grid, 0:side:grid], axis=-1).reshape(-1, 2)
    local = np.einsum("kij,pkj->pki", frame, points[:, None] - centres[None])
    own = (local**2).sum(2).argmin(1)
    start = local[np.arange(len(points)), own]
    inside = (start**2).sum(1) < rng.uniform(0.3, 0.9)
    points, own, start = points[inside], own[inside], start[inside]
    step = np.einsum("pij,rj->pri", frame[own], directions(rays))
    a, b = (step**2).sum(2), (step * start[:, None]).sum(2)
    lengths = (-b + np.sqrt(b**2 + a * (1 - (start**2).sum(1))[:, None])) / a
    lengths = np.maximum(lengths * np.exp(noise * rng.normal(size=lengths.shape)), 1e-3)
    scores = 1 - (start**2).sum(1) + rng.choice([0, 0.02, 0.3]) * rng.normal(size=len(points))
    scores = np.round(np.clip(scores, 0.01, 1), int(rng.choice([1, 6])))
    objects = StarObjects(
        points.astype(np.int64) + origin, scores.astype(np.float32), lengths.astype(np.float32)
    )
    order = np.lexsort((objects.points[:, 1], objects.points[:, 0], -objects.scores))
    return objects.take(order)


def by_package(objects: StarObjects, threshold: float) -> np.ndarray:
    """Survivors as the package alone finds them: (n,) bool."""
    kept: np.ndarray = non_maximum_suppression_inds(
        objects.rays,
        objects.points.astype(np.int32),
        scores=objects.scores,
        thresh=threshold,
        verbose=False,
    )
    return kept
