"""Images and class labels for training: folders, TIFF stacks, OME-Zarr; split by image or slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from engine.errors import InputError
from engine.store import ImageReader
from engine.training.data import (
    Pair,
    Sample,
    check_channels,
    check_planes,
    find_pairs,
    normalise,
    read_pair,
    split_pairs,
)
from engine.training.image_files import is_tiff
from engine.training.unet.options import UNetOptions
from tiling import Box


@dataclass(frozen=True, slots=True)
class ClassData:
    """Images for training and for validation.

    Parameters
    ----------
    train, val : tuple of Sample
        With equal numbers of channels; labels are classes.
    """

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]


@dataclass(frozen=True, slots=True)
class _Plane:
    name: str
    image: NDArray[Any]
    labels: NDArray[Any]
    where: str
    stack: str | None


def read_class_data(options: UNetOptions) -> ClassData:
    """Read, check and where needed split the images that the options name.

    Parameters
    ----------
    options : UNetOptions
        Names the images, the labels and the classes.

    Returns
    -------
    ClassData
        All in memory: 4 bytes per channel and 4 for the label of a pixel.

    Raises
    ------
    InputError
        If an image or its labels cannot be used, a label is no class, or there are fewer images to
        train on than members.
    """
    samples = _read(options.images, options.labels, options, options.slices)
    if options.val_images is not None and options.val_labels is not None:
        train, val = samples, _read(options.val_images, options.val_labels, options, None)
    else:
        train, val = split_pairs(samples, options.val_fraction, options.seed)
    check_channels((*train, *val))
    if len(train) < options.members:
        raise InputError(
            where=options.images, expected=f"an image for each of {options.members} members",
            found=f"{len(train)} to train on",
            remedy="Members differ by what they see: annotate more images or slices, or take "
            "fewer members.",
        )  # fmt: skip
    return ClassData(train, val)


def subset(samples: Sequence[Sample], options: UNetOptions, member: int) -> tuple[Sample, ...]:
    """Choose the images that a member sees; each image is seen by some member.

    Parameters
    ----------
    samples : sequence of Sample
        All that there are to train on, at least as many as members.
    options : UNetOptions
        Members, share and seed.
    member : int
        From 0.

    Returns
    -------
    tuple of Sample
        In the order of `samples`; another set for each member where `share` < 1.

    Notes
    -----
    Images in random order lie on a circle; members take equal arcs that begin evenly spaced.
    """
    count = len(samples)
    taken = max(-(-count // options.members), round(count * options.share))
    if options.share < 1 and options.members > 1:
        taken = min(taken, count - 1)
    order = np.random.default_rng((options.seed, count)).permutation(count)
    first = member * count // options.members
    chosen = {int(order[(first + k) % count]) for k in range(taken)}
    return tuple(sample for i, sample in enumerate(samples) if i in chosen)


def _read(
    images: str, labels: str, options: UNetOptions, slices: tuple[int, int] | None
) -> tuple[Sample, ...]:
    planes = _planes(images, labels)
    chosen = [p for k, p in enumerate(planes) if slices is None or slices[0] <= k < slices[1]]
    if slices is not None and len(chosen) < slices[1] - slices[0]:
        raise InputError(
            where=images, expected=f"images {slices[0]} to {slices[1]}",
            found=f"only {len(chosen)} of them", remedy="Correct the slices.",
        )  # fmt: skip
    return tuple(Sample(p.name, normalise(p.image), _classes(p, options), p.stack) for p in chosen)


def _classes(plane: _Plane, options: UNetOptions) -> NDArray[np.int32]:
    if options.foreground:
        return (plane.labels > 0).astype(np.int32)
    largest = int(plane.labels.max(initial=0))
    if largest >= len(options.classes):
        raise InputError(
            where=plane.where,
            expected=f"labels 0 to {len(options.classes) - 1}: {', '.join(options.classes)}",
            found=f"the value {largest}",
            remedy="Name all classes, or say that labels are ids of objects (--foreground).",
        )
    return plane.labels.astype(np.int32)


def _planes(images: str, labels: str) -> Iterator[_Plane]:
    path = Path(images)
    if path.is_file() and is_tiff(path):
        yield from _paired(_stack(path), _stack(Path(labels)), (images, labels))
    elif path.is_dir() and not any((path / n).is_file() for n in ("zarr.json", ".zgroup")):
        for pair in find_pairs(path, Path(labels)):
            yield _read_files(pair)
    elif path.is_file():
        raise InputError(
            where=images, expected="a folder, a TIFF stack or an OME-Zarr image", found="a file",
            remedy="Put PNG files into a folder.",
        )  # fmt: skip
    else:
        yield from _paired(_omezarr(images), _omezarr(labels), (images, labels))


def _read_files(pair: Pair) -> _Plane:
    image, labels = read_pair(pair)
    return _Plane(pair.name, image, labels, str(pair.labels), None)


def _paired(
    images: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]], where: tuple[str, str]
) -> Iterator[_Plane]:
    """Pair (C, H, W) slices of an image with those of its labels, which have one channel."""
    if len(images) != len(labels):
        raise InputError(
            where=where[1], expected=f"{len(images)} slices, as {where[0]} has",
            found=str(len(labels)), remedy="Give every slice its labels.",
        )  # fmt: skip
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        at = f"{where[0]}, slice {k}", f"{where[1]}, slice {k}"
        if len(label) != 1:
            raise InputError(
                where=at[1], expected="labels of one channel", found=f"{len(label)} channels",
                remedy="Give an image of classes.",
            )  # fmt: skip
        check_planes(image, label[0], at)
        yield _Plane(at[0], image, label[0], at[1], where[0])


def _stack(path: Path) -> list[NDArray[Any]]:
    """Slices of a TIFF, each (C, H, W)."""
    try:
        with tifffile.TiffFile(path) as file:
            axes, pixels = file.series[0].axes, file.series[0].asarray()
    except (OSError, ValueError, IndexError, tifffile.TiffFileError) as err:
        raise InputError(
            where=str(path), expected="a readable TIFF", found=str(err),
            remedy="Copy it again or leave it out.",
        ) from err  # fmt: skip
    colours = [axis for axis in axes if axis in "CS"]
    if not {"Y", "X"} <= set(axes) or len(colours) > 1:
        raise InputError(
            where=str(path), expected="axes y and x, and at most one of channels",
            found=axes, remedy="Write slices along the first axis.",
        )  # fmt: skip
    lead = [axis for axis in axes if axis not in "CSYX"]
    order = [axes.index(axis) for axis in (*lead, *colours, "Y", "X")]
    turned = pixels.transpose(order)
    height, width = turned.shape[-2:]
    channels = turned.shape[-3] if colours else 1
    return list(turned.reshape(-1, channels, height, width))


def _omezarr(place: str) -> list[NDArray[Any]]:
    """Planes of the finest level of an OME-Zarr image, each (C, H, W)."""
    reader = ImageReader(place)
    box = Box((0, 0), reader.extent)
    channels = range(reader.info.n_channels)
    return [reader.read(plane, channels, box) for plane in np.ndindex(*reader.plane_shape)]
