"""Real plans of three vendors: monitor units and control points equal those in the file.

Monaco (Agility) and a 60-pair plan from PyMedPhys (Apache-2.0) and dicompyler-core (BSD-3), the TrueBeam thorax plan
of OnkoDICOM (LGPL-2.1), the Eclipse prostate plan of SlicerRT (MIT). Expected values are taken from the files with
pydicom alone.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from radplan.engines import aperture_model
from radplan.io.dicom import read_plan
from radplan.machines import library_machine, library_mlc, matching_mlc
from radplan.patient.phantoms import phantom

PLANS = {
    "vmat-plans/06MV_plan.dcm": (10, "static", "Agility"),
    "vmat-plans/24mm_x_20mm_rectangle.dcm": (1, "static", "Agility"),
    "vmat-plans/FFF_example.dcm": (1, "static", "Agility"),
    "vmat-plans/vmat_example.dcm": (2, "arc", "Agility"),
    "vmat-plans/breast-4arc-vmat.dcm": (4, "dynamic", "Millennium 120"),
    "thorax-imrt/RTPLAN_Hashed.dcm": (7, "dynamic", "HD 120"),
    "eclipse-prostate/RP.dcm": (4, "static", "Millennium 120"),
}


def stated(path):
    """Return per treated beam number: monitor units, and control points as (weight share, own leaf positions)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path, force=True)
        units = {
            int(r.ReferencedBeamNumber): float(r.BeamMeterset)
            for r in dataset.FractionGroupSequence[0].ReferencedBeamSequence
            if r.get("BeamMeterset") is not None
        }
        beams = {}
        for beam in dataset.BeamSequence:
            if int(beam.BeamNumber) not in units:
                continue
            points = []
            for item in beam.ControlPointSequence:
                devices = {
                    str(d.RTBeamLimitingDeviceType): np.asarray(d.LeafJawPositions, dtype=float)
                    for d in item.get("BeamLimitingDevicePositionSequence", [])
                }
                gantry = item.get("GantryAngle")
                points.append((float(item.CumulativeMetersetWeight), devices, gantry))
            beams[int(beam.BeamNumber)] = (units[int(beam.BeamNumber)], points)
    return beams


@pytest.mark.parametrize("name", PLANS)
def test_monitor_units_and_control_points_equal_the_files(shared, name):
    path = shared(f"cases/{name}")
    count, technique, collimator = PLANS[name]
    plan, expected = read_plan(path), stated(path)
    assert [field.number for field in plan] == list(expected)
    assert (len(plan), {field.technique for field in plan}) == (count, {technique})
    for field in plan:
        mu, points = expected[field.number]
        assert field.mu == pytest.approx(mu, rel=1e-12)
        assert len(field.points) == len(points)
        assert matching_mlc(field.leaf_boundaries).name == collimator
        for ours, (weight, devices, gantry) in zip(field.points, points, strict=True):
            assert ours.meterset == pytest.approx(mu * weight / points[-1][0], rel=1e-12)
            if gantry is not None:
                assert ours.gantry == float(gantry)
            if "MLCX" in devices:
                np.testing.assert_allclose(ours.leaves.T.ravel(), devices["MLCX"], atol=0.006)
            for jaws, found in (("ASYMX", ours.jaws_x), ("ASYMY", ours.jaws_y)):
                if jaws in devices:
                    np.testing.assert_array_equal(found, devices[jaws])


def test_thorax_field_1_is_split_by_its_x_jaws(shared):
    field = read_plan(shared("cases/thorax-imrt/RTPLAN_Hashed.dcm")).fields[0]
    jaws = np.asarray([point.jaws_x for point in field.points])
    assert np.flatnonzero(np.any(np.diff(jaws, axis=0) != 0, axis=1)).tolist() == [82]
    assert field.segments[82].mu == 0.0


def test_monaco_arcs_turn_as_stated(shared):
    fields = read_plan(shared("cases/vmat-plans/vmat_example.dcm")).fields
    assert [round(sum(s.gantry_travel for s in field.segments), 6) for field in fields] == [60.0, -60.0]


def test_a_rectangle_is_as_wide_at_half_fluence_as_its_file_says(shared):
    """In the file leaves stand at -10 and 10 mm and Y jaws at -13 and 13 mm; the leaf offset is switched off."""
    plan = read_plan(shared("cases/vmat-plans/24mm_x_20mm_rectangle.dcm"))
    sharp = replace(library_mlc("Agility"), leaf_offset=0.0)
    model = aperture_model(phantom("box"), plan, library_machine("generic_photon_6mv"), sharp, grid=20.0)
    fluence = model.field_fluence(np.asarray(model.variables.start), 0)[0] / plan.mu
    part = model.parts[0][1]
    middle = [n // 2 for n in fluence.shape]
    for profile, edges, size in (
        (fluence[:, middle[1]], part.fluence.along, 20.0),
        (fluence[middle[0], :], part.fluence.across, 26.0),
    ):
        centres, fine = 0.5 * (edges[1:] + edges[:-1]), np.linspace(edges[1], edges[-2], 20001)
        wide = np.interp(fine, centres, profile) > 0.5
        assert np.ptp(fine[wide]) == pytest.approx(size, abs=0.05)
