"""Real plans of three vendors: monitor units and control points equal those in the file.

Monaco (Agility) and a 60-pair plan from PyMedPhys (Apache-2.0) and dicompyler-core (BSD-3), the TrueBeam thorax plan
of OnkoDICOM (LGPL-2.1), the Eclipse prostate plan of SlicerRT (MIT). Expected values are taken from the files with
pydicom alone.
"""

from __future__ import annotations

import warnings

import numpy as np
import pydicom
import pytest

from radplan.io.dicom.rtplan import read_plan
from radplan.machines.mlc import matching_mlc

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
