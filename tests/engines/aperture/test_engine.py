"""The aperture engine: found by name, told as plain data, and the same in scenarios as fields moved by hand."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.beams import place_beams, place_fields
from radplan.engines import ApertureModel, PhotonAperture, aperture_model, dose_influence, forward_model
from radplan.engines.aperture.options import ApertureOptions
from radplan.engines.base import engine_from_spec, engine_to_spec
from radplan.errors import InputError, UnknownNameError
from radplan.influence import CasesModel, Scenarios
from radplan.machines import library_machine, library_mlc
from radplan.patient.phantoms import phantom

BOX, LINAC, AGILITY = phantom("box"), library_machine("generic_photon_6mv"), library_mlc("Agility")
QUICK = {"lateral_cutoff": 30.0, "pixel": 2.0, "margin": 10.0}


def fields(isocenter=(0.0, 0.0, 0.0), couch=0.0):
    return place_fields(BOX, LINAC, AGILITY, gantry=(30.0,), couch=couch, isocenter=isocenter, margin=3.0)


def test_it_is_the_aperture_model():
    engine = PhotonAperture(options=QUICK)
    found = forward_model(BOX, fields(), LINAC, 20.0, engine, dtype="float64")
    beside = aperture_model(BOX, fields(), LINAC, None, 20.0, ApertureOptions(**QUICK), dtype="float64")
    assert isinstance(found, ApertureModel)
    x = found.variables.start
    np.testing.assert_array_equal(found.forward(x)["physical_dose"], beside.forward(x)["physical_dose"])
    assert forward_model(BOX, fields(), LINAC, 40.0, "photon_aperture").images == ("physical_dose",)


def test_what_it_is_told_as_plain_data_makes_it_again():
    engine = PhotonAperture("Agility", {"pixel": 2.0, "free": ("mu",)})
    told = engine_to_spec(engine)
    assert told == {
        "name": "photon_aperture",
        "options": {"mlc": "Agility", "options": {"pixel": 2.0, "free": ("mu",)}},
    }
    assert engine_from_spec(told) == engine
    assert engine_to_spec(PhotonAperture()) == {"name": "photon_aperture", "options": {}}


def test_scenarios_are_fields_moved_and_depths_longer():
    """Shifts beside fields placed elsewhere with the same leaves; range errors beside denser water."""
    cases = Scenarios.setup_and_range(setup=(6.0, 0.0, 4.0), range=0.05)
    engine = PhotonAperture(options=QUICK)
    model = forward_model(BOX, fields(), LINAC, 10.0, engine, dtype="float64", scenarios=cases)
    assert isinstance(model, CasesModel)
    x = model.variables.start
    dose = model.forward(x)["physical_dose"]
    patient = BOX.with_density(BOX.external, 1.0)
    for row, error in enumerate(cases.errors):
        treated = error.beams(fields())
        assert np.allclose(treated.fields[0].points[0].isocenter, error.shift)
        water = patient.with_density(BOX.external, 1.0 + error.relative_range)
        expected = forward_model(water, treated, LINAC, 10.0, engine, dtype="float64").forward(x)["physical_dose"][0]
        assert np.abs(dose[row] - expected).max() < 0.003 * expected.max(), cases.names[row]
        if row:
            assert np.abs(dose[row] - dose[0]).max() > 0.003 * dose[0].max()
    restricted = model.restrict(model.voxels[::3])
    np.testing.assert_allclose(restricted.forward(x)["physical_dose"], dose[:, ::3], rtol=1e-12)
    cotangent = np.random.default_rng(1).random(dose.shape)
    whole = model.pullback(x, {"physical_dose": cotangent})
    parts = [one.pullback(x, {"physical_dose": cotangent[k : k + 1]}) for k, one in enumerate(model.models)]
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-12)


def test_fields_and_beams_are_not_confused():
    beams = place_beams(BOX, LINAC, gantry=0.0, bixel_width=30.0)
    with pytest.raises(InputError, match="of a DeliveryPlan call forward_model"):
        dose_influence(BOX, fields(), LINAC)
    with pytest.raises(InputError, match="calculates what a linac delivers: give a DeliveryPlan"):
        dose_influence(BOX, beams, LINAC, engine="photon_aperture")
    with pytest.raises(InputError, match="calculates beams of bixels or spots: call dose_influence"):
        forward_model(BOX, fields(), LINAC, engine="photon_pencil_beam")
    with pytest.raises(UnknownNameError, match="did you mean 'pixel'"):
        PhotonAperture(options={"pixl": 1.0})
    with pytest.raises(InputError, match="mlc must be a name"):
        PhotonAperture(mlc=3.0)


def test_leaves_of_static_fields_fit_the_target():
    """Seen from the front, the target is as wide as its near face, magnified into the isocentre plane."""
    plan = place_fields(BOX, LINAC, AGILITY, gantry=(0.0, 90.0), margin=0.0, mu=50.0)
    assert [field.mu for field in plan] == [50.0, 50.0]
    target = BOX.structures["OuterTarget"]
    points = target.grid.points(target.voxels)
    half = np.asarray(target.grid.spacing) / 2
    low, high = points.min(axis=0) - half, points.max(axis=0) + half
    centre = plan.fields[0].points[0].isocenter
    stretch = 1000.0 / (1000.0 - (centre[1] - low[1]))
    leaves = plan.fields[0].points[0].leaves
    opened = leaves[leaves[:, 1] - leaves[:, 0] > 5.0]
    assert opened[:, 0].min() == pytest.approx((low[0] - centre[0]) * stretch, abs=0.5)
    assert opened[:, 1].max() == pytest.approx((high[0] - centre[0]) * stretch, abs=0.5)
    for options, message in (({"mu": 0.0}, "mu must be > 0"), ({"margin": -1.0}, "margin must be >= 0")):
        with pytest.raises(InputError, match=message):
            place_fields(BOX, LINAC, AGILITY, gantry=0.0, **options)
