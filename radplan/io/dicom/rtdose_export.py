"""A dose as an RTDOSE file that other systems open: 32 bits, in the orientation of the patient's own images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom.ct import IDENTITY, CTSeries
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.reading import Dataset, reading
from radplan.io.dicom.writing import decimal, describe_file, identified, referring, write_whole

DoseType = Literal["PHYSICAL", "EFFECTIVE"]
Summation = Literal["PLAN", "FRACTION", "BEAM", "MULTI_PLAN"]

_STEPS = 2**31 - 1
"""Largest stored value. Why not 2^32 - 1: some readers take the 32 bits as signed."""

_LONGEST = 64
"""Characters that a comment on dose may have: a DICOM long string."""

_RT_PLAN = "1.2.840.10008.5.1.4.1.1.481.5"
_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"


def write_dose(
    path: str | Path,
    dose: npt.ArrayLike,
    grid: Grid,
    series: CTSeries | None = None,
    dose_type: DoseType = "PHYSICAL",
    summation: Summation = "PLAN",
    plan: str = "",
    structure_set: str = "",
    comment: str = "",
    identity: Mapping[str, str] | None = None,
) -> Path:
    """Write a dose as an RTDOSE file: whole or not at all, one stored quantum accurate.

    The quantum is the maximum over 2^31 - 1, rounded up to what a DICOM decimal string holds, so that reading back
    gives each voxel within half of it.

    Parameters
    ----------
    path : path-like
        The file to write; one of that name is replaced.
    dose : array of shape (nz, ny, nx)
        Dose on `grid`, >= 0 [Gy], or [Gy(RBE)] for ``dose_type="EFFECTIVE"``; a course total for ``"PLAN"``.
    grid : Grid
        Where the voxels lie.
    series : CTSeries, optional
        The images: gives patient, study, frame of reference and the orientation of rows, columns and planes. None: an
        anonymous patient of its own, head first supine.
    dose_type : {"PHYSICAL", "EFFECTIVE"}
        Absorbed dose, or dose weighted by biological effectiveness.
    summation : {"PLAN", "FRACTION", "BEAM", "MULTI_PLAN"}
        What the dose sums.
    plan : str
        SOPInstanceUID of the plan; made up where empty, since the standard asks for one.
    structure_set : str
        SOPInstanceUID of the structure set, or empty.
    comment : str
        DoseComment, such as the quantity's name; 64 characters at most.
    identity : mapping of str to str, optional
        Patient and study attributes that replace those of `series`, by DICOM keyword.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When the dose does not fit the grid, is negative, NaN or infinite, a choice is unknown, or the comment is too
        long.
    FileError
        When the file cannot be written.
    """
    path = Path(path)
    for name, value, known in (("dose_type", dose_type, DoseType), ("summation", summation, Summation)):
        if value not in get_args(known):
            raise InputError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")
    unknown = sorted(set(identity or {}) - set(IDENTITY))
    if unknown:
        raise InputError(f"identity holds {unknown[0]!r}; expected keywords of {', '.join(IDENTITY)}")
    if len(comment) > _LONGEST:
        raise InputError(f"comment must have at most {_LONGEST} characters, got {len(comment)}: {comment!r}")
    stored, scaling = quantised(dose, grid)
    orientation = series.orientation if series is not None else Orientation(patient_position="HFS")
    with reading(path):
        dataset = identified(series, identity or {})
        _describe(dataset, dose_type, summation, plan, structure_set, comment)
        _place(dataset, orientation.to_file(stored), grid, orientation, scaling)
        write_whole(path, dataset)
    return path


def quantised(dose: npt.ArrayLike, grid: Grid) -> tuple[npt.NDArray[np.uint32], str]:
    """Return a dose [Gy] as whole numbers of a quantum, and the quantum as a DICOM decimal string [Gy].

    >>> stored, scaling = quantised([[[0.0, 2.0]]], Grid((1, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)))
    >>> bool(abs(stored[0, 0, 1] * float(scaling) - 2.0) <= float(scaling)), len(scaling) <= 16
    (True, True)
    """
    values = np.asarray(dose, dtype=np.float64)
    if values.shape != grid.shape:
        raise InputError(f"dose of shape {values.shape} does not fit the grid's {grid.shape}; expected (nz, ny, nx)")
    if not np.isfinite(values).all():
        raise InputError("the dose holds values that are NaN or infinite")
    if values.min() < 0:
        raise InputError(f"the dose falls to {values.min():g} Gy; RTDOSE stores values >= 0: clip it if this is noise")
    if values.max() == 0:
        return np.zeros(grid.shape, dtype=np.uint32), "1e-06"
    ideal = float(values.max()) / _STEPS
    unit = 10.0 ** (math.floor(math.log10(ideal)) - 7)
    scaling = f"{math.ceil(ideal / unit * (1 + 1e-12)) * unit:.7e}"
    if float(scaling) < ideal:
        scaling = f"{float(scaling) + unit:.7e}"
    return np.rint(values / float(scaling)).astype(np.uint32), scaling


def _describe(
    dataset: Dataset, dose_type: DoseType, summation: Summation, plan: str, structure_set: str, comment: str
) -> None:
    """Add what the file is, who made it, and what it refers to."""
    from pydicom.uid import RTDoseStorage, generate_uid

    now = describe_file(dataset, RTDoseStorage, "RTDOSE", "radplan dose")
    dataset.InstanceNumber = 1
    dataset.ContentDate, dataset.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.DoseUnits, dataset.DoseType, dataset.DoseSummationType = "GY", dose_type, summation
    if comment:
        dataset.DoseComment = comment
    dataset.ReferencedRTPlanSequence = [referring(_RT_PLAN, plan or generate_uid())]
    if structure_set:
        dataset.ReferencedStructureSetSequence = [referring(_STRUCTURE_SET, structure_set)]


def _place(
    dataset: Dataset, stored: npt.NDArray[np.uint32], grid: Grid, orientation: Orientation, scaling: str
) -> None:
    """Add the values [plane, row, column] and where they lie."""
    shape, steps, first = orientation.layout(grid)
    dataset.ImagePositionPatient = [decimal(p) for p in first]
    dataset.ImageOrientationPatient = [str(c) for c in orientation.cosines]
    dataset.PixelSpacing = [decimal(steps[1]), decimal(steps[2])]
    dataset.SliceThickness = decimal(steps[0])
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = shape[0], shape[1], shape[2]
    dataset.FrameIncrementPointer = 0x3004000C
    dataset.GridFrameOffsetVector = [decimal(k * steps[0]) for k in range(shape[0])]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 32, 32, 31, 0
    dataset.DoseGridScaling = scaling
    dataset.PixelData = stored.astype("<u4").tobytes()
