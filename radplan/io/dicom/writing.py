"""What all DICOM files of radplan share: whose they are, who made them, and how they are written."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from radplan import __version__
from radplan.errors import InputError
from radplan.io.dicom.ct import IDENTITY, CTSeries
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.reading import Dataset
from radplan.io.staging import staged_file
from radplan.patient.patient import Patient

logger = logging.getLogger(__name__)

_CODED = ("DA", "TM", "CS")
"""Value representations of dates, times and codes: what is none of them, other systems refuse."""


def empty() -> Dataset:
    """Return a dataset without attributes."""
    from pydicom.dataset import Dataset as PydicomDataset

    return PydicomDataset()


def referring(sop_class: str, instance: str) -> Dataset:
    """Return an item that refers to another file by its class and SOPInstanceUID."""
    item = empty()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
    return item


def identified(series: CTSeries | None, identity: Mapping[str, str]) -> Dataset:
    """Return a dataset of the patient, the study and the frame of reference.

    Dates, times and codes that are none, such as those of images made anonymous, are left empty, which is announced.
    """
    from pydicom.uid import generate_uid

    dataset = empty()
    known = {**(series.identity if series is not None else {"PatientID": "radplan"}), **identity}
    for keyword in IDENTITY:
        setattr(dataset, keyword, _valid(keyword, known.get(keyword, "")))
    dataset.StudyInstanceUID = known.get("StudyInstanceUID") or generate_uid()
    for keyword in ("PatientIdentityRemoved", "DeidentificationMethod"):
        if known.get(keyword):
            setattr(dataset, keyword, known[keyword])
    frame = series.frame_of_reference if series is not None else ""
    dataset.FrameOfReferenceUID = frame or generate_uid()
    return dataset


def _valid(keyword: str, value: str) -> str:
    """Return a value that DICOM allows for an attribute: the one given, or none."""
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VR
    from pydicom.valuerep import validate_value

    vr = dictionary_VR(keyword)
    try:
        if value and vr in _CODED:
            validate_value(vr, value, RAISE)
    except ValueError:
        logger.warning("%s of the images is no valid %s and is left empty in what is written", keyword, vr)
        return ""
    return value


def describe_file(dataset: Dataset, sop_class: str, modality: str, description: str) -> datetime:
    """Add what the file is and who made it; return when."""
    from pydicom.uid import generate_uid

    now = datetime.now()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality, dataset.SeriesDescription = modality, description
    dataset.SeriesNumber = 1
    for prefix in ("InstanceCreation", "Series"):
        setattr(dataset, f"{prefix}Date", now.strftime("%Y%m%d"))
        setattr(dataset, f"{prefix}Time", now.strftime("%H%M%S"))
    dataset.Manufacturer, dataset.ManufacturerModelName = "radplan developers", "radplan"
    dataset.SoftwareVersions, dataset.OperatorsName, dataset.StationName = __version__, "", ""
    return now


def series_of(patient: Patient) -> CTSeries:
    """Return a series for a patient that came from no files, such as a phantom: the same identifiers every time.

    >>> from radplan.patient.phantoms import phantom
    >>> series_of(phantom("box")).frame_of_reference == series_of(phantom("box")).frame_of_reference
    True
    """
    from pydicom.uid import generate_uid

    grid = patient.ct.grid
    seed = [patient.name, str((grid.shape, grid.spacing, grid.origin)), patient.patient_position]
    frame, series, study = (generate_uid(entropy_srcs=[*seed, part]) for part in ("frame", "series", "study"))
    return CTSeries(
        ct=patient.ct,
        orientation=Orientation(patient_position=patient.patient_position),
        frame_of_reference=frame,
        series=series,
        files=(),
        instances=(),
        identity={"PatientID": patient.name[:64], "PatientName": f"{patient.name[:60]}^", "StudyInstanceUID": study},
    )


def check_identity(series: CTSeries) -> None:
    """Raise an InputError when a series lacks what other files of the same patient must repeat."""
    lacking = [
        name
        for name, value in (
            ("FrameOfReferenceUID", series.frame_of_reference),
            ("StudyInstanceUID", series.identity.get("StudyInstanceUID", "")),
            ("PatientID", series.identity.get("PatientID", "")),
        )
        if not value
    ]
    if lacking:
        raise InputError(
            f"the images state no {' and no '.join(lacking)}: a plan for them would belong to nobody; export them "
            "again with identifiers"
        )


def write_whole(path: Path, dataset: Dataset, implicit: bool = False) -> None:
    """Write a dataset as a file, whole or not at all; implicit where one value may be longer than 64 kB."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    with staged_file(path) as partial:
        dataset.save_as(partial, enforce_file_format=True)


def decimal(value: float) -> str:
    """Return a number as a DICOM decimal string: at most 16 characters.

    >>> decimal(0.1), decimal(1 / 3), decimal(-1234567.123456789)
    ('0.1', '0.33333333333333', '-1234567.1234568')
    """
    said = repr(float(value))
    if len(said) <= 16:
        return said
    return next(text for text in (f"{value:.{digits}g}" for digits in range(16, 0, -1)) if len(text) <= 16)
