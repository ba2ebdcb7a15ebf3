"""Refining shapes: a better plan of the same shapes that a linac delivers, in static shapes and in sliding windows."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.beams import place_arc
from radplan.delivery.check import check_delivery
from radplan.delivery.refine import refine_apertures
from radplan.engines import ApertureOptions, aperture_model
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.machines.mlc import library_mlc
from radplan.patient.phantoms import phantom

GOALS = (
    rp.Goal("OuterTarget", rp.SquaredDeviation(50.0), weight=1000.0),
    rp.Goal("Core", rp.SquaredOverdosing(25.0), weight=300.0),
    rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=100.0),
)
LINAC, LEAVES = library_machine("generic_photon_6mv"), library_mlc("Millennium 120")


@pytest.fixture(scope="module")
def planned():
    """Return patient, Dij and fluence plan of three beams on leaf rows."""
    patient = phantom("tg119")
    beams = rp.place_beams(patient, LINAC, gantry=[0.0, 120.0, 240.0], bixel_width=5.0, mlc=LEAVES)
    dij = rp.dose_influence(patient, beams, LINAC, grid=10.0)
    return (
        patient,
        dij,
        rp.optimize(dij, GOALS, patient, fractions=30, solver=rp.SOLVERS.get("lbfgs")(max_iterations=25)),
    )


def cost(plan, patient, grid):
    """Return the cost of a plan by the exact engine."""
    model = aperture_model(patient, plan, LINAC, LEAVES, grid, ApertureOptions())
    return float(rp.Problem(model, GOALS, patient, 30).at(np.array(model.variables.start)).value)


@pytest.mark.parametrize("method", ["engel", "sliding_window"])
def test_a_better_plan_of_the_same_shapes(planned, method):
    patient, dij, fluence = planned
    steps = rp.sequence(fluence, LEAVES, method=method, levels=4, control_points=40)
    refined = refine_apertures(steps, GOALS, patient, LINAC, LEAVES, dij=dij, iterations=25, exact_iterations=3)
    assert not check_delivery(refined, "TrueBeam").violations
    assert [len(field.points) for field in refined.fields] == [len(field.points) for field in steps.fields]
    assert [field.technique for field in refined.fields] == [field.technique for field in steps.fields]
    before, after = (cost(plan, patient, dij.grid) for plan in (steps, refined))
    assert after < 0.8 * before


def test_arcs_are_refused(planned):
    patient = planned[0]
    with pytest.raises(InputError, match="is an arc: give it to plan_arcs"):
        refine_apertures(place_arc(patient, LINAC, LEAVES, spacing=60.0), GOALS, patient, LINAC, LEAVES)
