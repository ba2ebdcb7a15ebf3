"""Constraints: closed forms, another library's solver, a dose limit on a small patient, contradictions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from scipy.optimize import minimize

from radplan.arrays import to_numpy
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.optim import (
    SOLVERS,
    Constraint,
    Goal,
    Maximum,
    Mean,
    Minimum,
    Problem,
    ProjectedLBFGS,
    SquaredDeviation,
    SquaredOverdosing,
    Status,
)
from radplan.optim.constraints import refuse_contradictions
from radplan.optim.solvers import AugmentedLagrangian
from radplan.plan import optimize
from tests import small_case

from .conftest import MEMBERS, make_dij

COUNT, INSIDE = 10, 4


def separate(constraints, device="numpy"):
    """Ten voxels with a weight each, all wanted at 10 Gy; the first four are the organ."""
    matrix = np.diag(np.linspace(0.5, 2.0, COUNT))
    model = Dij.from_matrices(
        {"physical_dose": matrix}, Grid((1, 1, COUNT), (1, 1, 1), (0, 0, 0)), device=device, dtype="float64"
    )
    members = {"all": (np.arange(COUNT), None), "organ": (np.arange(INSIDE), None)}
    return Problem(model, [Goal("all", SquaredDeviation(10.0))], constraints=constraints, weights=members)


@pytest.mark.parametrize(
    ("constraint", "level"),
    [
        (Constraint("organ", Mean(), upper=8.0), 8.0),
        (Constraint("organ", Mean(), lower=12.0), 12.0),
        (Constraint("organ", Mean(), lower=9.0, upper=9.0), 9.0),
        (Constraint("organ", Mean(), lower=5.0, upper=20.0), 10.0),  # not active
        (Constraint("organ", Maximum(0.1), upper=7.0), 7.0 - 0.1 * np.log(INSIDE)),
        (Constraint("organ", Minimum(0.1), lower=11.0), 11.0 + 0.1 * np.log(INSIDE)),
    ],
)
def test_doses_of_an_organ_held_at_a_level(constraint, level):
    """By symmetry all voxels of the organ get the level, the others their 10 Gy: (4/10) (level - 10)^2 remains."""
    problem = separate([constraint])
    found = AugmentedLagrangian(violation=1e-5).solve(problem)
    assert found.status is Status.CONVERGED
    dose = problem.model.forward(found.x)["physical_dose"][0]
    np.testing.assert_allclose(dose, np.where(np.arange(COUNT) < INSIDE, level, 10.0), atol=0.02)
    assert found.value == pytest.approx(0.4 * (level - 10.0) ** 2, rel=1e-3, abs=1e-3)


def test_backends_hold_a_constraint(xp_device):
    problem = separate([Constraint("organ", Mean(), upper=8.0)], xp_device.name)
    found = AugmentedLagrangian().solve(problem)
    assert found.value == pytest.approx(1.6, rel=0.01)
    assert float(to_numpy(problem.constraint_values(found.x))[0]) <= 8.0 * 1.001


def test_two_constraints_against_another_solver():
    goals = [Goal("target", SquaredDeviation(60.0), 10.0), Goal("body", SquaredOverdosing(20.0), 1.0)]
    least = (Constraint("organ", Mean(), upper=0.0), Constraint("target", Minimum(0.5), lower=0.0))
    free = ProjectedLBFGS().solve(Problem(make_dij(), goals, fractions=30, weights=MEMBERS))
    loose = Problem(make_dij(), goals, fractions=30, constraints=least, weights=MEMBERS).constraint_values(free.x)
    ends = np.round([0.9 * loose[0], 1.02 * loose[1]], 2)
    limits = [Constraint("organ", Mean(), upper=ends[0]), Constraint("target", Minimum(0.5), lower=ends[1])]
    problem = Problem(make_dij(), goals, fractions=30, constraints=limits, weights=MEMBERS)
    found = AugmentedLagrangian(violation=1e-5, tolerance=1e-8, max_iterations=5000).solve(problem)
    signs = np.asarray([-1.0, 1.0])
    exact = minimize(
        lambda x: 1e-3 * float(problem.at(x).value), free.x, jac=lambda x: 1e-3 * problem.at(x).gradient,
        method="SLSQP", bounds=[(0.0, None)] * 12, options={"ftol": 1e-9, "maxiter": 500},
        constraints=[{"type": "ineq", "fun": lambda x: signs * (problem.constraint_values(x) - ends),
                      "jac": lambda x: signs[:, None] * problem.constraint_jacobian(x)}],
    )  # fmt: skip
    assert exact.success
    assert found.value == pytest.approx(1e3 * exact.fun, rel=1e-3)
    after = problem.constraint_values(found.x)
    assert after[0] <= ends[0] * 1.00001
    assert after[1] >= ends[1] * 0.99999


def test_a_dose_limit_of_a_patient_is_kept_and_the_solver_is_chosen_for_it():
    patient, model = small_case.patient(), small_case.dij()
    goals = [Goal("PTV", SquaredDeviation(50.0), 100.0)]
    limit = Constraint("Cord", Maximum(0.05), upper=9.0)
    free = optimize(model, goals, patient)
    plan = optimize(model, goals, patient, constraints=[limit])
    problem = Problem(model, goals, patient, 25, [limit])
    assert float(problem.constraint_values(free.x)[0]) > 12.0
    assert float(problem.constraint_values(plan.x)[0]) <= 9.0 * 1.001
    assert plan.metrics(structures=["Cord"], names=["Dmax"])["Cord"]["Dmax"] <= 9.0 * 1.001
    assert plan.metrics(structures=["PTV"], names=["Dmean"])["PTV"]["Dmean"] > 30.0


def test_contradictions_are_told():
    limits = [Constraint("organ", Mean(), upper=8.0), Constraint("organ", Mean(), lower=9.0)]
    with pytest.raises(InputError, match=r"organ: mean of physical_dose >= 9 Gy, but organ: mean .* <= 8 Gy"):
        separate(limits)
    with pytest.raises(InputError, match=r"organ: D50 of physical_dose >= 9 Gy, but organ: D20 .* <= 8 Gy"):
        separate([Constraint("organ", "D20", upper=8.0), Constraint("organ", "D50", lower=9.0)])
    separate([Constraint("organ", "D20", lower=9.0), Constraint("organ", "D50", upper=8.0)])


@pytest.mark.parametrize(
    ("least", "most", "refused"),
    [
        (("Dmean", 60.0), ("Dmax", 50.0), True),
        (("Dmin", 50.0), ("Dmean", 40.0), True),
        (("V50Gy", 98.0), ("D50", 40.0), True),
        (("V50Gy", 98.0), ("V40Gy", 90.0), True),
        (("D2cc", 60.0), ("Dmax", 50.0), True),
        (("gEUD(8)", 60.0), ("Dmax", 50.0), True),
        (("Dmean", 60.0), ("D2", 50.0), False),
        (("D2cc", 60.0), ("D10", 50.0), False),
        (("D50", 60.0), ("D1cc", 50.0), False),
        (("V50Gy", 0.0), ("Dmax", 40.0), False),
        (("V50Gy", 90.0), ("V40Gy", 100.0), False),
        (("V50Gy", 90.0), ("V60Gy", 5.0), False),
    ],
)
def test_metrics_that_no_dose_can_have_together_contradict_each_other(least, most, refused):
    limits = [Constraint("organ", most[0], upper=most[1]), Constraint("organ", least[0], lower=least[1])]
    if not refused:
        refuse_contradictions(limits)
        return
    with pytest.raises(InputError, match=rf"contradict each other: organ: {re.escape(least[0])} of .* but .*{most[0]}"):
        refuse_contradictions(limits)


def test_what_holds_in_the_mean_of_scenarios_need_not_hold_in_each():
    in_mean = Constraint("organ", "Dmean", lower=60.0, robust="expected")
    refuse_contradictions([in_mean, Constraint("organ", "Dmax", upper=50.0)])
    with pytest.raises(InputError, match="contradict each other"):
        refuse_contradictions([in_mean, Constraint("organ", "Dmax", upper=50.0, robust="expected")])


def test_iterations_of_all_searches_are_counted_and_can_be_stopped():
    problem = separate([Constraint("organ", Maximum(0.1), upper=7.0)])
    told = []
    found = AugmentedLagrangian().solve(problem, callback=lambda progress: told.append(progress.iteration))
    assert told == list(range(1, found.iterations + 1))
    last = found.iterations
    stopped = AugmentedLagrangian().solve(problem, callback=lambda progress: progress.iteration == last - 1)
    assert stopped.status is Status.STOPPED
    assert stopped.iterations == last - 1
    limited = AugmentedLagrangian(max_iterations=last - 1).solve(problem)
    assert limited.status is Status.ITERATION_LIMIT
    assert "augmented_lagrangian" in SOLVERS.names()
    with pytest.raises(InputError, match="violation must be a finite number > 0"):
        AugmentedLagrangian(violation=0.0)
