"""What tests of whole journeys share: images to start from, pixels to compare."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from engine.checking import kept_passes
from engine.ledger import Lease, Ledger, Mark, State, take_over
from engine.methods.defenses import Layout, evaluate
from engine.networks.defense_bank import DefenseBank, save_bank
from engine.running import Outcome
from engine.store import (
    ArraySpec,
    ImageMetadata,
    Level,
    Location,
    create_array,
    make_axes,
    open_array,
    write_image_metadata,
)
from tiling import Region

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


def make_bank(path: Path, model_sha256: str, count: int) -> Path:
    """Random smooth fields at the cap: no use as defenses, but they change objects."""
    layout, rng = Layout(degree=5, blocks=4), np.random.default_rng(5)
    coefficients = rng.normal(size=(count, *layout.shape)).astype(np.float32)
    for one in coefficients:
        one *= 0.249 / np.abs(evaluate(one, layout)).max()
    gains = np.full(count, 0.5, np.float32)
    origins = tuple(f"piece {k}" for k in range(count))
    bank = DefenseBank(
        "random", layout, coefficients, model_sha256, gains, gains + 0.1, "global", origins
    )
    save_bank(bank, path)
    return path


def revoke(out: Path, state: State = State.MISSING, **chosen: slice) -> list[Region]:
    """Let the ledger forget some regions of passes, named with a slice of their regions."""
    ledger = Ledger(Location.parse(out))
    marks = []
    for kept in kept_passes(ledger.read_run()):
        name = kept.name.replace("-", "_")
        if name in chosen:
            records = sorted(
                ledger.records(kept.name, kept.digest, kept.grid), key=lambda r: r.region
            )
            marks += [Mark(kept.name, r.region, kept.digest, state) for r in records[chosen[name]]]
    lease = Lease.acquire(ledger)
    take_over(ledger, lease).revoke(marks)
    lease.release()
    return [mark.region for mark in marks]
