"""A patient as DICOM files that name nobody: CT, structures and dose written anew, nothing copied but what is meant.

Files are not cleaned but made: voxels, geometry, structure names and dose go in, and a pseudonym; no other attribute of
the original files can pass. Names of structures are kept, since planning needs them: look at them before files leave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.io.dicom.ct import CTSeries
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.reading import reading
from radplan.io.dicom.rtdose_export import write_dose
from radplan.io.dicom.rtstruct_export import export_structures
from radplan.io.dicom.writing import decimal, describe_file, identified, write_whole
from radplan.io.staging import staged
from radplan.patient.patient import Patient
from radplan.plan import Plan

_STEPS = 65535
"""Largest stored value of a CT."""


def export_anonymous(
    source: Patient | Plan, folder: str | Path, pseudonym: str = "anonymous", orientation: Orientation | None = None
) -> tuple[Path, ...]:
    """Write a patient's CT (``CT_*.dcm``), structures (``RS.dcm``) and, of a plan, doses (``RD*.dcm``) into a folder.

    All identifiers are new with every call, and the same in all files of it. Hounsfield units that are whole numbers
    are kept exactly, others to half a quantum of their range over 65535; dose to half its own.

    Parameters
    ----------
    source : Patient or Plan
        What is written.
    folder : path-like
        Where; made if need be, files of an earlier export are replaced.
    pseudonym : str
        PatientID and PatientName of all files, 1 to 60 characters.
    orientation : Orientation, optional
        How rows, columns and slices are counted; axial slices of the patient's position otherwise.

    Returns
    -------
    tuple of Path
        The files.

    Raises
    ------
    InputError
        When the pseudonym is empty, too long or holds a backslash.
    FileError
        When a file cannot be written.
    """
    if not 0 < len(pseudonym.strip()) <= 60 or "\\" in pseudonym:
        raise InputError(f"a pseudonym has 1 to 60 characters and no backslash, got {pseudonym!r}")
    plan = source if isinstance(source, Plan) else None
    patient = replace(source.patient if isinstance(source, Plan) else source, name=pseudonym)
    way = orientation or Orientation(patient_position=patient.patient_position)
    with staged(folder) as partial:
        series = write_ct(partial, patient, way, _nobody(pseudonym))
        names = [f"CT_{k + 1:04d}.dcm" for k in range(len(series.instances))]
        if patient.structures:
            export_structures(partial / "RS.dcm", patient, series)
            names.append("RS.dcm")
        names += [] if plan is None else _write_doses(partial, plan, series)
    return tuple(Path(folder, name) for name in names)


def write_ct(folder: str | Path, patient: Patient, orientation: Orientation, identity: Mapping[str, str]) -> CTSeries:
    """Write one CT file per slice, ``CT_0001.dcm`` on, with identifiers of their own; return the series.

    Parameters
    ----------
    folder : path-like
        An existing folder.
    patient : Patient
        Whose CT.
    orientation : Orientation
        How rows, columns and slices are counted.
    identity : mapping of str to str
        Patient and study attributes, by DICOM keyword.
    """
    from pydicom.uid import CTImageStorage, generate_uid

    grid = patient.ct.grid
    stored, slope, intercept = _stored(orientation.to_file(np.asarray(patient.ct.hu)))
    shape, steps, first = orientation.layout(grid)
    known = {**identity, "StudyInstanceUID": identity.get("StudyInstanceUID") or generate_uid()}
    blank = CTSeries(patient.ct, orientation, generate_uid(), generate_uid(), (), (), known)
    files, instances = [], []
    for k in range(shape[0]):
        path = Path(folder, f"CT_{k + 1:04d}.dcm")
        with reading(path):
            dataset = identified(blank, {})
            describe_file(dataset, CTImageStorage, "CT", "radplan images")
            dataset.SeriesInstanceUID, dataset.InstanceNumber = blank.series, k + 1
            dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
            dataset.PatientPosition, dataset.Laterality = orientation.patient_position or "HFS", ""
            place = np.asarray(first) + k * steps[0] * np.asarray(orientation.along_slices)
            dataset.ImagePositionPatient = [decimal(float(value)) for value in place]
            dataset.ImageOrientationPatient = [str(c) for c in orientation.cosines]
            dataset.PixelSpacing = [decimal(steps[1]), decimal(steps[2])]
            dataset.SliceThickness, dataset.KVP, dataset.AcquisitionNumber = decimal(steps[0]), None, None
            dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
            dataset.Rows, dataset.Columns = shape[1], shape[2]
            dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
            dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = slope, intercept, "HU"
            dataset.PixelData = stored[k].astype("<u2").tobytes()
            write_whole(path, dataset)
        files.append(path)
        instances.append(str(dataset.SOPInstanceUID))
    return replace(blank, files=tuple(files), instances=tuple(instances))


def _stored(hu: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.uint16], str, str]:
    """Return Hounsfield units as 16 bits, with slope and intercept as decimal strings."""
    values = hu.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if high - low <= _STEPS and np.array_equal(values, np.round(values)):
        return (values - low).astype(np.uint16), "1", decimal(low)
    slope = decimal(max((high - low) / _STEPS * (1 + 1e-9), 1e-6))
    intercept = decimal(low)
    return np.clip(np.rint((values - float(intercept)) / float(slope)), 0, _STEPS).astype(np.uint16), slope, intercept


def _nobody(pseudonym: str) -> dict[str, str]:
    from pydicom.uid import generate_uid

    return {
        "PatientID": pseudonym,
        "PatientName": pseudonym,
        "StudyInstanceUID": generate_uid(),
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "radplan: files made anew",
    }


def _write_doses(folder: Path, plan: Plan, series: CTSeries) -> list[str]:
    names = []
    for quantity in plan.told():
        kind = {"physical_dose": "PHYSICAL", "rbe_x_dose": "EFFECTIVE"}.get(quantity.name)
        if kind is None:
            continue
        names.append("RD.dcm" if kind == "PHYSICAL" else "RD_rbe_x_dose.dcm")
        dose = np.maximum(plan[quantity], 0.0)
        comment = f"{plan.title(quantity)}, {plan.fractions} fractions, not for clinical use"
        write_dose(folder / names[-1], dose, plan.model.grid, series, dose_type=kind, comment=comment)  # type: ignore[arg-type]
    return names
