"""Block-diagonal Gram matrices against dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from radplan.operators import BlockDiagonal, DenseOperator, SparseOperator, gram_blocks, restrict_all, share_places

GROUPS = np.repeat([0, 1, 4, 5], [7, 1, 20, 12])


def dense_blocks(square):
    return np.where(GROUPS[:, None] == GROUPS[None, :], square, 0.0)


def as_dense(blocks):
    return blocks.times(np.eye(GROUPS.size))


@pytest.fixture
def matrices(rng):
    pattern = np.kron(rng.random((50, 5)) < 0.5, np.ones((1, 8)))
    return [scipy.sparse.csr_array(pattern * rng.random((50, 40))) for _ in range(2)]


@pytest.mark.parametrize("rows", [None, np.asarray([3, 3, 49, 10])], ids=["all", "some"])
def test_rows_of_two_images_within_groups(matrices, rng, rows):
    images = share_places([SparseOperator.from_scipy(matrix, dtype="float64") for matrix in matrices])
    dense = [matrix.toarray() for matrix in matrices]
    if rows is not None:
        images, dense = restrict_all(images, rows), [matrix[rows] for matrix in dense]
    count = dense[0].shape[0]
    factors = [rng.standard_normal(count) for _ in images]
    weights = rng.random(count) * (rng.random(count) < 0.7)
    found = gram_blocks(images, factors, weights, GROUPS)
    g = sum(factor[:, None] * matrix for factor, matrix in zip(factors, dense, strict=True))
    expected = dense_blocks(g.T @ (weights[:, None] * g))
    np.testing.assert_allclose(as_dense(found), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.diagonal, np.diag(expected), rtol=1e-12, atol=1e-12)


def test_other_operators_have_none(matrices):
    one = SparseOperator.from_scipy(matrices[0], device="array_api_strict")
    assert gram_blocks([one], [np.ones(50)], np.ones(50), GROUPS) is None
    dense = DenseOperator(matrices[0].toarray())
    assert gram_blocks([dense], [np.ones(50)], np.ones(50), GROUPS) is None
    apart = [SparseOperator.from_scipy(matrix) for matrix in matrices]
    assert gram_blocks(apart, [np.ones(50)] * 2, np.ones(50), GROUPS) is None


def test_solving_among_free_variables(rng):
    root = rng.standard_normal((60, GROUPS.size))
    whole = dense_blocks(root.T @ root) + 0.1 * np.eye(GROUPS.size)
    empty = BlockDiagonal.zeros(GROUPS)
    values = np.concatenate([whole[np.ix_(g == GROUPS, g == GROUPS)].ravel() for g in np.unique(GROUPS)])
    blocks = BlockDiagonal(empty.starts, values)
    np.testing.assert_allclose(as_dense(blocks), whole)
    scale = rng.random(GROUPS.size) + 0.5
    np.testing.assert_allclose(as_dense(blocks.scaled(scale)), scale[:, None] * whole * scale)
    np.testing.assert_allclose(blocks.with_diagonal(scale).diagonal, scale)
    free = rng.random(GROUPS.size) < 0.6
    x = rng.standard_normal((3, GROUPS.size))
    expected = np.zeros_like(x)
    expected[:, free] = np.linalg.solve(whole[np.ix_(free, free)], x[:, free].T).T
    np.testing.assert_allclose(blocks.solve(x, free), expected, rtol=1e-9, atol=1e-12)
