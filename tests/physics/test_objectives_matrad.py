"""Objective values and gradients against matRad 3.2.2 run in Octave (``oracle/unit_oracles.mat``, 200 voxels)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io

from radplan.optim.objectives import (
    EUD,
    MaxDVH,
    Maximum,
    Mean,
    MinDVH,
    Minimum,
    SquaredDeviation,
    SquaredOverdosing,
    SquaredUnderdosing,
    VolumeAtDose,
)

# matRad's parameters in the order of the file; its MaxDVH leaves out ceil(V N) - 1 voxels, ours the volume V itself, so
# its 20 % of 200 voxels is our 39/200. Its linear mean takes the sign per voxel: most voxels here are on one side.
ASKED = [
    SquaredDeviation(2.0),
    SquaredOverdosing(2.0),
    SquaredUnderdosing(2.0),
    Mean(1.0),
    Mean(1.0, form="quadratic"),
    EUD(2.0, 3.5),
    EUD(2.0, -10.0),
    MaxDVH(2.5, 39 / 200),
    MinDVH(1.5, 0.95),
]


@pytest.fixture(scope="module")
def oracle(shared):
    path = shared("oracle/unit_oracles.mat")
    return scipy.io.loadmat(path, squeeze_me=True, struct_as_record=False)["out"]


@pytest.mark.parametrize("row", range(len(ASKED)), ids=lambda row: f"{row}-{ASKED[row].name}")
def test_objective(oracle, row):
    objective, entry = ASKED[row], oracle.objectives[row]
    dose = oracle.dose
    weights = np.full(dose.size, 1.0 / dose.size)
    value, gradient = objective.value_and_gradient(dose, weights)
    assert float(value) == pytest.approx(entry.f, rel=1e-10)
    if objective == Mean(1.0):
        assert np.count_nonzero(np.abs(gradient - entry.g) > 1e-9) == np.count_nonzero(dose < 1.0)
    else:
        np.testing.assert_allclose(gradient, entry.g, rtol=1e-9, atol=1e-15)


def test_constraint_functions(oracle):
    dose = oracle.dose
    weights = np.full(dose.size, 1.0 / dose.size)
    low, high = oracle.constraints[0].c
    for objective, expected, column in ((Minimum(1e-3), low, 0), (Maximum(1e-3), high, 1)):
        value, gradient = objective.value_and_gradient(dose, weights)
        assert float(value) == pytest.approx(expected, rel=1e-9)
        jacobian = oracle.constraints[0].J
        jacobian = jacobian.toarray() if scipy.sparse.issparse(jacobian) else jacobian
        np.testing.assert_allclose(gradient, jacobian[:, column], atol=1e-9)
    eud = EUD(exponent=5.0).equivalent(dose, weights)
    assert float(eud) == pytest.approx(float(oracle.constraints[4].c), rel=1e-10)


def test_constraints_on_mean_gradients_and_volumes(oracle):
    """Values and Jacobians of matRad's constraints; that of its volume at a dose is smoothed and not compared."""
    dose = oracle.dose
    weights = np.full(dose.size, 1.0 / dose.size)
    pairs = [(Mean(), 3), (EUD(exponent=5.0, form="value"), 4), (SquaredOverdosing(2.0), 6)]
    pairs += [(Maximum(1e-3), 1), (Minimum(1e-3), 2)]
    for objective, row in pairs:
        entry = oracle.constraints[row]
        jacobian = entry.J.toarray() if scipy.sparse.issparse(entry.J) else np.asarray(entry.J)
        value, gradient = objective.value_and_gradient(dose, weights)
        assert float(value) == pytest.approx(float(entry.c), rel=1e-8)
        np.testing.assert_allclose(gradient, jacobian.reshape(-1), rtol=1e-8, atol=1e-8)
    assert float(VolumeAtDose(2.0).measured(dose, weights)) == pytest.approx(100.0 * float(oracle.constraints[5].c))
