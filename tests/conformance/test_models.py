"""Operators and forward models have the pullback of their forward, on every backend and in both precisions."""

from __future__ import annotations

import numpy as np
import pytest

from radplan import testing
from radplan.arrays import as_device
from radplan.operators import ComposedOperator, DenseOperator, StackedOperator


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_stored_model(device, dtype, synthetic_model):
    model = synthetic_model(device, dtype)
    testing.check_model(model)
    for operators in model.operators.values():
        for operator in operators:
            testing.check_operator(operator)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_operators_built_from_others(device, dtype):
    random = np.random.default_rng(1)
    left, right = (DenseOperator(as_device(device).asarray(random.uniform(size=(4, 4)), dtype)) for _ in range(2))
    for operator in (left, ComposedOperator(left, right), StackedOperator((left, right))):
        testing.check_operator(operator)
        testing.check_operator(operator.restrict(np.asarray([0, 3, 2])))
