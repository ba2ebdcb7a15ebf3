"""Doses as RTDOSE: there and back within one quantum, in any orientation, and readable by pydicom alone."""

from __future__ import annotations

import os

import numpy as np
import pydicom
import pytest

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom import read_ct, read_dose, write_dose
from tests.io.dicom_files import FRAME, STUDY, ct_slices, save
from tests.io.test_dicom_images import ORIENTATIONS

GRID = Grid((4, 5, 6), (2.5, 3.0, 2.0), (-11.3, 7.123456789012345, 30.0))


@pytest.fixture
def dose(rng):
    return rng.uniform(0.0, 71.3, GRID.shape)


@pytest.mark.parametrize("kind", ["PHYSICAL", "EFFECTIVE"])
def test_a_round_trip_is_exact_to_half_a_quantum(tmp_path, dose, kind):
    image = read_dose(write_dose(tmp_path / "dose.dcm", dose, GRID, dose_type=kind))
    assert image.quantum <= 71.3 / 2**31 * (1 + 1e-6)
    assert np.abs(image.dose - dose).max() <= 0.5 * image.quantum * (1 + 1e-9)
    assert (image.dose_type, image.summation) == (kind, "PLAN")
    assert image.grid.shape == GRID.shape
    np.testing.assert_allclose(image.grid.spacing, GRID.spacing, atol=1e-9)
    np.testing.assert_allclose(image.grid.origin, GRID.origin, atol=1e-9)


@pytest.mark.parametrize("top", [1e-7, 1.0, 60.0, 99999.0])
def test_the_quantum_follows_the_maximum(tmp_path, dose, top):
    dose = dose * top / dose.max()
    image = read_dose(write_dose(tmp_path / "dose.dcm", dose, GRID))
    assert np.abs(image.dose - dose).max() <= top / 2**31
    assert pydicom.dcmread(tmp_path / "dose.dcm").pixel_array.max() < 2**31


def test_no_dose_at_all(tmp_path):
    assert read_dose(write_dose(tmp_path / "dose.dcm", np.zeros(GRID.shape), GRID)).dose.max() == 0


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_the_dose_follows_the_images_orientation(tmp_path, dose, name):
    slices = ct_slices(np.zeros((2, 3, 4)), cosines=ORIENTATIONS[name], position=name)
    series = read_ct([save(dataset, tmp_path / f"{k}.dcm") for k, dataset in enumerate(slices)])
    path = write_dose(tmp_path / "dose.dcm", dose, GRID, series, plan="1.2.3", structure_set="1.2.4", comment="let")
    image = read_dose(path, FRAME)
    np.testing.assert_allclose(image.grid.origin, GRID.origin, atol=1e-9)
    assert np.abs(image.dose - dose).max() <= image.quantum
    stored = pydicom.dcmread(path)
    assert [float(c) for c in stored.ImageOrientationPatient] == list(ORIENTATIONS[name])
    assert (stored.StudyInstanceUID, stored.PatientID, image.plan) == (STUDY, "secret-7", "1.2.3")
    row, column = np.asarray(ORIENTATIONS[name][:3]), np.asarray(ORIENTATIONS[name][3:])
    for k, j, i in [(0, 0, 0), (1, 2, 0), (2, 0, 3)]:
        # DICOM PS3.3 C.7.6.2.1.1 and C.8.8.3.2: the place of a stored value, from the attributes alone.
        point = (
            np.asarray(stored.ImagePositionPatient, dtype=float)
            + i * stored.PixelSpacing[1] * row
            + j * stored.PixelSpacing[0] * column
            + stored.GridFrameOffsetVector[k] * np.cross(row, column)
        )
        expected = dose.reshape(-1)[GRID.nearest(point[None])[0]]
        assert stored.pixel_array[k, j, i] * stored.DoseGridScaling == pytest.approx(expected, abs=1e-6)


def test_the_file_has_what_the_standard_asks_for(tmp_path, dose):
    stored = pydicom.dcmread(write_dose(tmp_path / "dose.dcm", dose, GRID))
    assert stored.file_meta.MediaStorageSOPClassUID == stored.SOPClassUID == "1.2.840.10008.5.1.4.1.1.481.2"
    assert stored.file_meta.MediaStorageSOPInstanceUID == stored.SOPInstanceUID
    # Type 1 attributes of the RT Dose IOD (PS3.3 A.18.3), and type 2 ones, which may be empty but must be there.
    filled = (
        "Modality StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID SamplesPerPixel PhotometricInterpretation "
        "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PixelData NumberOfFrames "
        "FrameIncrementPointer DoseUnits DoseType DoseSummationType DoseGridScaling GridFrameOffsetVector "
        "ImagePositionPatient ImageOrientationPatient PixelSpacing ReferencedRTPlanSequence"
    )
    there = (
        "PatientName PatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber SeriesNumber "
        "ReferringPhysicianName Manufacturer OperatorsName PositionReferenceIndicator InstanceNumber SliceThickness"
    )
    assert [key for key in filled.split() if stored.get(key) in (None, "")] == []
    assert [key for key in there.split() if key not in stored] == []
    assert stored.FrameIncrementPointer == 0x3004000C
    assert (stored.BitsAllocated, stored.BitsStored, stored.HighBit, stored.PixelRepresentation) == (32, 32, 31, 0)
    assert all(len(str(value)) <= 16 for value in stored.ImagePositionPatient)
    assert list(stored.GridFrameOffsetVector) == [0.0, 2.0, 4.0, 6.0]


def test_dicompyler_reads_it(tmp_path, dose):
    dicomparser = pytest.importorskip("dicompylercore.dicomparser")
    read = dicomparser.DicomParser(str(write_dose(tmp_path / "dose.dcm", dose, GRID)))
    # dicompyler-core gives one plane by its z coordinate, in stored values.
    plane = read.GetDoseGrid(32.0) * float(read.GetDoseData()["dosegridscaling"])
    np.testing.assert_allclose(plane, dose[1], atol=1e-6)


def test_pymedphys_reads_it(tmp_path, dose):
    dicom_dose = pytest.importorskip("pymedphys._dicom.dose")
    stored = pydicom.dcmread(write_dose(tmp_path / "dose.dcm", dose, GRID))
    axes, values = dicom_dose.zyx_and_dose_from_dataset(stored)
    np.testing.assert_allclose(values, dose, atol=1e-6)
    np.testing.assert_allclose(axes[2], GRID.axes[0])


def rewritten(tmp_path, dose, edit):
    dataset = pydicom.dcmread(write_dose(tmp_path / "dose.dcm", dose, GRID))
    edit(dataset)
    return save(dataset, tmp_path / "edited.dcm")


def put(**values):
    def edit(dataset):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edit


def backwards(dataset):
    dataset.ImagePositionPatient[2] = 36.0
    dataset.GridFrameOffsetVector = [0.0, -2.0, -4.0, -6.0]
    dataset.PixelData = dataset.pixel_array[::-1].astype("<u4").tobytes()


def absolute(dataset):
    dataset.GridFrameOffsetVector = [30.0, 32.0, 34.0, 36.0]


def absolute_backwards(dataset):
    backwards(dataset)
    dataset.GridFrameOffsetVector = [36.0, 34.0, 32.0, 30.0]


def sixteen_bits(dataset):
    coarse = np.rint(dataset.pixel_array * (60000 / 2**31))
    dataset.DoseGridScaling = f"{float(dataset.DoseGridScaling) * 2**31 / 60000:.9e}"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = coarse.astype("<u2").tobytes()


@pytest.mark.parametrize("edit", [backwards, absolute, absolute_backwards, sixteen_bits])
def test_other_ways_to_store_the_same_dose(tmp_path, dose, edit):
    image = read_dose(rewritten(tmp_path, dose, edit))
    np.testing.assert_allclose(image.dose, dose, atol=1e-5 + image.quantum)
    np.testing.assert_allclose(image.grid.origin, GRID.origin, atol=1e-9)


def test_planes_written_rounded_are_read_evenly(tmp_path, dose):
    image = read_dose(rewritten(tmp_path, dose, put(GridFrameOffsetVector=[0.0, 2.0, 4.1, 6.1])))
    assert image.grid.spacing[2] == pytest.approx(6.1 / 3)
    np.testing.assert_allclose(image.dose, dose, atol=1e-5)


def test_padding_after_the_dose_is_passed_over(tmp_path, dose):
    def padded(dataset):
        dataset.PixelData = dataset.PixelData + bytes(8)

    np.testing.assert_allclose(read_dose(rewritten(tmp_path, dose, padded)).dose, dose, atol=1e-5)


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o002])
def test_files_get_the_permissions_of_the_users_umask(tmp_path, dose, mask):
    before = os.umask(mask)
    try:
        mode = write_dose(tmp_path / "dose.dcm", dose, GRID).stat().st_mode & 0o777
    finally:
        os.umask(before)
    assert mode == 0o666 & ~mask


def test_one_plane(tmp_path, dose):
    grid = Grid((1, 5, 6), GRID.spacing, GRID.origin)
    write_dose(tmp_path / "dose.dcm", dose[:1], grid)
    assert read_dose(tmp_path / "dose.dcm").grid.spacing == (2.5, 3.0, 2.0)


BAD_DOSES = {
    "relative": (put(DoseUnits="RELATIVE"), "DoseUnits is RELATIVE"),
    "type": (put(DoseType="GUESS"), "DoseType is GUESS"),
    "scaling": (put(DoseGridScaling="-1"), "DoseGridScaling is -1"),
    "modality": (put(Modality="CT"), "modality CT; expected RTDOSE"),
    "uneven": (put(GridFrameOffsetVector=[0, 2, 4, 7]), "dose planes are 2 to 3 mm apart"),
    "planes": (put(GridFrameOffsetVector=[0, 2, 4]), "holds 3 numbers; expected 4"),
    "offsets": (put(GridFrameOffsetVector=[5, 7, 9, 11]), "GridFrameOffsetVector starts at 5 mm"),
    "oblique": (put(ImageOrientationPatient=[0.8, 0.6, 0, -0.6, 0.8, 0]), "turned by 36.87 degrees"),
    "cut": (put(PixelData=b"\0\0\0\0"), "holds 4 bytes of pixel data"),
    "standing": (put(GridFrameOffsetVector=[0, 0, 0, 0]), "dose planes are 0 to 0 mm apart"),
}


@pytest.mark.parametrize("name", BAD_DOSES)
def test_a_bad_dose_is_refused_by_file_and_cause(tmp_path, dose, name):
    edit, cause = BAD_DOSES[name]
    with pytest.raises(FileError, match=cause) as error:
        read_dose(rewritten(tmp_path, dose, edit))
    assert str(error.value).startswith(str(tmp_path / "edited.dcm"))


def test_the_frame_of_reference_is_checked_when_asked(tmp_path, dose):
    path = write_dose(tmp_path / "dose.dcm", dose, GRID)
    with pytest.raises(FileError, match=r"expected 1\.2"):
        read_dose(path, "1.2")
    assert read_dose(path, "1.2", allow_other_frame=True).grid.shape == GRID.shape


def test_what_cannot_be_written(tmp_path, dose):
    path = tmp_path / "dose.dcm"
    with pytest.raises(InputError, match="does not fit the grid"):
        write_dose(path, dose[1:], GRID)
    with pytest.raises(InputError, match="falls to -1 Gy"):
        write_dose(path, dose * 0 - 1.0, GRID)
    with pytest.raises(InputError, match="NaN or infinite"):
        write_dose(path, dose * np.nan, GRID)
    with pytest.raises(InputError, match="dose_type must be one of"):
        write_dose(path, dose, GRID, dose_type="BIOLOGICAL")
    with pytest.raises(InputError, match="identity holds 'Name'"):
        write_dose(path, dose, GRID, identity={"Name": "x"})
    with pytest.raises(InputError, match="comment must have at most 64 characters, got 65"):
        write_dose(path, dose, GRID, comment="x" * 65)
    with pytest.raises(FileError, match="cannot be written"):
        write_dose(tmp_path / "none" / "dose.dcm", dose, GRID)
    assert list(tmp_path.iterdir()) == []
