"""Reductions over scenarios, against the same numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.optim import Goal, Maximum, Problem, SquaredDeviation, SquaredOverdosing, SquaredUnderdosing
from radplan.optim.robust import REDUCTIONS, smooth_maximum, smooth_tail_mean
from radplan.optim.solvers import ProjectedLBFGS, Status

from .conftest import MEMBERS, make_dij, matrices

VALUES = np.asarray([[1.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
WEIGHTS = np.asarray([0.5, 0.5])
CHANCES = (0.5, 0.3, 0.2)


TEN = np.random.default_rng(5).uniform(0.0, 3.0, (4, 10))
SHARES = np.random.default_rng(6).dirichlet(np.ones(10))
FOUR = (0.4, 0.3, 0.2, 0.1)
LEVEL = 1.4


def closed_form(name, kind, tail):
    """The reductions written out for squared deviations, over- and underdosing, voxel by voxel."""

    def cost(dose):
        off = {"both": dose - LEVEL, "down": np.maximum(dose - LEVEL, 0), "up": np.minimum(dose - LEVEL, 0)}[kind]
        return float(sum(share * one**2 for share, one in zip(SHARES, off, strict=True)))

    costs, chances = [cost(dose) for dose in TEN], FOUR
    bad = {"both": np.abs(TEN - LEVEL), "down": TEN, "up": -TEN}[kind]
    mean = sum(p * dose for p, dose in zip(chances, TEN, strict=True))
    if name == "expected":
        return sum(p * c for p, c in zip(chances, costs, strict=True))
    if name == "worst":
        width = 0.01 * sum(costs) / 4
        return max(costs) + width * math.log(sum(math.exp((c - max(costs)) / width) for c in costs))
    if name in ("voxelwise_worst", "voxelwise_best"):
        rows = bad.argmax(axis=0) if name == "voxelwise_worst" else bad.argmin(axis=0)
        return cost(TEN[rows, np.arange(10)])
    if name == "variance":
        return cost(mean) + sum(p * float(SHARES @ (dose - mean) ** 2) for p, dose in zip(chances, TEN, strict=True))
    width = 0.01 * sum(costs) / 4

    def shares(shift):
        return [min(p / tail, p * math.exp((c - shift) / width)) for p, c in zip(chances, costs, strict=True)]

    low, high = min(costs) - 10.0 * width, max(costs) + 10.0 * width
    for _ in range(200):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if sum(shares(middle)) > 1.0 else (low, middle)
    found = shares(high)
    gain = sum(q * c for q, c in zip(found, costs, strict=True))
    return gain - width * sum(q * math.log(q / p) for q, p in zip(found, chances, strict=True) if q > 0.0)


def exact_tail_mean(costs, chances, tail):
    """The conditional value at risk, from the worst scenario down."""
    total, left = 0.0, tail
    for c, p in sorted(zip(costs, chances, strict=True), reverse=True):
        total, left = total + c * min(p, left), left - min(p, left)
    return total / tail


@pytest.mark.parametrize("tail", [0.05, 0.1, 0.35, 0.6, 1.0])
def test_the_smooth_tail_mean_is_near_the_conditional_value_at_risk(tail):
    for seed in range(20):
        random = np.random.default_rng(seed)
        costs, chances = random.uniform(0.0, 2.0, 9), random.dirichlet(np.ones(9))
        costs[3] = costs[5]
        value, shares = smooth_tail_mean(costs, chances, tail)
        exact = exact_tail_mean(costs, chances, tail)
        assert exact - 0.01 * costs.mean() * math.log(1.0 / tail) - 1e-12 <= float(value) <= exact + 1e-12
        assert float(shares @ costs) == pytest.approx(float(value), rel=1e-12)


KINDS = {"both": SquaredDeviation(LEVEL), "down": SquaredOverdosing(LEVEL), "up": SquaredUnderdosing(LEVEL)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in REDUCTIONS if name != "nominal"])
def test_closed_forms_on_ten_voxels(name, kind, xp_device):
    def reduced(values, tail):
        put = [xp_device.asarray(array, "float64") for array in (values, SHARES)]
        return REDUCTIONS[name](KINDS[kind], *put, FOUR, tail)

    for tail in (0.25, 0.5, 1.0):
        value, gradient = reduced(TEN, tail)
        assert float(value) == pytest.approx(closed_form(name, kind, tail), rel=1e-12)
        direction = np.random.default_rng(1).standard_normal(TEN.shape)
        up, down = (float(reduced(TEN + step * direction, tail)[0]) for step in (1e-6, -1e-6))
        assert (up - down) / 2e-6 == pytest.approx(float(np.sum(to_numpy(gradient) * direction)), rel=1e-7, abs=1e-9)


def test_the_smooth_maximum_is_near_the_maximum_and_grows_in_proportion():
    costs = np.asarray([3.0, 2.99, 0.5])
    value, shares = smooth_maximum(costs)
    assert 3.0 < float(value) <= 3.0 + 0.01 * costs.mean() * math.log(3)
    assert float(smooth_maximum(7.0 * costs)[0]) == pytest.approx(7.0 * float(value), rel=1e-14)
    assert float(shares @ costs) == pytest.approx(float(value), rel=1e-14), "Euler: it is homogeneous of degree 1"
    assert float(smooth_maximum(costs[:1])[0]) == 3.0
    value, shares = smooth_maximum(np.zeros(3))
    assert float(value) == 0.0
    assert np.all(np.isfinite(shares))


@pytest.mark.parametrize(
    ("name", "objective", "tail", "expected"),
    [
        ("expected", SquaredDeviation(1.0), 1.0, 0.5 * 0.5 + 0.3 * 2.5 + 0.2 * 0.0),
        ("worst", SquaredDeviation(1.0), 1.0, 2.5),
        ("cvar", SquaredDeviation(1.0), 1.0, 0.5 * 0.5 + 0.3 * 2.5),
        ("voxelwise_worst", SquaredUnderdosing(1.0), 1.0, 0.5),
        ("voxelwise_best", SquaredOverdosing(1.0), 1.0, 0.0),
        (
            "variance",
            SquaredDeviation(1.6),
            1.0,
            (0.5 * 0.36 + 0.3 * 1.96 + 0.2 * 0.36 + 0.5 * 0.16 + 0.3 * 2.56 + 0.2 * 0.36) / 2,
        ),
    ],
)
def test_by_hand(name, objective, tail, expected):
    value, gradient = REDUCTIONS[name](objective, VALUES, WEIGHTS, CHANCES, tail)
    assert float(value) == pytest.approx(expected)
    assert gradient.shape == VALUES.shape


def test_voxelwise_worst_needs_a_level_or_a_direction():
    value, _ = REDUCTIONS["voxelwise_worst"](Maximum(0.1), VALUES, WEIGHTS, CHANCES, 1.0)
    assert float(value) == pytest.approx(3.0, abs=1e-3)

    class Odd(SquaredDeviation):
        @property
        def level(self):
            return None

    with pytest.raises(InputError, match="states no level"):
        REDUCTIONS["voxelwise_worst"](Odd(1.0), VALUES, WEIGHTS, CHANCES, 1.0)


@pytest.mark.parametrize("robust", list(REDUCTIONS))
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
    width = 0.01 * sum(sums) / 3
    assert max(sums) <= float(value) <= max(sums) + width * math.log(3)
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


@pytest.mark.parametrize("robust", [*REDUCTIONS, "composite"])
def test_every_reduction_is_solved_to_convergence(robust):
    own = "nominal" if robust == "composite" else robust
    goals = [
        Goal("target", SquaredDeviation(60.0), 10.0, robust=own, tail=0.35),
        Goal("organ", SquaredOverdosing(10.0), 3.0, robust=own, tail=0.35),
    ]
    whole = "composite" if robust == "composite" else None
    problem = Problem(make_dij(scenarios=3), goals, fractions=30, robust=whole, weights=MEMBERS)
    found = ProjectedLBFGS().solve(problem)
    assert found.status is Status.CONVERGED
    fine = ProjectedLBFGS(tolerance=1e-9, max_iterations=5000).solve(problem, found.x)
    assert found.value <= fine.value * 1.01
