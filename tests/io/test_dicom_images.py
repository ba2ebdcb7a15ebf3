"""CT series come to one frame whatever their file names and orientation, and bad ones are refused by name."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from radplan.errors import FileError, InputError
from radplan.io import load_patient
from radplan.io.dicom import Orientation, describe_folder, list_folder, read_case, read_ct, read_patient
from radplan.io.dicom.reading import reading
from tests.io.dicom_files import FRAME, ROOT, SERIES, ct_slices, save, small_case, square, structure_set

STORED = np.arange(4 * 5 * 6).reshape(4, 5, 6) * 7
ORIENTATIONS = {
    "HFS": (1, 0, 0, 0, 1, 0),
    "HFP": (-1, 0, 0, 0, -1, 0),
    "FFS": (-1, 0, 0, 0, 1, 0),
    "FFP": (1, 0, 0, 0, -1, 0),
    "HFDR": (0, -1, 0, 1, 0, 0),
    "HFDL": (0, 1, 0, -1, 0, 0),
    "FFDR": (0, 1, 0, 1, 0, 0),
    "CORONAL": (1, 0, 0, 0, 0, -1),
    "SAGITTAL": (0, 1, 0, 0, 0, -1),
}


def written(folder, slices, order=None):
    """Save slices under names whose order says nothing about their place."""
    order = order or [(7 * k + 3) % len(slices) for k in range(len(slices))]
    return [save(dataset, folder / f"{name:03d}.dcm") for name, dataset in zip(order, slices, strict=True)]


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_every_voxel_keeps_its_place_in_the_patient(tmp_path, name):
    cosines = np.asarray(ORIENTATIONS[name], dtype=float)
    slices = ct_slices(STORED, cosines=ORIENTATIONS[name], position=name)
    series = read_ct(written(tmp_path, slices))
    row, column, normal = cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])
    for k, j, i in [(0, 0, 0), (3, 4, 5), (2, 1, 3), (1, 4, 0)]:
        # DICOM PS3.3 C.7.6.2.1.1: position + column index x column spacing along the row + row index x row spacing.
        point = np.asarray([-10.0, -20.0, 30.0]) + 3.0 * i * row + 2.0 * j * column + 2.5 * k * normal
        found = series.ct.hu.reshape(-1)[series.ct.grid.nearest(point[None])[0]]
        assert found == STORED[k, j, i] - 1000
    assert series.orientation.patient_position == name


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_way_back_to_the_files_is_exact(tmp_path, name):
    series = read_ct(written(tmp_path, ct_slices(STORED, cosines=ORIENTATIONS[name])))
    np.testing.assert_array_equal(series.orientation.to_file(series.ct.hu), STORED - 1000.0)
    shape, steps, first = series.orientation.layout(series.ct.grid)
    assert (shape, steps) == ((4, 5, 6), (2.5, 2.0, 3.0))
    assert first == (-10.0, -20.0, 30.0)
    assert series.orientation.grid(shape, steps, first) == series.ct.grid


def test_slices_keep_their_own_rescale(tmp_path):
    slices = ct_slices(STORED)
    slices[2].RescaleSlope, slices[2].RescaleIntercept = "2.0", "-500"
    hu = read_ct(written(tmp_path, slices)).ct.hu
    np.testing.assert_array_equal(hu[2], 2.0 * STORED[2] - 500)
    np.testing.assert_array_equal(hu[1], STORED[1] - 1000)


def test_padding_becomes_air(tmp_path):
    slices = ct_slices(STORED)
    for dataset in slices:
        dataset.RescaleIntercept, dataset.PixelPaddingValue = -2000, 0
    hu = read_ct(written(tmp_path, slices)).ct.hu
    assert hu[0, 0, 0] == -1024
    assert hu[0, 0, 1] == 7 - 2000


def edit_position(index, value):
    def edit(slices):
        slices[index].ImagePositionPatient = value

    return edit


def edit_all(keyword, value, only=None):
    def edit(slices):
        for dataset in slices if only is None else [slices[only]]:
            setattr(dataset, keyword, value)

    return edit


def sheared(slices):
    for k, dataset in enumerate(slices):
        dataset.ImagePositionPatient = [-10.0, -20.0 + 0.5 * k, 30.0 + 2.5 * k]


BAD_SERIES = {
    "missing": (lambda slices: slices.pop(1), r"1 slice\(s\) are missing"),
    "duplicate": (edit_position(2, [-10, -20, 32.5]), "duplicate slices"),
    "uneven": (edit_position(1, [-10, -20, 33.2]), "from its place in an even series"),
    "tilted": (edit_all("ImageOrientationPatient", [1, 0, 0, 0, 0.9659258, -0.2588190]), "15.00 degrees.*gantry tilt"),
    "sheared": (sheared, "sheared by 11.3 degrees"),
    "other spacing": (edit_all("PixelSpacing", [2.0, 2.9], 2), "PixelSpacing is .2.0, 2.9., that of"),
    "other frame": (edit_all("FrameOfReferenceUID", "1.2.3", 2), "FrameOfReferenceUID is 1.2.3"),
    "other orientation": (edit_all("ImageOrientationPatient", [-1, 0, 0, 0, 1, 0], 2), "ImageOrientationPatient is"),
    "no unit vectors": (edit_all("ImageOrientationPatient", [1, 0, 0, 0, 2, 0]), "no two perpendicular unit vectors"),
    "no slope": (edit_all("RescaleSlope", None), "RescaleSlope holds 0 numbers"),
    "zero slope": (edit_all("RescaleSlope", 0), "RescaleSlope is 0"),
    "optical density": (edit_all("RescaleType", "OD"), "RescaleType is OD"),
    "inverted": (edit_all("PhotometricInterpretation", "MONOCHROME1"), "expected MONOCHROME2"),
    "cut pixels": (edit_all("PixelData", b"\0\0", 2), "holds 2 bytes of pixel data; 60 are expected"),
    "far away": (edit_position(1, [-10, -20, 1e9]), "1e.09 mm: the file is damaged"),
    "other images": (edit_all("PixelData", bytes(120), 1), "holds 120 bytes of pixel data; 60 are expected"),
    "multi-frame": (edit_all("NumberOfFrames", 2), "multi-frame"),
    "magnetic": (edit_all("Modality", "MR"), "modality MR; expected CT"),
}


@pytest.mark.parametrize("name", BAD_SERIES)
def test_a_bad_series_is_refused_by_file_and_cause(tmp_path, name):
    edit, cause = BAD_SERIES[name]
    slices = ct_slices(STORED)
    edit(slices)
    with pytest.raises(FileError, match=cause) as error:
        read_ct(written(tmp_path, slices))
    assert str(error.value).startswith(str(tmp_path))
    assert ".dcm" in str(error.value)


def jittered(slices):
    for k, dataset in enumerate(slices):
        dataset.ImagePositionPatient = [-10.0 + 0.02 * (-1) ** k, -20.0, 30.0 + 2.5 * k + 0.04 * (k == 1)]
        dataset.PixelSpacing = [2.0, 3.0 + 2e-4 * k]


def padded(count):
    def edit(slices):
        for dataset in slices:
            dataset.PixelData = dataset.PixelData + bytes(count)

    return edit


@pytest.mark.parametrize("edit", [jittered, padded(4), padded(58)])
def test_rounded_positions_and_padded_pixels_are_read(tmp_path, edit):
    slices = ct_slices(STORED)
    edit(slices)
    ct = read_ct(written(tmp_path, slices)).ct
    np.testing.assert_array_equal(ct.hu, STORED - 1000.0)
    np.testing.assert_allclose(ct.grid.spacing, (3.0, 2.0, 2.5), atol=1e-3)


SYNTAXES = {
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless", "pylibjpeg-libjpeg"),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS", "pyjpegls"),
    "1.2.840.10008.1.2.4.201": ("High-Throughput JPEG 2000", "pylibjpeg-openjpeg"),
}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_what_cannot_be_decompressed_here_is_not_called_damaged(tmp_path, syntax):
    dataset = ct_slices(STORED[:1])[0]
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + bytes(60)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    if get_decoder(syntax).is_available:
        pytest.skip("a decoder is installed")
    kind, package = SYNTAXES[syntax]
    with pytest.raises(FileError, match=f"compressed as {kind}.*cannot be read here: pip install .*{package}") as error:
        read_ct([save(dataset, tmp_path / "a.dcm")])
    assert "damaged" not in str(error.value)


def test_a_missing_package_is_not_blamed_on_the_file(tmp_path):
    with pytest.raises(FileError, match="the package openjpeg is missing; pip install openjpeg"), reading(tmp_path):
        raise ModuleNotFoundError("No module named 'openjpeg'", name="openjpeg")


def scout(slices):
    odd = ct_slices(STORED[:1], first=(0.0, 0.0, 500.0), cosines=ORIENTATIONS["CORONAL"])[0]
    odd.SOPInstanceUID = f"{ROOT}.78"
    slices.append(odd)


def repeated(slices):
    slices.append(copy.deepcopy(slices[1]))


def unreadable_end(slices):
    del slices[-1].RescaleSlope


ODD_SLICES = {
    "scout": (scout, 4, "left out of the CT: .*ImageOrientationPatient is"),
    "repeated": (repeated, 4, "repeats .* and is left out"),
    "unreadable end": (unreadable_end, 3, "left out of the CT: .*has no RescaleSlope"),
}


@pytest.mark.parametrize("name", ODD_SLICES)
def test_one_odd_file_does_not_cost_the_series(tmp_path, caplog, name):
    edit, count, said = ODD_SLICES[name]
    slices = ct_slices(STORED)
    edit(slices)
    ct = read_ct(written(tmp_path, slices)).ct
    np.testing.assert_array_equal(ct.hu, STORED[:count] - 1000.0)
    assert re.search(said, caplog.text)


def test_a_damaged_file_beside_a_whole_patient_is_told(tmp_path, caplog):
    folder = small_case(tmp_path)
    (folder / "old.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 400)
    assert list(read_patient(folder).structures) == ["BODY", "PTV"]
    assert "left out: " + str(folder / "old.dcm") in caplog.text
    (folder / "structures.dcm").unlink()
    with pytest.raises(FileError, match=r"old\.dcm"):
        read_patient(folder)


def test_one_slice_needs_its_thickness(tmp_path):
    slices = ct_slices(STORED[:1])
    assert read_ct(written(tmp_path, slices)).ct.grid.spacing == (3.0, 2.0, 2.5)
    del slices[0].SliceThickness
    with pytest.raises(FileError, match="is the only slice"):
        read_ct(written(tmp_path, slices))
    with pytest.raises(InputError, match="at least one file"):
        read_ct([])


def test_oblique_cosines_are_no_orientation():
    with pytest.raises(InputError, match=r"turned by 30\.00 degrees"):
        Orientation.from_cosines([np.sqrt(0.75), 0.5, 0, -0.5, np.sqrt(0.75), 0])
    assert Orientation.from_cosines([1, 1e-5, 0, -1e-5, 1, 0]).cosines == (1, 0, 0, 0, 1, 0)


def test_a_folder_becomes_a_patient_without_the_persons_name(tmp_path, caplog):
    folder = small_case(tmp_path)
    (folder / "notes.txt").write_text("no image")
    patient = load_patient(folder)
    assert patient.name == folder.name
    assert {name: s.role for name, s in patient.structures.items()} == {"BODY": "external", "PTV": "target"}
    assert patient.structures["PTV"].volume == pytest.approx(25.0 * 7.5)
    assert patient.structures["BODY"].color == (1.0, 0.0, 0.2)
    said = caplog.text + describe_folder(folder) + repr(read_case(folder)) + repr(list_folder(folder))
    assert "Sorrow" not in said
    assert "secret-7" not in said


def test_the_listing_says_what_refers_to_what(tmp_path):
    text = describe_folder(small_case(tmp_path))
    assert "6 DICOM files, 0 others, 0 damaged" in text
    assert "CT 1: 5 files" in text
    assert "RTSTRUCT 1: 1 file, e.g. structures.dcm" in text
    assert "RTSTRUCT 1 'drawn': 1 file" in describe_folder(tmp_path, descriptions=True)
    assert "refers to CT 1" in text
    (tmp_path / "slice1.dcm").write_bytes(b"")
    assert "damaged: " + str(tmp_path / "slice1.dcm") in describe_folder(tmp_path)


def test_of_two_series_that_of_the_structures_is_taken(tmp_path):
    folder = small_case(tmp_path)
    other = f"{ROOT}.4"
    for k, dataset in enumerate(ct_slices(STORED, series=other)):
        save(dataset, folder / f"other{k}.dcm")
    assert read_case(folder).series.series == SERIES
    case = read_case(folder, series=other)
    assert case.series.series == other
    assert case.structure_set == f"{ROOT}.9.1"
    with pytest.raises(FileError, match=r"holds no CT series 1\.2; found"):
        read_patient(folder, series="1.2")
    (folder / "structures.dcm").unlink()
    with pytest.raises(FileError, match=r"holds 2 CT series: choose one .*series= or --series"):
        read_patient(folder)


def test_structure_sets_are_chosen_not_guessed(tmp_path):
    folder = small_case(tmp_path)
    second = structure_set([("Cord", "ORGAN", [square(-2.0, 2.0, 32.5)])])
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.9.2"
    save(second, folder / "second.dcm")
    with pytest.raises(FileError, match="holds 2 structure sets: choose one"):
        read_patient(folder)
    assert list(read_patient(folder, structure_set=f"{ROOT}.9.2").structures) == ["Cord"]
    assert list(read_patient(folder, structure_set=folder / "structures.dcm").structures) == ["BODY", "PTV"]
    with pytest.raises(FileError, match=r"holds no structure set none\.dcm"):
        read_patient(folder, structure_set="none.dcm")


def test_scout_views_are_left_out_and_positions_announced(tmp_path, caplog):
    slices = ct_slices(STORED, cosines=ORIENTATIONS["HFP"], position="HFP")
    scout = ct_slices(STORED[:1] + 1, first=(0.0, 0.0, 500.0))[0]
    scout.ImageType, scout.SOPInstanceUID = ["DERIVED", "SECONDARY", "LOCALIZER"], f"{ROOT}.77"
    written(tmp_path, slices)
    save(scout, tmp_path / "scout.dcm")
    case = read_case(tmp_path)
    assert case.patient.ct.grid.shape == (4, 5, 6)
    assert case.series.frame_of_reference == FRAME
    assert case.patient.patient_position == "HFP"
    assert "the patient lay HFP: beam angles are those of the room" in caplog.text
    assert "no RTSTRUCT" in caplog.text


def test_folders_without_a_ct(tmp_path):
    with pytest.raises(FileError, match=r"holds no CT series \(found: no DICOM file\)"):
        load_patient(tmp_path)
    save(structure_set([("Cord", "ORGAN", [square(-2.0, 2.0, 32.5)])]), tmp_path / "s.dcm")
    with pytest.raises(FileError, match=r"found: RTSTRUCT"):
        load_patient(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        list_folder(tmp_path / "none")
