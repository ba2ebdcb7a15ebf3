"""Operators: products, exact transposes, restriction and norms on every backend, against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from radplan import arrays
from radplan.errors import InputError
from radplan.operators import ComposedOperator, DenseOperator, LinearOperator, SparseOperator, StackedOperator

# A dot product of m terms rounds to a few units in the last place times sqrt(m): 1e-6 in single, 1e-12 in double.
DOT_TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


@pytest.fixture
def matrix(rng: np.random.Generator) -> scipy.sparse.csr_array:
    dense = rng.random((60, 17)) * (rng.random((60, 17)) < 0.3)
    dense[7] = 0.0
    return scipy.sparse.csr_array(dense)


def make(
    kind: str, matrix: scipy.sparse.csr_array, place: arrays.Device, dtype: str
) -> tuple[LinearOperator, np.ndarray]:
    sparse, dense = SparseOperator.from_scipy(matrix, place, dtype), matrix.toarray()
    if kind == "sparse":
        return sparse, dense
    if kind == "dense":
        return DenseOperator(place.asarray(dense, dtype)), dense
    if kind == "selected":
        rows = np.asarray([3, 7, 40])
        return sparse.restrict(rows), dense[rows]
    if kind == "mostly selected":
        rows = np.arange(2, 60)
        return sparse.restrict(rows), dense[rows]
    if kind == "stacked":
        return StackedOperator((sparse, sparse)), np.hstack([dense, dense])
    inner = DenseOperator(place.asarray(np.eye(17)[:, :5] * 2.0, dtype))
    return ComposedOperator(sparse, inner), dense @ (np.eye(17)[:, :5] * 2.0)


KINDS = ["sparse", "dense", "selected", "mostly selected", "stacked", "composed"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_products_and_adjoint(
    kind: str, dtype: str, matrix: scipy.sparse.csr_array, xp_device: arrays.Device, rng: np.random.Generator
) -> None:
    op, dense = make(kind, matrix, xp_device, dtype)
    x, y = rng.random(dense.shape[1]), rng.standard_normal(dense.shape[0])
    ax, aty = op.apply(xp_device.asarray(x)), op.adjoint(xp_device.asarray(y))
    assert op.shape == dense.shape
    assert arrays.dtype_name(ax) == arrays.dtype_name(aty) == dtype
    tolerance = DOT_TOLERANCE[dtype]
    np.testing.assert_allclose(arrays.to_numpy(ax), dense @ x, rtol=10 * tolerance, atol=10 * tolerance)
    np.testing.assert_allclose(arrays.to_numpy(aty), dense.T @ y, rtol=10 * tolerance, atol=10 * tolerance)
    left = float(np.dot(arrays.to_numpy(ax).astype(float), y))
    right = float(np.dot(x, arrays.to_numpy(aty).astype(float)))
    assert abs(left - right) <= tolerance * np.linalg.norm(dense @ x) * np.linalg.norm(y)
    several = op.apply(xp_device.asarray(np.stack([x, 2 * x], axis=1)))
    np.testing.assert_allclose(arrays.to_numpy(several)[:, 1], 2 * arrays.to_numpy(ax), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_column_norms(
    kind: str, matrix: scipy.sparse.csr_array, xp_device: arrays.Device, rng: np.random.Generator
) -> None:
    op, dense = make(kind, matrix, xp_device, "float64")
    weights = rng.random(dense.shape[0])
    np.testing.assert_allclose(arrays.to_numpy(op.column_norms()), np.linalg.norm(dense, axis=0), rtol=1e-12)
    weighted = op.column_norms(xp_device.asarray(weights))
    np.testing.assert_allclose(arrays.to_numpy(weighted), np.sqrt(weights @ dense**2), rtol=1e-12)


def test_restricting_twice(matrix: scipy.sparse.csr_array) -> None:
    op = SparseOperator.from_scipy(matrix, dtype="float64")
    twice = op.restrict(np.arange(2, 60)).restrict(np.asarray([0, 5]))
    x = np.arange(17.0)
    np.testing.assert_allclose(twice.apply(x), (matrix.toarray() @ x)[[2, 7]])


def test_bad_matrices_and_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="NaN"):
        SparseOperator.from_scipy(scipy.sparse.csr_array([[np.nan]]))
    with pytest.raises(InputError, match=r"column numbers must lie in 0..1"):
        SparseOperator.from_csr([0, 1], [5], [1.0], (1, 2))
    with pytest.raises(InputError, match=r"shape \(2,\)"):
        SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0, 2.0]])).apply(np.ones(3))
    with pytest.raises(InputError, match="float16"):
        SparseOperator.from_scipy(scipy.sparse.csr_array([[1.0]]), dtype="float16")


def test_the_callers_matrix_is_left_alone() -> None:
    given = scipy.sparse.csr_array(([1.0, 2.0, 5.0], [0, 0, 1], [0, 2, 3]), shape=(2, 2))
    op = SparseOperator.from_scipy(given, dtype="float64")
    assert given.indptr.tolist() == [0, 2, 3]
    given.data[:] = 0.0
    assert op.apply(np.ones(2)).tolist() == [3.0, 5.0]
