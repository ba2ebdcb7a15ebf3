"""Structure sets: roles, what is skipped, frames of reference, names, and files that contradict themselves."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom.dataset import Dataset

from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.io.dicom import read_structures
from radplan.io.dicom.rtstruct import read_structure_set, role_of
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
    "unlisted": (unlisted, "contours of ROI number 5"),
    "not flat": (lifted, "does not lie in a plane"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_a_bad_structure_set_is_refused_by_cause(tmp_path, name):
    edit, cause = BAD_SETS[name]
    with pytest.raises(FileError, match=cause) as error:
        read(tmp_path, [("Heart", "ORGAN", [square(0.0, 2.0, 2.0)])], edit=edit)
    assert str(error.value).startswith(str(tmp_path / "s.dcm"))


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


def test_an_impossible_stated_density_names_the_file(tmp_path):
    regions = [("Couch", "SUPPORT", [square(-3.0, 3.0, 2.0)])]
    with pytest.raises(FileError, match=r"s\.dcm: the density of 'Couch' must be a number >= 0"):
        stated(tmp_path, regions, [("REL_ELEC_DENSITY", -1.0)])
