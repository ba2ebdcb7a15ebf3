"""Solvers: the optimum of a convex problem, bounds, warm starts, interruption, backends."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.optimize import lsq_linear, minimize

from radplan.arrays import native_device, to_numpy
from radplan.beams import ControlPoint, TreatmentField
from radplan.engines import ApertureOptions, aperture_model
from radplan.engines.aperture.variables import ApertureVariables
from radplan.errors import CalculationError, InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, Variables
from radplan.machines import library_machine
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC
from radplan.optim import (
    SOLVERS,
    Constraint,
    Goal,
    Mean,
    Objective,
    Problem,
    ProjectedLBFGS,
    ScipyLBFGSB,
    SquaredDeviation,
    SquaredOverdosing,
    SquaredUnderdosing,
    Status,
)
from radplan.patient.phantoms import phantom

from .conftest import GRID, MEMBERS, make_dij, matrices
from .test_problem import GOALS, Squares

TIGHT = [
    pytest.param(ProjectedLBFGS(tolerance=1e-12, max_iterations=2000), id="lbfgs"),
    pytest.param(ScipyLBFGSB(tolerance=1e-14, max_iterations=2000), id="scipy"),
]
QUADRATIC = [Goal("target", SquaredDeviation(60.0), 10.0), Goal("organ", SquaredDeviation(0.0), 3.0)]


@dataclass(frozen=True)
class Undefined(Objective):
    """An objective that is not a number anywhere."""

    name = "undefined"

    def value(self, values, weights):
        return values[0] * float("nan")

    def gradient(self, values, weights):
        return values * float("nan")

    @classmethod
    def examples(cls):
        return [cls()]


def least_squares(columns=12):
    """The exact optimum of QUADRATIC by an active-set method of another library."""
    d = 30 * matrices(columns=columns)[0]
    rows = np.concatenate([np.sqrt(10 / 18) * d[:18], np.sqrt(3 / 12) * d[18:30]])
    right = np.concatenate([np.full(18, 60 * np.sqrt(10 / 18)), np.zeros(12)])
    return lsq_linear(rows, right, (0, np.inf), method="bvls", tol=1e-14)


@pytest.mark.parametrize("solver", TIGHT)
def test_optimum_of_a_bounded_least_squares_problem(solver):
    exact = least_squares()
    assert np.sum(exact.x < 1e-9) >= 2
    problem = Problem(make_dij(), QUADRATIC, fractions=30, weights=MEMBERS)
    found = solver.solve(problem)
    assert found.status is Status.CONVERGED
    assert found.value == pytest.approx(2 * exact.cost, rel=1e-8)
    np.testing.assert_allclose(found.x, exact.x, atol=1e-3)
    assert found.x.min() >= 0.0


def test_backends_agree(xp_device):
    problem = Problem(make_dij(xp_device.name), QUADRATIC, fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS(tolerance=1e-9).solve(problem)
    assert found.value == pytest.approx(2 * least_squares().cost, rel=1e-6)
    assert native_device(found.x) == native_device(problem.start)
    reference = ScipyLBFGSB(tolerance=1e-12).solve(problem)
    assert native_device(reference.x) == native_device(problem.start)
    assert found.value == pytest.approx(reference.value, rel=1e-6)


def test_single_precision_reaches_the_optimum(xp_device):
    problem = Problem(make_dij(xp_device.name, "float32"), QUADRATIC, fractions=30, weights=MEMBERS)
    assert ProjectedLBFGS(tolerance=1e-6).solve(problem).value == pytest.approx(2 * least_squares().cost, rel=1e-4)


def test_nonquadratic_goals_against_scipy():
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    ours, reference = (parameter.values[0].solve(problem).value for parameter in TIGHT)
    assert ours <= reference * (1 + 1e-6)


def test_upper_bounds():
    model = replace(make_dij(), variables=Variables(12, lower=0.05, upper=np.full(12, 0.4)))
    problem = Problem(model, QUADRATIC, fractions=30, weights=MEMBERS)
    for parameter in TIGHT:
        found = parameter.values[0].solve(problem)
        assert found.x.min() >= 0.05
        assert found.x.max() <= 0.4
        np.testing.assert_allclose(found.value, lsq_bounded(0.05, 0.4), rtol=1e-8)


def lsq_bounded(lower, upper):
    d = 30 * matrices()[0]
    rows = np.concatenate([np.sqrt(10 / 18) * d[:18], np.sqrt(3 / 12) * d[18:30]])
    right = np.concatenate([np.full(18, 60 * np.sqrt(10 / 18)), np.zeros(12)])
    return 2 * lsq_linear(rows, right, (lower, upper), method="bvls", tol=1e-14).cost


def test_nonlinear_model():
    linear = Problem(make_dij(), QUADRATIC, fractions=30, weights=MEMBERS)
    problem = Problem(Squares(make_dij()), QUADRATIC, fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS(tolerance=1e-9, max_iterations=3000).solve(problem, x0=np.full(12, 0.5))
    assert found.value == pytest.approx(ProjectedLBFGS(tolerance=1e-12).solve(linear).value, rel=1e-4)


@pytest.mark.parametrize("columns", [1, 2])
def test_fewer_variables_than_memory(columns):
    model = Dij.from_matrices({"physical_dose": matrices(columns=columns)[0]}, GRID, dtype="float64")
    problem = Problem(model, QUADRATIC, fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS(tolerance=1e-12).solve(problem)
    assert found.value == pytest.approx(2 * least_squares(columns).cost, rel=1e-9)


def test_goals_met_exactly_end_at_once():
    problem = Problem(make_dij(), [Goal("target", SquaredUnderdosing(0.0))], weights=MEMBERS)
    found = ProjectedLBFGS().solve(problem)
    assert found.value == 0.0
    assert found.status is Status.CONVERGED
    assert found.iterations == 0


@pytest.mark.parametrize("robust", ["expected", "worst", "voxelwise_worst", "cvar"])
def test_robust_goals_do_better_in_what_they_ask_for(robust):
    def goals(kind):
        return [
            Goal("target", SquaredDeviation(60.0), 10.0, robust=kind, tail=0.3),
            Goal("organ", SquaredOverdosing(10.0), 3.0, robust=kind, tail=0.3),
        ]

    model = make_dij(scenarios=3)
    plain = ProjectedLBFGS().solve(Problem(model, goals("nominal"), fractions=30, weights=MEMBERS))
    problem = Problem(model, goals(robust), fractions=30, weights=MEMBERS)
    found = ProjectedLBFGS().solve(problem, x0=plain.x)
    assert found.value < float(problem.at(plain.x).value)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_warm_start_and_history(name):
    solver = SOLVERS.get(name)()
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    first = solver.solve(problem)
    assert list(first.history) == sorted(first.history, reverse=True)
    assert first.start_value > first.history[0]
    again = solver.solve(problem, x0=to_numpy(first.x))
    assert again.iterations < first.iterations
    assert again.value <= first.value * (1 + 1e-9)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_callback_stops_and_interruption_returns_the_best(name):
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    seen = []

    def stop(progress):
        seen.append(progress)
        return progress.iteration == 5

    found = SOLVERS.get(name)().solve(problem, callback=stop)
    assert found.status is Status.STOPPED
    assert [entry.iteration for entry in seen] == [1, 2, 3, 4, 5]
    assert found.value == pytest.approx(seen[-1].value)

    def interrupt(progress):
        if progress.iteration == 4:
            raise KeyboardInterrupt

    found = SOLVERS.get(name)().solve(problem, callback=interrupt)
    assert found.status is Status.INTERRUPTED
    assert "start again" in found.status.advice
    assert float(problem.at(found.x).value) == pytest.approx(seen[3].value)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_limit_of_iterations(name):
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    found = SOLVERS.get(name)(max_iterations=3).solve(problem)
    assert found.status is Status.ITERATION_LIMIT
    assert found.iterations == 3


@pytest.mark.parametrize("name", SOLVERS.names())
def test_refuses(name):
    solver = SOLVERS.get(name)()
    problem = Problem(make_dij(), GOALS, fractions=30, weights=MEMBERS)
    with pytest.raises(InputError, match=r"x0 must have shape \(12,\), got \(3,\)"):
        solver.solve(problem, x0=np.ones(3))
    with pytest.raises(InputError, match="NaN or infinite"):
        solver.solve(problem, x0=np.full(12, np.nan))
    limited = Problem(make_dij(), GOALS, constraints=[Constraint("organ", Mean(), upper=1.0)], weights=MEMBERS)
    if name not in ("augmented_lagrangian", "ipopt"):
        with pytest.raises(InputError, match=r"not the 1 constraints given .* take 'augmented_lagrangian'"):
            solver.solve(limited)
    broken = Problem(make_dij(), [*GOALS, Goal("target", Undefined())], weights=MEMBERS)
    with pytest.raises(CalculationError, match="in 1 goals: target: undefined of physical_dose"):
        solver.solve(broken)
    for options in ({"max_iterations": 0}, {"memory": 2.5}, {"tolerance": 1.5}):
        with pytest.raises(InputError, match=f"{next(iter(options))} "):
            SOLVERS.get(name)(**options)


def pairs_held_apart(matrix, start, gap=1.0):
    """A model whose variables are opposed in twos that keep a gap, and one goal: each voxel at 10 Gy."""
    count = matrix.shape[1]
    space = ApertureVariables(
        count, lower=-50.0, upper=50.0, start=start, scale=2.0, labels=("leaf end [mm]",),
        first=np.arange(0, count, 2), second=np.arange(1, count, 2), gaps=np.full(count // 2, gap),
    )  # fmt: skip
    grid = Grid((1, 1, matrix.shape[0]), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    model = replace(Dij.from_matrices({"physical_dose": matrix}, grid, dtype="float64"), variables=space)
    return Problem(model, [Goal("all", SquaredDeviation(10.0))], weights={"all": (np.arange(matrix.shape[0]), None)})


def test_variables_that_hold_each_other_end_at_the_nearest_allowed_point():
    """min |x - c|^2 over pairs that keep 1 mm is the projection of c, here by hand."""
    wanted = np.asarray([3.0, 2.0, -4.0, 7.0, 6.0, 6.5, 60.0, 55.0])
    x0 = np.asarray([-1.0, 1.0] * 4)
    problem = pairs_held_apart(np.diag(10.0 / wanted), x0)
    weights = (10.0 / wanted) ** 2
    expected = []
    for (a, b), (u, v) in zip(wanted.reshape(-1, 2), weights.reshape(-1, 2), strict=True):
        if b - a >= 1.0:
            expected += [a, b]
        else:  # minimise u (x - a)^2 + v (x + 1 - b)^2
            low = min((u * a + v * (b - 1.0)) / (u + v), 49.0)
            expected += [low, low + 1.0]
    found = ProjectedLBFGS(tolerance=1e-12).solve(problem)
    np.testing.assert_allclose(found.x, expected, atol=1e-5)


def test_coupled_variables_against_a_solver_with_constraints():
    rng = np.random.default_rng(5)
    matrix, x0 = rng.normal(size=(20, 8)), np.asarray([-1.0, 1.0] * 4)
    problem = pairs_held_apart(matrix, x0)
    found = ProjectedLBFGS(tolerance=1e-12, max_iterations=2000).solve(problem)
    gaps = {"type": "ineq", "fun": lambda x: x[1::2] - x[::2] - 1.0}
    exact = minimize(
        lambda x: np.mean((matrix @ x - 10.0) ** 2), x0, method="SLSQP", constraints=[gaps], options={"ftol": 1e-14}
    )
    assert np.any(exact.x[1::2] - exact.x[::2] < 1.0 + 1e-6), "a gap must matter in this test"
    assert found.value == pytest.approx(exact.fun, rel=1e-7)
    assert np.all(found.x[1::2] - found.x[::2] >= 1.0 - 1e-12)
    with pytest.raises(InputError, match="'scipy_lbfgsb' knows bounds only"):
        ScipyLBFGSB().solve(problem)


def test_leaves_and_monitor_units_of_apertures():
    """Three fields whose leaves stand half over the target, half of the pairs touching, are fitted to it."""
    patient, linac = phantom("box"), library_machine("generic_photon_6mv")
    collimator = MLC("test", np.arange(-40.0, 41.0, 10.0), 0.01, 0.0)
    limits = MachineLimits("test", "test", 25.0, 6.0, {"flat": 600.0}, (0.1, 20.0), (200.0, 150.0), 1.0)
    leaves = np.asarray([[-41.0, -40.0], [-40.0, 0.0]] * 4)
    fields = [
        TreatmentField(str(gantry), 1, tuple(ControlPoint(mu, gantry, 0.0, 0.0, [0, 0, 0], leaves=leaves)
                                             for mu in (0.0, 80.0)), 1000.0, collimator.boundaries)
        for gantry in (0.0, 120.0, 240.0)
    ]  # fmt: skip
    options = ApertureOptions(lateral_cutoff=25.0, margin=50.0)
    model = aperture_model(patient, fields, linac, collimator, 15.0, options, limits=limits)
    goals = [Goal("OuterTarget", SquaredDeviation(60.0), 10.0), Goal("BODY", SquaredOverdosing(20.0), 1.0)]
    problem = Problem(model, goals, patient, fractions=30)
    found = ProjectedLBFGS(max_iterations=12).solve(problem)
    assert list(found.history) == sorted(found.history, reverse=True)
    assert found.value < 0.15 * found.start_value
    space = model.variables
    assert np.all(found.x[space.second] - found.x[space.first] >= space.gaps - 1e-9)
    assert np.all((found.x >= space.lower) & (found.x <= space.upper))
    opened = found.x[model.layouts[0].leaf_slice].reshape(8, 2)
    assert np.all(opened[:, 1] - opened[:, 0] > 2.0), "pairs that touched have opened"
