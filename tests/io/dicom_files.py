"""Small DICOM files for the tests: a CT, a structure set and variations of both, written with pydicom alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage

ROOT = "1.2.826.0.1.3680043.8.498"
FRAME, STUDY, SERIES = f"{ROOT}.1", f"{ROOT}.2", f"{ROOT}.3"


def new_dataset(kind: str, modality: str, instance: str, series: str, implicit: bool = False) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = instance
    dataset.Modality, dataset.PatientName, dataset.PatientID = modality, "Sorrow^Jane", "secret-7"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = STUDY, series, FRAME
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def ct_slices(
    stored: np.ndarray,
    first=(-10.0, -20.0, 30.0),
    spacing=(2.0, 3.0),
    step: float = 2.5,
    cosines=(1, 0, 0, 0, 1, 0),
    position: str = "HFS",
    series: str = SERIES,
) -> list[Dataset]:
    """Return one dataset per slice of `stored` [slice, row, column]; HU = stored - 1000; `spacing` of rows, columns."""
    normal = np.cross(cosines[:3], cosines[3:])
    slices = []
    for k, image in enumerate(stored):
        dataset = new_dataset(CTImageStorage, "CT", f"{series}.{k + 1}", series)
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        dataset.PatientPosition = position
        dataset.ImagePositionPatient = [round(float(p), 6) for p in np.asarray(first) + k * step * normal]
        dataset.ImageOrientationPatient = [float(c) for c in cosines]
        dataset.PixelSpacing, dataset.SliceThickness = list(spacing), step
        dataset.Rows, dataset.Columns = image.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1000
        dataset.PixelData = image.astype("<u2").tobytes()
        slices.append(dataset)
    return slices


def square(low: float, high: float, z: float) -> np.ndarray:
    """Return the corners of a square in x and y at height z [mm]."""
    return np.asarray([[low, low, z], [high, low, z], [high, high, z], [low, high, z]])


def structure_set(regions, frame: str | None = FRAME, series: str | None = SERIES, implicit: bool = True) -> Dataset:
    """Return an RTSTRUCT of ``(name, type, contours)``; a contour is an array (n, 3) or ``(geometric type, array)``."""
    dataset = new_dataset(RTStructureSetStorage, "RTSTRUCT", f"{ROOT}.9.1", f"{ROOT}.9", implicit)
    dataset.StructureSetLabel = "drawn"
    if frame is None:
        del dataset.FrameOfReferenceUID
    else:
        dataset.FrameOfReferenceUID = frame
    if series is not None:
        one, study, referenced = Dataset(), Dataset(), Dataset()
        one.SeriesInstanceUID = series
        study.RTReferencedSeriesSequence = [one]
        referenced.FrameOfReferenceUID, referenced.RTReferencedStudySequence = frame or "", [study]
        dataset.ReferencedFrameOfReferenceSequence = [referenced]
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (name, kind, contours) in zip(itertools.count(1), regions):
        listed, drawn, observed = Dataset(), Dataset(), Dataset()
        listed.ROINumber, listed.ROIName, listed.ReferencedFrameOfReferenceUID = number, name, frame or ""
        drawn.ReferencedROINumber, drawn.ROIDisplayColor = number, [255, 0, 51]
        drawn.ContourSequence = []
        observed.ObservationNumber, observed.ReferencedROINumber = number, number
        observed.RTROIInterpretedType, observed.ROIInterpreter = kind, ""
        for contour in contours:
            shape, points = contour if isinstance(contour, tuple) else ("CLOSED_PLANAR", contour)
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = shape, len(points)
            item.ContourData = [f"{value:.10g}" for value in np.ravel(points)]
            drawn.ContourSequence.append(item)
        dataset.StructureSetROISequence.append(listed)
        dataset.ROIContourSequence.append(drawn)
        dataset.RTROIObservationsSequence.append(observed)
    return dataset


def small_case(folder: Path) -> Path:
    """Write five slices of 12 x 10 pixels with a body, a target and a point of interest; return the folder."""
    stored = np.random.default_rng(3).integers(900, 1100, (5, 12, 10))
    for k, dataset in enumerate(ct_slices(stored, first=(-10.0, -15.0, 30.0), spacing=(2.0, 2.0))):
        save(dataset, folder / f"slice{(3 * k) % 5}.dcm")
    heights = 30.0 + 2.5 * np.arange(5)
    regions = [
        ("BODY", "EXTERNAL", [square(-8.0, 6.0, z) for z in heights]),
        ("PTV", "PTV", [square(-3.0, 2.0, z) for z in heights[1:4]]),
        ("iso", "ISOCENTER", [("POINT", np.asarray([[0.0, 0.0, 35.0]]))]),
    ]
    save(structure_set(regions), folder / "structures.dcm")
    return folder
