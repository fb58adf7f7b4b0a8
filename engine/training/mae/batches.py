"""Windows of class maps and what is masked in them; batch n depends on the seed and n alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from engine.methods.patches import cut_patches, near_patches
from engine.networks.mae_folder import MaeConfig
from engine.training.mae.data import ClassMap

#: The source [004] trains on windows with more foreground than this.
LEAST_FOREGROUND = 0.3

#: Share of masked patches, drawn evenly for each batch [004].
RATIOS = (0.1, 0.9)

# Places tried for a window; the one with most foreground is taken if none has enough.
_PLACES = 6

# Sizes of blobs: standard deviations of the noise that is cut at a level, in patches.
_BLOBS = (0.8, 3.0)


@dataclass(frozen=True, slots=True)
class MaeBatch:
    """Windows as patches, what the network sees of them and what counts.

    Parameters
    ----------
    patches : Tensor
        (N, P, patch²) uint8 class indices.
    counts : Tensor
        (N, P, patch²) bool: False where a pixel is too uncertain to count.
    visible, wanted : Tensor
        (N, P) bool: what the encoder sees; that and what is to be filled.
    """

    patches: Tensor
    counts: Tensor
    visible: Tensor
    wanted: Tensor

    @property
    def lengths(self) -> tuple[int, int]:
        """Tokens in encoder and decoder: those of the fullest window."""
        return int(self.visible.sum(1).max()), int(self.wanted.sum(1).max())


@dataclass(frozen=True, slots=True)
class MaeBatches:
    """Endless training batches.

    Parameters
    ----------
    maps : sequence of ClassMap
        Drawn in proportion to their area.
    config : MaeConfig
        Window, patch and reach.
    batch : int
        Whole windows per batch.
    piece : int
        Side, pixels, of the square that enters of each window while pieces are asked for.
    blobs : float
        Share of windows whose masked patches are in blobs.
    seed : int
        With the number of the batch it decides everything.
    """

    maps: Sequence[ClassMap]
    config: MaeConfig
    batch: int
    piece: int
    blobs: float
    seed: int

    def make(self, number: int, *, pieces: bool) -> MaeBatch:
        """Make batch `number`, of pieces of windows or of whole windows."""
        rng = np.random.default_rng((self.seed, number, int(pieces)))
        side = self.piece if pieces else self.config.window
        count = self.batch * (self.config.window // side) ** 2
        areas = np.array([m.labels.size for m in self.maps], np.float64)
        picks = rng.choice(len(self.maps), size=count, p=areas / areas.sum())
        drawn = [_draw(self.maps[i], side, rng) for i in picks]
        # A piece stands at a random place of its window: every position is learned.
        labels, counts, inside = _placed(drawn, side, self.config, rng)
        ratio = rng.uniform(*RATIOS)
        blobs = rng.random(count) < self.blobs
        return mask_windows((labels, counts, inside), self.config, ratio, blobs, rng)


def validation_windows(
    maps: Sequence[ClassMap], config: MaeConfig, most: int
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut windows on a regular lattice, those with enough foreground first.

    Parameters
    ----------
    maps : sequence of ClassMap
        Validation maps.
    config : MaeConfig
        Size of a window.
    most : int
        Windows at the most, spread evenly over all.

    Returns
    -------
    labels : ndarray
        (N, window, window) uint8.
    counts : ndarray
        (N, window, window) bool.
    """
    size = config.window
    corners = [(m, y, x) for m in maps for y in _steps(m.labels.shape[0], size)
               for x in _steps(m.labels.shape[1], size)]  # fmt: skip
    share = [float((m.labels[y : y + size, x : x + size] != 0).mean()) for m, y, x in corners]
    full = [c for c, s in zip(corners, share, strict=True) if s > LEAST_FOREGROUND]
    full = full or [c for c, s in zip(corners, share, strict=True) if s > 0]
    kept = [full[int(i)] for i in np.linspace(0, len(full) - 1, min(most, len(full))).round()]
    labels = np.stack([m.labels[y : y + size, x : x + size] for m, y, x in kept])
    return labels, np.stack([m.counts[y : y + size, x : x + size] for m, y, x in kept])


def mask_windows(
    windows: tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]],
    config: MaeConfig,
    ratio: float,
    blobs: NDArray[np.bool_],
    rng: np.random.Generator,
) -> MaeBatch:
    """Mask a share of the near patches of each window, at least one and never all.

    Parameters
    ----------
    windows : tuple of ndarray
        Labels (N, window, window) uint8, which pixels count, bool of the same shape, and which
        patches take part, (N, side, side) bool.
    config : MaeConfig
        Patch and reach.
    ratio : float
        Share of a window's near patches, in (0, 1).
    blobs : ndarray
        (N,) bool: where masked patches are in blobs.
    rng : numpy.random.Generator
        Decides which.

    Returns
    -------
    MaeBatch
        In the order of `windows`.
    """
    labels, counts, inside = windows
    wanted = near_patches(labels, config.patch, config.near_patches) & inside
    # A window without foreground would be an empty list of tokens.
    wanted[~wanted.any(axis=(1, 2))] = inside[~wanted.any(axis=(1, 2))]
    order = rng.random(wanted.shape)
    for i in np.flatnonzero(blobs):
        order[i] = gaussian_filter(rng.standard_normal(order[i].shape), rng.uniform(*_BLOBS))
    order[~wanted] = np.inf
    flat = wanted.reshape(len(labels), -1)
    total = flat.sum(axis=1)
    masked = np.clip(np.rint(total * ratio), 1, np.maximum(1, total - 1)).astype(np.int64)
    ranks = order.reshape(flat.shape).argsort(axis=1).argsort(axis=1)
    visible = flat & (ranks >= masked[:, None])
    patches, pixels = cut_patches(labels, config.patch), cut_patches(counts, config.patch)
    return MaeBatch(*(torch.from_numpy(a) for a in (patches, pixels, visible, flat)))


def _draw(
    m: ClassMap, side: int, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Cut a square at random, mostly one with foreground, flipped and turned at random."""
    best, corner = -1.0, (0, 0)
    for _ in range(_PLACES):
        y, x = (int(rng.integers(0, n - side + 1)) for n in m.labels.shape)
        share = float(np.count_nonzero(m.labels[y : y + side, x : x + side])) / side**2
        if share > best:
            best, corner = share, (y, x)
        if share > LEAST_FOREGROUND:
            break
    (y, x), quarters, flip = corner, int(rng.integers(4)), bool(rng.integers(2))
    box = np.s_[y : y + side, x : x + side]
    labels, counts = np.rot90(m.labels[box], quarters), np.rot90(m.counts[box], quarters)
    return (labels[:, ::-1], counts[:, ::-1]) if flip else (labels, counts)


def _placed(
    drawn: Sequence[tuple[NDArray[np.uint8], NDArray[np.bool_]]],
    side: int,
    config: MaeConfig,
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.bool_]]:
    """Put squares at random places, whole patches apart, of windows that are empty elsewhere."""
    count, window, patch = len(drawn), config.window, config.patch
    labels = np.zeros((count, window, window), np.uint8)
    counts = np.zeros(labels.shape, np.bool_)
    inside = np.zeros((count, config.side, config.side), np.bool_)
    spare, wide = (window - side) // patch, side // patch
    for i, (piece, mask) in enumerate(drawn):
        y, x = (int(v) for v in rng.integers(0, spare + 1, 2))
        inside[i, y : y + wide, x : x + wide] = True
        box = np.s_[i, y * patch : y * patch + side, x * patch : x * patch + side]
        labels[box], counts[box] = piece, mask
    return labels, counts, inside


def _steps(length: int, size: int) -> list[int]:
    """Corners of windows that cover an axis, the last one shifted inside."""
    return np.linspace(0, length - size, -(-length // size)).round().astype(int).tolist()  # type: ignore[no-any-return]
