"""Table 1: true class maps, patches masked at random, and how well autoencoders fill them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mae_maps import Networks, digest, write_arrays
from mae_measures import dice_rows, fill_by_neighbours, show_dice
from scipy.ndimage import distance_transform_edt

from engine.methods.patches import near_patches
from engine.networks.mae_runtime import open_inpainter

if TYPE_CHECKING:
    from engine.networks.mae_folder import MaeConfig

RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)

#: Pixels farther from foreground, in pixels, do not count, as in the source.
NEAR = 10

#: Windows with less foreground are left out, as in the source.
LEAST_FOREGROUND = 0.3

_SEED = 70_003


def reconstruction(networks: Networks, truths: list[np.ndarray]) -> dict[str, Any]:
    """Dice in masked pixels by masking ratio: autoencoders, and a vote of visible neighbours.

    Parameters
    ----------
    networks : Networks
        Holds the masked autoencoder, and maybe a convolutional one.
    truths : list of ndarray of shape (Y, X), uint8
        Class maps.

    Returns
    -------
    dict
        By competitor and ratio. The ratio is of the patches near foreground; what counts are
        masked pixels at most `NEAR` pixels from foreground (METHODS 004).
    """
    config = networks.mae.config
    windows, scene_of = cut_windows(truths, config)
    facts: tuple[object, ...] = (networks.mae.sha256, networks.launch, RATIOS)
    names = ["mae", "neighbours"]
    if networks.autoencoder is not None:
        facts += (networks.autoencoder.sha256,)
        names.append("cnn-ae")
    file = networks.folder / f"table1-{digest(windows, *facts)}.npz"
    if not file.exists():
        write_arrays(file, rows=np.stack([_fill(networks, windows, r) for r in RATIOS]))
    with np.load(file) as arrays:
        rows = arrays["rows"]
    scenes = np.unique(scene_of)
    by_scene = np.stack([rows[:, scene_of == k].sum(axis=1) for k in scenes], axis=1)
    return {"windows": len(windows)} | {
        name: {str(r): show_dice(by_scene[i, :, j], config.classes) for i, r in enumerate(RATIOS)}
        for j, name in enumerate(names)
    }


def _fill(networks: Networks, windows: np.ndarray, share: float) -> np.ndarray:
    """Count pixels for each competitor: (N, competitors, 3, C)."""
    config = networks.mae.config
    classes, inpainter = len(config.classes), open_inpainter(networks.mae, networks.launch)
    masked = mask_windows(windows, config, share)
    where = masked.repeat(config.patch, axis=1).repeat(config.patch, axis=2)
    rows = []
    for window, found, doubt in zip(windows, inpainter.fill(windows, masked), where, strict=True):
        counted = doubt & (distance_transform_edt(window == 0) <= NEAR)
        filled = [found, fill_by_neighbours(window, doubt, classes)]
        if networks.autoencoder is not None:
            filled.append(networks.autoencoder.fill(window, doubt))
        pairs = [(one, window) for one in filled]
        rows.append(dice_rows(pairs, classes, [counted] * len(pairs)))
    return np.stack(rows)


def cut_windows(truths: list[np.ndarray], config: MaeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Windows side by side with enough foreground, (N, window, window), and the scene of each."""
    found, scene_of, side = [], [], config.window
    for k, true in enumerate(truths):
        for y in range(0, true.shape[0] - side + 1, side):
            for x in range(0, true.shape[1] - side + 1, side):
                window = true[y : y + side, x : x + side]
                if (window != 0).mean() > LEAST_FOREGROUND:
                    found.append(window)
                    scene_of.append(k)
    return np.stack(found), np.array(scene_of)


def mask_windows(windows: np.ndarray, config: MaeConfig, share: float) -> np.ndarray:
    """Mask a share of the near patches of each window at random, at least one and never all."""
    near = near_patches(windows, config.patch, config.near_patches)
    masked = np.zeros(near.shape, bool)
    rng = np.random.default_rng([_SEED, int(1000 * share)])
    for mask, here in zip(masked, near, strict=True):
        places = np.flatnonzero(here)
        count = min(max(1, round(share * len(places))), len(places) - 1)
        mask.ravel()[rng.permutation(places)[:count]] = True
    return masked
