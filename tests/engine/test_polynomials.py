"""The Lagrange basis equals minterpy's, and is what it says it is."""

import json
import subprocess
import sys

import numpy as np
import pytest

from engine.methods.polynomials import lagrange_matrix, multi_indices, nodes, separable

# In a process of its own: minterpy takes seconds to import and warns, and nothing else needs it.
_ORACLE = """
import json, sys, warnings
warnings.simplefilter("ignore")
import minterpy as mp, numpy as np
from minterpy.extras.regression.ordinary_regression import compute_regression_matrix
out = {}
for degree, side in json.loads(sys.argv[1]):
    index = mp.MultiIndexSet.from_degree(2, degree, 2.0)
    grid = mp.Grid(index)
    basis = mp.LagrangePolynomial(index, np.eye(len(index)), grid=grid)
    line = np.linspace(-1, 1, side)
    y, x = np.meshgrid(line, line, indexing="ij")
    values = compute_regression_matrix(basis, np.c_[y.ravel(), x.ravel()])
    out[str(degree)] = [index.exponents.tolist(), grid.generating_points.tolist(), values.tolist()]
print(json.dumps(out))
"""


def test_equals_minterpy() -> None:
    pytest.importorskip("numba")
    cases = [(2, 5), (5, 8), (9, 20), (13, 18)]
    run = subprocess.run(
        [sys.executable, "-c", _ORACLE, json.dumps(cases)],
        capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    if "No module named 'minterpy'" in run.stderr:
        pytest.skip("needs minterpy, which is not installed")
    assert run.returncode == 0, run.stderr[-2000:]
    for (degree, side), (exponents, points, values) in zip(
        cases, json.loads(run.stdout).values(), strict=True
    ):
        assert multi_indices(degree).tolist() == exponents
        np.testing.assert_allclose(nodes(degree), points, rtol=0, atol=1e-15)
        np.testing.assert_allclose(lagrange_matrix(degree, side), values, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("degree", "terms"), [(1, 3), (9, 73), (13, 146)])
def test_counts_and_sums(degree: int, terms: int) -> None:
    matrix = lagrange_matrix(degree, 32)
    assert matrix.shape == (1024, terms)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=0, atol=2e-14)


@pytest.mark.parametrize("degree", [3, 9])
def test_one_at_its_node(degree: int) -> None:
    """On a lattice that holds the nodes the basis is a permutation matrix."""
    index, at = multi_indices(degree), nodes(degree)
    basis = separable(degree, 2)
    # Rebuilt from the pieces: Newton polynomials at the nodes instead of at pixels.
    rows = np.stack([np.cumprod([1, *(y - at[:-1, 0])]) for y in at[index[:, 0], 0]])
    columns = np.stack([np.cumprod([1, *(x - at[:-1, 1])]) for x in at[index[:, 1], 1]])
    terms = np.einsum("ki,kj->kij", rows, columns).reshape(len(index), -1)
    np.testing.assert_allclose(terms @ basis.scatter, np.eye(len(index)), rtol=0, atol=1e-14)


def test_many_sets_at_once() -> None:
    rng = np.random.default_rng(1)
    coefficients = rng.normal(size=(3, 2, 73))
    values = separable(9, 16).values(coefficients)
    single = lagrange_matrix(9, 16) @ coefficients[2, 1]
    np.testing.assert_allclose(values[2, 1].ravel(), single, rtol=0, atol=1e-12)


def test_first_axis_is_y() -> None:
    """A polynomial that is y at its nodes is y at the pixels."""
    index, at = multi_indices(4), nodes(4)
    values = separable(4, 9).values(at[index[:, 0], 0])
    np.testing.assert_allclose(values, np.linspace(-1, 1, 9)[:, None] + np.zeros(9), atol=1e-12)


def test_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match="degree must be >= 1, got 0"):
        multi_indices(0)
    with pytest.raises(ValueError, match="side must be >= 2, got 1"):
        separable(3, 1)
