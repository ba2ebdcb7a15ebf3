"""Reductions over scenarios, against the same numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.optim import Goal, Maximum, Problem, SquaredDeviation, SquaredOverdosing, SquaredUnderdosing
from radplan.optim.robust import REDUCTIONS

from .conftest import MEMBERS, make_dij, matrices

VALUES = np.asarray([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
WEIGHTS = np.asarray([0.5, 0.5])
CHANCES = (0.5, 0.3, 0.2)


@pytest.mark.parametrize(
    ("name", "objective", "tail", "expected"),
    [
        ("expected", SquaredDeviation(1.0), 1.0, 0.5 * 0.5 + 0.3 * 2.5 + 0.2 * 0.0),
        ("worst", SquaredDeviation(1.0), 1.0, 2.5),
        ("cvar", SquaredDeviation(1.0), 1.0, 0.5 * 0.5 + 0.3 * 2.5),
        ("cvar", SquaredDeviation(1.0), 0.3, 2.5),
        ("cvar", SquaredDeviation(1.0), 0.4, (0.3 * 2.5 + 0.1 * 0.5) / 0.4),
        ("voxelwise_worst", SquaredOverdosing(1.0), 1.0, (4.0 + 1.0) / 2),
        ("voxelwise_worst", SquaredUnderdosing(1.0), 1.0, 0.5),
        ("voxelwise_worst", SquaredDeviation(0.5), 1.0, (6.25 + 2.25) / 2),
    ],
)
def test_by_hand(name, objective, tail, expected):
    value, gradient = REDUCTIONS[name](objective, VALUES, WEIGHTS, CHANCES, tail)
    assert float(value) == pytest.approx(expected)
    assert gradient.shape == VALUES.shape
    direction = np.random.default_rng(1).standard_normal(VALUES.shape)
    step = 1e-6
    up = REDUCTIONS[name](objective, VALUES + step * direction, WEIGHTS, CHANCES, tail)[0]
    down = REDUCTIONS[name](objective, VALUES - step * direction, WEIGHTS, CHANCES, tail)[0]
    if name != "voxelwise_worst":  # two scenarios are equally low there, so the gradient is one of several
        assert (up - down) / (2 * step) == pytest.approx(float(np.sum(gradient * direction)), abs=1e-6)


def test_voxelwise_worst_needs_a_level_or_a_direction():
    value, _ = REDUCTIONS["voxelwise_worst"](Maximum(0.1), VALUES, WEIGHTS, CHANCES, 1.0)
    assert float(value) == pytest.approx(3.0, abs=1e-3)

    class Odd(SquaredDeviation):
        @property
        def level(self):
            return None

    with pytest.raises(InputError, match="states no level"):
        REDUCTIONS["voxelwise_worst"](Odd(1.0), VALUES, WEIGHTS, CHANCES, 1.0)


@pytest.mark.parametrize("robust", ["nominal", "expected", "worst", "voxelwise_worst", "cvar"])
def test_gradient_of_the_whole_problem(robust, xp_device):
    model = make_dij(xp_device.name, scenarios=3)
    goals = [
        Goal("target", SquaredDeviation(60.0), 10.0, robust=robust, tail=0.35),
        Goal("organ", SquaredOverdosing(10.0), 3.0, robust=robust, tail=0.35),
        Goal("body", SquaredOverdosing(20.0), 1.0),
    ]
    problem = Problem(model, goals, fractions=30, weights=MEMBERS)
    rng = np.random.default_rng(2)
    x, direction = rng.random(12), rng.standard_normal(12)

    def value(point):
        return float(problem.at(xp_device.asarray(point)).value)

    gradient = to_numpy(problem.value_and_gradient(xp_device.asarray(x))[1])
    slope = (value(x + 1e-6 * direction) - value(x - 1e-6 * direction)) / 2e-6
    assert slope == pytest.approx(float(gradient @ direction), rel=1e-6)


def test_composite_is_the_worst_sum():
    goals = [Goal("target", SquaredDeviation(60.0), 10.0), Goal("organ", SquaredOverdosing(10.0), 3.0)]
    x = np.linspace(0.1, 1.0, 12)
    sums = []
    for matrix in matrices(3):
        dose = 30 * matrix @ x
        sums.append(10 * np.mean((dose[:18] - 60) ** 2) + 3 * np.mean(np.maximum(dose[18:30] - 10, 0) ** 2))
    problem = Problem(make_dij(scenarios=3), goals, fractions=30, robust="composite", weights=MEMBERS)
    value, gradient = problem.value_and_gradient(x)
    assert float(value) == pytest.approx(max(sums))
    direction = np.random.default_rng(3).standard_normal(12)
    slope = (float(problem.at(x + 1e-6 * direction).value) - float(problem.at(x - 1e-6 * direction).value)) / 2e-6
    assert slope == pytest.approx(float(gradient @ direction), rel=1e-6)
    with pytest.raises(InputError, match="drop one of the two"):
        Problem(
            make_dij(scenarios=3),
            [Goal("target", SquaredDeviation(1.0), robust="worst")],
            robust="composite",
            weights=MEMBERS,
        )
