"""The problem: what it costs, its gradient on every backend, lines, constraints, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from radplan.arrays import dtype_name, to_numpy
from radplan.errors import CalculationError, InputError, UnknownNameError
from radplan.influence import Dij, Variables
from radplan.optim import (
    EUD,
    Constraint,
    DoseMimicking,
    Goal,
    MaxDVH,
    Mean,
    Problem,
    SquaredDeviation,
    SquaredOverdosing,
)
from radplan.quantities import LETxDose
from tests import small_case

from .conftest import BODY, GRID, MEMBERS, ORGAN, TARGET, make_dij, matrices

GOALS = [
    Goal("target", SquaredDeviation(60.0), 10.0),
    Goal("target", EUD(60.0, -8.0), 2.0, quantity="rbe_x_dose"),
    Goal("organ", MaxDVH(20.0, 0.3), 3.0),
    Goal("body", SquaredOverdosing(20.0), 1.0, quantity="bed"),
]


@dataclass(frozen=True)
class Squares:
    """A nonlinear model: the dose of the squares of the variables."""

    dij: Dij

    @property
    def linear(self):
        return False

    def __getattr__(self, name):
        return self.dij.__getattribute__(name)

    def forward(self, x, images=None):
        return self.dij.forward(x * x, images)

    def pullback(self, x, cotangents):
        return 2.0 * x * self.dij.pullback(x, cotangents)

    def restrict(self, voxels):
        return Squares(self.dij.restrict(voxels))


class Counting(Squares):
    """A linear model that counts its products."""

    counts: dict = {}

    @property
    def linear(self):
        return True

    def forward(self, x, images=None):
        self.counts["forward"] = self.counts.get("forward", 0) + 1
        return self.dij.forward(x, images)

    def pullback(self, x, cotangents):
        self.counts["adjoint"] = self.counts.get("adjoint", 0) + 1
        return self.dij.pullback(x, cotangents)

    def restrict(self, voxels):
        return self


def test_value_by_hand():
    x = np.linspace(0.1, 1.0, 12)
    dose = 30 * matrices()[0] @ x
    goals = [GOALS[0], Goal("body", SquaredOverdosing(20.0), 1.0)]
    problem = Problem(make_dij(), goals, fractions=30, weights=MEMBERS)
    expected = 10 * np.mean((dose[TARGET] - 60) ** 2) + np.mean(np.maximum(dose[BODY] - 20, 0) ** 2)
    assert float(problem.value_and_gradient(x)[0]) == pytest.approx(expected)
    assert problem.model.voxels.size == TARGET.size + BODY.size
    assert problem.goal_values(x)[0] == pytest.approx(np.mean((dose[TARGET] - 60) ** 2))


def test_fractions_multiply_what_adds_up_and_nothing_else():
    model = make_dij()
    x = np.linspace(0.1, 1.0, 12)
    dose = matrices()[0] @ x
    bed = 30 * dose * (1 + dose / 2.0)
    problem = Problem(model, [Goal("organ", Mean(), quantity="bed")], fractions=30, weights=MEMBERS)
    assert float(problem.at(x).value) == pytest.approx(bed[ORGAN].mean())
    both = Dij.from_matrices({"physical_dose": matrices()[0], "let_dose": 3.0 * matrices()[0]}, GRID, dtype="float64")
    problem = Problem(both, [Goal("organ", Mean(), quantity="let")], fractions=30, weights=MEMBERS)
    assert float(problem.at(x).value) == pytest.approx(3.0, rel=1e-6)


@pytest.mark.parametrize("goals", [GOALS, GOALS[:1], GOALS[3:]])
def test_gradient(goals, xp_device):
    problem = Problem(make_dij(xp_device.name), goals, fractions=30, weights=MEMBERS)
    rng = np.random.default_rng(2)
    x, direction = rng.random(12), rng.standard_normal(12)
    gradient = problem.value_and_gradient(xp_device.asarray(x))[1]
    assert dtype_name(gradient) == "float64"
    ends = [float(problem.at(xp_device.asarray(x + t * direction)).value) for t in (1e-6, -1e-6)]
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(to_numpy(gradient) @ direction), rel=1e-6)


def test_single_precision_agrees(xp_device):
    x = np.linspace(0.1, 1.0, 12)
    exact = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS).value_and_gradient(x)
    problem = Problem(make_dij(xp_device.name, "float32"), GOALS, fractions=30, weights=MEMBERS)
    value, gradient = problem.value_and_gradient(xp_device.asarray(x))
    assert float(value) == pytest.approx(float(exact[0]), rel=1e-5)
    np.testing.assert_allclose(to_numpy(gradient), exact[1], rtol=1e-4)


@pytest.mark.parametrize("linear", [True, False])
def test_line(linear, xp_device):
    model = make_dij(xp_device.name)
    problem = Problem(model if linear else Squares(model), GOALS, fractions=30, weights=MEMBERS)
    x, direction = xp_device.asarray(np.linspace(0.1, 1.0, 12)), xp_device.asarray(np.linspace(-0.3, 0.4, 12))
    line = problem.along(x, direction)
    for t in (0.0, 0.4, 1.3):
        value, slope = line(t)
        expected, gradient = problem.value_and_gradient(x + t * direction)
        assert float(value) == pytest.approx(float(expected), rel=1e-12)
        assert float(slope) == pytest.approx(float(to_numpy(gradient) @ to_numpy(direction)), rel=1e-9)


def test_one_product_each_way():
    Counting.counts.clear()
    problem = Problem(Counting(make_dij()), GOALS, fractions=30, weights=MEMBERS)
    x = problem.start
    Counting.counts.clear()
    problem.value_and_gradient(x)
    assert Counting.counts == {"forward": 1, "adjoint": 1}
    Counting.counts.clear()
    point = problem.at(x)
    line = problem.along(point, x)
    line(0.5), line(0.7)
    assert Counting.counts == {"forward": 2}


def test_start_gives_the_target_its_prescription(xp_device):
    model = make_dij(xp_device.name)
    goals = [Goal("target", SquaredDeviation(60.0)), Goal("organ", SquaredOverdosing(5.0))]
    problem = Problem(model, goals, fractions=30, weights=MEMBERS)
    dose = 30 * matrices()[0] @ to_numpy(problem.start)
    assert dose[TARGET].mean() == pytest.approx(60.0)
    problem = Problem(model, [Goal("target", SquaredDeviation(8.0), quantity="effect")], fractions=30, weights=MEMBERS)
    dose = matrices()[0] @ to_numpy(problem.start)
    assert 30 * (0.1 * dose + 0.05 * dose**2)[TARGET].mean() == pytest.approx(8.0)


def test_variables_that_reach_no_goal_start_at_zero():
    matrix = matrices()[0].copy()
    matrix[:30, 3] = 0.0
    model = Dij.from_matrices({"physical_dose": matrix}, GRID, dtype="float64")
    problem = Problem(model, [Goal("target", SquaredDeviation(60.0))], weights=MEMBERS)
    assert problem.start[3] == 0.0
    assert np.all(np.isfinite(problem.scale))


def test_scale_is_the_diagonal_of_the_hessian():
    goals = [Goal("target", SquaredDeviation(60.0), 10.0), Goal("organ", SquaredDeviation(0.0), 3.0)]
    problem = Problem(make_dij(), goals, fractions=30, weights=MEMBERS)
    d = 30 * matrices()[0]
    hessian = 2 * (10 / 18 * d[TARGET].T @ d[TARGET] + 3 / 12 * d[ORGAN].T @ d[ORGAN])
    np.testing.assert_allclose(problem.scale**-2, np.diag(hessian), rtol=1e-9)


def test_constraints(xp_device):
    limits = [Constraint("organ", Mean(), upper=20.0), Constraint("target", EUD(0.0, 4.0), 50.0, 70.0, "rbe_x_dose")]
    problem = Problem(make_dij(xp_device.name), GOALS, fractions=30, constraints=limits, weights=MEMBERS)
    x = np.linspace(0.1, 1.0, 12)
    values = to_numpy(problem.constraint_values(xp_device.asarray(x)))
    assert values[0] == pytest.approx((30 * matrices()[0] @ x)[ORGAN].mean())
    np.testing.assert_allclose(to_numpy(problem.constraint_lower), [-np.inf, 50.0])
    np.testing.assert_allclose(to_numpy(problem.constraint_upper), [20.0, 70.0])
    jacobian = to_numpy(problem.constraint_jacobian(xp_device.asarray(x)))
    direction = np.linspace(-0.5, 1.0, 12)
    ends = [to_numpy(problem.constraint_values(xp_device.asarray(x + t * direction))) for t in (1e-6, -1e-6)]
    np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, jacobian @ direction, rtol=1e-6)
    multipliers = np.asarray([0.3, -2.0])
    pulled = to_numpy(problem.constraint_pullback(xp_device.asarray(x), xp_device.asarray(multipliers)))
    np.testing.assert_allclose(pulled, multipliers @ jacobian, rtol=1e-9)


def test_no_constraints():
    problem = Problem(make_dij(), GOALS, weights=MEMBERS)
    assert problem.constraint_values(problem.start).shape == (0,)
    assert problem.constraint_jacobian(problem.start).shape == (0, 12)
    assert not np.any(problem.constraint_pullback(problem.start, problem.start[:0]))


def test_mimicking_a_dose_on_the_grid(xp_device):
    x = np.linspace(0.1, 1.0, 12)
    dose = (30 * matrices()[0] @ x).reshape(GRID.shape)
    goals = [Goal("organ", DoseMimicking(dose)), Goal("target", DoseMimicking(dose.ravel()))]
    problem = Problem(make_dij(xp_device.name), goals, fractions=30, weights=MEMBERS)
    assert float(problem.at(xp_device.asarray(x)).value) == pytest.approx(0.0, abs=1e-18)
    with pytest.raises(InputError, match=r"shape \(5,\), expected the dose grid \(3, 4, 5\)"):
        Problem(make_dij(), [Goal("organ", DoseMimicking(np.ones(5)))], weights=MEMBERS)
    with pytest.raises(InputError, match="NaN or infinite in 12"):
        Problem(make_dij(), [Goal("organ", DoseMimicking(dose * np.nan))], weights=MEMBERS)


def test_a_patient_gives_structures_after_overlap():
    case, model = small_case.patient(), small_case.dij()
    goals = [Goal("PTV", SquaredDeviation(50.0), 100.0), Goal("BODY", SquaredOverdosing(20.0))]
    problem = Problem(model, goals, case, fractions=25)
    ptv, body = problem.terms
    assert not set(to_numpy(ptv.index)) & set(to_numpy(body.index))
    assert float(to_numpy(body.weights).sum()) == pytest.approx(1.0)
    with pytest.raises(UnknownNameError, match="did you mean 'Cord'"):
        Problem(model, [Goal("Cort", Mean())], case)


def test_two_instances_of_a_quantity_stay_apart():
    model = Dij.from_matrices({"physical_dose": matrices()[0], "let_dose": matrices()[0]}, GRID, dtype="float64")
    x = np.full(12, 0.5)
    values = [
        Problem(model, [Goal("organ", Mean(), quantity=LETxDose(c=c))], weights=MEMBERS).at(x).value for c in (0.1, 0.2)
    ]
    goals = [Goal("organ", Mean(), quantity=LETxDose(c=c)) for c in (0.1, 0.2)]
    problem = Problem(model, goals, weights=MEMBERS)
    assert float(problem.at(x).value) == pytest.approx(float(values[0] + values[1]))
    assert values[0] != pytest.approx(float(values[1]))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"goals": []}, "at least one goal"),
        ({"goals": [Goal("target", Mean(), weight=0.0)]}, "every goal has weight 0"),
        ({"goals": [Mean()]}, "expected a Goal, got Mean"),
        ({"fractions": 0}, "fractions must be a whole number >= 1, got 0"),
        ({"fractions": 2.5}, "got 2.5"),
        ({"robust": "worst"}, "None or 'composite'"),
        ({"weights": {"target": ([], None)}}, "non-empty list"),
        ({"weights": {"target": ([3, 3], None)}}, "names a voxel twice"),
        ({"weights": {"target": ([3, 4], [1.0, -1.0])}}, "2 finite numbers >= 0"),
        ({"weights": {"target": ([3, 61], None)}}, "1 of 2 voxels of structure 'target' lie outside"),
        ({"weights": None}, "needs a patient"),
        ({"constraints": [Goal("target", Mean())]}, "expected a Constraint"),
    ],
)
def test_refuses(kwargs, message):
    given = {"goals": [Goal("target", SquaredDeviation(1.0))], "weights": MEMBERS} | kwargs
    with pytest.raises(InputError, match=message):
        Problem(make_dij(), **given)


def test_unknown_names():
    with pytest.raises(UnknownNameError, match="did you mean 'target'"):
        Problem(make_dij(), [Goal("taget", Mean())], weights=MEMBERS)
    with pytest.raises(UnknownNameError, match="did you mean 'effect'"):
        Problem(make_dij(), [Goal("target", Mean(), quantity="efect")], weights=MEMBERS)
    with pytest.raises(InputError, match="let_dose"):
        Problem(make_dij(), [Goal("target", Mean(), quantity="let_dose")], weights=MEMBERS)


def test_nothing_reaches_the_goals():
    matrix = matrices()[0].copy()
    matrix[TARGET] = 0.0
    with pytest.raises(InputError, match="no variable of the model gives any physical_dose"):
        Problem(Dij.from_matrices({"physical_dose": matrix}, GRID), [Goal("target", Mean())], weights=MEMBERS)


def test_nan_is_named():
    problem = Problem(make_dij(), GOALS, weights=MEMBERS)
    with pytest.raises(CalculationError, match="4 goals: target: squared_deviation of physical_dose"):
        problem.check_finite(np.full(12, np.nan))


def test_no_variables():
    with pytest.raises(InputError, match="at least one variable"):
        replace(make_dij(), variables=Variables(0))
