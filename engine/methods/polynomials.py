"""Lagrange polynomials in two variables on Leja-ordered Chebyshev-Lobatto nodes.

The basis of polynomial defenses (Jain, Shao, Hecht 2025, section 2): one polynomial of lp degree 2
is 1 at its own node and 0 at all others. Nodes and order of the basis are those of minterpy 0.3.1,
which the tests hold against this module; nothing here imports it.

Axis 0 of exponents and nodes belongs to rows (y), axis 1 to columns (x), both from -1 at the first
pixel to 1 at the last. The paper's text puts pixels on [0, 1], where its basis does not live, and
its code takes axis 0 for x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np


@dataclass(frozen=True)
class Separable:
    """A basis on the pixels of a square, as products of functions of y and of x.

    A polynomial with Lagrange coefficients c has the values ``rows @ C @ columns.T`` with
    ``C = (scatter @ c).reshape(degree + 1, degree + 1)``.

    Parameters
    ----------
    rows, columns : ndarray of shape (side, degree + 1), float64
        Newton polynomials of one variable at the pixels of an axis.
    scatter : ndarray of shape ((degree + 1)**2, A), float64
        From Lagrange coefficients to those of products of Newton polynomials.
    """

    rows: np.ndarray
    columns: np.ndarray
    scatter: np.ndarray

    def values(self, coefficients: np.ndarray) -> np.ndarray:
        """Evaluate polynomials: coefficients (…, A) to values (…, side, side) float64."""
        count = self.rows.shape[1]
        products = coefficients.astype(np.float64) @ self.scatter.T
        values: np.ndarray = (
            self.rows @ products.reshape(*coefficients.shape[:-1], count, count) @ self.columns.T
        )
        return values


@cache
def multi_indices(degree: int) -> np.ndarray:
    """Exponents (a, b) with a² + b² <= degree², the second one slowest.

    Parameters
    ----------
    degree : int
        At least 1.

    Returns
    -------
    ndarray of shape (A, 2), int64
        Read-only. A is 73 for degree 9 and 146 for degree 13.

    Raises
    ------
    ValueError
        If `degree` is below 1.

    Examples
    --------
    >>> multi_indices(2).tolist()
    [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [0, 2]]
    """
    if degree < 1:
        msg = f"degree must be >= 1, got {degree}"
        raise ValueError(msg)
    second, first = np.indices((degree + 1, degree + 1)).reshape(2, -1)
    inside = first**2 + second**2 <= degree**2
    return _frozen(np.stack([first[inside], second[inside]], axis=1))


@cache
def nodes(degree: int) -> np.ndarray:
    """Nodes of both axes, in the order in which Newton's form takes them.

    Parameters
    ----------
    degree : int
        At least 1.

    Returns
    -------
    ndarray of shape (degree + 1, 2), float64
        In [-1, 1]; read-only. Node of the multi-index (a, b): ``(nodes[a, 0], nodes[b, 1])``.

    Notes
    -----
    Each next point is the one whose product of distances to those before is largest (Leja 1957),
    the last of equals. Axis 0 has the opposite sign of axis 1, as in minterpy.

    Examples
    --------
    >>> nodes(1).tolist()
    [[1.0, -1.0], [-1.0, 1.0]]
    """
    left = np.cos(np.arange(degree + 1) * np.pi / degree)[::-1]
    if degree == 1:
        left = np.array([-1.0, 1.0])
    ordered = [left[0]]
    distances = np.ones(degree)
    left = left[1:]
    while left.size:
        distances = distances * np.abs(ordered[-1] - left)
        best = left.size - 1 - int(np.argmax(distances[::-1]))
        ordered.append(left[best])
        left, distances = np.delete(left, best), np.delete(distances, best)
    axis = np.array(ordered)
    return _frozen(np.stack([-axis, axis], axis=1))


@cache
def separable(degree: int, side: int) -> Separable:
    """Make the basis at the pixels of a square.

    Parameters
    ----------
    degree : int
        lp degree 2 of the polynomials, at least 1.
    side : int
        Pixels of the square along an axis, at least 2.

    Returns
    -------
    Separable
        Arrays are read-only.

    Raises
    ------
    ValueError
        If `degree` or `side` is too small.
    """
    if side < 2:
        msg = f"side must be >= 2, got {side}"
        raise ValueError(msg)
    index, at = multi_indices(degree), nodes(degree)
    first, second = index.T
    # Newton basis at the nodes: column b is 0 at every node that does not come after b.
    newton = _newton(at[first, 0], at[:, 0])[:, first] * _newton(at[second, 1], at[:, 1])[:, second]
    scatter = np.zeros(((degree + 1) ** 2, len(index)))
    scatter[first * (degree + 1) + second] = np.linalg.inv(newton)
    pixels = np.linspace(-1, 1, side)
    return Separable(
        rows=_frozen(_newton(pixels, at[:, 0])),
        columns=_frozen(_newton(pixels, at[:, 1])),
        scatter=_frozen(scatter),
    )


def lagrange_matrix(degree: int, side: int) -> np.ndarray:
    """Values of every Lagrange polynomial at every pixel of a square.

    Parameters
    ----------
    degree, side : int
        As for `separable`.

    Returns
    -------
    ndarray of shape (side**2, A), float64
        Row y · side + x; each row sums to 1.

    Notes
    -----
    Jain, Shao, Hecht 2025, equation 12, where the polynomial is evaluated at the pixels (its text
    says: at the nodes).

    Examples
    --------
    >>> lagrange_matrix(1, 2).round(12).tolist()
    [[0.0, 1.0, 0.0], [-1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    count = len(multi_indices(degree))
    values = separable(degree, side).values(np.eye(count))
    matrix: np.ndarray = values.reshape(count, side * side).T
    return np.ascontiguousarray(matrix)


def _newton(places: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Newton polynomials of one variable: (places, points) float64, column k of degree k."""
    factors = places[:, None] - points[None, :-1]
    ones = np.ones((len(places), 1))
    return np.cumprod(np.concatenate([ones, factors], axis=1), axis=1)


def _frozen(array: np.ndarray) -> np.ndarray:
    """Protect an array that a cache hands out."""
    array.setflags(write=False)
    return array
