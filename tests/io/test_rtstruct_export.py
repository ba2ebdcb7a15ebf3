"""RTSTRUCT files as written: the same voxels when read back, holes and touching corners included."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom import export_structures, fill_contours, read_case, read_structures
from radplan.io.dicom.rtstruct_export import outlines
from radplan.io.dicom.writing import series_of
from radplan.patient.phantoms import phantom
from radplan.patient.structures import Structure, Structures
from tests.io.dicom_files import small_case

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8))).filter(np.any)


@settings(max_examples=200, deadline=None)
@given(mask=MASKS)
def test_outlines_enclose_the_pixels_and_no_others(mask):
    grid = Grid((1, *mask.shape), (2.0, 3.0, 4.0), (10.0, -5.0, 7.0))
    contours = []
    for loop in outlines(mask):
        corners = np.asarray(grid.origin[:2]) + (loop - 0.5) * np.asarray(grid.spacing[:2])
        contours.append(np.column_stack([corners, np.full(len(corners), 7.0)]))
    voxels, fraction = fill_contours(contours, grid)
    np.testing.assert_array_equal(voxels, np.flatnonzero(mask))
    np.testing.assert_allclose(fraction, 1.0, atol=1e-9)


def test_a_phantom_is_read_back_voxel_by_voxel(tmp_path):
    patient = phantom("tg119")
    ring = patient.structures["BODY"].mask() & ~patient.structures["OuterTarget"].mask()
    hollow = Structure.from_mask("Around", patient.ct.grid, ring, color=(1.0, 0.5, 0.0))
    patient = replace(patient, structures=Structures([*patient.structures.values(), hollow]))
    path = export_structures(tmp_path / "RS.dcm", patient, series_of(patient))
    read = read_structures(path, patient.ct.grid, series_of(patient).frame_of_reference)
    assert list(read) == list(patient.structures)
    for name, structure in patient.structures.items():
        half = slice(None) if structure.fraction is None else structure.fraction >= 0.5
        np.testing.assert_array_equal(read[name].voxels, structure.voxels[half])
        assert read[name].role == structure.role or structure.role == "ignored"  # DICOM knows no such role
    np.testing.assert_allclose(read["Around"].color, (1.0, 0.5, 0.0), atol=1 / 255)
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (Debian dicom3tools) is not installed")
    said = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []


def test_identity_and_images_are_kept(tmp_path):
    case = read_case(small_case(tmp_path))
    path = export_structures(tmp_path / "RS.dcm", case.patient, case.series)
    dataset = pydicom.dcmread(path)
    assert dataset.PatientID == case.series.identity["PatientID"]
    frame = dataset.ReferencedFrameOfReferenceSequence[0]
    assert frame.FrameOfReferenceUID == case.series.frame_of_reference
    images = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert images.SeriesInstanceUID == case.series.series
    assert [i.ReferencedSOPInstanceUID for i in images.ContourImageSequence] == list(case.series.instances)
    heights = {
        str(pydicom.dcmread(file).SOPInstanceUID): float(pydicom.dcmread(file).ImagePositionPatient[2])
        for file in case.series.files
    }
    for item in dataset.ROIContourSequence[0].ContourSequence:
        instance = item.ContourImageSequence[0].ReferencedSOPInstanceUID
        assert heights[str(instance)] == float(item.ContourData[2])
    without = replace(case.series, frame_of_reference="")
    with pytest.raises(InputError, match="FrameOfReferenceUID"):
        export_structures(tmp_path / "RS2.dcm", case.patient, without)
    with pytest.raises(InputError, match="no structures"):
        export_structures(tmp_path / "RS2.dcm", replace(case.patient, structures=Structures()), case.series)
