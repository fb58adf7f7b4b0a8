"""Masked autoencoders at work: windows of class maps in, the same with masked patches filled in.

A window's tokens are padded to the next rung of a fixed ladder, which its own content alone
decides; windows of equal rungs run together, or each alone. The windows beside it, their number and
their order change no bit of its answer on a CPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.methods.patches import cut_patches, join_patches, near_patches
from engine.networks.mae_weights import load_mae

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.device import Device, Launch, Precision
    from engine.networks.mae import MaskedAutoencoder
    from engine.networks.mae_folder import MaeFolder

__all__ = ["Evidence", "Inpainter", "ladder", "open_inpainter"]

#: Patches between two rungs; a window pays for half of it in padding on average.
RUNG = 64

#: Least probability that an ensemble is taken to give a class: no single one forbids it.
FLOOR = 1e-3

_LOADING = Lock()


@dataclass(frozen=True, eq=False)
class Evidence:
    """What an ensemble saw, which the autoencoder did not.

    Parameters
    ----------
    probability : ndarray of shape (N, C, window, window), uint8
        Mean probability of each class, 255 for 1.
    weight : float
        Of the autoencoder: classes maximise ``weight log prior + log probability``.
    """

    probability: np.ndarray
    weight: float


class Inpainter:
    """A masked autoencoder on its device, ready for windows.

    Parameters
    ----------
    module : MaskedAutoencoder
        In evaluation mode.
    launch : Launch
        Device, precision, and how many whole windows' worth of tokens run at once; with one, each
        window runs alone.
    """

    def __init__(self, module: MaskedAutoencoder, launch: Launch) -> None:
        self.config = module.config
        self.device = torch.device(launch.device)
        self._module = module
        self._tokens = launch.tiles * module.config.tokens
        self._alone = launch.tiles == 1
        self._rungs = np.array(ladder(module.config.tokens))

    def fill(
        self, labels: np.ndarray, masked: np.ndarray, evidence: Evidence | None = None
    ) -> np.ndarray:
        """Fill masked patches with the most probable classes; all else is copied.

        Parameters
        ----------
        labels : ndarray of shape (N, window, window), uint8
            Class maps.
        masked : ndarray of shape (N, window / patch, window / patch), bool
            Patches that cannot be trusted; what `labels` holds there decides at most which
            patches are near (see `MaeConfig.near_patches`).

        evidence : Evidence or None
            What the ensemble saw; None: the autoencoder decides alone, as in the source.

        Returns
        -------
        ndarray of shape (N, window, window), uint8
            A new array. Windows with nothing masked come back as they are, and so do masked
            patches that are not near any foreground and windows that are `blind`.

        Raises
        ------
        ValueError
            If a shape or dtype is another, or a class is not one of the network's.

        Notes
        -----
        The authors' code [004] returns the prediction for all patches, seen ones too; as their
        text says, only masked ones are replaced here.
        """
        visible, wanted = self._roles(labels, masked)
        target = wanted & ~visible
        runs = np.flatnonzero(target.any(axis=1) & visible.any(axis=1))
        patches = cut_patches(labels, self.config.patch)
        filled = patches.copy()
        for some, lengths in self._launches(runs, visible, wanted):
            scores, index = self._predict(patches[some], visible[some], wanted[some], lengths)
            if evidence is not None:
                scores = evidence.weight * torch.log_softmax(scores, dim=-1)
                scores += self._seen(evidence.probability[some], index)
            found = scores.argmax(dim=-1).to(torch.uint8).cpu().numpy()
            whole = np.empty((len(some), *patches.shape[1:]), np.uint8)
            np.put_along_axis(whole, index[..., None], found, axis=1)
            where = target[some]
            filled[some] = np.where(where[..., None], whole, filled[some])
        return join_patches(filled, self.config.window, self.config.patch)

    def blind(self, labels: np.ndarray, masked: np.ndarray) -> np.ndarray:
        """Find windows in which something is to be filled and nothing is left to infer it from.

        Parameters
        ----------
        labels, masked : ndarray
            As for `fill`.

        Returns
        -------
        ndarray of shape (N,), bool
            True where patches near foreground are masked, all of them.
        """
        visible, wanted = self._roles(labels, masked)
        return np.asarray(wanted.any(axis=1) & ~visible.any(axis=1))

    def _roles(self, labels: np.ndarray, masked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tell what the encoder sees and what the decoder holds: two (N, P) bool."""
        self._check(labels, masked)
        near = near_patches(labels, self.config.patch, self.config.near_patches)
        wanted = near.reshape(len(labels), self.config.tokens)
        return wanted & ~masked.reshape(wanted.shape), wanted

    def _check(self, labels: np.ndarray, masked: np.ndarray) -> None:
        window, side, count = self.config.window, self.config.side, len(labels)
        if labels.shape != (count, window, window) or labels.dtype != np.uint8:
            msg = f"labels must be (N, {window}, {window}) uint8, got {labels.shape} {labels.dtype}"
            raise ValueError(msg)
        if masked.shape != (count, side, side) or masked.dtype != np.bool_:
            msg = f"masked must be ({count}, {side}, {side}) bool, got {masked.shape} "
            msg += str(masked.dtype)
            raise ValueError(msg)
        if labels.max(initial=0) >= len(self.config.classes):
            msg = f"classes must be below {len(self.config.classes)}, got {labels.max()}"
            raise ValueError(msg)

    def _launches(
        self, runs: np.ndarray, visible: np.ndarray, wanted: np.ndarray
    ) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
        """Group windows by their rungs; groups in launches of nearly equal size."""
        rungs = np.stack([self._rung(visible[runs]), self._rung(wanted[runs])], axis=1)
        for pair in np.unique(rungs, axis=0):
            group = runs[(rungs == pair).all(axis=1)]
            lengths = (int(pair[0]), int(pair[1]))
            most = 1 if self._alone else max(1, self._tokens // max(lengths))
            count = -(-len(group) // most)
            edges = [round(k * len(group) / count) for k in range(count + 1)]
            for a, b in pairwise(edges):
                yield group[a:b], lengths

    def _rung(self, present: np.ndarray) -> np.ndarray:
        rungs: np.ndarray = self._rungs[np.searchsorted(self._rungs, present.sum(axis=1))]
        return rungs

    @torch.inference_mode()
    def _predict(
        self,
        patches: np.ndarray,
        visible: np.ndarray,
        wanted: np.ndarray,
        lengths: tuple[int, int],
    ) -> tuple[torch.Tensor, np.ndarray]:
        """Logits (N, L, patch², C) of the patches whose index (N, L) comes with them."""
        arrays = (torch.from_numpy(a).to(self.device) for a in (patches, visible, wanted))
        prediction = self._module(*arrays, lengths)
        return prediction.logits, prediction.index.cpu().numpy()

    def _seen(self, probability: np.ndarray, index: np.ndarray) -> torch.Tensor:
        """Logarithms of the probabilities of patches: (N, L, patch², C) float32."""
        parts = [cut_patches(one, self.config.patch) for one in np.moveaxis(probability, 1, 0)]
        values = np.stack(parts, axis=-1)
        chosen = np.take_along_axis(values, index[:, :, None, None], axis=1)
        shares = np.maximum(chosen.astype(np.float32) / np.float32(255), np.float32(FLOOR))
        return torch.from_numpy(np.log(shares)).to(self.device)


def ladder(tokens: int) -> tuple[int, ...]:
    """List the counts of patches to which windows are padded, the last one all patches.

    Parameters
    ----------
    tokens : int
        Patches of a window.

    Returns
    -------
    tuple of int
        Ascending; one less than multiples of 64, since the class token comes with the patches.

    Examples
    --------
    >>> ladder(200)
    (63, 127, 191, 200)
    """
    return (*range(RUNG - 1, tokens, RUNG), tokens)


def open_inpainter(model: MaeFolder, launch: Launch) -> Inpainter:
    """Load a masked autoencoder, or take the one that this process already holds.

    Parameters
    ----------
    model : MaeFolder
        As `engine.networks.mae_folder.open_mae` gives it.
    launch : Launch
        As for `Inpainter`.

    Returns
    -------
    Inpainter
        Ready for windows.

    Raises
    ------
    ModelError
        If the weights do not fit the configuration.
    """
    with _LOADING:
        module = _load(model, launch.device, launch.precision)
    return Inpainter(module, launch)


@lru_cache(maxsize=4)
def _load(model: MaeFolder, device: Device, precision: Precision) -> MaskedAutoencoder:
    """Load weights, fix what decides the last bits, and move to the device."""
    # One thread: the last bits change with their number, and processes scale better.
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return load_mae(model).to(torch.device(device), dtype)
