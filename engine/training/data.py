"""Training images and their labels: found, paired, checked, normalised, split by image."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from engine.errors import InputError
from engine.training.image_files import image_files, read_pixels
from engine.training.splitting import split

# StarDist's usual normalisation: percentiles of the whole image, per channel.
LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
_LEAST_RANGE = 1e-20


@dataclass(frozen=True, slots=True)
class Pair:
    """An image and its labels on disk.

    Parameters
    ----------
    name : str
        What the two files share.
    image, labels : Path
        The files.
    """

    name: str
    image: Path
    labels: Path


@dataclass(frozen=True, slots=True)
class Sample:
    """An image and its labels in memory.

    Parameters
    ----------
    name : str
        Name of the pair.
    image : ndarray
        (C, H, W) float32, normalised so that percentiles 1 and 99.8 of a channel are 0 and 1.
    labels : ndarray
        (H, W) int32, 0 background; ids 1…n without gaps, or classes.
    stack : str, optional
        The stack that it is a slice of; None where it has a file of its own.
    """

    name: str
    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    stack: str | None = None


PairT = TypeVar("PairT", Pair, Sample)


def find_pairs(images: Path, labels: Path) -> tuple[Pair, ...]:
    """Pair the images of one folder with the labels of another by name, without the suffix.

    Parameters
    ----------
    images, labels : Path
        Folders of PNG or TIFF files.

    Returns
    -------
    tuple of Pair
        Sorted by name.

    Raises
    ------
    InputError
        If a folder is missing or has no images, or a name is in one of them only.
    """
    found, truth = image_files(images), image_files(labels)
    for name in sorted(found.keys() ^ truth.keys()):
        here, there = (images, labels) if name in found else (labels, images)
        raise InputError(
            where=str(there), expected=f"a file named {name}, as in {here}", found="none",
            remedy="Give every image labels of the same name, and no others.",
        )  # fmt: skip
    return tuple(Pair(name, found[name], truth[name]) for name in sorted(found))


def read_samples(pairs: Sequence[Pair]) -> tuple[Sample, ...]:
    """Read and check pairs; all stay in memory, 4 bytes per channel and 4 for labels per pixel.

    Parameters
    ----------
    pairs : sequence of Pair
        What to read.

    Returns
    -------
    tuple of Sample
        In the order of `pairs`.

    Raises
    ------
    InputError
        If a file cannot be read, shapes or numbers of channels differ, labels are not integers,
        pixels are not finite, or there is no object in any image.
    """
    samples = tuple(_read_sample(pair) for pair in pairs)
    check_channels(samples)
    if not any(sample.labels.any() for sample in samples):
        raise InputError(
            where=str(pairs[0].labels.parent), expected="objects in at least one label image",
            found="none", remedy="Label images hold 0 for background and an id per object.",
        )  # fmt: skip
    return samples


def split_pairs(
    pairs: Sequence[PairT], fraction: float, seed: int
) -> tuple[tuple[PairT, ...], tuple[PairT, ...]]:
    """Split by image, or by slice of a single stack: pieces of an image stand on one side.

    Parameters
    ----------
    pairs : sequence of Pair or of Sample
        At least two; see `engine.training.splitting.set_apart` for the rule.
    fraction : float
        Share of the second part, in (0, 1); at least one image on each side.
    seed : int
        Of the random order.

    Returns
    -------
    train, val : tuple
        Both in the order of `pairs`.

    Raises
    ------
    InputError
        If there is only one pair.
    """
    if len(pairs) < 2:
        raise InputError(
            where="training images", expected="at least 2 to set some apart", found=str(len(pairs)),
            remedy="Add images, or name validation images.",
        )  # fmt: skip
    stacks = [(p.stack if isinstance(p, Sample) else None) or p.name for p in pairs]
    return split(pairs, stacks, fraction, seed)


def read_pair(pair: Pair) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read and check a pair.

    Parameters
    ----------
    pair : Pair
        What to read.

    Returns
    -------
    image : ndarray
        (C, H, W), real numbers.
    labels : ndarray
        (H, W), integers >= 0.

    Raises
    ------
    InputError
        As `read_samples`.
    """
    pixels, labels = read_pixels(pair.image), read_pixels(pair.labels)
    if pixels.ndim not in (2, 3):
        raise InputError(
            where=str(pair.image), expected="axes (y, x) or (y, x, channel)",
            found=f"shape {pixels.shape}", remedy="Write one plane per file.",
        )  # fmt: skip
    image = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    check_planes(image, labels, (str(pair.image), str(pair.labels)))
    return image, labels


def check_planes(image: NDArray[Any], labels: NDArray[Any], where: tuple[str, str]) -> None:
    """Refuse an image and labels that do not go together.

    Parameters
    ----------
    image : ndarray
        (C, H, W).
    labels : ndarray
        Should be (H, W), integers >= 0.
    where : tuple of str
        What messages call the two.

    Raises
    ------
    InputError
        If labels are not integers or of another size, or pixels are not finite.
    """
    if not np.issubdtype(labels.dtype, np.integer) or labels.min(initial=0) < 0:
        raise InputError(
            where=where[1], expected="integer labels >= 0",
            found=f"{labels.dtype} from {labels.min(initial=0)}",
            remedy="Write ids as an integer type, 0 for background.",
        )  # fmt: skip
    if image.shape[1:] != labels.shape:
        raise InputError(
            where=where[1], expected=f"shape {image.shape[1:]}, that of {where[0]}",
            found=str(labels.shape), remedy="Labels have their image's height and width.",
        )  # fmt: skip
    if not np.isfinite(image).all():
        raise InputError(
            where=where[0], expected="finite pixels", found="NaN or infinity",
            remedy="Replace them.",
        )  # fmt: skip


def check_channels(samples: Sequence[Sample]) -> None:
    """Refuse images of different numbers of channels.

    Parameters
    ----------
    samples : sequence of Sample
        At least one.

    Raises
    ------
    InputError
        Naming the first image that differs from the first of all.
    """
    channels = samples[0].image.shape[0]
    for sample in samples:
        if sample.image.shape[0] != channels:
            raise InputError(
                where=sample.name, expected=f"{channels} channels, as {samples[0].name} has",
                found=str(sample.image.shape[0]), remedy="Train on images of one kind.",
            )  # fmt: skip


def normalise(image: NDArray[np.generic]) -> NDArray[np.float32]:
    """Map percentiles 1 and 99.8 of each channel to 0 and 1.

    Parameters
    ----------
    image : ndarray
        (C, H, W), real numbers.

    Returns
    -------
    ndarray
        (C, H, W) float32; a constant channel becomes 0.
    """
    values = image.astype(np.float32)
    both = np.percentile(values, [LOW_PERCENTILE, HIGH_PERCENTILE], axis=(1, 2), keepdims=True)
    low, high = both.astype(np.float32)
    scaled: NDArray[np.float32] = (values - low) / (high - low + np.float32(_LEAST_RANGE))
    return scaled


def _read_sample(pair: Pair) -> Sample:
    image, labels = read_pair(pair)
    dense = relabel_sequential(labels)[0].astype(np.int32)
    return Sample(pair.name, normalise(image), dense)
