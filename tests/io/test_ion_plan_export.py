"""RT Ion Plans written and read back: every spot, shifters and poses, and the dose of the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.beams.range_shifter import RangeShifter
from radplan.beams.scanned import scanned_plan, spot_beams
from radplan.errors import InputError
from radplan.io.dicom import export_ion_plan, read_ion_plan
from radplan.patient.phantoms import phantom
from radplan.recalc import recalculate_ions

PLAN = Path(__file__).parents[1] / "data" / "outside" / "dcpt_plan02.dcm"


@pytest.fixture(scope="module")
def planned():
    """Two fields of the generic machine in the box, one with a couch turned, weights by a fixed draw."""
    patient, machine = phantom("box"), rp.load_machine("generic_proton")
    beams = rp.place_beams(patient, machine, gantry=[0.0, 75.0], couch=[0.0, 20.0], bixel_width=12.0)
    dij = rp.dose_influence(patient, beams, machine, 10.0)
    weights = np.random.default_rng(14).uniform(5.0, 30.0, beams.count)
    weights[::7] = 0.0
    return patient, machine, rp.evaluate(dij, weights, patient, fractions=30)


def spots(plan):
    """Return gantry, couch, energy, x, y, MU of every spot in one order."""
    rows = [
        [f.gantry, f.couch, layer.energy, x, y, mu]
        for f in plan
        for layer in f.layers
        for (x, y), mu in zip(layer.positions, layer.mu, strict=True)
    ]
    return np.asarray(sorted(rows))


def test_own_plans_are_read_back(planned, tmp_path):
    """Places within 0.01 mm, MU within 1e-4, dose within a thousandth."""
    patient, machine, plan = planned
    ours = scanned_plan(plan.beams, plan.x, machine, 30, "box")
    back = read_ion_plan(export_ion_plan(ours, patient, tmp_path / "RP.dcm"))
    assert (tmp_path / "RS.dcm").exists()
    assert (back.fractions, back.radiation, back.patient_position) == (30, "protons", "HFS")
    there, here = spots(back), spots(ours)
    assert there.shape == here.shape == (int((plan.x > 0).sum()), 6)
    assert np.abs(there - here)[:, :5].max() < 0.01
    assert np.abs(there - here)[:, 5].max() < 1e-4
    found = recalculate_ions(tmp_path / "RP.dcm", patient, machine, 10.0)
    dose = plan["physical_dose"]
    assert np.abs(found.plan["physical_dose"] - dose).max() < 1e-3 * dose.max()


def test_a_clinical_plan_survives(tmp_path):
    plan = read_ion_plan(PLAN)
    shifted = tuple(replace(layer, range_shifter=RangeShifter(34.0, 150.0)) for layer in plan.fields[0].layers)
    turned = replace(plan, fields=(replace(plan.fields[0], layers=plan.fields[0].layers + shifted),))
    back = read_ion_plan(export_ion_plan(turned, phantom("box"), tmp_path / "RP.dcm"))
    for a, b in zip(back.fields[0].layers, turned.fields[0].layers, strict=True):
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-4)
        np.testing.assert_allclose(a.mu, b.mu, rtol=1e-6)
        assert (a.energy, a.tune, a.range_shifter) == (b.energy, b.tune, b.range_shifter)
    assert back.fields[0].virtual_sad == (2000.0, 2560.0)
    assert back.fields[0].mu == pytest.approx(turned.fields[0].mu, rel=1e-6)


def test_a_turned_collimator_is_written_in_gantry_axes(planned):
    _, machine, _ = planned
    energy = float(machine.energies[50])
    given = {
        "gantry": 0.0,
        "isocenter": (0.0, 0.0, 0.0),
        "sad": machine.sad,
        "bixel_width": 5.0,
        "machine": machine.name,
    }
    beams = rp.Beams.from_rays([[[10.0, 4.0]]], collimator=30.0, radiation="protons", energies=[[energy]], **given)
    straight, _ = spot_beams(scanned_plan(beams, [1.0], machine, 1), machine)
    np.testing.assert_allclose(straight[0].targets, beams[0].targets, atol=1e-9)


def test_saved_plans_hold_an_ion_plan(planned, tmp_path):
    _, _, plan = planned
    names = {path.name for path in rp.save_plan(plan, tmp_path / "out")}
    assert {"RP.dcm", "RS.dcm", "spots.csv"} <= names
    assert read_ion_plan(tmp_path / "out" / "RP.dcm").fields[1].couch == 20.0


def test_what_cannot_be_written(planned, tmp_path):
    patient, machine, plan = planned
    ours = scanned_plan(plan.beams, plan.x, machine)
    with pytest.raises(InputError, match="in how many fractions"):
        export_ion_plan(ours, patient, tmp_path / "RP.dcm")
    with pytest.raises(InputError, match="treats the patient FFP"):
        export_ion_plan(replace(ours, fractions=3, patient_position="FFP"), patient, tmp_path / "RP.dcm")
    with pytest.raises(InputError, match="no field with spots"):
        scanned_plan(plan.beams, np.zeros(plan.beams.count), machine)
