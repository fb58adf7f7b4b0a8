"""Class maps to train on: found, checked, split by image or slice, with what entropy leaves out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from engine.methods.patches import near_patches
from engine.networks.mae_folder import MaeConfig
from engine.training.image_files import SUFFIXES, is_tiff, read_image
from engine.training.mae.options import MaeTrainOptions
from engine.training.splitting import split


@dataclass(frozen=True, slots=True)
class ClassMap:
    """One plane of classes.

    Parameters
    ----------
    name : str
        Of its file, and of its slice where the file is a stack.
    file : str
        Of its file alone.
    labels : ndarray
        (Y, X) uint8, class indices; 0 background.
    counts : ndarray
        (Y, X) bool: False where the class is too uncertain to learn from.
    """

    name: str
    file: str
    labels: NDArray[np.uint8]
    counts: NDArray[np.bool_]


def read_class_maps(options: MaeTrainOptions) -> tuple[tuple[ClassMap, ...], tuple[ClassMap, ...]]:
    """Read what the options name; split it where they name no validation maps.

    Parameters
    ----------
    options : MaeTrainOptions
        Names folders or files, classes and the least size.

    Returns
    -------
    train, val : tuple of ClassMap
        Entropy leaves out pixels in both where `options.entropy` is given; maps of
        `options.val_labels` count whole.

    Raises
    ------
    InputError
        If a file cannot be read, holds other classes than the network's, is smaller than a
        window, or has no entropy map of its shape; or if there is nothing to set apart.
    """
    maps = tuple(_maps(options.labels, options.entropy, options))
    if options.val_labels is not None:
        train, val = maps, tuple(_maps(options.val_labels, None, options))
    else:
        train, val = split_maps(maps, options.val_fraction, options.seed)
    for part, where in ((train, options.labels), (val, options.val_labels or options.labels)):
        if not any(m.labels.any() for m in part):
            raise InputError(
                where=str(where), expected="foreground in at least one class map", found="none",
                remedy="Class maps hold 0 for background and the index of its class elsewhere.",
            )  # fmt: skip
    return train, val


def split_maps(
    maps: Sequence[ClassMap], fraction: float, seed: int
) -> tuple[tuple[ClassMap, ...], tuple[ClassMap, ...]]:
    """Split by file, or by slice where there is one file.

    Parameters
    ----------
    maps : sequence of ClassMap
        At least two; see `engine.training.splitting.set_apart` for the rule.
    fraction : float
        Share of the second part, in (0, 1); at least one file or slice on each side.
    seed : int
        Of the random choice of files.

    Returns
    -------
    train, val : tuple of ClassMap
        In the order of `maps`.

    Raises
    ------
    InputError
        If there is one map only.
    """
    if len(maps) < 2:
        raise InputError(
            where="class maps", expected="at least 2, to set some apart", found=str(len(maps)),
            remedy="Add some, or name validation maps.",
        )  # fmt: skip
    return split(maps, [m.file for m in maps], fraction, seed)


def class_shares(maps: Sequence[ClassMap], config: MaeConfig) -> tuple[float, ...]:
    """Measure how much of the near patches of class maps each class takes.

    Parameters
    ----------
    maps : sequence of ClassMap
        What to count.
    config : MaeConfig
        Its classes, patch and reach.

    Returns
    -------
    tuple of float
        Shares of the pixels that count, summing to 1.
    """
    total, patch = np.zeros(len(config.classes), np.int64), config.patch
    for m in maps:
        height, width = (n // patch * patch for n in m.labels.shape)
        labels = m.labels[:height, :width]
        near = near_patches(labels[None], patch, config.near_patches)[0]
        where = near.repeat(patch, axis=0).repeat(patch, axis=1) & m.counts[:height, :width]
        total += np.bincount(labels[where], minlength=len(total))
    return tuple((total / max(1, total.sum())).tolist())


def _maps(place: Path, entropy: Path | None, options: MaeTrainOptions) -> Iterator[ClassMap]:
    others = {} if entropy is None else {p.stem: p for p in _files(entropy)}
    for path in _files(place):
        stack = _planes(path)
        counts = np.ones(stack.shape, np.bool_)
        if entropy is not None:
            counts = _counts(stack, path, others.get(path.stem), options)
        labels = _checked(stack, path, options)
        for z, (plane, mask) in enumerate(zip(labels, counts, strict=True)):
            name = path.stem if len(labels) == 1 else f"{path.stem}[{z}]"
            yield ClassMap(name, path.stem, plane, mask)


def _counts(
    stack: NDArray[np.integer], path: Path, entropy: Path | None, options: MaeTrainOptions
) -> NDArray[np.bool_]:
    """Find the pixels whose entropy is low enough."""
    if entropy is None:
        raise InputError(
            where=str(options.entropy), expected=f"an entropy map named {path.stem}", found="none",
            remedy="Give every class map an entropy map of its name.",
        )  # fmt: skip
    values = _planes(entropy)
    if values.shape != stack.shape or values.dtype != np.uint8:
        raise InputError(
            where=str(entropy), expected=f"uint8 of shape {stack.shape}, that of {path}",
            found=f"{values.dtype} of shape {values.shape}",
            remedy="Entropy maps hold 255 times the entropy.",
        )  # fmt: skip
    return np.asarray(values <= options.entropy_limit * 255)


def _checked(stack: NDArray[np.integer], path: Path, options: MaeTrainOptions) -> NDArray[np.uint8]:
    """Make class indices of a stack (Z, Y, X)."""
    window, count = options.config.window, len(options.config.classes)
    if min(stack.shape[1:]) < window:
        raise InputError(
            where=str(path), expected=f"at least {window} by {window} pixels",
            found=f"{stack.shape[1]} by {stack.shape[2]}",
            remedy="Leave it out, or train with a smaller window.",
        )  # fmt: skip
    if options.foreground:
        return np.asarray(stack != 0, np.uint8)
    low, high = int(stack.min()), int(stack.max())
    if low < 0 or high >= count:
        raise InputError(
            where=str(path), expected=f"class indices from 0 to {count - 1}",
            found=f"{low} to {high}",
            remedy="Name every class in --classes; for ids of objects use --foreground.",
        )  # fmt: skip
    return np.asarray(stack, np.uint8)


def _files(place: Path) -> tuple[Path, ...]:
    if place.is_file():
        return (place,)
    found = sorted(place.iterdir()) if place.is_dir() else []
    files = tuple(p for p in found if p.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(
            where=str(place), expected=f"a folder of files ending in {', '.join(SUFFIXES)}",
            found="no folder" if not place.is_dir() else "none of them",
            remedy="Correct the path, or convert the images.",
        )  # fmt: skip
    return files


def _planes(path: Path) -> NDArray[np.integer]:
    """Read integers (Z, Y, X); one plane where the file holds one."""
    pixels = read_image(path)
    planes = (2, 3) if is_tiff(path) else (2,)
    if pixels.ndim not in planes or pixels.dtype.kind not in "iu":
        raise InputError(
            where=str(path), expected="integers of axes (y, x), or (z, y, x) in a TIFF",
            found=f"{pixels.dtype} of shape {pixels.shape}",
            remedy="Write the index of its class in every pixel, one plane per file or a stack.",
        )  # fmt: skip
    return pixels[None] if pixels.ndim == 2 else pixels
