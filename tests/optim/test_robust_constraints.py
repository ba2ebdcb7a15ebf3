"""Constraints over scenarios: held in each one or in the mean, beside another library and as metrics read them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.optimize

from radplan.arrays import to_numpy
from radplan.errors import UnknownNameError
from radplan.geometry import Grid
from radplan.influence import Dij, Scenarios
from radplan.io.plan_file.reading import plan_spec
from radplan.optim import Constraint, Goal, Mean, Problem, SquaredDeviation, SquaredOverdosing, Status
from radplan.optim.augmented import AugmentedProblem, Hold
from radplan.optim.constraints import Kept
from radplan.optim.solvers import AugmentedLagrangian, Ipopt
from radplan.plan import scenario_metrics
from radplan.workflows.planning import run
from tests.test_robust_plan import SMALL

ROWS, COLUMNS, CHANCES = 60, 12, (0.5, 0.3, 0.2)
SOLVERS = [AugmentedLagrangian(tolerance=1e-7, violation=1e-3), *Ipopt.examples()]
MEMBERS = {"target": (np.arange(20), None), "organ": (np.arange(20, 40), None), "body": (np.arange(40, ROWS), None)}


def problem(*limits, device="numpy"):
    rng = np.random.default_rng(4)
    first = rng.random((ROWS, COLUMNS)) * (rng.random((ROWS, COLUMNS)) < 0.7)
    matrices = [first, np.roll(first, 3, axis=0), np.roll(first, -4, axis=0)]
    grid = Grid((1, 1, ROWS), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    cases = Scenarios(("nominal", "left", "right"), CHANCES)
    dij = Dij.from_matrices({"physical_dose": matrices}, grid, device=device, dtype="float64", scenarios=cases)
    goals = [Goal("target", SquaredDeviation(10.0), 10.0, robust="expected"), Goal("body", SquaredOverdosing(5.0))]
    return Problem(dij, goals, constraints=limits, weights=MEMBERS)


def in_each(own, x, function):
    """What a function of the organ's dose is in each scenario."""
    dose = to_numpy(own.at(x).values_of("physical_dose"))
    return np.asarray([function(row[20:40]) for row in dose])


def optimum(own, rows):
    """The cost that SciPy's SLSQP ends at, where functions of the constraint values must be >= 0."""
    exact = scipy.optimize.minimize(
        lambda x: float(own.at(x).value), own.start, jac=lambda x: own.at(x).gradient, method="SLSQP",
        bounds=[(0.0, None)] * COLUMNS, options={"ftol": 1e-10, "maxiter": 1000},
        constraints=[{"type": "ineq", "fun": lambda x: rows(in_each(own, x, np.mean))}],
    )  # fmt: skip
    assert exact.success
    return float(exact.fun)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_mean_is_held_in_every_scenario_or_in_their_mean(solver):
    limit = 4.0
    for robust, rows in (("worst", lambda means: limit - means), ("expected", lambda means: limit - CHANCES @ means)):
        own = problem(Constraint("organ", Mean(), upper=limit, robust=robust))
        found = solver.solve(own)
        means = in_each(own, found.x, np.mean)
        assert found.status is Status.CONVERGED
        assert found.value == pytest.approx(optimum(own, rows), rel=0.01)
        assert np.all(rows(means) >= -2e-3)
        assert found.kept[0].value == pytest.approx(means.max() if robust == "worst" else CHANCES @ means, rel=1e-6)
        assert len(found.kept) == 1
        assert means.max() > limit + 0.1 or robust == "worst"


def test_a_dose_at_a_volume_is_held_in_every_scenario():
    limit = 6.0
    nominal, worst = (
        problem(Constraint("organ", "D20", upper=limit, robust=robust)) for robust in ("nominal", "worst")
    )
    loose, kept = (AugmentedLagrangian().solve(own) for own in (nominal, worst))
    in_nominal = in_each(worst, loose.x, lambda dose: np.sort(dose)[-4])
    assert in_nominal[0] <= limit + 0.2
    assert in_nominal.max() > limit + 0.5
    assert kept.status is Status.CONVERGED
    assert not kept.missed
    assert kept.kept[0].value <= limit + 0.1
    assert worst.judged(loose.x)[0].excess > 0.4


def test_leaning_on_scenarios_is_the_same_on_every_device(xp_device):
    limits = [Constraint("organ", "D20", upper=4.0, robust=robust) for robust in ("worst", "expected")]
    leaning = []
    for device in ("numpy", xp_device.name):
        own = problem(*limits, device=device)
        point = own.at(own.start * 1.5)
        pairs = zip(own.constraint_terms, own.term_constraints, strict=True)
        holds = [Hold.of(term, bound.bounds, point.values_of(term.quantity), 0.0) for term, bound in pairs]
        value, gradient = AugmentedProblem(own, tuple(replace(hold, penalty=3.0) for hold in holds)).value_and_gradient(
            own.start * 1.5
        )
        assert [hold.by_voxel for hold in holds] == [True, True, True, False]
        leaning.append((float(to_numpy(value)), to_numpy(gradient)))
    assert leaning[1][0] == pytest.approx(leaning[0][0], rel=1e-9)
    np.testing.assert_allclose(leaning[1][1], leaning[0][1], rtol=1e-9)


def test_each_scenario_has_its_row_of_the_jacobian():
    own = problem(Constraint("organ", "gEUD(4)", upper=5.0, robust="worst"), Constraint("target", "Dmean", lower=8.0))
    x, step = own.start * np.linspace(0.5, 1.5, COLUMNS), 1e-6
    assert [entry.metric for entry in own.term_constraints] == ["gEUD(4)"] * 3 + ["Dmean"]
    rows = to_numpy(own.constraint_jacobian(x))
    for column in range(COLUMNS):
        change = step * np.eye(COLUMNS)[column]
        rise = own.constraint_values(x + change) - own.constraint_values(x - change)
        np.testing.assert_allclose(rows[:, column], rise / (2 * step), rtol=1e-5, atol=1e-7)


def test_words_and_plain_data():
    limit = Constraint("Core", "D10", upper=15.0, robust="worst")
    assert Constraint.from_spec(limit.to_spec()) == limit
    assert str(Kept(limit, 15.5)) == "Core D10 in the worst scenario 15.5 Gy > 15 Gy by 0.5 Gy"
    with pytest.raises(UnknownNameError, match="did you mean 'worst'"):
        Constraint("Core", "D10", upper=15.0, robust="wurst")


def test_a_plan_file_bounds_the_worst_scenario_as_metrics_read_it():
    goals = [*SMALL["goals"], {**SMALL["goals"][1], "weight": 30}]
    limit = {"structure": "OuterTarget", "metric": "D50", "lower": 50.0, "robust": "worst"}
    asked = {**SMALL, "goals": goals, "robust": {"setup": 6, "reduction": "nominal"}}
    plain, held = (run(plan_spec(data), progress=False).plan for data in (asked, {**asked, "constraints": [limit]}))
    least = {}
    for name, plan in (("plain", plain), ("held", held)):
        table = scenario_metrics(plan, "rbe_x_dose", ["OuterTarget"], ["D50"])
        least[name] = min(rows["OuterTarget"]["D50"] for rows in table.values())
    assert least["plain"] < 49.0
    assert held.solution.status is Status.CONVERGED
    assert least["held"] >= 49.9
    assert held.solution.kept[0].value == pytest.approx(least["held"], rel=1e-6)
