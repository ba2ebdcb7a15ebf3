"""Constraints on metrics: what they are written as, what they hold as the plan reads it, and what is said when not."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.analysis.metrics import metric
from radplan.arrays import to_numpy
from radplan.errors import InputError, UnknownNameError
from radplan.optim import (
    EUD,
    Constraint,
    DoseAtVolume,
    Goal,
    MaxDVH,
    Mean,
    MeanOfColdest,
    MeanOfHottest,
    Problem,
    ProjectedLBFGS,
    SquaredDeviation,
    SquaredOverdosing,
    Status,
    VolumeAtDose,
)
from radplan.optim.constraints import Kept, metric_objective
from radplan.optim.solvers import AugmentedLagrangian
from radplan.patient.sampling import sample, sampling_matrix, structure_points
from radplan.plan import optimize
from tests import small_case

from .conftest import MEMBERS, make_dij

GOALS = [Goal("target", SquaredDeviation(60.0), 10.0), Goal("body", SquaredOverdosing(20.0), 1.0)]


@pytest.mark.parametrize(
    "name", ["D10", "D0", "D100", "D95", "D2", "Dmean", "Dmax", "Dmin", "V1Gy", "gEUD(8)", "D0.5cc"]
)
@pytest.mark.parametrize("even", [True, False])
def test_unsmoothed_value_is_the_metric(name, even):
    rng = np.random.default_rng(3)
    values = rng.random(40) * 2.0
    weights = np.full(40, 1.0 / 40) if even else rng.random(40)
    weights /= weights.sum()
    measured = float(metric_objective(name, 2.0).measured(values, weights))
    assert measured == pytest.approx(metric(name, values, weights, 2.0), rel=1e-12)


def test_band_of_a_dose_at_volume_averages_ranks_within_half_a_percent():
    values = np.linspace(0.0, 10.0, 1001)
    weights = np.full(1001, 1.0 / 1001)
    objective = DoseAtVolume(0.1)
    gradient = objective.gradient(values, weights)
    assert gradient.sum() == pytest.approx(1.0)
    assert np.count_nonzero(gradient) == pytest.approx(11, abs=1)
    assert float(objective.value(values, weights)) == pytest.approx(metric("D10", values, weights), abs=1e-4)


def test_means_of_shares_bound_the_dose_at_their_volume():
    rng = np.random.default_rng(5)
    values, weights = rng.random(200), np.full(200, 1.0 / 200)
    assert float(MeanOfHottest(0.1).value(values, weights)) == pytest.approx(np.sort(values)[-20:].mean())
    assert float(MeanOfColdest(0.05).value(values, weights)) == pytest.approx(np.sort(values)[:10].mean())
    assert float(MeanOfHottest(0.1).value(values, weights)) >= metric("D10", values, weights)
    assert float(MeanOfColdest(0.05).value(values, weights)) <= metric("D95", values, weights)


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("Core", "D10", upper=15.0),
        Constraint("Lung", "V20Gy", upper=29.0),
        Constraint("Cord", MaxDVH(15.0, 0.1), upper=0.01),
        Constraint("PTV", "gEUD(-10)", lower=48.0, quantity="rbe_x_dose"),
    ],
)
def test_plain_data_and_back(constraint):
    assert Constraint.from_spec(constraint.to_spec()) == constraint


def test_bounds_are_in_the_unit_of_the_metric():
    assert Constraint.from_spec({"structure": "Lung", "metric": "V20Gy", "upper": "29 %"}).upper == 29.0
    with pytest.raises(InputError, match=r"upper of 'Core: D10 of physical_dose' is in Gy, got '15 %'.*metric in %"):
        Constraint.from_spec({"structure": "Core", "metric": "D10", "upper": "15 %"})
    with pytest.raises(InputError, match=r"is in %, got '5 Gy'"):
        Constraint.from_spec({"structure": "Lung", "metric": "V20Gy", "upper": "5 Gy"})
    with pytest.raises(InputError, match=r"share of the structure in \[0, 100\] %, got 2000"):
        Constraint("Lung", "V20Gy", upper=2000.0)
    with pytest.raises(InputError, match=r"is in Gy, got '1500 cGy': give the bound in Gy$"):
        Constraint.from_spec({"structure": "Core", "metric": "D10", "upper": "1500 cGy"})
    with pytest.raises(InputError, match=r"upper of 'Core: D10 of physical_dose' is -1, .* never below 0"):
        Constraint("Core", "D10", upper=-1.0)
    with pytest.raises(InputError, match="must be a number, or one with its unit"):
        Constraint.from_spec({"structure": "Core", "metric": "D10", "upper": "little"})


@pytest.mark.parametrize("name", ["D10x", "HI", "X5", "D120", "gEUD(0)", "median"])
def test_metrics_that_cannot_be_bounded(name):
    with pytest.raises(InputError, match=r"no metric that can be bounded is written .*; expected one of Dmean"):
        Constraint("Core", name, upper=1.0)


def test_misspelt_keys_and_two_functions():
    with pytest.raises(UnknownNameError, match="did you mean 'upper'"):
        Constraint.from_spec({"structure": "Core", "metric": "D10", "uper": 15.0})
    with pytest.raises(InputError, match="either a metric such as D10, or an objective"):
        Constraint.from_spec({"structure": "Core", "metric": "D10", "objective": "mean", "upper": 15.0})
    with pytest.raises(InputError, match="has no parameters"):
        Constraint.from_spec({"structure": "Core", "metric": "D10", "parameters": {"a": 1}, "upper": 15.0})


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("D20", {"upper": 20.0}),
        ("V25Gy", {"upper": 30.0}),
        ("gEUD(8)", {"upper": 21.0}),
        ("Dmax", {"upper": 27.0}),
        ("Dmean", {"upper": 16.0}),
        (MeanOfHottest(0.2), {"upper": 22.0}),
    ],
)
def test_a_bounded_metric_of_an_organ_is_kept(name, bounds):
    check_kept(Constraint("organ", name, **bounds), "numpy")


def test_a_dose_at_volume_is_kept_on_every_device(xp_device):
    check_kept(Constraint("organ", "D20", upper=20.0), xp_device.name)


def check_kept(limit, device):
    problem = Problem(make_dij(device), GOALS, fractions=30, constraints=[limit], weights=MEMBERS)
    free = ProjectedLBFGS().solve(Problem(make_dij(device), GOALS, fractions=30, weights=MEMBERS))
    assert problem.judged(free.x)[0].excess > 1.0
    found = AugmentedLagrangian().solve(problem)
    assert found.status in (Status.CONVERGED, Status.STALLED)  # a mean of the hottest has kinks
    assert not found.missed
    assert problem.judged(found.x)[0].excess <= 0.1
    assert free.value < found.value < 40.0 * free.value


def test_a_volume_bound_and_the_same_dose_bound_end_at_the_same_cost():
    """Both leave three of twelve voxels above 25 Gy: D is read between the middles of voxels."""
    found = []
    for limit in (Constraint("organ", "V25Gy", upper=25.0), Constraint("organ", "D29.17", upper=25.0)):
        problem = Problem(make_dij(), GOALS, fractions=30, constraints=[limit], weights=MEMBERS)
        found.append(AugmentedLagrangian(violation=0.02).solve(problem).value)
    assert found[0] == pytest.approx(found[1], rel=0.02)


def test_what_cannot_be_kept_is_told_with_its_amount():
    limits = [Constraint("organ", "Dmean", upper=1.0), Constraint("target", "D95", lower=55.0)]
    problem = Problem(make_dij(), GOALS, fractions=30, constraints=limits, weights=MEMBERS)
    found = AugmentedLagrangian().solve(problem)
    assert found.status is Status.INFEASIBLE
    assert found.missed
    for entry in found.missed:
        assert str(entry) in found.advice
    assert "Relax" in found.advice
    assert found.kept[0].value == pytest.approx(float(problem.constraint_values(found.x)[0]), rel=1e-6)


def test_amounts_in_words():
    kept = Kept(Constraint("Lung", "V20Gy", upper=29.0), 31.25)
    assert str(kept) == "Lung V20Gy 31.25 % > 29 % by 2.2 %"
    assert kept.excess == pytest.approx(2.25)
    below = Kept(Constraint("PTV", "D95", lower=47.5, quantity="rbe_x_dose"), 47.0)
    assert str(below) == "PTV D95 of rbe_x_dose 47 Gy(RBE) < 47.5 Gy(RBE) by 0.5 Gy(RBE)"
    squared = Kept(Constraint("PTV", SquaredDeviation(50.0), upper=4.0), 4.3)
    assert squared.allowance(0.1) == pytest.approx((2.0 + 0.1) ** 2 - 4.0)


def test_a_plan_keeps_what_its_own_metrics_read():
    """Metrics read a structure at the points it is drawn on; so does a constraint on one."""
    patient, model = small_case.patient(), small_case.dij()
    goals = [Goal("PTV", SquaredDeviation(50.0), 100.0)]
    limits = [Constraint("Cord", "D5", upper=9.0), Constraint("PTV", "D90", lower=25.0)]
    free = optimize(model, goals, patient)
    assert free.metrics(structures=["Cord"], names=["D5"])["Cord"]["D5"] > 10.0
    plan = optimize(model, goals, patient, constraints=limits)
    assert plan.solution.status is Status.CONVERGED
    assert plan.metrics(structures=["Cord"], names=["D5"])["Cord"]["D5"] <= 9.1
    assert plan.metrics(structures=["PTV"], names=["D90"])["PTV"]["D90"] >= 24.9
    assert plan.solution.kept[0].value == plan.metrics(structures=["Cord"], names=["D5"])["Cord"]["D5"]


def test_points_of_a_structure_are_read_as_metrics_read_them():
    patient, model = small_case.patient(), small_case.dij()
    cube = np.zeros(model.grid.size)
    held = np.asarray(model.voxels)
    values = np.random.default_rng(0).random(held.size)
    cube[held] = values
    known = np.zeros(model.grid.size, dtype=bool)
    known[held] = True
    for name in ("PTV", "Cord"):
        index, _ = structure_points(patient.structures[name], model.grid)
        expected = sample(cube.reshape(model.grid.shape), index, known.reshape(model.grid.shape))
        found = sampling_matrix(index, model.grid, held) @ values
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_of_constraints_on_points(xp_device):
    patient = small_case.patient()
    problem = Problem(
        small_case.dij(xp_device.name),
        [Goal("PTV", SquaredDeviation(50.0), 100.0)],
        patient,
        25,
        [
            Constraint("Cord", "D10", upper=9.0),
            Constraint("PTV", "gEUD(-5)", lower=30.0),
            Constraint("Cord", "V8Gy", upper=9.0),
        ],
    )
    place, rng = xp_device, np.random.default_rng(1)
    x = to_numpy(problem.start).astype(np.float64) * (0.5 + rng.random(problem.variables.count))
    direction = rng.random(x.size) * x.mean()
    rows = to_numpy(problem.constraint_jacobian(place.asarray(x, "float64"))) @ direction
    step = 1e-3
    ends = [
        to_numpy(problem.constraint_values(place.asarray(x + sign * step * direction, "float64")))
        for sign in (-1.0, 1.0)
    ]
    np.testing.assert_allclose((ends[1] - ends[0]) / (2.0 * step), rows, rtol=2e-2, atol=1e-3)


@pytest.mark.slow
def test_c_shape_within_a_tenth_of_a_gray():
    """Bounds between the easy and the hard C-shape of AAPM TG-119: core D10 <= 15 Gy, target D95 >= 47.5 Gy."""
    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=range(0, 360, 40), bixel_width=5.0)
    dij = rp.dose_influence(patient, beams, machine, grid=5.0)
    goals = list(patient.goals)
    limits = [Constraint("Core", "D10", upper=15.0), Constraint("OuterTarget", "D95", lower=47.5)]
    plan = rp.optimize(dij, goals, patient, fractions=30, constraints=limits)
    metrics = plan.metrics()
    assert plan.solution.status is Status.CONVERGED
    assert metrics["Core"]["D10"] <= 15.1
    assert metrics["OuterTarget"]["D95"] >= 47.4


def test_objective_forms_whose_value_is_a_dose():
    assert EUD(exponent=2.0, form="value").value_unit("Gy") == "Gy"
    assert Mean(form="over").value_unit("Gy") == "Gy^2"
    assert VolumeAtDose(20.0).value_unit("Gy") == "%"
    with pytest.raises(InputError, match="form 'value' has no reference"):
        EUD(5.0, form="value")
