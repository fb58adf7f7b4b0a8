"""What the cheap journeys start from: a small image of blobs and a tiny network that finds them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from skimage.filters import gaussian
from skimage.measure import label
from torch import nn

from engine.methods.star_targets import star_targets
from engine.networks.model_folder import StarDistConfig, Thresholds
from engine.networks.star_unet import StarDistUNet
from engine.networks.stardist import save_folder
from engine.store import (
    ArraySpec,
    ImageMetadata,
    Level,
    create_array,
    make_axes,
    open_array,
    write_image_metadata,
)

#: Rows and columns of the image; with shards of 128 pixels, 4 x 5 regions.
EXTENT = (512, 640)

CHUNK, SHARD = 64, 128

#: Which pixels: as they are, some chunks mirrored, or another image.
Pixels = Literal["first", "mirrored", "other"]

#: Chunks, by row and column, that "mirrored" turns around: the histogram stays.
MIRRORED = ((1, 2), (5, 7))

_RADII = (5.0, 9.0)
_BLOBS = 130


def draw_pixels(kind: Pixels) -> np.ndarray:
    """Image of bright discs on a noisy background, (Y, X) uint16.

    Parameters
    ----------
    kind : {"first", "mirrored", "other"}
        Which.
    """
    rng = np.random.default_rng(8 if kind == "other" else 7)
    rows, columns = np.mgrid[: EXTENT[0], : EXTENT[1]]
    image = rng.normal(300, 15, EXTENT)
    for _ in range(_BLOBS):
        y, x, radius = rng.uniform(0, EXTENT[0]), rng.uniform(0, EXTENT[1]), rng.uniform(*_RADII)
        distance = np.hypot(rows - y, columns - x)
        image += rng.uniform(700, 1500) * np.clip(radius + 0.5 - distance, 0, 1)
    pixels = np.clip(image, 0, 65535).astype(np.uint16)
    if kind == "mirrored":
        for row, column in MIRRORED:
            part = (
                slice(row * CHUNK, (row + 1) * CHUNK),
                slice(column * CHUNK, (column + 1) * CHUNK),
            )
            pixels[part] = pixels[part][:, ::-1].copy()
    return pixels


def save_image(path: Path, pixels: np.ndarray, shard: int) -> None:
    """Write pixels as an OME-Zarr image, or the changed shards of one that stands there."""
    axes = make_axes("yx", "micrometer")
    if not (path / "zarr.json").is_file():
        level = Level("0", pixels.shape, (0.5, 0.5), (0.0, 0.0))
        sides = (shard // 2, shard // 2), (shard, shard)
        create_array(path, "0", ArraySpec(pixels.shape, pixels.dtype.name, *sides, axes))
        write_image_metadata(path, ImageMetadata(path.name, axes, (level,), pixels.dtype.name))
    array = open_array(path / "0", "r+")
    for y in range(0, pixels.shape[0], shard):
        for x in range(0, pixels.shape[1], shard):
            part = (slice(y, y + shard), slice(x, x + shard))
            if not np.array_equal(np.asarray(array[part]), pixels[part]):
                array[part] = pixels[part]


def save_model(path: Path, seed: int) -> None:
    """Write a model folder: random convolutions, heads fitted by least squares to the discs.

    Parameters
    ----------
    path : Path
        The folder to make.
    seed : int
        Of the convolutions; another seed gives another network.
    """
    torch.manual_seed(seed)
    config = StarDistConfig(
        n_rays=8,
        grid=(2, 2),
        unet_n_depth=1,
        unet_n_filter_base=8,
        unet_n_conv_per_depth=1,
        unet_activation="elu",
        unet_last_activation="elu",
        net_conv_after_unet=16,
    )
    network = StarDistUNet(config).eval()
    with torch.no_grad():
        for block in network.blocks.parameters():
            block.mul_(2)  # features as torch draws them differ too little to fit anything
    _fit_heads(network, draw_pixels("first"))
    save_folder(network, Thresholds(0.6, 0.3), "Of the fault tests: finds bright discs.\n", path)


@torch.no_grad()
def _fit_heads(network: StarDistUNet, pixels: np.ndarray) -> None:
    """Fit both heads to the discs that a threshold finds: least squares over all pixels."""
    low, high = np.percentile(pixels, [1, 99.8])
    image = torch.from_numpy(((pixels - low) / (high - low)).astype(np.float32))[None, None]
    labels = label(gaussian(pixels.astype(float), 1) > low + (high - low) / 4)
    targets = star_targets(labels, network.config.n_rays, network.config.grid)
    kept: list[torch.Tensor] = []
    hook = network.blocks["features"].register_forward_hook(lambda *call: kept.append(call[2]))
    network(image)
    hook.remove()
    features = kept[0][0].flatten(1).T.double().numpy()
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    inside = targets.prob.ravel() > 0
    for head, wanted, rows in (
        (network.prob, (targets.prob[None] - 0.35) * 10, np.ones_like(inside)),
        (network.dist, targets.dist, inside),
    ):
        values = wanted.reshape(len(wanted), -1).T
        found = np.linalg.lstsq(design[rows], values[rows], rcond=1e-9)[0].astype(np.float32)
        head.weight.copy_(torch.from_numpy(found[:-1].T.copy())[:, :, None, None])
        _bias(head).copy_(torch.from_numpy(found[-1]))


def _bias(head: nn.Conv2d) -> torch.Tensor:
    if head.bias is None:
        raise TypeError("the heads of a StarDist network have biases")
    return head.bias
