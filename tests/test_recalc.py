"""Plans of other systems calculated again: what is written, what is compared, what is refused."""

from __future__ import annotations

import csv
import json
import logging
import re
from dataclasses import replace

import numpy as np
import pytest
from pydicom.uid import RTPlanStorage

from radplan.analysis.dvh import DVH
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.cli.main import main
from radplan.commissioning.calibration import calibrated, dose_per_mu, isocentric
from radplan.engines import ApertureOptions
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.io.dicom import PlanReference, read_case, read_dose, read_plan, read_water_case, write_dose
from radplan.io.reference import read_curve, read_reference
from radplan.machines import library_machine, library_mlc
from radplan.patient.phantoms import water_cylinder
from radplan.patient.structures import Structure
from radplan.patient.supports import with_supports
from radplan.recalc import ReferenceDose, SceneOptions, recalculate, save_recalculation
from radplan.recalc.comparison import StructureComparison, fitted_factor, inside_by
from radplan.recalc.linac import machines_of
from radplan.recalc.recalculate import control_points
from radplan.recalc.scene import middle_of, scene_of
from tests.io.dicom_files import FRAME, ROOT, ct_slices, new_dataset, save, small_case, square, structure_set
from tests.io.test_dicom_rtplan import first_point, item, positions

CENTRE = [0.0, 0.0, 35.0]
QUICK = ApertureOptions(lateral_cutoff=40.0)
MLC = library_mlc("HD 120")


def beam(number=1, shift=0.0, **other):
    leaves = np.stack([np.full(60, -6.0), np.full(60, 5.0 + shift)])
    start = first_point(ASYMX=[-8, 8], ASYMY=[-8, 8], MLCX=leaves.ravel().tolist())
    start.IsocenterPosition, start.PatientSupportAngle, start.GantryRotationDirection = CENTRE, 0, "NONE"
    made = item(
        BeamNumber=number, BeamName=f"B{number}", RadiationType="PHOTON", TreatmentDeliveryType="TREATMENT",
        SourceAxisDistance=1000, FinalCumulativeMetersetWeight=1.0,
        BeamLimitingDeviceSequence=[
            item(RTBeamLimitingDeviceType="ASYMX", NumberOfLeafJawPairs=1),
            item(RTBeamLimitingDeviceType="ASYMY", NumberOfLeafJawPairs=1),
            item(
                RTBeamLimitingDeviceType="MLCX", NumberOfLeafJawPairs=60, LeafPositionBoundaries=MLC.boundaries.tolist()
            ),
        ],
        ControlPointSequence=[start, item(CumulativeMetersetWeight=1.0)],
    )  # fmt: skip
    for name, value in other.items():
        setattr(made, name, value)
    return made


def rtplan(folder, *beams, frame=FRAME, drawn=f"{ROOT}.9.1", name="plan.dcm", **other):
    dataset = new_dataset(RTPlanStorage, "RTPLAN", f"{ROOT}.8.1", f"{ROOT}.8")
    dataset.RTPlanLabel, dataset.FrameOfReferenceUID = "trial", frame or ""
    units = [item(ReferencedBeamNumber=n + 1, BeamMeterset=100.0 + n) for n in range(len(beams))]
    dataset.FractionGroupSequence = [
        item(FractionGroupNumber=1, NumberOfFractionsPlanned=5, ReferencedBeamSequence=units)
    ]
    dataset.PatientSetupSequence = [item(PatientPosition="HFS")]
    dataset.DoseReferenceSequence = [item(DoseReferenceNumber=1, TargetPrescriptionDose=4.5)]
    dataset.ReferencedStructureSetSequence = [item(ReferencedSOPInstanceUID=drawn)]
    dataset.BeamSequence = list(beams)
    for keyword, value in other.items():
        setattr(dataset, keyword, value)
    return save(dataset, folder / name)


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    return read_case(small_case(tmp_path_factory.mktemp("patient")))


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory):
    return rtplan(tmp_path_factory.mktemp("plan"), beam(), beam(2, shift=1.0))


@pytest.fixture(scope="module")
def found(case, plan_file):
    return recalculate(plan_file, case, grid=2.5, options=QUICK)


def test_dose_is_that_of_the_course(case, plan_file, found):
    one = recalculate(plan_file, case, grid=2.5, options=QUICK, fractions=1)
    assert found.fractions == 5
    np.testing.assert_allclose(found.dose, 5 * one.dose, rtol=1e-5)
    assert found.plan.patient.prescription == 4.5
    # 2 fields of a hundred MU, 1 to 2 cm of tissue around the isocentre: near 1 cGy/MU in small fields.
    assert 6.0 < found.dvh()["PTV"].levels.max() < 10.0
    fields = control_points(found)
    assert [(f["mu"], f["control_points"], f["technique"], f["mlc"]) for f in fields] == [
        (100.0, 2, "static", "HD 120"), (101.0, 2, "static", "HD 120"),
    ]  # fmt: skip
    assert any("blind" in note for note in found.notes)


def test_files_hold_what_was_calculated(tmp_path, case, found):
    paths = save_recalculation(found, tmp_path, {"rtplan": "plan.dcm"})
    assert {path.name for path in paths} == {"recalc.json", "rtdose.dcm", "dvh.csv"}
    image = read_dose(tmp_path / "rtdose.dcm", case.series.frame_of_reference)
    assert (image.summation, image.plan) == ("PLAN", f"{ROOT}.8.1")
    np.testing.assert_allclose(image.dose, found.dose, atol=image.quantum)
    said = json.loads((tmp_path / "recalc.json").read_text())
    assert said["plan"]["mu_per_fraction"] == 201.0
    assert said["machines"]["generic_photon_6mv"]["reference"]["dose"] == 0.01
    assert said["mlc"]["HD 120"]["leaf_offset_mm"] == MLC.leaf_offset
    assert said["options"]["lateral_cutoff"] == 40.0
    assert said["comparison"] is None


def test_a_dose_agrees_with_itself_on_the_command_line(tmp_path, plan_file, capsys):
    folder = small_case(tmp_path)
    out = tmp_path / "out"
    arguments = ["recalc", str(plan_file), "--patient", str(folder), "--grid", "3", "--output", str(out)]
    assert main([*arguments, "--no-figures"]) == 0
    assert "101.00 MU, 2 control points, HD 120" in capsys.readouterr().out
    dose = (out / "rtdose.dcm").rename(tmp_path.parent / f"{tmp_path.name}-dose.dcm")
    again = tmp_path / "again"
    arguments[-1] = str(again)
    assert main([*arguments, "--reference", str(dose), "--fit-factor"]) == 0
    said = json.loads((again / "recalc.json").read_text())["comparison"]
    assert said["factor"] == pytest.approx(1.0, abs=1e-5)
    assert said["factor_fitted_to"] == "PTV"
    assert said["gamma"]["passing_percent"] == 100.0
    assert {p.name for p in again.glob("*.png")} == {"slices.png", "apertures.png", "dvh.png", "difference.png"}
    with (again / "comparison.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][2:5] == ["Dmean ours [Gy]", "Dmean ours x factor [Gy]", "Dmean reference [Gy]"]
    assert {row[0] for row in rows[1:]} == {"BODY", "PTV"}


def test_density_scaling_is_an_option_of_the_command(tmp_path, case, plan_file):
    folder, out = small_case(tmp_path), tmp_path / "out"
    asked = ["recalc", str(plan_file), "--patient", str(folder), "--grid", "4", "--out", str(out), "--no-figures"]
    assert main([*asked, "--density-scaling"]) == 0
    said = json.loads((out / "recalc.json").read_text())
    assert said["options"]["density_scaling"] is True
    assert "density scaling: kernels are wider where density is low, as asked" in said["notes"]
    scaled = recalculate(plan_file, case, grid=4.0, options=ApertureOptions(density_scaling=True))
    assert said["metrics"]["PTV"]["Dmean"] == pytest.approx(scaled.plan.metrics()["PTV"]["Dmean"], rel=1e-5)


def test_robustness_is_evaluated_by_one_command(tmp_path, plan_file, found, capsys):
    folder, out = small_case(tmp_path), tmp_path / "out"
    asked = ["recalc", str(plan_file), "--patient", str(folder), "--grid", "4", "--out", str(out)]
    assert main([*asked, "--setup", "3", "--range", "0.05"]) == 0
    with (out / "scenarios.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["structure"] == "PTV"]
    assert len(rows) == 9
    nominal, *others = (float(row["Dmean"]) for row in rows)
    assert min(others) < 0.99 * nominal, "a shift of 3 mm leaves the small field"
    told = capsys.readouterr().out
    ends = [float(row["D95"]) for row in rows]
    table = told[told.index("lowest and highest of 9 scenarios") :]
    assert re.search(rf"D95 low +D95 high.*\nPTV +{min(ends):.2f} +{max(ends):.2f}", table), table
    assert (out / "dvh.png").is_file()
    assert [field["mu"] for field in json.loads((out / "recalc.json").read_text())["plan"]["fields"]] == [100.0, 101.0]
    assert json.loads((out / "recalc.json").read_text())["metrics"]["PTV"]["Dmean"] == pytest.approx(nominal, rel=1e-3)


def test_a_table_is_compared_by_name_and_gives_the_factor(case, plan_file, found, tmp_path):
    ours = found.dvh()["PTV"]
    table = {"target": replace(ours, levels=0.9 * ours.levels), "ptv": ours}
    compared = recalculate(
        plan_file, case, grid=2.5, options=QUICK, reference=ReferenceDose(table), names={"PTV": "target"},
        fit_factor=True,
    ).comparison  # fmt: skip
    assert [row.named for row in compared.rows] == ["target"]
    assert compared.factor == pytest.approx(0.9, abs=2e-3)
    assert compared.row("PTV").difference("D50", compared.factor) == pytest.approx(0.0, abs=0.03)
    with pytest.raises(UnknownNameError, match="did you mean 'PTV'"):
        compared.row("PTY")
    for names, match in (({"PTY": "target"}, "structure of the patient"), ({"PTV": "targt"}, "did you mean 'target'")):
        with pytest.raises(UnknownNameError, match=match):
            recalculate(
                plan_file, case, grid=4.0, options=QUICK, reference=ReferenceDose(table), names=names
            )  # fmt: skip
    with pytest.raises(InputError, match="say which belong together"):
        recalculate(plan_file, case, grid=4.0, options=QUICK, reference=ReferenceDose({"Cord": ours}))
    with pytest.raises(FileError, match="no such file"):
        recalculate(plan_file, case, grid=4.0, options=QUICK, reference=tmp_path / "none.csv")


def test_curves_are_read_between_their_levels():
    curve = DVH("a", "physical_dose", "Gy", np.linspace(0, 20, 5), np.asarray([100.0, 100.0, 100.0, 50.0, 0.0]), 1.0)
    assert [read_curve(curve, name) for name in ("Dmean", "D95", "D50", "D2")] == [15.0, 10.5, 15.0, 19.8]
    cut = replace(curve, percent=np.asarray([100.0, 100.0, 100.0, 50.0, 30.0]))
    assert np.isnan(read_curve(cut, "Dmean"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: setattr(b.BeamLimitingDeviceSequence[2], "LeafPositionBoundaries", (2 * MLC.boundaries).tolist()),
         r"field 1 .B1.: no known multileaf collimator has 60 pairs"),
        (lambda b: setattr(b, "RadiationType", "ELECTRON"), "beam 1 .B1.: its RadiationType is ELECTRON"),
        (lambda b: delattr(b.ControlPointSequence[0], "IsocenterPosition"), "control point 0: .*isocenter"),
        (lambda b: setattr(b.ControlPointSequence[0], "IsocenterPosition", [0.0, 0.0, 900.0]),
         "field 1 .B1., control point 0: its isocentre .* lies outside the images"),
        (lambda b: setattr(b.ControlPointSequence[1], "BeamLimitingDevicePositionSequence",
                           positions(MLCX=[-6.0] * 59 + [6.0] + [5.0] * 60)),
         "beam 1 .B1., control point 1: leaf pair 60 crosses"),
        (lambda b: setattr(b.ControlPointSequence[1], "BeamLimitingDevicePositionSequence",
                           positions(MLCX=[-6.0] * 59 + [5.0] * 59)),
         "control point 1: has 59 leaf pairs, but leaf_boundaries hold 60"),
        (lambda b: setattr(b, "NumberOfWedges", 1), "beam 1 .B1.: has wedges"),
    ],
)  # fmt: skip
def test_plans_that_cannot_be_calculated_name_beam_and_control_point(tmp_path, case, make, message):
    wrong = beam()
    make(wrong)
    with pytest.raises((FileError, InputError), match=message):
        recalculate(rtplan(tmp_path, wrong), case, grid=4.0, options=QUICK)


def test_a_collimator_with_other_leaves_is_refused(case, plan_file):
    with pytest.raises(InputError, match=r"field 1 .B1.: has 60 leaf pairs .* but MLC 'Agility' has 80"):
        recalculate(plan_file, case, mlc="agility", grid=4.0, options=QUICK)


def test_plans_of_ions_several_positions_or_unknown_energy_are_refused(tmp_path, case):
    with pytest.raises(FileError, match="proton or ion beams"):
        recalculate(rtplan(tmp_path, beam(), IonBeamSequence=[item(BeamNumber=1)]), case)
    several = [item(PatientPosition="HFS"), item(PatientPosition="FFS")]
    with pytest.raises(FileError, match="several patient positions"):
        recalculate(rtplan(tmp_path, beam(), PatientSetupSequence=several), case)
    with pytest.raises(InputError, match="treats the patient HFP, but the images show it HFS"):
        recalculate(rtplan(tmp_path, beam(), PatientSetupSequence=[item(PatientPosition="HFP")]), case)
    odd = beam()
    odd.ControlPointSequence[0].NominalBeamEnergy = 18
    with pytest.raises(InputError, match=r"field 1 .B1.: states 18 MV, generic machines are known for 6 MV"):
        recalculate(rtplan(tmp_path, odd), case)
    with pytest.raises(InputError, match="'generic_proton' is no photon linac"):
        recalculate(rtplan(tmp_path, beam()), case, machine="generic_proton")


def test_a_plan_of_another_frame_is_refused_unless_allowed(tmp_path, case):
    elsewhere = rtplan(tmp_path, beam(), frame=f"{ROOT}.77")
    with pytest.raises(InputError, match=rf"its frame of reference is {ROOT}.77, that of the images {FRAME}"):
        recalculate(elsewhere, case, grid=4.0, options=QUICK)
    allowed = recalculate(elsewhere, case, grid=4.0, options=QUICK, scene=SceneOptions(allow_other_frame=True))
    assert any("in spite of this" in note for note in allowed.notes)
    nowhere = rtplan(tmp_path, beam(), frame=None, drawn=f"{ROOT}.78", name="nowhere.dcm")
    with pytest.raises(InputError, match=r"states no frame of reference, and its structure set .*78 is not"):
        recalculate(nowhere, case, grid=4.0, options=QUICK)
    redrawn = recalculate(rtplan(tmp_path, beam(), drawn=f"{ROOT}.78"), case, grid=4.0, options=QUICK)
    assert any("another structure set of the same frame" in note for note in redrawn.notes)
    recalculate(rtplan(tmp_path, beam(), frame=None), case, grid=4.0, options=QUICK)  # the same structure set


def test_a_contour_without_images_is_filled_with_water(tmp_path, caplog):
    plan = rtplan(tmp_path, beam())
    folder = tmp_path / "drawn"
    folder.mkdir()
    heights = 20.0 + 2.5 * np.arange(13)
    regions = [("BODY", "EXTERNAL", [square(-30.0, 30.0, z) for z in heights]),
               ("PTV", "PTV", [square(-4.0, 4.0, z) for z in heights[5:8]])]  # fmt: skip
    save(structure_set(regions), folder / "structures.dcm")
    with pytest.raises(FileError, match="fill its external contour with water"):
        recalculate(plan, folder, grid=4.0, options=QUICK)
    with caplog.at_level(logging.WARNING):
        wet = recalculate(plan, folder, grid=4.0, options=QUICK, scene=SceneOptions(water=True))
    assert "has no images: BODY is filled with water" in caplog.text
    assert sorted(np.unique(wet.plan.patient.density()).tolist()) == [0.0, 1.0]
    assert wet.plan.patient.external.volume == pytest.approx(60 * 60 * 32.5, rel=0.02)
    assert any("filled with water" in note for note in wet.notes)


def test_images_can_be_filled_with_water_too(tmp_path, case, plan_file):
    wet = recalculate(plan_file, case, grid=4.0, options=QUICK, scene=SceneOptions(water=True))
    inside = wet.plan.patient.external.mask()
    np.testing.assert_allclose(wet.plan.patient.density()[inside], 1.0, atol=1e-6)


def test_a_plan_is_moved_into_a_phantom(plan_file):
    found = recalculate(plan_file, "cylinder", grid=10.0, options=QUICK)
    centre = middle_of(found.plan.patient.external)
    np.testing.assert_allclose(found.delivery.fields[1].points[0].isocenter, centre, atol=1e-9)
    assert any("isocentre is moved" in note for note in found.notes)


def test_an_isocentric_monitor_unit_is_worth_less():
    """1 cGy at d_max in the isocentre instead of d_max beyond it: (SAD / (SAD + d))^2, scatter apart."""
    machine = library_machine("generic_photon_15mv")
    other = calibrated(machine, isocentric(machine))
    assert dose_per_mu(other, other.reference) == pytest.approx(0.01, rel=1e-4)
    ratio = dose_per_mu(other, machine.reference) / dose_per_mu(machine, machine.reference)
    assert ratio == pytest.approx((1000.0 / (1000.0 + machine.reference.depth)) ** 2, rel=3e-3)


def test_supports_attenuate_outside_the_contour(tmp_path):
    stored = np.zeros((5, 30, 20), dtype=int)
    stored[:, 5:15, 5:15] = 1000  # water
    stored[:, 16:20, 2:18] = 300  # a board below
    for k, dataset in enumerate(ct_slices(stored, first=(-20.0, -20.0, 30.0), spacing=(2.0, 2.0))):
        save(dataset, tmp_path / f"{k}.dcm")
    heights = 30.0 + 2.5 * np.arange(5)
    save(structure_set([("BODY", "EXTERNAL", [square(-11.0, 9.0, z) for z in heights])]), tmp_path / "s.dcm")
    patient = read_case(tmp_path).patient
    supported, volume = with_supports(patient)
    board = float(patient.hu_table.relative_density(-700.0))
    assert volume == pytest.approx(5 * 4 * 16 * 10.0 * board, rel=1e-6)
    np.testing.assert_allclose(supported.density()[:, 16:20, 2:18], board, rtol=1e-5)
    assert supported.body_voxels(patient.ct.grid).size == patient.body_voxels(patient.ct.grid).size


def test_depth_below_the_skin_is_measured_from_the_contour():
    patient = water_cylinder(radius=60.0, length=80.0, spacing=4.0)
    grid = patient.ct.grid
    deep = inside_by(patient, grid, 20.0)
    x, y, _ = grid.axes
    radius = np.hypot(x[None, :], y[:, None])
    middle = deep[deep.shape[0] // 2]
    assert middle[radius < 36.0].all()
    assert not middle[radius > 44.0].any()


def test_arcs_and_filters_are_told_of(tmp_path, case):
    arc = beam(PrimaryFluenceModeSequence=[item(FluenceMode="NON_STANDARD", FluenceModeID="FFF")])
    arc.ControlPointSequence[0].GantryRotationDirection = "CW"
    arc.ControlPointSequence[1].GantryAngle = 20
    found = recalculate(rtplan(tmp_path, arc), case, grid=4.0, options=QUICK)
    assert any("1 arcs: each segment at 1 gantry position" in note for note in found.notes)
    assert found.machine_names == ("generic_photon_6mv_fff",)
    given = recalculate(
        rtplan(tmp_path, arc, name="flat.dcm"), case, machine="generic_photon_6mv", grid=4.0, options=QUICK
    )
    assert any("flattening-filter free (FFF)" in note for note in given.notes)
    assert found.delivery.fields[0].technique == "arc"


def test_fields_of_two_energies_have_a_machine_each(tmp_path, case):
    other = beam(2)
    other.ControlPointSequence[0].NominalBeamEnergy = 15
    both = recalculate(rtplan(tmp_path, beam(), other), case, grid=4.0, options=QUICK)
    assert [machine.energy for machine in both.machines] == [6.0, 15.0]
    alone = recalculate(rtplan(tmp_path, beam(), name="alone.dcm"), case, grid=4.0, options=QUICK)
    second = recalculate(
        rtplan(tmp_path, beam(), name="second.dcm"), case, machine="generic_photon_15mv", grid=4.0, options=QUICK
    )
    np.testing.assert_allclose(both.dose, alone.dose + 1.01 * second.dose, rtol=1e-4, atol=1e-4)
    assert [field["mu"] for field in control_points(both)] == [100.0, 101.0]
    assert any("is of 6 MV, generic_photon_15mv of 15 MV" in note for note in second.notes)
    assert check_forward_model(both)


def check_forward_model(found):
    """Pullback of the joined model along a direction, against the change of the dose."""
    model, x = found.plan.model, np.asarray(found.plan.x)
    cotangent = {"physical_dose": np.ones((1, model.voxels.size), dtype=np.float32)}
    gradient = model.pullback(x, cotangent)
    mu = np.flatnonzero(x >= 100.0)
    step = np.zeros_like(x)
    step[mu] = 1.0
    change = model.forward(x + step)["physical_dose"].sum() - model.forward(x)["physical_dose"].sum()
    return np.isclose(gradient[mu].sum(), change, rtol=1e-3) and np.array_equal(model.variables.project(x), x)


def test_what_was_read_is_what_is_calculated(plan_file, found):
    read = read_plan(plan_file)
    assert [one.mu for one in read] == [one.mu for one in found.delivery]
    assert read.mu == found.delivery.mu == 201.0


def open_field(energy=6.0):
    jaws = np.asarray([-20.0, 20.0])
    points = tuple(ControlPoint(mu, 0.0, 0.0, 0.0, CENTRE, jaws_x=jaws, jaws_y=jaws) for mu in (0.0, 100.0))
    return DeliveryPlan("AP", (TreatmentField("open", 1, points, 1000.0, energy=energy),), fractions=1)


def placed(case, **position):
    """Patient, case and a plan that states no position but those given, as the scene takes them."""
    delivery = replace(open_field(), patient_position=position.get("plan", ""))
    lying = replace(case.patient, patient_position=position.get("patient", "HFS"))
    orientation = replace(case.series.orientation, patient_position=position.get("images", ""))
    return lying, replace(case, patient=lying, series=replace(case.series, orientation=orientation)), delivery


def test_a_patient_is_taken_as_plan_and_images_say_they_lie(case):
    for position in ({"patient": "HFP", "plan": "HFP", "images": "HFP"}, {"patient": "FFS"}):
        lying, lain, delivery = placed(case, **position)
        for given in (lying, lain):
            assert scene_of(given, delivery, None, SceneOptions())[0].patient_position == position["patient"]
    _, lain, delivery = placed(case, plan="HFS", images="HFP", patient="HFP")
    with pytest.raises(InputError, match="treats the patient HFS, but the images show it HFP"):
        scene_of(lain, delivery, None, SceneOptions())
    lying, _, delivery = placed(case, plan="HFS", patient="HFP")
    with pytest.raises(InputError, match=r"treats the patient HFS, but patient .* lies HFP"):
        scene_of(lying, delivery, None, SceneOptions())


def test_a_prone_patient_gets_the_dose_from_the_other_side(case):
    """At gantry 0 the beam enters a prone patient from behind, as at gantry 180 one who lies supine."""
    turned = [replace(point, gantry=180.0, collimator=180.0) for point in open_field().fields[0].points]
    from_below = replace(open_field(), fields=(replace(open_field().fields[0], points=tuple(turned)),))
    supine = recalculate(from_below, case.patient, grid=5.0)
    prone = recalculate(open_field(), replace(case.patient, patient_position="HFP"), grid=5.0)
    np.testing.assert_allclose(prone.dose, supine.dose, atol=1e-3 * supine.dose.max())


def test_a_contour_without_images_lies_as_the_plan_says(tmp_path):
    regions = [("BODY", "EXTERNAL", [square(-30.0, 30.0, z) for z in 20.0 + 2.5 * np.arange(13)])]
    save(structure_set(regions), tmp_path / "structures.dcm")
    wet = read_water_case(tmp_path)
    assert wet.series.orientation.patient_position == ""
    for stated, taken in (("", "HFS"), ("HFS", "HFS"), ("HFP", "HFP")):
        delivery = replace(open_field(), patient_position=stated)
        assert scene_of(wet, delivery, None, SceneOptions(water=True))[0].patient_position == taken


def test_a_calibration_scales_primary_and_scatter_alike():
    machine = library_machine("generic_photon_6mv")
    half = calibrated(machine, replace(machine.reference, dose=0.5 * machine.reference.dose))
    depth, primary, scatter = np.asarray([50.0, 200.0]), np.asarray([1.0, 1.1]), np.asarray([1.2, 1.0])
    before, after = (m.kernel.parted_weights(depth, primary, scatter) for m in (machine, half))
    factor = half.kernel.table[0, 0, 0] / machine.kernel.table[0, 0, 0]
    assert factor == pytest.approx(0.5, rel=1e-3)
    np.testing.assert_allclose(after, factor * before, rtol=1e-6)
    plain = replace(machine, kernel=replace(machine.kernel, scattered=None))
    assert calibrated(plain, machine.reference).kernel.scattered is None


def test_an_unknown_calibration_is_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'isocentric'"):
        machines_of("generic_photon_6mv", open_field(), "isocenter")


def test_machines_are_not_chosen_for_fields_without_energy():
    both = ["generic_photon_6mv", "generic_photon_15mv"]
    with pytest.raises(InputError, match=r"field 1 .open.: states no energy .*generic_photon_6mv, generic_photon_15mv"):
        machines_of(both, open_field(energy=None))
    assert machines_of(both[:1], open_field(energy=None))[0][0].name == both[0]
    with pytest.raises(InputError, match="no machine is given"):
        machines_of([], open_field())


def test_a_table_of_another_quantity_is_no_reference(tmp_path):
    path = tmp_path / "dvh.csv"
    for head in ("rbe_x_dose [Gy(RBE)]", "rbe_x_dose [Gy]", "physical_dose [%]"):
        path.write_text(f"{head},PTV [%]\n0,100\n20,0\n")
        with pytest.raises(FileError, match=re.escape(f"holds DVHs of {head}; expected physical_dose [Gy]")):
            read_reference(path)
    path.write_text("physical_dose [cGy],PTV [%]\n0,100\n2000,0\n")
    assert read_reference(path).curves["PTV"].levels.tolist() == [0.0, 20.0]


def test_supports_leave_given_densities_alone(case):
    held = case.patient
    hu = held.ct.hu.copy()
    outside = np.flatnonzero(~held.external.mask())[:6]
    hu.reshape(-1)[outside] = 0.0
    couch = Structure("couch", held.ct.grid, outside[:3], np.asarray([1.0, 1.0, 0.5]), "ignored")
    seen = replace(held, ct=replace(held.ct, hu=hu)).with_density(couch, 0.3)
    plain = replace(seen, overrides=held.overrides)
    supported, volume = with_supports(seen)
    density = supported.density().reshape(-1)
    np.testing.assert_allclose(density[outside], [0.3, 0.3, 0.15, 1.0, 1.0, 1.0], rtol=1e-5)
    assert with_supports(plain)[1] - volume == pytest.approx(3 * held.ct.grid.voxel_volume, rel=1e-5)


@pytest.mark.parametrize(("ours", "theirs"), [(0.0, 50.0), (50.0, float("nan")), (50.0, 0.0)])
def test_no_factor_fits_means_that_are_no_doses(found, ours, theirs):
    row = StructureComparison("PTV", "target", "ptv", {"Dmean": ours}, {"Dmean": theirs})
    with pytest.raises(InputError, match="no factor fits the mean dose of 'PTV'"):
        fitted_factor(found.plan, (row,), True)


def test_no_fractions_are_not_the_plans(case, plan_file, tmp_path, capsys):
    for count in (0, -1):
        with pytest.raises(InputError, match=f"fractions must be a whole number >= 1, got {count}"):
            recalculate(plan_file, case, grid=4.0, options=QUICK, fractions=count)
    out = tmp_path / "out"
    arguments = ["recalc", str(plan_file), "--patient", "cylinder", "--fractions", "0", "--output", str(out)]
    assert main(arguments) != 0
    assert "fractions must be a whole number >= 1, got 0" in capsys.readouterr().err
    assert not out.exists()


def test_a_bolus_is_said_to_count_where_its_density_is_given(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        read_plan(rtplan(tmp_path, beam(NumberOfBoli=1)))
    assert "beam 1 (B1): names a bolus" in caplog.text
    assert "with_density(..., dosed=True)" in caplog.text


def test_of_two_structure_sets_that_of_the_plan_is_taken(tmp_path, plan_file):
    folder = small_case(tmp_path)
    second = structure_set([("Cord", "ORGAN", [square(-2.0, 2.0, 32.5)])])
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.9.2"
    save(second, folder / "second.dcm")
    delivery = read_plan(plan_file)
    belongs = PlanReference(f"{ROOT}.8.1", FRAME, f"{ROOT}.9.1")
    patient, case, _, notes = scene_of(folder, delivery, belongs, SceneOptions())
    assert (case.structure_set, list(patient.structures)) == (f"{ROOT}.9.1", ["BODY", "PTV"])
    assert not any("another structure set" in note for note in notes)
    chosen = SceneOptions(structure_set=folder / "second.dcm", hu_table="matrad")
    patient, case, _, notes = scene_of(folder, delivery, belongs, chosen)
    assert (case.structure_set, patient.hu_table.name) == (f"{ROOT}.9.2", "matrad")
    assert any("another structure set" in note for note in notes)
    stranger = PlanReference(f"{ROOT}.8.1", FRAME, "1.2.3")
    with pytest.raises(FileError, match=r"2 structure sets: choose one .*--structure-set.*dicom: \{structure_set"):
        scene_of(folder, delivery, stranger, SceneOptions())
    for slice_file in folder.glob("slice*.dcm"):
        slice_file.unlink()
    outlined = SceneOptions(water=True, structure_set=f"{ROOT}.9.1")
    assert scene_of(folder, delivery, belongs, outlined)[1].structure_set == f"{ROOT}.9.1"


def test_a_dose_of_another_plan_is_told(tmp_path, case, plan_file, found):
    for instance, expected in ((f"{ROOT}.8.1", 0), (f"{ROOT}.8.77", 1)):
        path = write_dose(tmp_path / "dose.dcm", found.dose, found.grid, case.series, plan=instance)
        again = recalculate(plan_file, case, grid=2.5, options=QUICK, reference=path)
        assert sum("belongs to another plan" in note for note in again.notes) == expected
