"""Fluence that is optimised on after intermediate doses: what is held is what leaves add, and delivery gets better."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.delivery.check import check_delivery
from radplan.engines import aperture_model
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.machines.limits import machine_limits
from radplan.machines.mlc import library_mlc
from radplan.patient.phantoms import phantom
from radplan.plan.resequence import delivered_model, resequence

GOALS = (
    rp.Goal("OuterTarget", rp.SquaredDeviation(50.0), weight=1000.0),
    rp.Goal("Core", rp.SquaredOverdosing(25.0), weight=300.0),
    rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=100.0),
)
LINAC, LEAVES, LIMITS = library_machine("generic_photon_6mv"), library_mlc("Millennium 120"), machine_limits("TrueBeam")


@pytest.fixture(scope="module")
def fluence() -> rp.Plan:
    patient = phantom("tg119")
    beams = rp.place_beams(patient, LINAC, gantry=[0.0, 120.0, 240.0], bixel_width=5.0, mlc=LEAVES)
    dij = rp.dose_influence(patient, beams, LINAC, grid=10.0)
    return rp.optimize(dij, GOALS, patient, fractions=30, solver=rp.SOLVERS.get("lbfgs")(max_iterations=25))


def delivered(fields, fluence):
    """Return the plan of fields by the aperture engine, on the grid of the fluence."""
    model = aperture_model(fluence.patient, fields, LINAC, LEAVES, fluence.model.grid)
    return rp.evaluate(model, np.asarray(model.variables.start), fluence.patient, 30)


def cost(plan):
    """Return what the goals say of a dose."""
    return float(rp.Problem(plan.model, GOALS, plan.patient, 30).at(plan.x).value)


@pytest.mark.parametrize(("method", "share"), [("sliding_window", 0.7), ("siochi", 0.9)])
def test_delivered_dose_is_nearer_what_was_asked_for(fluence, method, share):
    before = delivered(rp.sequence(fluence, LEAVES, method=method), fluence)
    fields = resequence(fluence, LINAC, LEAVES, method=method, intermediate_doses=2, iterations=15)
    after = delivered(fields, fluence)
    assert not check_delivery(fields, "TrueBeam").violations
    assert cost(after) < share * cost(before)
    wished = fluence.metrics(names=["Dmean"])["OuterTarget"]["Dmean"]
    off = [abs(plan.metrics(names=["Dmean"])["OuterTarget"]["Dmean"] - wished) for plan in (before, after)]
    assert off[1] < 0.5 * off[0]


def test_what_is_held_is_the_delivered_less_the_dose_of_the_fluence(fluence):
    fields = rp.sequence(fluence, LEAVES, method="sliding_window")
    model = delivered_model(fluence, fields, LINAC, LEAVES, LIMITS)
    exact = aperture_model(fluence.patient, fields, LINAC, LEAVES, fluence.model.grid)
    dose = exact.forward(np.asarray(exact.variables.start))["physical_dose"]
    inner = fluence.model.forward(fluence.x)["physical_dose"]
    np.testing.assert_allclose(model.offset["physical_dose"], dose - inner, atol=1e-6)
    np.testing.assert_allclose(model.forward(fluence.x)["physical_dose"], dose, atol=1e-6)
    # Beside the bixels leaves let some through: more than nothing, less than 5 % of the largest dose.
    beside = (inner[0] < 1e-3 * inner.max()) & (dose[0] > 0.0)
    assert 0.0 < model.offset["physical_dose"][0][beside].mean() < 0.05 * inner.max()


def test_without_intermediate_doses_it_is_the_sequencer(fluence):
    plain = rp.sequence(fluence, LEAVES, method="sliding_window", machine=LINAC)
    same = resequence(fluence, LINAC, LEAVES, intermediate_doses=0)
    assert same.mu == plain.mu
    for first, second in zip(plain.fields, same.fields, strict=True):
        np.testing.assert_array_equal(first.points[80].leaves, second.points[80].leaves)


def test_what_cannot_be_optimised_on_is_refused(fluence):
    with pytest.raises(InputError, match="by the goals of a plan"):
        resequence(rp.evaluate(fluence.model, fluence.x, fluence.patient, 30), LINAC, LEAVES)
    with pytest.raises(InputError, match="whole number >= 0, got -1"):
        resequence(fluence, LINAC, LEAVES, intermediate_doses=-1)
