"""Where an ensemble disagrees: entropy of its mean probabilities or of its votes, and patches.

Source: Sauer et al. [004]. The entropy of a pixel is H = -Σ p log p over the classes, here always
divided by log C of all C classes. The authors' public code counts the classes that the first model
shows in an image, which can drop classes that only other models see: we depart from it there.

Patches are judged on the stored map (uint8, 255·H rounded) by sums of integers, so that nothing
depends on the order in which anything was added.
"""

from __future__ import annotations

import numpy as np

__all__ = [
    "patch_sums",
    "soft_entropy",
    "store_entropy",
    "uncertain_patches",
    "vote_entropy",
]

#: The stored value of an entropy of 1.
FULL = 255


def soft_entropy(prob: np.ndarray) -> np.ndarray:
    """Entropy of an ensemble's mean probabilities, as the paper defines it.

    Parameters
    ----------
    prob : ndarray of shape (C, ...), float32
        Mean class probabilities in [0, 1], summing to 1 over C >= 2 classes.

    Returns
    -------
    ndarray of shape (...), float32
        In [0, 1]: divided by log C.

    Raises
    ------
    ValueError
        If there is one class only.

    Examples
    --------
    >>> soft_entropy(np.float32([[1, 0.5], [0, 0.5]])).tolist()
    [0.0, 1.0]
    """
    scale = _log_classes(prob)
    total = np.zeros(prob.shape[1:], np.float32)
    for p in prob:  # class after class: one order of sums, and no array of C planes
        safe = np.maximum(p, np.finfo(np.float32).tiny, dtype=np.float32)
        total -= p * np.log(safe)
    entropy: np.ndarray = np.clip(total / scale, np.float32(0), np.float32(1))
    return entropy


def vote_entropy(votes: np.ndarray) -> np.ndarray:
    """Entropy of an ensemble's votes, as the authors' code computes it.

    Parameters
    ----------
    votes : ndarray of shape (C, ...), integers
        How many members chose each of C >= 2 classes; at least one vote for each pixel.

    Returns
    -------
    ndarray of shape (...), float32
        In [0, 1]: divided by log C of all classes, voted for or not (the code departs).

    Raises
    ------
    ValueError
        If there is one class only, or a pixel without votes.

    Examples
    --------
    >>> counts = np.array([5, 1, 0, 0, 0])[:, None]
    >>> round(float(vote_entropy(counts)[0]), 3)
    0.28
    """
    members = votes.sum(axis=0)
    if not members.all():
        msg = "every pixel must have at least one vote"
        raise ValueError(msg)
    return soft_entropy(votes.astype(np.float32) / members.astype(np.float32))


def store_entropy(entropy: np.ndarray) -> np.ndarray:
    """Round an entropy to the dtype in which it is stored.

    Parameters
    ----------
    entropy : ndarray, float32
        In [0, 1].

    Returns
    -------
    ndarray of the same shape, uint8
        255 times the entropy, rounded to the nearest, halves to even.
    """
    return np.rint(entropy * np.float32(FULL)).astype(np.uint8)


def patch_sums(stored: np.ndarray, patch: int = 4) -> np.ndarray:
    """Sum a stored entropy over patches.

    Parameters
    ----------
    stored : ndarray of shape (..., Y, X), uint8
        Y and X are multiples of `patch`.
    patch : int
        Side of a patch, pixels.

    Returns
    -------
    ndarray of shape (..., Y / patch, X / patch), int64
        Sums; divided by 255·patch² they are the mean entropy.

    Raises
    ------
    ValueError
        If the map is not uint8 or a side is no multiple of `patch`.
    """
    *lead, height, width = stored.shape
    if stored.dtype != np.uint8 or height % patch or width % patch:
        msg = f"need uint8 with sides that are multiples of {patch}, got {stored.dtype} "
        msg += f"of {height} by {width}"
        raise ValueError(msg)
    split = stored.reshape(*lead, height // patch, patch, width // patch, patch)
    sums: np.ndarray = split.sum(axis=(-3, -1), dtype=np.int64)
    return sums


def uncertain_patches(stored: np.ndarray, threshold: float, patch: int = 4) -> np.ndarray:
    """Find the patches whose mean entropy exceeds a threshold.

    Parameters
    ----------
    stored : ndarray of shape (..., Y, X), uint8
        255 times the entropy; Y and X are multiples of `patch`.
    threshold : float
        In [0, 1]; the paper takes 0.4.
    patch : int
        Side of a patch, pixels.

    Returns
    -------
    ndarray of shape (..., Y / patch, X / patch), bool
        True where the mean is above the threshold, not where it equals it.

    Raises
    ------
    ValueError
        If the map is not uint8 or a side is no multiple of `patch`.

    Notes
    -----
    The paper masks by this threshold; its code never uses it and masks a fixed share of the
    patches, the most uncertain ones of each batch. We follow the paper.
    """
    above: np.ndarray = patch_sums(stored, patch) > threshold * FULL * patch**2
    return above


def _log_classes(values: np.ndarray) -> np.float32:
    if values.shape[0] < 2:
        msg = f"entropy needs at least 2 classes, got {values.shape[0]}"
        raise ValueError(msg)
    return np.float32(np.log(values.shape[0]))
