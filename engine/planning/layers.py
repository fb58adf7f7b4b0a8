"""Which arrays a run writes, with their levels, places in space and sizes on disk."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from engine.planning.elements import Layer
from engine.store import Level, pyramid_levels

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.store import Axis, ImageInfo
    from engine.store.sources import SourceInfo

#: Shares of the uncompressed size that are set aside on disk; measured on nuclei: label images
#: come out at 1 to 3 %, probability maps at 20 to 40 %, images at 40 to 100 %.
DISK_SHARE = {"image": 1.0, "map": 0.6, "label": 0.15}

#: Pixels of the smallest object that is still told apart, for the choice of the label dtype.
SMALLEST_OBJECT = 64


def image_layer(axes: tuple[Axis, ...], first: Level, dtype: str, chunk: int, shard: int) -> Layer:
    """Layer of the image itself, at the root of OUT."""
    return Layer("image", "", dtype, 1, axes, pyramid_levels(first, chunk), chunk, shard)


def derived_layer(
    name: str,
    group: str,
    dtype: str,
    scale: int,
    info: ImageInfo,
    level: int,
    sides: tuple[int, int],
) -> Layer:
    """Layer of a map or a label image made from a level of an image: its axes without c.

    Parameters
    ----------
    name, group, dtype, scale
        As in `Layer`.
    info : ImageInfo
        The image.
    level : int
        Level that is read.
    sides : tuple of int
        Chunk and shard in pixels of the level that is read.
    """
    keep = [k for k, axis in enumerate(info.axes) if axis.name != "c"]
    source = info.levels[level]
    shape = [source.shape[k] for k in keep]
    size = [source.scale[k] for k in keep]
    shape[-2:] = [-(-n // scale) for n in shape[-2:]]
    size[-2:] = [s * scale for s in size[-2:]]
    first = Level("0", tuple(shape), tuple(size), tuple(source.translation[k] for k in keep))
    shard = sides[1] // scale
    chunk = math.gcd(sides[0], shard)
    axes = tuple(info.axes[k] for k in keep)
    # As many levels as the image and its labels have: OME-NGFF wants the same number in all.
    levels = pyramid_levels(first, sides[0] // scale)
    is_label = group.startswith("labels/")
    return Layer(name, group, dtype, scale, axes, levels, chunk, shard, is_label)


def label_dtype(shape: Iterable[int]) -> str:
    """Dtype of dense ids: uint32, or uint64 where an image can hold more objects than that."""
    pixels = int(np.prod([int(n) for n in shape], dtype=object))
    return "uint32" if pixels // SMALLEST_OBJECT < 2**32 else "uint64"


def source_level(info: SourceInfo) -> Level:
    """Level 0 of what is ingested."""
    return Level("0", info.shape, info.scale, (0.0,) * len(info.shape))


def layer_bytes(layer: Layer) -> int:
    """Bytes of all levels of a layer, decoded."""
    item = np.dtype(layer.dtype).itemsize
    return sum(int(np.prod(level.shape)) * item for level in layer.levels)


def disk_bytes(layers: Iterable[Layer]) -> int:
    """Bytes to set aside on disk for layers, as stored."""
    total = 0.0
    for layer in layers:
        kind = "label" if layer.is_label else "image" if layer.name == "image" else "map"
        total += DISK_SHARE[kind] * layer_bytes(layer)
    return int(total)
