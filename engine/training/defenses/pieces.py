"""Pieces of images on which defenses are found: fields of 256 pixels that do not overlap."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import relabel_sequential

from engine.errors import InputError
from engine.methods.defenses import FIELD
from engine.training.data import Sample


@dataclass(frozen=True, slots=True)
class Piece:
    """A field of an image and its true objects.

    Parameters
    ----------
    image : str
        Name of the image.
    place : tuple of int
        (y, x) of the first pixel, multiples of 256.
    pixels : ndarray
        (C, 256, 256) float32, normalised by the percentiles of the whole image.
    labels : ndarray
        (256, 256) int32, 0 background, ids 1…n without gaps; n at least 1.
    """

    image: str
    place: tuple[int, int]
    pixels: NDArray[np.float32]
    labels: NDArray[np.int32]

    @property
    def sha256(self) -> str:
        """Digest of pixels and labels."""
        digest = hashlib.sha256(self.pixels.tobytes())
        digest.update(self.labels.tobytes())
        return digest.hexdigest()

    @property
    def origin(self) -> str:
        """Name of the piece: that of the image and the place in it."""
        return f"{self.image} at {self.place}"


def cut_pieces(samples: Sequence[Sample], seed: int) -> tuple[Piece, ...]:
    """Cut images into pieces, in random order.

    Parameters
    ----------
    samples : sequence of Sample
        Images and their labels.
    seed : int
        Of the order: any first part of the pieces is a sample of all images.

    Returns
    -------
    tuple of Piece
        Without pieces smaller than 256 by 256 pixels and those without any object, on which F1 is
        0 whatever is found.

    Raises
    ------
    InputError
        If there is no such piece.
    """
    pieces = [
        Piece(
            sample.name,
            (y, x),
            np.ascontiguousarray(sample.image[:, y : y + FIELD, x : x + FIELD]),
            relabel_sequential(sample.labels[y : y + FIELD, x : x + FIELD])[0].astype(np.int32),
        )
        for sample in samples
        for y in range(0, sample.labels.shape[0] - FIELD + 1, FIELD)
        for x in range(0, sample.labels.shape[1] - FIELD + 1, FIELD)
        if sample.labels[y : y + FIELD, x : x + FIELD].any()
    ]
    if not pieces:
        raise InputError(
            where="images of the calibration",
            expected=f"at least one piece of {FIELD} by {FIELD} pixels with an object",
            found="none", remedy="Give larger images, or ones with objects.",
        )  # fmt: skip
    order = np.random.default_rng(seed).permutation(len(pieces))
    return tuple(pieces[i] for i in order)
