"""Operators and forward models have the pullback of their forward, on every backend and in both precisions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import as_device, to_numpy
from radplan.errors import InputError
from radplan.geometry import Grid
from radplan.influence import ForwardModel, OffsetModel, Rows, RowsModel, Variables
from radplan.operators import ComposedOperator, DenseOperator, StackedOperator


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stored_model(device, dtype, synthetic_model):
    model = synthetic_model(device, dtype)
    testing.check_model(model)
    for operators in model.operators.values():
        for operator in operators:
            testing.check_operator(operator)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_model_with_an_offset(device, dtype, synthetic_model):
    inner = synthetic_model(device, dtype)
    place, name = as_device(device), inner.images[0]
    x = place.asarray(np.linspace(0.5, 1.5, inner.variables.count), "float64" if dtype == "float64" else "float32")
    given = to_numpy(inner.forward(x)[name])
    wished = given * np.random.default_rng(2).uniform(0.9, 1.1, given.shape)
    model = OffsetModel.through(inner, x, {name: wished})
    if dtype == "float64":  # differences of the large and all but constant sums drown in rounding otherwise
        testing.check_model(model)
    np.testing.assert_allclose(to_numpy(model.forward(x)[name]), wished, rtol=1e-5, atol=1e-5)
    few = inner.voxels[1::2]
    np.testing.assert_allclose(to_numpy(model.restrict(few).forward(x)[name]), wished[:, 1::2], rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="an offset needs"):
        OffsetModel(inner, {"heat": model.offset[name]})


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operators_built_from_others(device, dtype):
    random = np.random.default_rng(1)
    left, right = (DenseOperator(as_device(device).asarray(random.uniform(size=(4, 4)), dtype)) for _ in range(2))
    for operator in (left, ComposedOperator(left, right), StackedOperator((left, right))):
        testing.check_operator(operator)
        testing.check_operator(operator.restrict(np.asarray([0, 3, 2])))


@dataclass(frozen=True, eq=False)
class SquaredWeights(RowsModel):
    """All that an author writes of a model: here dose is a matrix times the squares of the variables."""

    rows: Rows
    matrix: Any
    variables: Variables
    radiation: str = "photons"

    @property
    def images(self):
        return ("physical_dose",)

    def forward(self, x, images=None):
        here = self.device.asarray(self.matrix[self.rows.voxels, :], self.dtype)
        return {"physical_dose": (here @ self.device.xp.astype(x**2, here.dtype))[None, :]}

    def pullback(self, x, cotangents):
        here = self.device.asarray(self.matrix[self.rows.voxels, :], self.dtype)
        total = self.device.xp.zeros_like(x)
        for values in cotangents.values():
            total = total + 2.0 * x * (self.device.xp.matrix_transpose(here) @ values[0, :])
        return total


def test_model_of_an_author(device):
    matrix = np.random.default_rng(3).random((12, 4))
    rows = Rows.of(
        Grid((1, 3, 4), (1, 1, 1), (0, 0, 0)), [1, 2, 5, 8], {"alpha_x": 0.1}, device=device, dtype="float64"
    )
    model = SquaredWeights(rows, matrix, Variables(4))
    assert isinstance(model, ForwardModel)
    testing.check_model(model)
    assert model.with_voxel_parameters(mine=np.arange(4.0)).restrict([2, 8]).voxel_parameters["mine"].shape == (1, 2)
