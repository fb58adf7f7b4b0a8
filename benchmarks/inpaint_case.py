"""What the benchmark of repair works on: networks, a class map, its uncertain patches, an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from engine.device import Launch, choose_device, choose_precision
from engine.networks.ensemble import open_ensemble
from engine.networks.ensemble_writing import write_ensemble, write_member
from engine.networks.mae import MaskedAutoencoder
from engine.networks.mae_folder import MaeConfig, open_mae
from engine.networks.mae_weights import initialise_mae, save_mae
from engine.networks.states import stored_state
from engine.networks.unet import UNet
from engine.networks.unet_config import UNetConfig
from engine.phantom import CLASSES, UNSEEN, make_truth
from engine.stages.base import Frame, Place, Raster
from engine.stages.inpaint import Inpaint, pixels_at_once
from engine.stages.semantic import Segment
from tiling import Tiling

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

PATCH, STRIDE, THRESHOLD = 4, 64, 0.4
SCENES, MEMBERS = 4, 6

#: Tile, overlap and margin of the recipe `mitochondria`.
TILES = (512, 64, 24)


class Case:
    """Networks, a class map and its uncertain patches."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        device = choose_device(options.device)
        self.launch = Launch(device, choose_precision(options.precision, device), options.launch)
        self.mae = open_mae(options.mae)
        self.ensemble = open_ensemble(options.ensemble)
        self.place = Place((), self.launch)
        self.frame = Frame((), (options.side, options.side), 1, "uint16")
        pixels = pixels_at_once(self.launch, self.mae.config.window)
        self.stage = Inpaint(self.frame, self.mae, THRESHOLD, pixels, self.frame.bounds)

    def classes(self) -> np.ndarray:
        """Phantom truth, tiled: (side, side) uint8 of classes that the autoencoder knows."""
        truths = [make_truth(UNSEEN, 1, k).classes for k in range(SCENES)]
        row = np.hstack([*truths, *(t[::-1] for t in truths)])
        block = np.vstack([row, row[:, ::-1]])
        side = self.options.side
        repeats = [-(-side // n) for n in block.shape]
        known = len(self.mae.config.classes) - 1
        tiled: np.ndarray = np.minimum(np.tile(block, repeats)[:side, :side], known)
        return tiled.astype(np.uint8)

    def entropy(self, kind: str) -> np.ndarray:
        """Entropy with uncertain patches: (side, side) uint8, 0 or 255."""
        count, blob = self.options.side // PATCH, self.options.blob
        patches = np.zeros((count, count), bool)
        if kind == "nothing":
            return _pixels(patches)
        rng = np.random.default_rng(0)
        wanted = self.options.share * patches.size
        step = 1 if kind == "anywhere" else blob
        slots = (count - blob) // step + 1
        for slot in rng.permutation(slots**2).tolist():
            if patches.sum() >= wanted:
                break
            y, x = (step * n for n in divmod(slot, slots))
            patches[y : y + blob, x : x + blob] = True
        if kind == "all":
            cell, first = STRIDE // PATCH, (STRIDE + STRIDE // 2) // PATCH
            places = np.append(0, np.arange(first, count, cell))
            patches[np.ix_(places, places)] = True
        return _pixels(patches)

    def given(self, kind: str) -> dict[str, Raster]:
        """Make what the stage is given."""
        maps = {"classes_initial": self.classes(), "entropy": self.entropy(kind)}
        return {name: Raster(self.frame.bounds, one[None]) for name, one in maps.items()}

    def inpaint(self, given: dict[str, Raster]) -> dict[str, float]:
        """Run the stage on the whole map; its notes."""
        made = self.stage.run(given, {"classes": self.frame.bounds}, self.place)
        return dict(made.notes)

    def windows(self, given: dict[str, Raster]) -> tuple[np.ndarray, np.ndarray]:
        """Cut some windows that run, (N, 128, 128) uint8, and their masks."""
        classes, entropy = (given[n].data[0] for n in ("classes_initial", "entropy"))
        side, labels, masked = self.mae.config.window, [], []
        for y in range(0, classes.shape[0] - side + 1, STRIDE):
            for x in range(0, classes.shape[1] - side + 1, STRIDE):
                part = (slice(y, y + side), slice(x, x + side))
                mask = entropy[part][::PATCH, ::PATCH] > 0
                if mask[8:24, 8:24].any():  # of its own part
                    labels.append(classes[part])
                    masked.append(mask)
        chosen = np.linspace(0, len(labels) - 1, min(self.options.sample, len(labels))).astype(int)
        return np.stack([labels[k] for k in chosen]), np.stack([masked[k] for k in chosen])

    def segment(self) -> tuple[Segment, dict[str, Raster]]:
        """Make the stage that runs the ensemble, and an image for it."""
        side = self.options.image
        frame = Frame((), (side, side), self.ensemble.n_channel_in, "float32")
        shape = (self.ensemble.n_channel_in, side, side)
        image = np.random.default_rng(0).random(shape, np.float32)
        tiling = Tiling(*TILES, self.ensemble.divisor, 1, "average")
        stage = Segment(frame, self.ensemble, tiling, votes=False, launch_tiles=self.launch.tiles)
        return stage, {"normalised": Raster(frame.bounds, image)}


def _pixels(patches: np.ndarray) -> np.ndarray:
    """Patches as an entropy map of pixels: 0 or 255."""
    return patches.repeat(PATCH, axis=0).repeat(PATCH, axis=1).astype(np.uint8) * 255


def write_random(folder: Path) -> tuple[Path, Path]:
    """Make an ensemble and an autoencoder of the shapes of the bundled ones."""
    config = UNetConfig(1, len(CLASSES))
    members = []
    for k in range(MEMBERS):
        torch.manual_seed(k)
        state = {n: v.numpy() for n, v in stored_state(UNet(config).eval()).items()}
        members.append(folder / f"member-{k}")
        write_member(members[-1], config, state)
    write_ensemble(folder / "ensemble", CLASSES, 1, members, "# random\n")
    network = MaskedAutoencoder(
        MaeConfig(
            CLASSES, encoder_dim=128, encoder_depth=6, encoder_heads=4, decoder_dim=64,
            decoder_depth=2, decoder_heads=2, class_input="onehot", positions="rotary",
            near_patches=3,
        )
    )  # fmt: skip
    initialise_mae(network, 0)
    save_mae(network, "# random\n", folder / "mae", half=True)
    return folder / "ensemble", folder / "mae"
