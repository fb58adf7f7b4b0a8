"""What was read, by its contents: paths alone do not say whether images are still the same."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.training.data import Sample


def sample_contents(
    train: Sequence[Sample], val: Sequence[Sample], *, named: bool
) -> dict[str, str]:
    """Digest the images and labels of a training.

    Parameters
    ----------
    train, val : sequence of Sample
        For training and for validation.
    named : bool
        Whether those for validation come from a place of their own; else they were set apart.

    Returns
    -------
    dict
        As `contents`, of "image NAME" and, where `named`, "validation image NAME".
    """
    other = "validation image" if named else "image"
    parts = (("image", train), (other, val))
    return contents((f"{word} {s.name}", (s.image, s.labels)) for word, part in parts for s in part)


def contents(items: Iterable[tuple[str, Sequence[NDArray[np.generic]]]]) -> dict[str, str]:
    """Digest arrays by the name of what they belong to.

    Parameters
    ----------
    items : iterable
        Names, and the arrays of each; those of equal names are digested together, in order.

    Returns
    -------
    dict
        SHA-256 over types, shapes and values, hexadecimal, of each name.
    """
    digests: dict[str, hashlib._Hash] = {}
    for name, arrays in items:
        digest = digests.setdefault(name, hashlib.sha256())
        for array in arrays:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return {name: digest.hexdigest() for name, digest in digests.items()}
