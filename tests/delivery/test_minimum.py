"""Spots that are zero or at least what the monitor can count, found from ones that are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import Beams, place_beams
from radplan.beams.spots import monitor_units, spot_limits
from radplan.delivery.minimum import enforce_minimum
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.errors import InputError
from radplan.machines import ParticleMachine
from radplan.optim import Goal
from radplan.optim.objectives import SquaredDeviation, SquaredOverdosing
from radplan.optim.problem import Problem
from radplan.plan import deliverable, deliverable_at, optimize
from radplan.plan.deliverable import _lowered
from tests.particle_case import machine, patient

CASE = patient()


def metered(min_mu, particles_per_mu=1e8, max_mu=np.inf):
    whole = machine()
    layers = tuple(
        replace(layer, min_mu=min_mu, particles_per_mu=particles_per_mu * layer.energy / 100.0, max_mu=max_mu)
        for layer in whole.layers
    )
    return ParticleMachine("small", "protons", whole.sad, whole.nozzle_distance, layers)


@pytest.fixture(scope="module")
def plan():
    particles = metered(0.3)
    beams = place_beams(CASE, particles, gantry=[0.0, 90.0], bixel_width=4.0)
    dij = dose_influence(CASE, beams, particles, grid=4.0, engine=ParticlePencilBeam(let=False))
    goals = [
        Goal("PTV", SquaredDeviation(60.0), weight=100.0, quantity="rbe_x_dose"),
        Goal("BODY", SquaredOverdosing(10.0), weight=10.0, quantity="rbe_x_dose"),
    ]
    return particles, optimize(dij, goals, CASE, fractions=30)


def test_limits_and_monitor_units_by_energy():
    particles = metered(0.02, 1e8, 5.0)
    beams = Beams.from_rays(
        [[[0.0, 0.0], [0.0, 0.0], [5.0, 0.0]]], gantry=0.0, isocenter=(0, 0, 0), sad=1e4, bixel_width=5.0,
        machine="small", radiation="protons", energies=[particles.energies[[40, 3, 40]]],
    )  # fmt: skip
    least, largest = spot_limits(beams, particles)
    energies = particles.energies[[40, 3, 40]]
    np.testing.assert_allclose(least, 0.02 * 1e8 * energies / 100.0 / 1e6)
    np.testing.assert_allclose(largest, 250.0 * least)
    np.testing.assert_allclose(monitor_units(beams, particles, least), 0.02)
    with pytest.raises(InputError, match="one weight for each of 3 spots"):
        monitor_units(beams, particles, [1.0])


def test_a_model_knows_what_its_machine_can_deliver(plan):
    particles, found = plan
    least, _ = spot_limits(found.beams, particles)
    np.testing.assert_allclose(found.model.variables.minimum, least)
    assert np.any((found.x > 0) & (found.x < least)), "the plain optimum has spots that cannot be delivered"


def test_every_spot_of_a_deliverable_plan_counts(plan):
    particles, found = plan
    made, report = deliverable(found)
    mu = monitor_units(made.beams, particles, made.x)
    assert np.all((made.x == 0) | (mu >= 0.3 * (1 - 1e-9)))
    low = found.x < 0.5 * found.model.variables.minimum
    assert report.removed == np.sum(low & (found.x > 0)) > 0
    assert np.all(made.x[low] == 0)
    assert report.used == np.sum(made.x > 0)
    assert report.value_before == pytest.approx(found.solution.value, rel=1e-4)
    assert report.value_after >= report.value_before * (1 - 1e-3)
    cut = np.where(low, 0.0, np.maximum(found.x, found.model.variables.minimum))
    problem = Problem(found.model, found.goals, CASE, 30)
    assert report.value_after < float(problem.value_and_gradient(cut)[0]), "optimised again, not only cut"
    assert str(report.removed) in str(report)


def test_nothing_changes_where_there_is_no_minimum(plan):
    _, found = plan
    model = replace(found.model, variables=replace(found.model.variables, minimum=0.0))
    solution, report = enforce_minimum(Problem(model, found.goals, CASE, 30), found.x)
    assert report.removed == report.raised == 0
    assert solution.value <= report.value_before * (1 + 1e-9)


def test_limits_that_leave_nothing(plan):
    _, found = plan
    for minimum, upper, message in ((1e9, np.inf, "fewer beams"), (2.0, 1.0, "upper bounds")):
        limits = replace(found.model.variables, minimum=minimum, upper=upper)
        problem = Problem(replace(found.model, variables=limits), found.goals, CASE, 30)
        with pytest.raises(InputError, match=message):
            enforce_minimum(problem, found.x)
    with pytest.raises(InputError, match="without goals"):
        deliverable(replace(found, goals=()))


def test_a_deliverable_plan_is_not_called_normalised(plan):
    made, _ = deliverable(plan[1].scaled("PTV", "rbe_x_dose", D95=66.0))
    assert made.normalization is None


@pytest.mark.parametrize("level", [30.0, 57.0, 70.0])
def test_level_and_minimum_hold_together(plan, level, caplog):
    particles, found = plan
    made, report = deliverable_at(found, "PTV", "rbe_x_dose", D95=level)
    mu = monitor_units(made.beams, particles, made.x)
    assert np.all((made.x == 0) | (mu >= 0.3 * (1 - 1e-9)))
    assert made.metrics("rbe_x_dose", ["PTV"], ["D95"])["PTV"]["D95"] == pytest.approx(level, rel=1e-5)
    assert made.normalization == f"PTV D95 = {level:g} Gy(RBE)"
    assert report.used == np.sum(made.x > 0)
    assert report.value_before == pytest.approx(found.solution.value)
    assert np.any(np.isclose(mu, 0.3)) == (level < 60.0), "spots that would fall below their minimum stay at it"
    assert not caplog.records


def test_a_level_below_the_least_that_spots_can_give(plan, caplog):
    made, _ = deliverable_at(plan[1], "PTV", "rbe_x_dose", D95=57.0)
    model = replace(made.model, variables=replace(made.model.variables, minimum=1.5 * made.x.max()))
    high = replace(made, model=model, x=np.where(made.x > 0, 1.5 * made.x.max(), 0.0))
    least = _lowered(high, "PTV", "rbe_x_dose", {"D95": 57.0})
    reached = least.metrics("rbe_x_dose", ["PTV"], ["D95"])["PTV"]["D95"]
    assert reached > 60.0
    assert least.normalization == (f"PTV D95 = {reached:.5g} Gy(RBE), all spots at their minimum (57 was asked for)")
    assert "fewer beams" in caplog.text


def test_scaling_below_the_minimum_is_told(plan, caplog):
    made, _ = deliverable(plan[1])
    made.scaled("PTV", "rbe_x_dose", D95=70.0)
    assert not caplog.records
    made.scaled("PTV", "rbe_x_dose", D95=50.0)
    assert "below the least that the machine delivers: radplan.plan.deliverable_at brings" in caplog.text
