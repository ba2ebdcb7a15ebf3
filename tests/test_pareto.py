"""Pareto fronts and priorities: optimal under their weights, undominated, navigable; wish lists in their order."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.errors import InputError, UnknownNameError
from radplan.optim import Constraint, Goal, Problem, ProjectedLBFGS, SquaredDeviation, SquaredOverdosing
from radplan.optim.tradeoff import WeightSweep, serpentine
from tests import small_case

GOALS = [
    Goal("PTV", SquaredDeviation(50.0), 100.0),
    Goal("Cord", SquaredOverdosing(5.0), 10.0),
    Goal("BODY", SquaredOverdosing(10.0), 10.0),
]


@pytest.fixture(scope="module")
def front():
    return rp.pareto(small_case.dij(), GOALS, small_case.patient(), levels=3, step=4.0)


def test_neighbours_differ_in_one_level():
    rows = np.log(serpentine([[1.0, 3.0, 9.0], [1.0, 3.0, 9.0], [1.0, 3.0, 9.0]])) / np.log(3.0)
    assert len({tuple(row) for row in np.round(rows)}) == 27
    np.testing.assert_allclose(np.abs(np.diff(rows, axis=0)).sum(axis=1), 1.0)


def test_each_plan_is_optimal_for_its_weights_and_none_is_dominated(front):
    assert len(front) == 9
    assert not front.dominated.any()
    weights = np.asarray([goal.weight for goal in GOALS])
    for row, values in zip(front.factors, front.values, strict=True):
        exact = ProjectedLBFGS(tolerance=1e-9, max_iterations=2000).solve(front.problem.weighted(row.tolist()))
        assert np.dot(weights * row, values) <= 1.005 * exact.value


def test_goal_gradients_sum_to_that_of_the_cost(xp_device):
    problem = Problem(small_case.dij(xp_device.name), GOALS, small_case.patient(), 25)
    point = problem.at(problem.start)
    slopes = np.asarray(rp.arrays.to_numpy(problem.goal_gradients(point)))
    total = np.asarray([goal.weight for goal in GOALS]) @ slopes
    np.testing.assert_allclose(total, rp.arrays.to_numpy(point.gradient), rtol=1e-4)


def test_a_sweep_on_every_device_ends_where_numpy_does(xp_device, front):
    problem = Problem(small_case.dij(xp_device.name), GOALS, small_case.patient(), 25)
    optima = list(WeightSweep().optima(problem, front.factors[:3].tolist()))
    np.testing.assert_allclose([optimum.values for optimum in optima], front.values[:3], rtol=0.02)


def test_navigation_reaches_a_wish_within_the_range_of_the_front(front):
    low, high = front.values[:, 1].min(), front.values[:, 1].max()
    wish = low + 0.3 * (high - low)
    plan = front.navigate({"Cord": wish})
    reached = front.problem.goal_values(plan.x)
    assert reached[1] <= wish + 0.05 * (high - low)
    other = front.problem.goal_values(front.navigate({"BODY": front.values[:, 2].min()}).x)
    assert other[2] < reached[2]
    assert other[0] > reached[0]
    assert plan.metrics()["PTV"]["Dmean"] > 0.0


def test_plans_of_the_front_have_the_weights_that_led_to_them(front):
    plan = front.plan(4)
    np.testing.assert_allclose([goal.weight for goal in plan.goals], [100.0, 10.0, 10.0] * front.factors[4])
    np.testing.assert_array_equal(plan.x, front.x[4])
    with pytest.raises(InputError, match="plans 0 to 8, got 9"):
        front.plan(9)


def test_wishes_and_weights_that_do_not_fit(front):
    with pytest.raises(UnknownNameError, match="did you mean 'Cord'"):
        front.navigate({"Chord": 1.0})
    with pytest.raises(InputError, match="wish for something"):
        front.navigate({})
    with pytest.raises(InputError, match="two or more goals"):
        rp.pareto(small_case.dij(), GOALS[:1], small_case.patient())
    with pytest.raises(InputError, match=r"shape \(plans, 3\)"):
        rp.pareto(small_case.dij(), GOALS, small_case.patient(), factors=[[1.0, 2.0]])
    with pytest.raises(InputError, match="a factor >= 0 for each of 3 goals"):
        front.problem.weighted([1.0, -1.0, 1.0])
    limited = Problem(small_case.dij(), GOALS, small_case.patient(), 25, [Constraint("Cord", "Dmax", upper=9.0)])
    with pytest.raises(InputError, match="bounds only"):
        list(WeightSweep().optima(limited, [[1.0, 1.0, 1.0]]))


def test_a_wish_list_serves_its_goals_in_order():
    patient, model = small_case.patient(), small_case.dij()
    target, cord = GOALS[0], Goal("Cord", SquaredOverdosing(0.5))
    problem = Problem(model, [target, cord], patient, 25)
    cord_first, steps = rp.priorities(model, [cord, target], patient, slack=1.05, sufficient=[0.25, 0.0])
    assert steps[0].bound == pytest.approx(0.25)
    target_first, later = rp.priorities(model, [target, cord], patient, slack=1.05)
    first, second = problem.goal_values(cord_first.x), problem.goal_values(target_first.x)
    assert first[1] <= (0.5 + 0.1) ** 2
    assert second[0] <= (np.sqrt(later[0].bound) + 0.1) ** 2
    assert first[1] < second[1]
    assert second[0] < first[0]
    with pytest.raises(InputError, match="slack must be >= 1"):
        rp.priorities(model, GOALS, patient, slack=0.9)


@pytest.mark.slow
def test_front_of_the_c_shape_costs_less_than_ten_cold_plans():
    """25 plans of 3 goals, threefold steps, 741 bixels: each within 0.5 % of its own optimum, none dominated."""
    patient, machine = rp.load_patient("tg119"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=range(0, 360, 72), bixel_width=8.0)
    dij = rp.dose_influence(patient, beams, machine, grid=5.0)
    goals = [
        Goal("OuterTarget", SquaredDeviation(50.0), 1000.0),
        Goal("Core", SquaredOverdosing(15.0), 300.0),
        Goal("BODY", SquaredOverdosing(30.0), 100.0),
    ]
    front = rp.pareto(dij, goals, patient)
    assert not front.dominated.any()
    assert sum(front.iterations) <= 10 * ProjectedLBFGS().solve(front.problem).iterations
    for number in (0, 7, 12, 24):
        exact = ProjectedLBFGS(tolerance=1e-6, max_iterations=1500).solve(
            front.problem.weighted(front.factors[number].tolist())
        )
        cost = np.dot(front.values[number] * front.factors[number], [1000.0, 300.0, 100.0])
        assert cost <= 1.005 * exact.value
