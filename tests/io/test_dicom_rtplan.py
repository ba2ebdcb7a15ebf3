"""RTPLAN files of every convention, small and written here: what is read, carried over, skipped and refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import RTPlanStorage

from radplan.errors import FileError
from radplan.io.dicom.rtplan import read_plan
from tests.io.dicom_files import ROOT, new_dataset, save

LEAVES = [-10.0, -5.0, 10.0, 5.0]


def item(**attributes) -> Dataset:
    dataset = Dataset()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def positions(**devices) -> list[Dataset]:
    return [item(RTBeamLimitingDeviceType=kind, LeafJawPositions=values) for kind, values in devices.items()]


def first_point(**devices) -> Dataset:
    return item(
        ControlPointIndex=0, CumulativeMetersetWeight=0, NominalBeamEnergy=6, GantryAngle=350,
        GantryRotationDirection="CW", BeamLimitingDeviceAngle=30, PatientSupportAngle=10,
        IsocenterPosition=[1.0, 2.0, 3.0], BeamLimitingDevicePositionSequence=positions(**devices),
    )  # fmt: skip


def beam(number=1, final=1.0, points=None, kind="MLCX", **other) -> Dataset:
    jaws = item(RTBeamLimitingDeviceType="ASYMX", NumberOfLeafJawPairs=1)
    leaves = item(RTBeamLimitingDeviceType=kind, NumberOfLeafJawPairs=2, LeafPositionBoundaries=[-5.0, 0.0, 5.0])
    default = [first_point(ASYMX=[-50, 50], MLCX=LEAVES), item(CumulativeMetersetWeight=final)]
    made = item(
        BeamNumber=number, BeamName=f"B{number}", RadiationType="PHOTON", TreatmentDeliveryType="TREATMENT",
        SourceAxisDistance=1000, FinalCumulativeMetersetWeight=final, BeamLimitingDeviceSequence=[jaws, leaves],
        ControlPointSequence=default if points is None else points,
    )  # fmt: skip
    for name, value in other.items():
        setattr(made, name, value)
    return made


def plan(tmp_path, *beams, units=(100.0,), **other):
    dataset = new_dataset(RTPlanStorage, "RTPLAN", f"{ROOT}.8.1", f"{ROOT}.8")
    dataset.RTPlanLabel = "trial"
    listed = [item(ReferencedBeamNumber=n + 1, BeamMeterset=mu) for n, mu in enumerate(units) if mu is not None]
    listed += [item(ReferencedBeamNumber=n + 1) for n, mu in enumerate(units) if mu is None]
    dataset.FractionGroupSequence = [
        item(FractionGroupNumber=1, NumberOfFractionsPlanned=5, ReferencedBeamSequence=listed)
    ]
    dataset.PatientSetupSequence = [item(PatientPosition="HFS")]
    dataset.BeamSequence = list(beams)
    for name, value in other.items():
        setattr(dataset, name, value)
    return save(dataset, tmp_path / "plan.dcm")


@pytest.mark.parametrize("final", [1.0, 100.0, 0.37])
def test_meterset_weights_of_any_scale_give_the_monitor_units(tmp_path, final):
    read = read_plan(plan(tmp_path, beam(final=final), units=(123.4,)))
    assert [p.meterset for p in read.fields[0].points] == [0.0, pytest.approx(123.4)]
    assert (read.name, read.fractions, read.patient_position) == ("trial", 5, "HFS")
    assert read.fields[0].technique == "static"


def test_what_is_not_repeated_carries_over_and_jaws_may_change(tmp_path):
    points = [
        first_point(ASYMX=[-50, 50], MLCX=LEAVES),
        item(CumulativeMetersetWeight=0.25, GantryAngle=355, BeamLimitingDevicePositionSequence=positions(
            MLCX=[-9.0, -4.0, 11.0, 6.0])),
        item(CumulativeMetersetWeight=0.5, BeamLimitingDevicePositionSequence=positions(ASYMX=[-20, 50])),
        item(CumulativeMetersetWeight=1.0, GantryAngle=5, GantryRotationDirection="NONE"),
    ]  # fmt: skip
    field = read_plan(plan(tmp_path, beam(points=points))).fields[0]
    assert [p.gantry for p in field.points] == [350.0, 355.0, 355.0, 5.0]
    assert [p.jaws_x.tolist() for p in field.points] == [[-50, 50], [-50, 50], [-20, 50], [-20, 50]]
    assert [p.leaves[0].tolist() for p in field.points] == [[-10, 10], [-9, 11], [-9, 11], [-9, 11]]
    assert [s.gantry_travel for s in field.segments] == [5.0, 0.0, 10.0]
    assert field.points[3].isocenter.tolist() == [1.0, 2.0, 3.0]
    assert {(p.collimator, p.couch) for p in field.points} == {(30.0, 10.0)}
    assert field.points[0].jaws_y is None
    assert (field.technique, field.energy, field.machine) == ("arc", 6.0, "")


def test_beams_that_do_not_treat_are_left_out_with_a_note(tmp_path, caplog):
    imaging = beam(number=3, TreatmentDeliveryType="SETUP")
    with caplog.at_level(logging.INFO, logger="radplan"):
        read = read_plan(plan(tmp_path, beam(), beam(number=2), imaging, units=(10.0, None, 3.0)))
    assert [field.number for field in read] == [1]
    assert "beam 2 (B2): left out, it has no monitor units" in caplog.text
    assert "beam 3 (B3): left out, it does not treat (setup)" in caplog.text


def test_leaves_along_y(tmp_path):
    made = beam(kind="MLCY", points=[first_point(ASYMX=[-50, 50], MLCY=LEAVES), item(CumulativeMetersetWeight=1)])
    field = read_plan(plan(tmp_path, made)).fields[0]
    assert field.leaf_axis == "y"
    np.testing.assert_array_equal(field.points[0].leaves, [[-10, 10], [-5, 5]])


def without(dataset: Dataset, keyword: str) -> Dataset:
    del dataset.ControlPointSequence[0][keyword]
    return dataset


def posed(**attributes) -> Dataset:
    made = beam()
    for name, value in attributes.items():
        setattr(made.ControlPointSequence[0], name, value)
    return made


def later(**attributes) -> Dataset:
    made = beam()
    for name, value in attributes.items():
        setattr(made.ControlPointSequence[1], name, value)
    return made


def moving_table() -> Dataset:
    made = posed(TableTopLongitudinalPosition=0.0)
    made.ControlPointSequence[1].TableTopLongitudinalPosition = 80.0
    return made


def wedged(*stated) -> Dataset:
    made = beam(NumberOfWedges=1, WedgeSequence=[item(WedgeNumber=1, WedgeAngle=30)])
    for point, where in zip(made.ControlPointSequence, stated, strict=True):
        if where is not None:
            point.WedgePositionSequence = [item(ReferencedWedgeNumber=1, WedgePosition=where)]
    return made


CROSSED = [
    first_point(MLCX=LEAVES),
    item(
        CumulativeMetersetWeight=1,
        BeamLimitingDevicePositionSequence=positions(MLCX=[-10.0, 9.0, 10.0, 5.0]),
    ),
]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: [beam(points=CROSSED)], "beam 1 .B1., control point 1: leaf pair 2 crosses"),
        (lambda: [without(beam(), "IsocenterPosition")], "control point 0: the plan does not state isocenter"),
        (lambda: [beam(RadiationType="ELECTRON")], "its RadiationType is ELECTRON; expected PHOTON"),
        (lambda: [beam(NumberOfWedges=1)], "has wedges, which are not calculated"),
        (lambda: [beam(CompensatorSequence=[item(MaterialID="BRASS")])], "has compensators"),
        (lambda: [beam(points=[first_point(MLCX=[1.0, 2.0]), item(CumulativeMetersetWeight=1)])], "has 1 leaf pairs"),
        (lambda: [beam(FinalCumulativeMetersetWeight=2.0)], "at meterset weight 1, but the final one is 2"),
        (lambda: [beam(PrimaryDosimeterUnit="MINUTE")], "PrimaryDosimeterUnit is MINUTE; expected MU"),
        (lambda: [beam(ApplicatorSequence=[item(ApplicatorID="C10", ApplicatorType="STEREOTACTIC")])], "C10"),
        (lambda: [beam(BlockSequence=[item(BlockNumber=1, BlockThickness=80)])], "has blocks"),
        (lambda: [beam(WedgeSequence=[item(WedgeNumber=1)])], "has wedges"),
        (lambda: [beam(TotalBlockTrayFactor=0.97)], "TotalBlockTrayFactor is 0.97: trays are not calculated"),
        (lambda: [beam(GeneralAccessorySequence=[item(GeneralAccessoryType="SLOT")])], "has an accessory .SLOT."),
        (lambda: [beam(CompensatorSequence=[item(CompensatorTransmissionData=[0.5])])], "leaves that do not make"),
        (lambda: [posed(TableTopEccentricAngle=30.0)], "control point 0: TableTopEccentricAngle is 30 degree"),
        (lambda: [posed(GantryPitchAngle=359.0)], "control point 0: GantryPitchAngle is 359 degree"),
        (lambda: [later(NominalBeamEnergy=15)], "changes its NominalBeamEnergy from 6 MV"),
        (lambda: [moving_table()], "control point 1: TableTopLongitudinalPosition moves from 0 to 80 mm"),
        (lambda: [wedged("IN", None)], "has wedges"),
        (lambda: [wedged("OUT", "IN")], "has wedges"),
        (lambda: [wedged(None, "OUT")], "has wedges"),
    ],
)
def test_what_cannot_be_calculated_is_refused(tmp_path, make, message):
    with pytest.raises(FileError, match=message):
        read_plan(plan(tmp_path, *make()))


def test_plans_as_a_whole_that_are_refused(tmp_path):
    positions = [item(PatientPosition="HFS"), item(PatientPosition="FFS")]
    with pytest.raises(FileError, match=r"several patient positions .FFS, HFS."):
        read_plan(plan(tmp_path, beam(), PatientSetupSequence=positions))
    with pytest.raises(FileError, match="holds no treatment beam with monitor units"):
        read_plan(plan(tmp_path, beam(), units=(None,)))
    with pytest.raises(FileError, match="proton or ion beams"):
        read_plan(plan(tmp_path, beam(), IonBeamSequence=[item(BeamNumber=1)]))
    with pytest.raises(FileError, match="modality RTDOSE; expected RTPLAN"):
        read_plan(plan(tmp_path, beam(), Modality="RTDOSE"))


def test_a_wedge_that_stays_out_changes_nothing(tmp_path):
    assert read_plan(plan(tmp_path, wedged("OUT", None))).fields[0].mu == 100.0


def test_a_table_that_moves_with_the_isocentre_is_read(tmp_path):
    made = moving_table()
    made.ControlPointSequence[1].IsocenterPosition = [1.0, 2.0, -77.0]
    assert read_plan(plan(tmp_path, made)).fields[0].points[1].isocenter.tolist() == [1.0, 2.0, -77.0]


def test_what_is_not_looked_at_is_told_with_the_beam(tmp_path, caplog):
    made = beam(
        HighDoseTechniqueType="TBI",
        MotionSynchronizationSequence=[item(RespiratoryMotionCompensationTechnique="GATING")],
    )
    made.ControlPointSequence[1].TableTopPositionAlignmentUID = "1.2"
    read_plan(plan(tmp_path, made))
    assert "beam 1 (B1): states MotionSynchronizationSequence, which is not looked at" in caplog.text
    assert "beam 1 (B1): is of the technique TBI" in caplog.text


def broken(edit) -> list[Dataset]:
    second = beam(number=2)
    edit(second)
    return [beam(), second]


FAULTS = {
    "leaf boundaries": (
        lambda b: b.BeamLimitingDeviceSequence[1].__delattr__("LeafPositionBoundaries"),
        r"beam 2 \(B2\), MLCX: has no LeafPositionBoundaries",
    ),
    "final weight": (
        lambda b: b.__delattr__("FinalCumulativeMetersetWeight"),
        r"beam 2 \(B2\): has no FinalCumulativeMetersetWeight",
    ),
    "jaws": (
        lambda b: setattr(b.ControlPointSequence[0].BeamLimitingDevicePositionSequence[0], "LeafJawPositions", [50]),
        r"beam 2 \(B2\), control point 0, ASYMX: LeafJawPositions holds 1 numbers; expected 2",
    ),
    "isocentre": (
        lambda b: setattr(b.ControlPointSequence[0], "IsocenterPosition", [1.0, 2.0]),
        r"beam 2 \(B2\), control point 0: IsocenterPosition holds 2 numbers; expected 3",
    ),
    "device": (
        lambda b: b.BeamLimitingDeviceSequence[1].__delattr__("RTBeamLimitingDeviceType"),
        r"beam 2 \(B2\): has no RTBeamLimitingDeviceType",
    ),
    "number": (lambda b: b.__delattr__("BeamNumber"), "item 2 of BeamSequence: has no BeamNumber"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_name_beam_control_point_and_device(tmp_path, name):
    edit, message = FAULTS[name]
    with pytest.raises(FileError, match=rf"plan\.dcm: {message}"):
        read_plan(plan(tmp_path, *broken(edit), units=(10.0, 20.0)))
