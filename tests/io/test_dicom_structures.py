"""Structure sets: roles, what is skipped, frames of reference, names, and files that contradict themselves."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from pydicom.dataset import Dataset

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.io.dicom import read_structures
from radplan.io.dicom.rtstruct import read_structure_set, role_of
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from tests.io.dicom_files import FRAME, save, square, structure_set

GRID = Grid((5, 20, 20), (1.0, 1.0, 2.0), (-9.5, -9.5, 0.0))


def read(tmp_path, regions, frame=FRAME, edit=None, **options):
    dataset = structure_set(regions, **{k: v for k, v in options.items() if k in ("implicit", "series")})
    if "stated" in options:
        dataset = structure_set(regions, frame=options["stated"], series=None)
    if edit:
        edit(dataset)
    path = save(dataset, tmp_path / "s.dcm")
    return read_structures(path, GRID, frame, options.get("allow", False))


@pytest.mark.parametrize("implicit", [True, False])
def test_a_box_has_its_volume(tmp_path, implicit):
    contours = [square(-3.0, 3.5, z) for z in (2.0, 4.0)]
    structure = read(tmp_path, [("Heart", "ORGAN", contours)], implicit=implicit)["Heart"]
    assert structure.volume == pytest.approx(6.5**2 * 4.0)
    assert structure.role == "oar"
    assert sorted(set(np.round(structure.fraction, 12))) == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("kind", "name", "role"),
    [
        ("PTV", "boost", "target"),
        ("CTV", "x", "target"),
        ("GTV", "x", "target"),
        ("EXTERNAL", "outline", "external"),
        ("ORGAN", "PTV", "oar"),
        ("AVOIDANCE", "Lung_L", "oar"),
        ("SUPPORT", "table", "ignored"),
        ("", "PTVp_5000", "target"),
        ("CONTROL", "zPTVring", "oar"),
        ("", "PTVring", "oar"),
        ("", "ITV", "target"),
        ("", "iGTV2", "target"),
        ("", "External", "external"),
        ("CONTROL", "BODY", "external"),
        ("", "BODY-PTV", "oar"),
        ("", "CouchSurface", "ignored"),
        ("", "PTV ring", "oar"),
        ("", "PTV-Ring 5mm", "oar"),
        ("", "CTV_2cm_RING", "oar"),
        ("", "PTV avoid", "oar"),
        ("", "GTV spared", "oar"),
        ("", "PTV sparing rectum", "oar"),
        ("", "PTV shell", "oar"),
        ("", "CTV-PTV margin", "oar"),
        ("", "PTV - CTV", "oar"),
        ("", "PTVnotGTV", "oar"),
        ("", "PTV-03", "target"),
        ("", "PTV_Boost", "target"),
        ("", "CTV 60 Gy", "target"),
        ("", "PTV-Rectum", "target"),
        ("", "Outer Contour", "external"),
        ("", "patient", "external"),
        ("", "Patient_Left_Arm", "oar"),
        ("", "Skin", "oar"),
        ("", "SpinalCord", "oar"),
    ],
)
def test_roles_come_from_the_type_then_from_the_name(kind, name, role):
    assert role_of(kind, name) == role


def test_points_open_contours_and_empty_regions_are_left_out(tmp_path):
    line = np.asarray([[0.0, 0.0, 2.0], [1.0, 1.0, 2.0], [2.0, 0.0, 2.0]])
    regions = [
        ("iso", "ISOCENTER", [("POINT", line[:1])]),
        ("wire", "MARKER", [("OPEN_PLANAR", line), ("OPEN_NONPLANAR", line)]),
        ("empty", "PTV", []),
        ("Heart", "ORGAN", [("POINT", line[:1]), square(0.0, 2.0, 2.0), ("CLOSEDPLANAR_XOR", square(0.5, 1.0, 2.0))]),
    ]
    structures = read(tmp_path, regions)
    assert list(structures) == ["Heart"]
    assert structures["Heart"].volume == pytest.approx((4.0 - 0.25) * 2.0)


def test_regions_outside_the_images_are_announced(tmp_path, caplog):
    regions = [("far", "ORGAN", [square(100.0, 102.0, 2.0)]), ("half", "ORGAN", [square(8.0, 12.0, 2.0)])]
    structures = read(tmp_path, regions)
    assert list(structures) == ["half"]
    assert structures["half"].volume == pytest.approx(4.0 * 2.0)
    assert "far lies outside" in caplog.text
    assert "half reaches beyond" in caplog.text


def test_the_frame_of_reference_must_be_that_of_the_images(tmp_path, caplog):
    regions = [("Heart", "ORGAN", [square(0.0, 2.0, 2.0)])]
    with pytest.raises(FileError, match=r"Heart: its frame of reference is .*, that of the images 9\.9"):
        read(tmp_path, regions, frame="9.9")
    with pytest.raises(FileError, match="is not stated"):
        read(tmp_path, regions, stated=None)
    assert list(read(tmp_path, regions, frame="9.9", allow=True)) == ["Heart"]
    assert "allowed" in caplog.text
    assert list(read(tmp_path, regions, frame=None)) == ["Heart"]


def test_equal_names_are_told_apart_by_number(tmp_path, caplog):
    regions = [("PTV", "PTV", [square(0.0, 2.0, 2.0)]), ("PTV", "PTV", [square(0.0, 3.0, 2.0)])]
    structures = read(tmp_path, regions)
    assert list(structures) == ["PTV (ROI 1)", "PTV (ROI 2)"]
    assert {s.role for s in structures.values()} == {"target"}
    assert "2 structures are named PTV" in caplog.text


def test_of_several_outlines_the_largest_counts(tmp_path, caplog):
    regions = [("inner", "EXTERNAL", [square(0.0, 2.0, 2.0)]), ("outer", "EXTERNAL", [square(-5.0, 5.0, 2.0)])]
    assert [s.role for s in read(tmp_path, regions).values()] == ["ignored", "external"]
    assert "the largest, outer, counts" in caplog.text


def remove(keyword):
    return lambda dataset: dataset.__delattr__(keyword)


def garble_points(dataset):
    dataset.ROIContourSequence[0].ContourSequence[0].NumberOfContourPoints = 7


def garble_type(dataset):
    dataset.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "CLOSED_PLANAS"


def cut_coordinates(dataset):
    contour = dataset.ROIContourSequence[0].ContourSequence[0]
    contour.ContourData = contour.ContourData[:-1]
    del contour.NumberOfContourPoints


def far_point(dataset):
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData[4] = "1e30"


def unlisted(dataset):
    dataset.ROIContourSequence[0].ReferencedROINumber = 5


def lifted(dataset):
    dataset.ROIContourSequence[0].ContourSequence[0].ContourData[2] = "1.0"


BAD_SETS = {
    "no list": (remove("StructureSetROISequence"), "no StructureSetROISequence"),
    "wrong modality": (lambda dataset: setattr(dataset, "Modality", "CT"), "modality CT; expected RTSTRUCT"),
    "points": (garble_points, "a contour of 7 points holds 12 coordinates"),
    "type": (garble_type, "ContourGeometricType 'CLOSED_PLANAS' is not known"),
    "coordinates": (cut_coordinates, "holds 11 coordinates"),
    "far": (far_point, "ContourData holds 1e.30 mm"),
    "not flat": (lifted, "does not lie in a plane"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_a_bad_structure_set_is_refused_by_cause(tmp_path, name):
    edit, cause = BAD_SETS[name]
    with pytest.raises(FileError, match=cause) as error:
        read(tmp_path, [("Heart", "ORGAN", [square(0.0, 2.0, 2.0)])], edit=edit)
    assert str(error.value).startswith(str(tmp_path / "s.dcm"))


def no_number(dataset):
    del dataset.ROIContourSequence[0].ReferencedROINumber


def same_number(dataset):
    again = copy.deepcopy(dataset.StructureSetROISequence[0])
    again.ROIName = "Copy"
    dataset.StructureSetROISequence.append(again)


def other_frame(dataset):
    dataset.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.3"


def sagittal_too(dataset):
    extra = copy.deepcopy(dataset.ROIContourSequence[0].ContourSequence[0])
    values = np.asarray(extra.ContourData, dtype=float).reshape(-1, 3)[:, [2, 0, 1]]
    extra.ContourData = [f"{value:g}" for value in values.ravel()]
    dataset.ROIContourSequence[0].ContourSequence.append(extra)


ODD_REGIONS = {
    "points": (garble_points, "a contour of 7 points holds 12 coordinates"),
    "type": (garble_type, "ContourGeometricType 'CLOSED_PLANAS' is not known"),
    "coordinates": (cut_coordinates, "holds 11 coordinates"),
    "far": (far_point, "ContourData holds 1e.30 mm"),
    "not flat": (lifted, "does not lie in a plane"),
    "sagittal too": (sagittal_too, "does not lie in a plane"),
    "other frame": (other_frame, "its frame of reference is 1.2.3"),
    "unlisted": (unlisted, "it has no contours"),
    "no number": (no_number, "it has no contours"),
    "same number": (same_number, "2 regions have its number, 1"),
}


@pytest.mark.parametrize("name", ODD_REGIONS)
def test_one_odd_region_is_left_out_and_named(tmp_path, caplog, name):
    edit, cause = ODD_REGIONS[name]
    regions = [("Catheter", "ORGAN", [square(0.0, 2.0, 2.0)]), ("Heart", "ORGAN", [square(-3.0, 3.0, 2.0)])]
    structures = read(tmp_path, regions, edit=edit)
    assert list(structures) == ["Heart"]
    assert structures["Heart"].volume == pytest.approx(72.0)
    assert "Catheter" in caplog.text
    with pytest.raises(UnknownNameError, match=f"no structure named 'Catheter': the file lists it, but .*{cause}"):
        structures["Catheter"]


def rgba(dataset):
    dataset.ROIContourSequence[0].ROIDisplayColor = [255, 0, 51, 128]


def grey(dataset):
    dataset.ROIContourSequence[0].ROIDisplayColor = [77]


def unobserved(dataset):
    del dataset.RTROIObservationsSequence[0].ReferencedROINumber


def empty_item(dataset):
    item = Dataset()
    item.ReferencedROINumber = 99
    dataset.ROIContourSequence.append(item)


@pytest.mark.parametrize(
    ("edit", "color"),
    [(rgba, (1.0, 0.0, 0.2)), (grey, None), (unobserved, (1.0, 0.0, 0.2)), (empty_item, (1.0, 0.0, 0.2))],
)
def test_an_odd_optional_attribute_costs_nothing(tmp_path, edit, color):
    structures = read(tmp_path, [("Heart", "ORGAN", [square(0.0, 2.0, 2.0)])], edit=edit)
    assert structures["Heart"].volume == pytest.approx(8.0)
    assert structures["Heart"].color == color


def test_regions_without_volume_are_told_and_remembered(tmp_path, caplog):
    line = np.asarray([[0.0, 0.0, 2.0], [1.0, 1.0, 2.0], [2.0, 2.0, 2.0]])
    regions = [
        ("Empty", "ORGAN", []),
        ("Seed", "ORGAN", [("POINT", line[:1])]),
        ("Thread", "ORGAN", [line]),
        ("Far", "ORGAN", [square(500.0, 502.0, 2.0)]),
        ("Heart", "ORGAN", [square(0.0, 2.0, 2.0)]),
    ]
    structures = read(tmp_path, regions)
    assert structures.left_out == {
        "Empty": "it has no contours",
        "Seed": "its contours enclose nothing (1 POINT)",
        "Thread": "encloses no volume",
        "Far": "lies outside the images",
    }
    assert "1 structures have no contours and are left out: Empty" in caplog.text
    assert "Thread encloses no volume" in caplog.text
    assert Patient("p", CT(GRID, np.zeros(GRID.shape)), structures).with_structure("H2", "Heart").structures.left_out
    with pytest.raises(InputError, match="no structure named 'Empty': the file lists it, but it has no contours"):
        Patient("p", CT(GRID, np.zeros(GRID.shape)), structures).structure("Heart - Empty")


def test_roles_taken_from_names_are_told(tmp_path, caplog):
    regions = [("PTV1", "", [square(0.0, 2.0, 2.0)]), ("Patient", "", [square(-5.0, 5.0, 2.0)])]
    assert [s.role for s in read(tmp_path, regions).values()] == ["target", "external"]
    assert "roles taken from names, the file states none: PTV1 is target, Patient is external" in caplog.text


def stated(tmp_path, regions, values):
    dataset = structure_set(regions)
    for item, (kind, value) in zip(dataset.RTROIObservationsSequence, values, strict=True):
        entry = Dataset()
        entry.ROIPhysicalProperty, entry.ROIPhysicalPropertyValue = kind, value
        item.ROIPhysicalPropertiesSequence = [entry] if kind else []
    return read_structure_set(save(dataset, tmp_path / "s.dcm"), GRID)


def test_stated_densities_become_overrides_and_bolus_gets_dose(tmp_path, caplog):
    squares = [square(-3.0, 3.0, z) for z in (2.0, 4.0)]
    regions = [("Bolus_5mm", "BOLUS", squares), ("Couch", "SUPPORT", squares), ("Hip", "ORGAN", squares)]
    regions += [("Wedge", "BOLUS", squares), ("PTV", "PTV", squares)]
    values = [("REL_ELEC_DENSITY", 1.02), ("REL_ELEC_DENSITY", 0.2), ("REL_ELEC_DENSITY", 3.8)]
    structures, given = stated(tmp_path, regions, [*values, ("REL_MASS_DENSITY", 1.1), ("", 0)])
    assert [(o.structure.name, o.density, o.dosed) for o in given] == [
        ("Bolus_5mm", 1.02, True),
        ("Couch", 0.2, False),
        ("Hip", 3.8, False),
    ]
    assert list(structures) == ["Bolus_5mm", "Couch", "Hip", "Wedge", "PTV"]
    assert "structure Hip: its stated density 3.8 replaces the CT's" in caplog.text
    assert "Wedge is of type BOLUS and states no density" in caplog.text


def test_an_impossible_stated_density_is_told_and_passed_over(tmp_path, caplog):
    regions = [("Couch", "SUPPORT", [square(-3.0, 3.0, 2.0)])]
    structures, given = stated(tmp_path, regions, [("REL_ELEC_DENSITY", -1.0)])
    assert (list(structures), given) == (["Couch"], ())
    assert "structure Couch: its stated density (ROIPhysicalPropertyValue) is no number >= 0" in caplog.text
