"""Run blocks and single entries on NumPy: rows of every kind against SciPy, and results that threads do not change."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.sparse

from radplan.errors import InputError
from radplan.kernels import sparse
from radplan.operators import SparseOperator, adjoint_sum, apply_all, share_places
from radplan.operators.blocks import RunBlocks, SingleEntries

TOLERANCE = {"float32": 2e-6, "float64": 1e-13}


def runs(rng, rows, columns, length):
    """A matrix of rows with runs of consecutive columns, some of them empty, some at the last columns."""
    dense = np.zeros((rows, columns))
    for row in range(rows):
        for _ in range(row % 4):
            start = rng.integers(0, max(columns - length, 1))
            dense[row, start : start + length] = rng.random(min(length, columns - start)) + 0.1
    dense[rows // 2, -1] = 1.0
    dense[-1, -length:] = 2.0
    return scipy.sparse.csr_array(dense)


MATRICES = {
    "runs of ten": (lambda rng: runs(rng, 90, 60, 10), RunBlocks),
    "runs of eight: no fill": (lambda rng: scipy.sparse.csr_array(np.kron(np.eye(6), np.ones((3, 8)))), RunBlocks),
    "fewer columns than a block": (lambda rng: scipy.sparse.csr_array(rng.random((9, 5))), RunBlocks),
    "one entry in each row": (lambda rng: scipy.sparse.csr_array(np.eye(30)), SingleEntries),
    "scattered": (lambda rng: scipy.sparse.random_array((80, 300), density=0.05, rng=rng), SingleEntries),
    "more columns than 16 bits name": (lambda rng: wide(rng), RunBlocks),
    "nothing": (lambda rng: scipy.sparse.csr_array((4, 3)), RunBlocks),
}


def wide(rng):
    """Runs before, across and behind column 65 535, and at the very last columns."""
    starts = np.asarray([0, 65_530, 65_536, 70_000, 99_990])
    columns = (starts[:, None] + np.arange(10)).ravel()
    matrix = scipy.sparse.coo_array((rng.random(50), (np.repeat(np.arange(5), 10), columns)), shape=(6, 100_000))
    return scipy.sparse.csr_array(matrix)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MATRICES)
def test_products_of_every_kind_of_row(name, dtype, rng):
    make, kind = MATRICES[name]
    matrix = scipy.sparse.csr_array(make(rng))
    operator = SparseOperator.from_scipy(matrix, dtype=dtype)
    assert isinstance(operator.storage, kind)
    assert operator.nnz == matrix.nnz
    x, y = rng.random(matrix.shape[1]), rng.standard_normal(matrix.shape[0])
    exact = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype] * 30}
    np.testing.assert_allclose(operator.apply(x), matrix @ x, **exact)
    np.testing.assert_allclose(operator.adjoint(y), matrix.T @ y, **exact)
    both = np.stack([x, 2.0 - x], axis=1)
    np.testing.assert_allclose(operator.apply(both), matrix @ both, **exact)
    pair = np.stack([y, 0.0 * y], axis=1)
    np.testing.assert_allclose(operator.adjoint(pair), matrix.T @ pair, **exact)
    np.testing.assert_allclose(operator.squared_column_norms(y**2), (matrix**2).T @ y**2, **exact)
    np.testing.assert_array_equal(operator.to_scipy().toarray(), matrix.toarray().astype(dtype))


@pytest.mark.parametrize("name", ["runs of ten", "scattered"])
def test_rows_may_be_chosen_twice_in_any_order(name, rng):
    matrix = scipy.sparse.csr_array(MATRICES[name][0](rng))
    operator = SparseOperator.from_scipy(matrix, dtype="float64")
    rows = np.asarray([5, 3, 3, 79, 0, 44])
    kept, dense = operator.restrict(rows), matrix.toarray()[rows]
    assert kept.storage.places is operator.storage.places
    x, y = rng.random(matrix.shape[1]), rng.standard_normal(rows.size)
    np.testing.assert_allclose(kept.apply(x), dense @ x, rtol=1e-12)
    np.testing.assert_allclose(kept.adjoint(y), dense.T @ y, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kept.squared_column_norms(y**2), (dense**2).T @ y**2, rtol=1e-12)
    np.testing.assert_array_equal(kept.restrict([1, 3]).to_scipy().toarray(), dense[[1, 3]])
    assert kept.nnz == np.count_nonzero(dense)
    with pytest.raises(InputError, match=r"row numbers must lie in 0\.\.5"):
        kept.restrict([6])


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_images_of_one_pattern(count, rng):
    pattern = runs(rng, 70, 50, 9)
    matrices = [scipy.sparse.csr_array((rng.random(pattern.nnz), pattern.indices, pattern.indptr), pattern.shape)]
    matrices += [pattern * float(k) for k in range(1, count)]
    images = share_places([SparseOperator.from_scipy(matrix, dtype="float64") for matrix in matrices])
    x, ys = rng.random(50), [rng.standard_normal(70) * (rng.random(70) < 0.5) for _ in matrices]
    for found, matrix in zip(apply_all(images, x), matrices, strict=True):
        np.testing.assert_allclose(found, matrix @ x, rtol=1e-12)
    expected = sum(matrix.T @ y for matrix, y in zip(matrices, ys, strict=True))
    np.testing.assert_allclose(adjoint_sum(images, ys), expected, rtol=1e-12, atol=1e-12)


def test_unsorted_and_repeated_entries_are_put_in_order():
    given = ([0, 3, 5], [4, 0, 4, 2, 1], [1.0, 2.0, 3.0, 5.0, 7.0])
    operator = SparseOperator.from_csr(*(np.asarray(part) for part in given), (2, 5), dtype="float64")
    assert operator.to_scipy().toarray().tolist() == [[2.0, 0.0, 0.0, 0.0, 4.0], [0.0, 7.0, 5.0, 0.0, 0.0]]
    assert operator.apply(np.ones(5)).tolist() == [6.0, 12.0]
    assert given[1] == [4, 0, 4, 2, 1]


def test_pointers_that_fall_are_refused():
    with pytest.raises(InputError, match="indptr falls"):
        SparseOperator.from_csr([0, 2, 1, 2], [0, 1], [1.0, 1.0], (3, 2))


@pytest.mark.parametrize("length", [10, 1], ids=["runs of ten", "scattered"])
def test_threads_do_not_change_a_bit(length, rng, monkeypatch):
    starts = rng.random((600, 400 // length)) < 0.2
    operator = SparseOperator.from_scipy(np.kron(starts, np.ones((1, length))) * rng.random((600, 400)))
    assert isinstance(operator.storage, RunBlocks if length > 1 else SingleEntries)
    x, y = rng.random(operator.shape[1]), rng.standard_normal(operator.shape[0])
    found = [(operator.apply(x).tobytes(), operator.adjoint(y).tobytes())]
    monkeypatch.setattr(sparse, "THREADS_FROM", 0)
    before = numba.get_num_threads()
    try:
        for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
            numba.set_num_threads(threads)
            found.append((operator.apply(x).tobytes(), operator.adjoint(y).tobytes()))
    finally:
        numba.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_a_factor_that_is_no_number_is_not_passed_over(rng):
    operator = SparseOperator.from_scipy(runs(rng, 20, 30, 9))
    y = np.zeros(20)
    y[-1] = np.nan
    assert np.isnan(operator.adjoint(y)[-1])
