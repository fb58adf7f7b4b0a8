"""What tests of whole journeys share: images to start from, pixels to compare."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from engine.running import Outcome
from engine.store import (
    ArraySpec,
    ImageMetadata,
    Level,
    create_array,
    make_axes,
    open_array,
    write_image_metadata,
)

Runner = Callable[..., Outcome]


def save_image(path: Path, pixels: np.ndarray, axes: str = "yx") -> Path:
    """Write an OME-Zarr image of one level with a pixel size of half a micrometre."""
    named = make_axes(axes, "micrometer")
    scale = tuple(0.5 if name in "yx" else 1.0 for name in axes)
    level = Level("0", pixels.shape, scale, (0.0,) * pixels.ndim)
    create_array(
        path, "0", ArraySpec(pixels.shape, pixels.dtype.name, (128, 128), (256, 256), named)
    )
    open_array(path / "0", "r+")[...] = pixels
    write_image_metadata(path, ImageMetadata(path.name, named, (level,), pixels.dtype.name))
    return path


def read(out: Path, name: str) -> np.ndarray:
    """All pixels of an array of a result."""
    return np.asarray(zarr.open_array(out / name, mode="r")[...])
