"""Operators applied together give what they give one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from radplan.arrays import to_numpy
from radplan.operators import DenseOperator, SparseOperator, adjoint_sum, apply_all, restrict_all

IMAGES = 3


@pytest.fixture(params=["float32", "float64"])
def family(request, rng):
    first = SparseOperator.from_scipy(scipy.sparse.random_array((60, 40), density=0.2, rng=rng), dtype=request.param)
    made = [first]
    for _ in range(IMAGES - 1):
        matrix = first.to_scipy()
        other = scipy.sparse.csr_array((rng.random(first.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
        back = SparseOperator.from_scipy(other, dtype=request.param).columns.data
        made.append(first.with_values(other.data.astype(request.param), back))
    return made


def check(operators, rng):
    rows, columns = operators[0].shape
    x, ys = rng.random(columns), [rng.random(rows) for _ in operators]
    for product, operator in zip(apply_all(operators, x), operators, strict=True):
        np.testing.assert_allclose(product, operator.apply(x), rtol=1e-5, atol=1e-6)
    alone = sum(operator.adjoint(y) for operator, y in zip(operators, ys, strict=True))
    np.testing.assert_allclose(adjoint_sum(operators, ys), alone, rtol=1e-5, atol=1e-6)


def test_matrices_of_one_pattern(family, rng):
    check(family, rng)
    assert len({id(operator.rows.indices) for operator in family}) == 1


@pytest.mark.parametrize("rows", [np.arange(0, 60, 7), np.arange(1, 60)], ids=["copied", "viewed"])
def test_chosen_rows_stay_together(family, rng, rows):
    kept = restrict_all(family, rows)
    check(kept, rng)
    inner = [operator if isinstance(operator, SparseOperator) else operator.operator for operator in kept]
    assert len({id(operator.rows.indices) for operator in inner}) == 1
    x = rng.random(40)
    for operator, whole in zip(kept, family, strict=True):
        np.testing.assert_allclose(operator.apply(x), whole.apply(x)[rows], rtol=1e-5)


def test_operators_that_do_not_belong_together(family, rng):
    dense = DenseOperator(rng.random((60, 40)).astype(family[0].dtype))
    check([family[0], dense, family[1]], rng)


def test_other_backends(rng):
    pytest.importorskip("torch")
    first = SparseOperator.from_scipy(scipy.sparse.random_array((9, 5), density=0.5, rng=rng), device="torch:cpu")
    second = first.with_values(first.rows.data * 2, first.columns.data * 2)
    one, two = apply_all([first, second], first.device.asarray(rng.random(5), "float32"))
    np.testing.assert_allclose(two.numpy(), 2 * one.numpy(), rtol=1e-6)


@pytest.mark.parametrize("device", ["numpy", "torch:cpu", "array_api_strict"])
def test_other_values_share_the_index_arrays(device):
    if device.startswith("torch"):
        pytest.importorskip("torch")
    matrix = scipy.sparse.random_array((30, 20), density=0.2, format="csr", rng=np.random.default_rng(1))
    one = SparseOperator.from_scipy(matrix, device, "float64")
    two = one.with_values(2.0 * one.rows.data, 2.0 * one.columns.data)
    for mine, other in ((one._forward, two._forward), (one._backward, two._backward)):
        for name in ("_indices", "_places"):
            if name in vars(mine):
                assert vars(other)[name] is vars(mine)[name]
    x = one.device.asarray(np.arange(20.0))
    np.testing.assert_allclose(to_numpy(two.apply(x)), 2.0 * (matrix @ np.arange(20.0)))
    y = one.device.asarray(np.arange(30.0))
    np.testing.assert_allclose(to_numpy(two.adjoint(y)), 2.0 * (matrix.T @ np.arange(30.0)))
