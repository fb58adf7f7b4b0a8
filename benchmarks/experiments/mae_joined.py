"""A repair that also heeds what the ensemble saw: not the source's, and not the engine's yet.

The autoencoder never sees the image. Where the ensemble is in doubt, its mean probability still
says something; taken for a likelihood and the autoencoder's answer for a prior, their product
p_mae^a p_ens chooses the class. With a = 1 both count alike; the share of the source is a large a.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from mae_maps import Maps, Networks, digest, write_arrays

from engine.methods.entropy import uncertain_patches
from engine.methods.patches import cut_patches, join_patches
from engine.networks.mae_runtime import open_inpainter

if TYPE_CHECKING:
    from engine.networks.mae_runtime import Inpainter

#: Exponents a that are tried.
WEIGHTS = (0.25, 0.5, 1.0)

#: Least probability of a class: no single voice forbids it.
_FLOOR = 1e-3


def join(networks: Networks, maps: Maps, planes: range, threshold: float) -> np.ndarray:
    """Fill uncertain patches by the product, for each weight: (weights, planes, Y, X) uint8.

    Windows and masks are those of the stage; a patch is taken from the window where it is most
    central. Sides must be multiples of half a window.
    """
    entropy, initial = (one[planes.start : planes.stop] for one in (maps.entropy, maps.initial))
    facts = (networks.mae.sha256, networks.ensemble.sha256, networks.launch, threshold, WEIGHTS)
    file = networks.folder / f"joined-{digest(np.stack([entropy, initial]), *facts)}.npz"
    if not file.exists():
        inpainter = open_inpainter(networks.mae, networks.launch)
        found = [
            _join(inpainter, initial[k], entropy[k], maps.mean(plane), threshold)
            for k, plane in enumerate(planes)
        ]
        write_arrays(file, classes=np.stack(found, axis=1))
    with np.load(file) as arrays:
        return np.asarray(arrays["classes"])


def _join(
    inpainter: Inpainter, initial: np.ndarray, entropy: np.ndarray, seen: np.ndarray,
    threshold: float,
) -> np.ndarray:  # fmt: skip
    """Join one plane: (weights, Y, X)."""
    prior = prior_of(inpainter, initial, uncertain_patches(entropy, threshold))
    known = ~np.isnan(prior[0])
    here = np.log(np.maximum(prior[:, known], _FLOOR))
    there = np.log(np.maximum(seen[:, known], _FLOOR))
    joined = np.repeat(initial[None], len(WEIGHTS), axis=0)
    for k, weight in enumerate(WEIGHTS):
        joined[k, known] = (weight * here + there).argmax(axis=0)
    return joined


def prior_of(inpainter: Inpainter, classes: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Probabilities that the autoencoder gives masked patches; NaN elsewhere.

    Parameters
    ----------
    inpainter : Inpainter
        The autoencoder.
    classes : ndarray of shape (Y, X), uint8
        Class map.
    masked : ndarray of shape (Y / patch, X / patch), bool
        Uncertain patches.

    Returns
    -------
    ndarray of shape (C, Y, X), float32
        Patches that are not near anything, and those of windows without any trusted patch, are
        NaN too: they stay.
    """
    config = inpainter.config
    side, step = config.window, config.window // 2
    prior = np.full((len(config.classes), *classes.shape), np.nan, np.float32)
    starts = [range(0, n - side + 1, step) for n in classes.shape]
    for y in starts[0]:
        for x in starts[1]:
            own = [
                slice(0 if a == 0 else step // 2, side if a == s[-1] else side - step // 2)
                for a, s in zip((y, x), starts, strict=True)
            ]
            window = (slice(y, y + side), slice(x, x + side))
            mask = masked[
                tuple(slice(w.start // config.patch, w.stop // config.patch) for w in window)
            ]
            counted = np.zeros((side, side), bool)
            counted[tuple(own)] = mask.repeat(config.patch, 0).repeat(config.patch, 1)[tuple(own)]
            if counted.any():
                found = _soft(inpainter, classes[window], mask)
                prior[:, *window][:, counted] = found[:, counted]
    return prior


@torch.inference_mode()
def _soft(inpainter: Inpainter, window: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Probabilities of the masked near patches of a window, (C, y, x); NaN elsewhere."""
    config = inpainter.config
    count, pixels = len(config.classes), config.patch**2
    patches = np.full((config.tokens, pixels, count), np.nan, np.float32)
    visible, wanted = inpainter._roles(window[None], mask[None])
    if visible.any():
        arrays = (
            torch.from_numpy(a) for a in (cut_patches(window[None], config.patch), visible, wanted)
        )
        lengths = int(visible.sum()), int(wanted.sum())
        found = inpainter._module(*(a.to(inpainter.device) for a in arrays), lengths)
        index = found.index[0].cpu().numpy()
        patches[index] = found.logits[0].float().softmax(dim=-1).cpu().numpy()
        patches[~mask.ravel()] = np.nan
    planes = np.moveaxis(patches, -1, 0)
    return join_patches(planes, config.window, config.patch)
