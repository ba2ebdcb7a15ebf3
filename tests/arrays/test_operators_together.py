"""Operators applied together give what they give one by one."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from radplan.arrays import to_numpy
from radplan.operators import DenseOperator, SparseOperator, adjoint_sum, apply_all, restrict_all, share_places

IMAGES = 3


@pytest.fixture(params=["float32", "float64"])
def family(request, rng):
    return share_places([SparseOperator.from_scipy(matrix, dtype=request.param) for matrix in one_pattern(rng)])


def one_pattern(rng):
    """Matrices whose entries stand in the same places, in runs as bixels give them."""
    first = scipy.sparse.csr_array(np.kron(rng.random((60, 5)) < 0.4, np.ones((1, 8))) * rng.random((60, 40)))
    values = [first.data, *(rng.random(first.nnz) for _ in range(IMAGES - 1))]
    return [scipy.sparse.csr_array((data, first.indices, first.indptr), shape=first.shape) for data in values]


def check(operators, rng):
    rows, columns = operators[0].shape
    x, ys = rng.random(columns), [rng.random(rows) for _ in operators]
    for product, operator in zip(apply_all(operators, x), operators, strict=True):
        np.testing.assert_allclose(product, operator.apply(x), rtol=1e-5, atol=1e-6)
    alone = sum(operator.adjoint(y) for operator, y in zip(operators, ys, strict=True))
    np.testing.assert_allclose(adjoint_sum(operators, ys), alone, rtol=1e-5, atol=1e-6)


def test_matrices_of_one_pattern(family, rng):
    check(family, rng)
    assert len({id(operator.storage.places) for operator in family}) == 1


@pytest.mark.parametrize("rows", [np.arange(0, 60, 7), np.arange(1, 60)], ids=["few", "most"])
def test_chosen_rows_stay_together(family, rng, rows):
    kept = restrict_all(family, rows)
    check(kept, rng)
    assert len({(id(operator.storage.places), id(operator.storage.rows)) for operator in kept}) == 1
    x = rng.random(40)
    for operator, whole in zip(kept, family, strict=True):
        np.testing.assert_allclose(operator.apply(x), whole.apply(x)[rows], rtol=1e-5)


def test_operators_that_do_not_belong_together(family, rng):
    dense = DenseOperator(rng.random((60, 40)).astype(family[0].dtype))
    check([family[0], dense, family[1]], rng)


@pytest.mark.parametrize("rows", [np.arange(0, 60, 7), np.arange(1, 60)], ids=["copied", "viewed"])
@pytest.mark.parametrize("device", ["torch:cpu", "array_api_strict"])
def test_other_backends(rng, device, rows):
    pytest.importorskip("torch" if device.startswith("torch") else device)
    matrices = one_pattern(rng)
    images = share_places([SparseOperator.from_scipy(matrix, device, "float64") for matrix in matrices])
    place = images[0].device
    for first, later in ((images[0].storage, image.storage) for image in images[1:]):
        assert later.places is first.places
        for mine, other in ((first.forward, later.forward), (first.backward, later.backward)):
            for name in ("_indices", "_places"):
                if name in vars(mine):
                    assert vars(other)[name] is vars(mine)[name]
    x, y = place.asarray(rng.random(40)), place.asarray(rng.random(rows.size))
    kept = restrict_all(images, rows)
    for product, matrix in zip(apply_all(kept, x), matrices, strict=True):
        np.testing.assert_allclose(to_numpy(product), matrix.toarray()[rows] @ to_numpy(x))
    expected = sum(matrix.toarray()[rows].T @ to_numpy(y) for matrix in matrices)
    np.testing.assert_allclose(to_numpy(adjoint_sum(kept, [y] * IMAGES)), expected)
