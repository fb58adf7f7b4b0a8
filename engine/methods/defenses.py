"""Polynomial defenses: the fields, and how they change an image.

Jain, Shao, Hecht 2025, Algorithm 1. A defense is a field of 256 by 256 pixels, cut into square
blocks with one polynomial each. Fields are subtracted from an image at a strength X; what a
network then sees otherwise is not to be trusted. A field is anchored to the plane's first pixel
and repeats: pixel (y, x) of a plane meets ``field[y % 256, x % 256]`` however the plane is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engine.methods.polynomials import multi_indices, separable

if TYPE_CHECKING:
    from torch import Tensor

#: Side of a defense, in pixels.
FIELD = 256

#: Largest size of a value of a defense, at strength 1 and where an image spans 0 to 1.
CAP = 0.25


@dataclass(frozen=True, slots=True)
class Layout:
    """How the polynomials of a defense lie in its field.

    Parameters
    ----------
    degree : int
        lp degree 2 of each polynomial, at least 1.
    blocks : int
        Blocks along each axis.
    field : int
        Side of the field in pixels, a multiple of `blocks`, at least 2 pixels per block.

    Raises
    ------
    ValueError
        If a value is out of range.

    Examples
    --------
    >>> layout = Layout(degree=9, blocks=4)
    >>> layout.side, layout.terms, layout.shape
    (64, 73, (4, 4, 73))
    """

    degree: int
    blocks: int
    field: int = FIELD

    def __post_init__(self) -> None:
        if self.degree < 1:
            msg = f"degree must be >= 1, got {self.degree}"
            raise ValueError(msg)
        if self.blocks < 1 or self.field % self.blocks or self.field < 2 * self.blocks:
            msg = f"blocks must cut {self.field} pixels into equal sides >= 2, got {self.blocks}"
            raise ValueError(msg)

    @property
    def side(self) -> int:
        """Pixels of a block along an axis."""
        return self.field // self.blocks

    @property
    def terms(self) -> int:
        """Coefficients of a block."""
        return len(multi_indices(self.degree))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the coefficients of one defense: (S, S, A)."""
        return self.blocks, self.blocks, self.terms


def evaluate(coefficients: np.ndarray, layout: Layout) -> np.ndarray:
    """Make fields of their coefficients.

    Parameters
    ----------
    coefficients : ndarray of shape (…, S, S, A), float
        Values at the nodes of each block, blocks in C order.
    layout : Layout
        Of the coefficients.

    Returns
    -------
    ndarray of shape (…, field, field), float32
        Computed in float64.

    Raises
    ------
    ValueError
        If the shape is not that of the layout.

    Notes
    -----
    Equation 12 of the paper on every block, as V0 · C · V1ᵀ.
    """
    _check_shape(tuple(coefficients.shape), layout)
    blocks = separable(layout.degree, layout.side).values(coefficients)
    lines = np.swapaxes(blocks, -3, -2)
    field: np.ndarray = lines.reshape(*coefficients.shape[:-3], layout.field, layout.field)
    return field.astype(np.float32)


def evaluate_tensor(coefficients: Tensor, layout: Layout) -> Tensor:
    """Make fields of their coefficients on a device, with gradients.

    Parameters
    ----------
    coefficients : Tensor
        (…, S, S, A) float32 or float64.
    layout : Layout
        Of the coefficients.

    Returns
    -------
    Tensor
        (…, field, field) float32; computed in float64, as `evaluate` does.

    Raises
    ------
    ValueError
        If the shape is not that of the layout.
    """
    import torch

    _check_shape(tuple(coefficients.shape), layout)
    basis = separable(layout.degree, layout.side)
    rows, columns, scatter = (
        torch.tensor(m, device=coefficients.device)
        for m in (basis.rows, basis.columns, basis.scatter)
    )
    count = layout.degree + 1
    products = coefficients.double() @ scatter.T
    blocks = rows @ products.reshape(*coefficients.shape[:-1], count, count) @ columns.T
    lines = blocks.transpose(-3, -2)
    fields: Tensor = lines.reshape(*coefficients.shape[:-3], layout.field, layout.field)
    return fields.float()


def spread(field: np.ndarray, origin: tuple[int, int], shape: tuple[int, int]) -> np.ndarray:
    """Values of a repeating field at the pixels of a box of the plane.

    Parameters
    ----------
    field : ndarray of shape (…, F, F)
        The field; several fields along the first axes.
    origin : tuple of int
        (y, x) of the box's first pixel in the plane.
    shape : tuple of int
        (Y, X) of the box.

    Returns
    -------
    ndarray of shape (…, Y, X)
        ``field[..., y % F, x % F]``.
    """
    rows, columns = (
        np.arange(start, start + size) % side
        for start, size, side in zip(origin, shape, field.shape[-2:], strict=True)
    )
    values: np.ndarray = field[..., rows[:, None], columns]
    return values


def perturb(
    pixels: np.ndarray, field: np.ndarray, strength: float, origin: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """Subtract a defense from a normalised image.

    Parameters
    ----------
    pixels : ndarray of shape (C, Y, X), float32
        Normalised by percentiles of the whole image: about 0 to 1, a little below and above.
    field : ndarray of shape (F, F), float32
        The defense; the same for each channel.
    strength : float
        X, at least 0. At 0 the result is `pixels`, bit for bit.
    origin : tuple of int
        (y, x) of the first pixel in the plane, to which the field is anchored.

    Returns
    -------
    ndarray of shape (C, Y, X), float32
        ``max(x - X · PD, min(x, 0))``.

    Notes
    -----
    Algorithm 1 of the paper scales the result to [0, 1] once more for each defense. Here the
    percentiles that normalised the image serve for all defenses, so that a pixel's value depends
    on the image alone and not on the defense's extremes; what was below 0 before stays as it was.
    """
    if strength == 0:
        return pixels.copy()
    change = np.float32(strength) * spread(field, origin, pixels.shape[-2:])
    changed: np.ndarray = np.maximum(pixels - change, np.minimum(pixels, np.float32(0)))
    return changed


def perturb_tensor(
    pixels: Tensor, fields: Tensor, strength: float, origin: tuple[int, int]
) -> Tensor:
    """Subtract many defenses from one image on a device, as `perturb` does.

    Parameters
    ----------
    pixels : Tensor
        (C, Y, X) float32.
    fields : Tensor
        (N, F, F) float32, on the same device.
    strength, origin
        As for `perturb`.

    Returns
    -------
    Tensor
        (N, C, Y, X) float32, equal to `perturb`.
    """
    import torch

    if strength == 0:
        return pixels.expand(len(fields), *pixels.shape).clone()
    rows, columns = (
        torch.arange(start, start + size, device=fields.device) % side
        for start, size, side in zip(origin, pixels.shape[-2:], fields.shape[-2:], strict=True)
    )
    change = strength * fields[:, rows[:, None], columns]
    return torch.maximum(pixels - change[:, None], pixels.clamp_max(0))


def stretch(pixels: np.ndarray) -> np.ndarray:
    """Map the smallest value of all to 0 and the largest to 1; a constant array becomes 0.

    Parameters
    ----------
    pixels : ndarray, float32
        All channels of one field.

    Returns
    -------
    ndarray of the same shape, float32
    """
    low, high = pixels.min(), pixels.max()
    if not low < high:
        return np.zeros_like(pixels)
    scaled: np.ndarray = (pixels - low) / (high - low)
    return scaled


def perturb_field(pixels: np.ndarray, field: np.ndarray, strength: float) -> np.ndarray:
    """Subtract a defense from one field of an image, scaled as the paper's code does.

    Parameters
    ----------
    pixels : ndarray of shape (C, F, F), float32
        One field's pixels, in any scale.
    field : ndarray of shape (F, F), float32
        The defense.
    strength : float
        X, at least 0; 0 makes the reference.

    Returns
    -------
    ndarray of shape (C, F, F), float32 in [0, 1]
        ``stretch(clip(x - X · PD, 0))`` with ``x = stretch(pixels)``; 0 for a constant field.
    """
    scaled = stretch(pixels)
    return stretch(np.maximum(scaled - np.float32(strength) * field, np.float32(0)))


def _check_shape(shape: tuple[int, ...], layout: Layout) -> None:
    if shape[-3:] != layout.shape:
        msg = f"coefficients must end in shape {layout.shape}, got {shape}"
        raise ValueError(msg)
