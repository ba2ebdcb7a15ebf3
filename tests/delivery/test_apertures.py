"""Variables of an aperture model as control points: there and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from radplan.beams import place_arc
from radplan.delivery.apertures import delivery_plan
from radplan.engines import ApertureOptions, aperture_model
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.machines.mlc import library_mlc
from radplan.patient.phantoms import phantom

OPTIONS = ApertureOptions(lateral_cutoff=20.0)


def test_variables_are_the_plan_they_came_from_and_give_its_dose():
    patient, linac, mlc = phantom("box"), library_machine("generic_photon_6mv"), library_mlc("Millennium 120")
    arc = place_arc(patient, linac, mlc, 0.0, 60.0, spacing=30.0, collimator=20.0, mu=90.0)
    model = aperture_model(patient, arc, linac, mlc, 30.0, OPTIONS)
    start = np.asarray(model.variables.start)
    same = delivery_plan(model, start)
    for one, other in zip(arc.fields[0].points, same.fields[0].points, strict=True):
        assert (one.gantry, one.collimator) == (other.gantry, other.collimator)
        assert one.meterset == pytest.approx(other.meterset)
        np.testing.assert_array_equal(one.leaves, other.leaves)
        np.testing.assert_array_equal(one.jaws_x, other.jaws_x)
    x = model.variables.project(start + np.random.default_rng(1).normal(0.0, 3.0, start.size))
    moved = delivery_plan(model, x, name="moved", fractions=20)
    again = aperture_model(patient, moved, linac, mlc, 30.0, OPTIONS)
    assert (moved.name, moved.fractions) == ("moved", 20)
    assert moved.mu == pytest.approx(x[model.layouts[0].mu_slice].sum())
    dose = again.forward(np.asarray(again.variables.start))["physical_dose"]
    np.testing.assert_allclose(dose, model.forward(x)["physical_dose"], atol=0.003 * dose.max())
    with pytest.raises(InputError, match=r"has \d+ variables, got an array of shape \(3,\)"):
        delivery_plan(model, np.ones(3))


def test_a_turned_collimator_is_delivered():
    patient, linac, mlc = phantom("box"), library_machine("generic_photon_6mv"), library_mlc("Millennium 120")
    arc = place_arc(patient, linac, mlc, 0.0, 30.0, spacing=30.0, collimator=20.0, mu=90.0)
    options = replace(OPTIONS, free=("mu", "collimator"))
    model = aperture_model(patient, arc, linac, mlc, 30.0, options)
    x = np.asarray(model.variables.start)
    x[model.layouts[0].turn_slice] = 25.0
    moved = delivery_plan(model, x)
    assert [point.collimator for point in moved.fields[0].points] == [45.0] * len(arc.fields[0].points)
    again = aperture_model(patient, moved, linac, mlc, 30.0, options)
    dose = again.forward(np.asarray(again.variables.start))["physical_dose"]
    np.testing.assert_allclose(dose, model.forward(x)["physical_dose"], atol=1e-3 * dose.max())


def test_what_the_linac_does_not_have_stays_away():
    patient, linac, mlc = phantom("box"), library_machine("generic_photon_6mv"), library_mlc("Agility")
    arc = place_arc(patient, linac, mlc, 0.0, 30.0, spacing=30.0, jaws=False)
    model = aperture_model(patient, arc, linac, mlc, 30.0, OPTIONS)
    assert delivery_plan(model, model.variables.start).fields[0].points[0].jaws_x is None
