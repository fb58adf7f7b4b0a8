"""Windows of class maps as patches: cut, put together, and those near any foreground.

Source: Sauer et al. [004]: 128 px windows in 4 x 4 px patches; patches far from any foreground
leave the network and stay background.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import maximum_filter

__all__ = ["cut_patches", "join_patches", "near_patches"]


def cut_patches(windows: np.ndarray, patch: int) -> np.ndarray:
    """Cut windows into square patches.

    Parameters
    ----------
    windows : ndarray of shape (N, Y, X)
        Any dtype; Y and X are multiples of `patch`.
    patch : int
        Side of a patch, pixels.

    Returns
    -------
    ndarray of shape (N, P, patch²)
        P = Y·X / patch² patches in C order, the pixels of each in C order.

    Raises
    ------
    ValueError
        If a side is no multiple of `patch`.

    Examples
    --------
    >>> cut_patches(np.arange(8).reshape(1, 2, 4), 2).tolist()
    [[[0, 1, 4, 5], [2, 3, 6, 7]]]
    """
    n, height, width = windows.shape
    if height % patch or width % patch:
        msg = f"sides must be multiples of {patch}, got {height} and {width}"
        raise ValueError(msg)
    rows, columns = height // patch, width // patch
    split = windows.reshape(n, rows, patch, columns, patch).transpose(0, 1, 3, 2, 4)
    return split.reshape(n, rows * columns, patch * patch)


def join_patches(patches: np.ndarray, width: int, patch: int) -> np.ndarray:
    """Put patches together again: the inverse of `cut_patches`.

    Parameters
    ----------
    patches : ndarray of shape (N, P, patch²)
        As `cut_patches` gives them.
    width : int
        X of the windows, pixels.
    patch : int
        Side of a patch, pixels.

    Returns
    -------
    ndarray of shape (N, Y, X)
        Windows.
    """
    n, count, _ = patches.shape
    columns = width // patch
    rows = count // columns
    grid = patches.reshape(n, rows, columns, patch, patch).transpose(0, 1, 3, 2, 4)
    return grid.reshape(n, rows * patch, columns * patch)


def near_patches(windows: np.ndarray, patch: int, reach: int | None) -> np.ndarray:
    """Find the patches near any foreground of their own window.

    Parameters
    ----------
    windows : ndarray of shape (N, Y, X), integers
        Class maps, 0 background.
    patch : int
        Side of a patch, pixels.
    reach : int or None
        Patches along y or x, whichever are more, between a near patch and one with foreground;
        None for all patches.

    Returns
    -------
    ndarray of shape (N, Y / patch, X / patch), bool
        True where a patch is near.

    Notes
    -----
    The source [004] drops the 30 % of a window's patches with the largest Euclidean distance, be
    they near or far; a fixed distance, counted in whole patches, keeps what matters in full
    windows and costs less in empty ones.
    """
    n, height, width = windows.shape
    rows, columns = height // patch, width // patch
    if reach is None:
        return np.ones((n, rows, columns), np.bool_)
    split = windows.reshape(n, rows, patch, columns, patch)
    own: np.ndarray = (split != 0).any(axis=(2, 4))
    if reach == 0:
        return own
    size = 2 * reach + 1
    near: np.ndarray = maximum_filter(own, size=(1, size, size), mode="constant", cval=False)
    return near
