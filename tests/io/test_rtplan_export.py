"""RTPLAN files as written: read back, judged by other programs, and by a check that knows nothing of the writer."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pydicom
import pytest

from radplan.beams import Beams, ControlPoint, DeliveryPlan, TreatmentField, place_arc, place_beams
from radplan.delivery.check import check_delivery
from radplan.delivery.rounding import rounded_plan
from radplan.delivery.sequencing import sequence
from radplan.errors import FileError, InputError
from radplan.geometry.frames import PATIENT_POSITIONS
from radplan.io.dicom import read_case, read_plan, read_plan_reference
from radplan.io.dicom.rtplan_check import check_rtplan
from radplan.io.dicom.rtplan_export import RTPlanOptions, export_rtplan
from radplan.machines import library_machine, library_mlc, limits_for
from radplan.patient.phantoms import phantom
from tests.io.dicom_files import small_case

LINAC = library_machine("generic_photon_6mv")
MLCS = ("Millennium 120", "HD 120", "Agility")
TECHNIQUES = ("step and shoot", "dynamic", "arc")


@dataclass(frozen=True, eq=False)
class Weights:
    x: np.ndarray
    beams: Beams
    fractions: int = 30


def planned(technique, name, position="HFS"):
    """A plan of a technique for a collimator and a patient who lies somehow."""
    plan, patient = planned_supine(technique, name)
    return replace(plan, patient_position=position), replace(patient, patient_position=position)


@cache
def planned_supine(technique, name):
    patient, mlc = phantom("box"), library_mlc(name)
    if technique == "arc":
        plan = place_arc(patient, LINAC, mlc, spacing=40.0, collimator=10.0)
        if name == "Agility":  # has no X jaws
            points = tuple(replace(point, jaws_x=None) for point in plan.fields[0].points)
            plan = replace(plan, fields=(replace(plan.fields[0], points=points),))
        return rounded_plan(plan, limits_for(mlc)), patient
    beams = place_beams(patient, LINAC, (20.0, 250.0), couch=(0.0, 15.0), collimator=(5.0, 90.0), mlc=mlc)
    smooth = [60.0 * np.exp(-((beam.bixels / 25.0) ** 2).sum(axis=1)) for beam in beams]
    method = "engel" if technique == "step and shoot" else "sliding_window"
    return sequence(Weights(np.concatenate(smooth), beams), mlc, method, levels=5, control_points=24), patient


def assert_equal(read, plan):
    assert (read.fractions, len(read.fields)) == (plan.fractions, len(plan.fields))
    for ours, theirs in zip(plan.fields, read.fields, strict=True):
        assert (theirs.number, theirs.technique, theirs.energy, theirs.sad) == (
            ours.number, ours.technique, ours.energy, ours.sad,
        )  # fmt: skip
        assert theirs.mu == pytest.approx(ours.mu, abs=1e-3)
        for a, b in zip(ours.points, theirs.points, strict=True):
            assert abs(a.meterset - b.meterset) <= 1e-3
            assert (a.gantry, a.collimator, a.couch, a.direction) == (b.gantry, b.collimator, b.couch, b.direction)
            for name in ("leaves", "jaws_x", "jaws_y", "isocenter"):
                given, found = a.__dict__[name], b.__dict__[name]
                assert (given is None) == (found is None)
                if given is not None:
                    np.testing.assert_array_equal(np.round(given, 10), np.round(found, 10))


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
@pytest.mark.parametrize("name", MLCS)
@pytest.mark.parametrize("technique", TECHNIQUES)
def test_plans_are_read_back_equal(tmp_path, technique, name, position):
    plan, patient = planned(technique, name, position)
    path = export_rtplan(plan, patient, tmp_path / "RP.dcm")
    read = read_plan(path)
    assert_equal(read, plan)
    assert read.patient_position == position
    assert (tmp_path / "RS.dcm").exists()  # the phantom's structures came from no file
    limits = limits_for(name)
    report = check_rtplan(path, limits)
    judged = check_delivery(plan, limits)
    assert [finding for finding in report.findings if "MU of a shape" not in finding.what] == []
    assert report.seconds == pytest.approx(judged.beam_on, rel=1e-3)
    assert report.mu == pytest.approx(plan.mu, abs=1e-3)
    # A file written from what was read says the same.
    known = RTPlanOptions(structure_set=read_plan_reference(path).structure_set)
    again = read_plan(export_rtplan(read, patient, tmp_path / "again.dcm", options=known))
    assert_equal(again, read)


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_other_programs_read_it(tmp_path, technique):
    import pymedphys

    plan, patient = planned(technique, "Agility")
    options = RTPlanOptions(prescription=60.0, target="OuterTarget", beam_doses={1: 1.0}, machine="Versa1")
    path = export_rtplan(plan, patient, tmp_path / "RP.dcm", options=options)
    delivery = pymedphys.Delivery.from_dicom(pydicom.dcmread(path), fraction_group_number=1)
    assert delivery.monitor_units[-1] == pytest.approx(plan.mu, abs=0.01)
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


def test_the_identity_of_the_images_is_kept(tmp_path):
    case = read_case(small_case(tmp_path))
    points = [ControlPoint(mu, 0.0, 0.0, 0.0, [0.0, -6.0, 35.0], [-20, 20], [-20, 20]) for mu in (0.0, 100.0)]
    plan = DeliveryPlan("AP", (TreatmentField("open", 1, tuple(points), 1000.0, energy=6.0, machine="A"),), 20)
    path = export_rtplan(plan, case, tmp_path / "RP.dcm", limits="TrueBeam")
    dataset = pydicom.dcmread(path)
    for keyword, value in case.series.identity.items():
        assert str(dataset.get(keyword, "")) == value
    assert dataset.FrameOfReferenceUID == case.series.frame_of_reference
    assert (dataset.PlanIntent, dataset.ApprovalStatus) == ("RESEARCH", "UNAPPROVED")
    assert dataset.RTPlanGeometry == "PATIENT"
    assert read_plan_reference(path).structure_set == case.structure_set
    assert check_rtplan(path, "TrueBeam").findings == ()
    beam = dataset.BeamSequence[0]
    assert (beam.BeamType, len(beam.ControlPointSequence)) == ("STATIC", 2)
    assert [float(point.CumulativeMetersetWeight) for point in beam.ControlPointSequence] == [0.0, 1.0]
    assert "BeamLimitingDevicePositionSequence" not in beam.ControlPointSequence[1]
    assert float(beam.ControlPointSequence[0].SourceToSurfaceDistance) == pytest.approx(998.0, abs=0.1)
    without = replace(case, series=replace(case.series, frame_of_reference="", identity={}))
    with pytest.raises(InputError, match="no FrameOfReferenceUID and no StudyInstanceUID and no PatientID"):
        export_rtplan(plan, without, tmp_path / "RP2.dcm")
    assert not (tmp_path / "RP2.dcm").exists()


def test_values_that_are_none_are_left_empty(tmp_path, caplog):
    """Images made anonymous may hold a hash where a date belongs; other systems would refuse a plan that repeats it."""
    case = read_case(small_case(tmp_path))
    hashed = {**case.series.identity, "PatientBirthDate": "ba6d74f4-8a35", "PatientSex": "64a6a8cd", "PatientID": "a-7"}
    hidden = replace(case, series=replace(case.series, identity=hashed))
    points = [ControlPoint(mu, 0.0, 0.0, 0.0, [0.0, -6.0, 35.0], [-20, 20], [-20, 20]) for mu in (0.0, 100.0)]
    plan = DeliveryPlan("AP", (TreatmentField("open", 1, tuple(points), 1000.0, energy=6.0, machine="A"),), 20)
    dataset = pydicom.dcmread(export_rtplan(plan, hidden, tmp_path / "RP.dcm", limits="TrueBeam"))
    assert (str(dataset.PatientBirthDate), str(dataset.PatientSex), dataset.PatientID) == ("", "", "a-7")
    assert "PatientBirthDate of the images is no valid DA" in caplog.text
    assert "ba6d74f4" not in caplog.text


def test_what_cannot_be_exported(tmp_path):
    plan, patient = planned("step and shoot", "Agility")
    path = tmp_path / "RP.dcm"
    unknown = replace(plan.fields[0], energy=None)
    twice = replace(plan.fields[1], number=plan.fields[0].number)
    for wrong, message in (
        (replace(plan, fractions=None), "in how many fractions"),
        (replace(plan, fields=(unknown,)), "has no energy"),
        (replace(plan, fields=(plan.fields[0], twice)), "fields of the same number"),
        (replace(plan, patient_position="FFS"), "lies HFS"),
    ):
        with pytest.raises(InputError, match=message):
            export_rtplan(wrong, patient, path)
    with pytest.raises(FileError, match="cannot be written"):
        export_rtplan(plan, patient, tmp_path / "nowhere" / "RP.dcm")
    for options, message in (
        ({"label": "a label that is far too long"}, "up to 16 characters"),
        ({"intent": "CLINICAL"}, "intent must be one of"),
        ({"prescription": -1.0}, "prescription must be > 0"),
    ):
        with pytest.raises(InputError, match=message):
            RTPlanOptions(**options)


def test_names_are_short_and_unique(tmp_path):
    plan, patient = planned("step and shoot", "Agility")
    named = replace(plan, fields=tuple(replace(f, name="the same long name of a field") for f in plan.fields))
    dataset = pydicom.dcmread(export_rtplan(named, patient, tmp_path / "RP.dcm"))
    assert [str(beam.BeamName) for beam in dataset.BeamSequence] == ["the same long na", "the same long 2"]


CLINICAL = {
    "vmat-plans/06MV_plan.dcm": "Versa HD",
    "vmat-plans/24mm_x_20mm_rectangle.dcm": "Versa HD",
    "vmat-plans/FFF_example.dcm": "Versa HD",
    "vmat-plans/vmat_example.dcm": "Versa HD",
    "vmat-plans/breast-4arc-vmat.dcm": "TrueBeam",
    "thorax-imrt/RTPLAN_Hashed.dcm": "TrueBeam STx",
    "eclipse-prostate/RP.dcm": "Clinac",
}


@pytest.mark.parametrize("path", CLINICAL)
def test_clinical_files_pass_the_check(shared, path):
    report = check_rtplan(shared(f"cases/{path}"), CLINICAL[path])
    assert report.findings == ()
    assert report.seconds == pytest.approx(
        check_delivery(read_plan(shared(f"cases/{path}")), CLINICAL[path]).beam_on, rel=1e-6
    )


def damage(dataset, how):
    """Change one thing of a file; return what the check should say of it."""
    beam = dataset.BeamSequence[0]
    points = beam.ControlPointSequence
    first = points[0].BeamLimitingDevicePositionSequence
    if how == "missing jaw":
        points[0].BeamLimitingDevicePositionSequence = [d for d in first if d.RTBeamLimitingDeviceType != "ASYMY"]
        return r"control point 0: does not say where ASYMY stands"
    if how == "too few leaves":
        first[-1].LeafJawPositions = list(first[-1].LeafJawPositions)[:-2]
        return r"states 158 positions of MLCX; expected 160"
    if how == "falling weights":
        points[3].CumulativeMetersetWeight = "0"
        return r"control point 3: has a meterset weight of 0, less than"
    if how == "no end":
        points[-1].CumulativeMetersetWeight = points[-2].CumulativeMetersetWeight
        return r"ends at a meterset weight of .*, not at the final one of 1"
    if how == "direction against angles":
        for point in points[:-1]:
            point.GantryRotationDirection = "CC"
        return r"past a stop: is its direction against its angles\?"
    if how == "crossing":
        values = list(points[4].BeamLimitingDevicePositionSequence[-1].LeafJawPositions)
        values[40] = float(values[120]) + 3.0
        points[4].BeamLimitingDevicePositionSequence[-1].LeafJawPositions = values
        return r"pair 41 of MLCX crosses"
    if how == "far leaf":
        values = list(points[4].BeamLimitingDevicePositionSequence[-1].LeafJawPositions)
        values[40] = -250.0
        points[4].BeamLimitingDevicePositionSequence[-1].LeafJawPositions = values
        return r"a leaf of bank 1 is 50.00 mm beyond its travel"
    if how == "no beam of that number":
        dataset.FractionGroupSequence[0].ReferencedBeamSequence[0].ReferencedBeamNumber = 7
        return r"refers to beam 7, which the plan does not have"
    if how == "no setup of that number":
        beam.ReferencedPatientSetupNumber = 4
        return r"refers to ReferencedPatientSetupNumber 4"
    if how == "no label":
        del dataset.RTPlanLabel
        return r"has no RTPlanLabel"
    if how == "number of control points":
        beam.NumberOfControlPoints = 3
        return r"says 3 control points, but has"
    if how == "electrons":
        beam.RadiationType = "ELECTRON"
        return r"RadiationType ELECTRON; expected PHOTON"
    raise AssertionError(how)


HOSTILE = (
    "missing jaw", "too few leaves", "falling weights", "no end", "direction against angles", "crossing", "far leaf",
    "no beam of that number", "no setup of that number", "no label", "number of control points", "electrons",
)  # fmt: skip


@pytest.fixture(scope="module")
def arc_file(tmp_path_factory):
    plan, patient = planned("arc", "Agility")
    return export_rtplan(plan, patient, tmp_path_factory.mktemp("arc") / "RP.dcm")


@pytest.mark.parametrize("how", HOSTILE)
def test_damaged_files_are_told(arc_file, tmp_path, how):
    assert check_rtplan(arc_file, "Versa HD").findings == ()
    dataset = pydicom.dcmread(arc_file)
    expected = damage(dataset, how)
    dataset.save_as(tmp_path / "damaged.dcm")
    report = check_rtplan(tmp_path / "damaged.dcm", "Versa HD")
    told = "\n".join(map(str, report.findings))
    assert re.search(expected, told), told
    with pytest.raises(FileError, match="findings"):
        report.raise_for_errors()


def test_numbers_that_are_none_are_told(arc_file, tmp_path):
    content = arc_file.read_bytes()
    dataset = pydicom.dcmread(arc_file)
    position = str(dataset.BeamSequence[0].ControlPointSequence[2].CumulativeMetersetWeight)
    assert content.count(position.encode()) >= 1
    broken = content.replace(position.encode(), b"NaN".ljust(len(position)), 1)
    (tmp_path / "nan.dcm").write_bytes(broken)
    told = str(check_rtplan(tmp_path / "nan.dcm", "Versa HD"))
    assert "no finite" in told


def test_files_that_are_no_plan(tmp_path):
    (tmp_path / "text.dcm").write_text("not DICOM")
    with pytest.raises(FileError):
        check_rtplan(tmp_path / "text.dcm", "Versa HD")
    case = small_case(tmp_path)
    with pytest.raises(FileError, match="expected RTPLAN"):
        check_rtplan(case / "structures.dcm", "Versa HD")


@pytest.mark.parametrize("technique", TECHNIQUES)
def test_the_dose_of_the_file_is_that_of_the_plan(tmp_path, technique):
    """Leaves, jaws and monitor units read back give the dose of the plan as it was rounded, to 0.1 % of the maximum."""
    from radplan.engines import aperture_model
    from radplan.recalc import recalculate

    plan, patient = planned(technique, "Millennium 120")
    path = export_rtplan(plan, patient, tmp_path / "RP.dcm")
    again = recalculate(path, patient, machine=LINAC, grid=15.0)
    model = aperture_model(patient, plan, LINAC, library_mlc("Millennium 120"), grid=15.0)
    dose = plan.fractions * np.asarray(model.forward(np.asarray(model.variables.start))["physical_dose"][0])
    file_dose = again.dose.ravel()[model.voxels]
    assert np.max(np.abs(file_dose - dose)) <= 1e-3 * dose.max()
