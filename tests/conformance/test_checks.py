"""The public checks find the faults they are for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import as_device, namespace, weighted_sum
from radplan.operators import LinearOperator
from radplan.optim.objectives import Objective
from radplan.quantities import Quantity


def quantity_with(forward=lambda self, d: 2.0 * d, vjp=lambda self, c, d: (2.0 * c,), examples=None):
    stated = {"name": "new", "unit": "Gy", "needs": ("physical_dose",), "additive": True}
    methods = {"forward": forward, "vjp": vjp} | ({"examples": classmethod(examples)} if examples else {})
    return dataclass(frozen=True)(type("New", (Quantity,), stated | methods))


def in_place(self, d):
    d *= 2.0
    return d


def on_the_host(self, d):
    return np.asarray([[2.0] * 4] * 2)


FAULTS = {
    "against finite differences": {"vjp": lambda self, c, d: (3.0 * c,)},
    "must return a tuple": {"vjp": lambda self, c, d: 2.0 * c},
    "one cotangent for each of": {"vjp": lambda self, c, d: (2.0 * c, c)},
    "writes into its inputs": {"forward": in_place},
    "must be elementwise": {"forward": lambda self, d: d + namespace(d).sum(d)},
    "must keep float64, got float32": {"forward": lambda self, d: namespace(d).astype(2.0 * d, namespace(d).float32)},
    "is not finite": {"forward": lambda self, d: 2.0 * d**2 / d},
    "must return at least one": {"examples": lambda cls: []},
}


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("message", FAULTS)
def test_faults_of_a_quantity(message):
    with pytest.raises(AssertionError, match=message):
        testing.check_quantity(quantity_with(**FAULTS[message]), devices=["numpy"])


def test_another_backends_array_is_noticed():
    with pytest.raises(AssertionError, match="take the namespace from the inputs"):
        testing.check_quantity(quantity_with(on_the_host, lambda self, c, d: (0.0 * c,)), devices=["torch:cpu"])


def test_a_sound_quantity_passes():
    testing.check_quantity(quantity_with())


@dataclass(frozen=True)
class SquareMean(Objective):
    factor: float = 2.0

    name = "square_mean"

    def value(self, values, weights):
        return weighted_sum(values**2, weights)

    def gradient(self, values, weights):
        return self.factor * weights * values

    @classmethod
    def examples(cls):
        return [cls()]


def test_faults_of_an_objective():
    testing.check_objective(SquareMean)
    with pytest.raises(AssertionError, match=r"gradient of objective 'square_mean' .* against finite differences"):
        testing.check_objective(SquareMean(factor=2.00001), devices=["numpy"])


@dataclass(frozen=True)
class Skewed(LinearOperator):
    """A matrix whose adjoint is a little off."""

    matrix: np.ndarray
    error: float

    dtype = "float64"
    device = as_device("numpy")

    @property
    def shape(self):
        return self.matrix.shape

    def apply(self, x):
        return self.matrix @ x

    def adjoint(self, y):
        return (1.0 + self.error) * (self.matrix.T @ y)

    def squared_column_norms(self, row_weights):
        return row_weights @ self.matrix**2


def test_faults_of_an_operator():
    matrix = np.random.default_rng(2).uniform(size=(5, 3))
    testing.check_operator(Skewed(matrix, 0.0))
    with pytest.raises(AssertionError, match="not the transpose of the forward"):
        testing.check_operator(Skewed(matrix, 1e-9))


def test_faults_of_a_model(synthetic_model):
    model = synthetic_model()
    wrong = {"physical_dose": tuple(Skewed(op.to_scipy().toarray(), 1e-6) for op in model.operators["physical_dose"])}
    with pytest.raises(AssertionError, match=r"image 'physical_dose'.*not the transpose"):
        testing.check_model(replace(model, operators=wrong))


def test_faults_of_a_gradient():
    with pytest.raises(AssertionError, match="along a random direction"):
        testing.check_gradient(lambda x: (np.sum(x**2), 2.00001 * x), np.asarray([1.0, 2.0]))
