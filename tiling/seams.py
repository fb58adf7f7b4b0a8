"""Label seams: joining objects that touch across the line between two regions.

Each side labels its own pixels with ids that no other side uses. Where two regions meet, the
last line of one and the first line of the other form a face; labels that touch across it belong
together. The table of touching pairs is sparse, and tables can be joined in any order and in any
grouping: the name of a joined object is its smallest id, whatever the order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


def touching_pairs(first: np.ndarray, second: np.ndarray, *, diagonal: bool = True) -> np.ndarray:
    """Pairs of labels that touch across a face.

    Parameters
    ----------
    first, second : ndarray of shape (n,), unsigned integer
        Labels along the two lines on either side of the seam; 0 is background.
    diagonal : bool
        Whether pixels that meet at a corner touch (8-connected) or not (4-connected).

    Returns
    -------
    ndarray of shape (m, 2), uint64
        Distinct pairs (label in `first`, label in `second`), sorted.

    Raises
    ------
    ValueError
        If the two lines differ in length.
    """
    if first.shape != second.shape:
        msg = f"both sides of a face must be as long, got {first.shape} and {second.shape}"
        raise ValueError(msg)
    shifted = [(first, second)]
    if diagonal:
        shifted += [(first[1:], second[:-1]), (first[:-1], second[1:])]
    pairs = np.concatenate([np.stack([a, b], axis=1) for a, b in shifted]).astype(np.uint64)
    return np.unique(pairs[(pairs != 0).all(axis=1)], axis=0)


@dataclass(frozen=True)
class Joins:
    """Which ids are one object: a sparse union of touching pairs.

    Parameters
    ----------
    ids : ndarray of shape (n,), uint64
        Ids that take part in some join, ascending.
    roots : ndarray of shape (n,), uint64
        For each of them the smallest id of the object it belongs to.

    Examples
    --------
    >>> joins = Joins.of_pairs(np.array([[4, 7], [2, 7]], np.uint64))
    >>> joins.apply(np.array([0, 2, 4, 7, 9], np.uint64)).tolist()
    [0, 2, 2, 2, 9]
    """

    ids: np.ndarray
    roots: np.ndarray

    @classmethod
    def of_pairs(cls, pairs: np.ndarray) -> Joins:
        """Union of all pairs, an (m, 2) uint64 array."""
        ids, inverse = np.unique(np.asarray(pairs, np.uint64), return_inverse=True)
        parent = np.arange(len(ids))
        for a, b in inverse.reshape(-1, 2):
            low, high = sorted((_root(parent, int(a)), _root(parent, int(b))))
            parent[high] = low
        roots = np.array([_root(parent, k) for k in range(len(ids))], np.intp)
        return cls(ids, ids[roots])

    def merge(self, other: Joins) -> Joins:
        """Union of two tables: associative and commutative, so that a tree can reduce them."""
        pairs = [np.stack([t.ids, t.roots], axis=1) for t in (self, other)]
        return Joins.of_pairs(np.concatenate(pairs))

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Replace every joined id by the smallest of its object: same shape, uint64."""
        flat = labels.astype(np.uint64).ravel()
        if len(self.ids) == 0:
            return flat.reshape(labels.shape)
        at = np.minimum(np.searchsorted(self.ids, flat), len(self.ids) - 1)
        return np.where(self.ids[at] == flat, self.roots[at], flat).reshape(labels.shape)


def _root(parent: np.ndarray, k: int) -> int:
    """Root of `k`, with the path to it shortened on the way."""
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = int(parent[k])
    return k


def disagreement(seen: np.ndarray, owned: np.ndarray) -> tuple[int, int]:
    """Compare what the two sides of a seam say of the objects that cross it.

    Parameters
    ----------
    seen : ndarray, uint64
        Keys of the foreign objects that a region saw reaching into its core.
    owned : ndarray, uint64
        Keys of the objects that their owners say reach into that core.

    Returns
    -------
    ghosts : int
        Seen here, but unknown to their owner.
    missed : int
        Stated by their owner, but not seen here.
    """
    return len(np.setdiff1d(seen, owned)), len(np.setdiff1d(owned, seen))
