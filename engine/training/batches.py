"""Batches of crops with their targets; what batch n holds depends on the seed and on n alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.methods.star_targets import star_targets
from engine.training.augment import Augmentation, Crop, cut, draw_crop
from engine.training.data import Sample

# Validation crops in all, so that an epoch's validation stays short whatever the data.
VALIDATION_CROPS = 128


@dataclass(frozen=True, slots=True)
class Batch:
    """Images and what to predict for them.

    Parameters
    ----------
    image : Tensor
        (B, C, S, S) float32, channels last.
    prob : Tensor
        (B, 1, h, w) float32 in [0, 1]: object probability.
    dist : Tensor
        (B, R, h, w) float32, pixels.
    valid : Tensor
        (B, 1, h, w) float32, 1 where the pixel counts.
    """

    image: Tensor
    prob: Tensor
    dist: Tensor
    valid: Tensor


@dataclass(frozen=True, slots=True)
class Batches:
    """Endless training batches.

    Parameters
    ----------
    samples : sequence of Sample
        Drawn with a weight that grows with the square root of their area: a large image counts
        more than a small one, but does not drown the others.
    size : int
        Side of a crop.
    batch : int
        Crops per batch.
    n_rays : int
        Rays of the targets.
    grid : tuple of int
        (y, x) subsampling of the targets.
    augmentation : Augmentation
        What may happen to a crop.
    seed : int
        With the number of the batch it decides everything.
    """

    samples: Sequence[Sample]
    size: int
    batch: int
    n_rays: int
    grid: tuple[int, int]
    augmentation: Augmentation
    seed: int

    def make(self, number: int) -> Batch:
        """Make batch `number`; the same number gives the same batch in any process."""
        rng = np.random.default_rng((self.seed, number))
        crops = draw_crops(self.samples, (self.batch, self.size), self.augmentation, rng)
        return collate(crops, self.n_rays, self.grid)


def draw_crops(
    samples: Sequence[Sample],
    count_size: tuple[int, int],
    how: Augmentation,
    rng: np.random.Generator,
) -> list[Crop]:
    """Draw changed crops, each of a sample drawn with the weight that `Batches` tells.

    Parameters
    ----------
    samples : sequence of Sample
        Where to cut.
    count_size : tuple of int
        Number of crops and side of each.
    how : Augmentation
        What may happen to a crop.
    rng : numpy.random.Generator
        Decides everything.

    Returns
    -------
    list of Crop
        In the order drawn.
    """
    count, size = count_size
    weights = np.sqrt([max(1.0, s.labels.size / size**2) for s in samples])
    picks = rng.choice(len(samples), size=count, p=weights / weights.sum())
    return [draw_crop(samples[i], size, how, rng) for i in picks]


def validation_batches(
    samples: Sequence[Sample], size: int, batch: int, n_rays: int, grid: tuple[int, int]
) -> tuple[Batch, ...]:
    """Cut validation crops on a regular lattice, unchanged, at most `VALIDATION_CROPS`.

    Parameters
    ----------
    samples : sequence of Sample
        Validation images.
    size, batch, n_rays, grid
        As for `Batches`.

    Returns
    -------
    tuple of Batch
        The last one may be smaller.
    """
    crops = validation_crops(samples, size)
    pieces = (crops[i : i + batch] for i in range(0, len(crops), batch))
    return tuple(collate(piece, n_rays, grid) for piece in pieces)


def validation_crops(samples: Sequence[Sample], size: int) -> list[Crop]:
    """Cut crops on a regular lattice, unchanged, at most `VALIDATION_CROPS`, evenly chosen.

    Parameters
    ----------
    samples : sequence of Sample
        Validation images.
    size : int
        Side of a crop.

    Returns
    -------
    list of Crop
        In the order of `samples`.
    """
    places = [(s, corner) for s in samples for corner in _lattice(s.labels.shape, size)]
    chosen = np.linspace(0, len(places) - 1, min(len(places), VALIDATION_CROPS)).round()
    return [cut(sample, corner, size) for sample, corner in (places[int(i)] for i in chosen)]


def collate(crops: Sequence[Crop], n_rays: int, grid: tuple[int, int]) -> Batch:
    """Compute the targets of crops and stack them.

    Parameters
    ----------
    crops : sequence of Crop
        All of one size.
    n_rays, grid
        As for `star_targets`.

    Returns
    -------
    Batch
        In the order of `crops`.
    """
    targets = [star_targets(crop.labels, n_rays, grid) for crop in crops]
    images = torch.from_numpy(np.stack([crop.image for crop in crops]))
    valid = np.stack([crop.valid[None, :: grid[0], :: grid[1]] for crop in crops])
    return Batch(
        image=images.contiguous(memory_format=torch.channels_last),
        prob=torch.from_numpy(np.stack([t.prob[None] for t in targets])),
        dist=torch.from_numpy(np.stack([t.dist for t in targets])),
        valid=torch.from_numpy(valid.astype(np.float32)),
    )


def _lattice(shape: tuple[int, ...], size: int) -> list[tuple[int, int]]:
    """Corners of crops that cover an image, the last of each axis shifted inside."""
    axes = [
        np.linspace(0, max(0, n - size), max(1, -(-n // size))).round().astype(int) for n in shape
    ]
    return [(int(y), int(x)) for y in axes[0] for x in axes[1]]
