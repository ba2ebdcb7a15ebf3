"""Dose on a DICOM grid: RTDOSE files of any orientation, in gray, physical or weighted by biology."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.reading import (
    ROUNDING,
    Dataset,
    even_step,
    items_of,
    number_of,
    numbers_of,
    open_dataset,
    pixels_of,
    positions_of,
    reading,
    text_of,
)

Floats = npt.NDArray[np.float64]

DOSE_TYPES = ("PHYSICAL", "EFFECTIVE", "ERROR")
"""DICOM DoseType: absorbed dose, dose weighted by biological effectiveness, or a difference of doses."""

_STARTS = 0.01
"""An offset this close to 0 starts offsets that count from the image position [mm]."""


@dataclass(frozen=True, eq=False)
class DoseImage:
    """A dose distribution as another system stored it.

    Parameters
    ----------
    grid : Grid
        Where the voxels lie, in DICOM patient coordinates.
    dose : array of shape (nz, ny, nx)
        Dose as stored: course total or one fraction, as `summation` says [Gy]; [Gy(RBE)] for ``EFFECTIVE``.
    dose_type : {"PHYSICAL", "EFFECTIVE", "ERROR"}
        What kind of dose it is.
    summation : str
        What is summed: PLAN, FRACTION, BEAM, ... (DoseSummationType).
    frame_of_reference : str
        FrameOfReferenceUID.
    orientation : Orientation
        How the file counts planes, rows and columns.
    quantum : float
        Dose of one stored step [Gy].
    plan : str
        SOPInstanceUID of the plan it belongs to, or empty.
    """

    grid: Grid
    dose: Floats = field(repr=False)
    dose_type: str
    summation: str
    frame_of_reference: str
    orientation: Orientation
    quantum: float
    plan: str = ""


def read_dose(path: str | Path, frame_of_reference: str | None = None, allow_other_frame: bool = False) -> DoseImage:
    """Read an RTDOSE file.

    Planes may be given relative to the first (GridFrameOffsetVector starts at 0) or by their z coordinate, rising or
    falling.

    Parameters
    ----------
    path : path-like
        The file.
    frame_of_reference : str, optional
        FrameOfReferenceUID it must have; None: not checked.
    allow_other_frame : bool
        Whether another one is taken nevertheless.

    Raises
    ------
    FileError
        When the file is damaged, no RTDOSE, not in Gy, oblique, uneven, or in another frame of reference.
    """
    path = Path(path)
    dataset = open_dataset(path)
    with reading(path):
        if text_of(path, dataset, "Modality", "") != "RTDOSE":
            raise FileError(path, f"is a file of modality {text_of(path, dataset, 'Modality', '?')}; expected RTDOSE")
        frame = text_of(path, dataset, "FrameOfReferenceUID", "")
        if frame_of_reference is not None and frame != frame_of_reference and not allow_other_frame:
            raise FileError(
                path,
                f"its frame of reference is {frame or 'not stated'}, expected {frame_of_reference}: positions may not "
                "agree; allow_other_frame=True if you know that both share coordinates",
            )
        unit, kind = text_of(path, dataset, "DoseUnits").upper(), text_of(path, dataset, "DoseType").upper()
        if unit != "GY":
            raise FileError(path, f"DoseUnits is {unit}; expected GY: export the dose as absolute dose")
        if kind not in DOSE_TYPES:
            raise FileError(path, f"DoseType is {kind}; expected one of {', '.join(DOSE_TYPES)}")
        scaling = number_of(path, dataset, "DoseGridScaling")
        if not 0 < scaling < 1e6:
            raise FileError(path, f"DoseGridScaling is {scaling:g} Gy; expected a factor > 0")
        try:
            orientation, grid, stored = _read_volume(path, dataset)
        except InputError as error:
            raise FileError(path, str(error)) from None
        plans = items_of(dataset, "ReferencedRTPlanSequence")
        plan = text_of(path, plans[0], "ReferencedSOPInstanceUID", "") if plans else ""
        summation = text_of(path, dataset, "DoseSummationType", "")
        return DoseImage(grid, scaling * stored, kind, summation, frame, orientation, scaling, plan)


def _read_volume(path: Path, dataset: Dataset) -> tuple[Orientation, Grid, Floats]:
    """Return orientation, grid and stored values [z, y, x]."""
    orientation = Orientation.from_cosines(
        numbers_of(path, dataset, "ImageOrientationPatient", 6), text_of(path, dataset, "PatientPosition", "")
    )
    first = positions_of(path, dataset, "ImagePositionPatient", 3)
    spacing = positions_of(path, dataset, "PixelSpacing", 2)
    if (spacing <= 0).any():
        raise FileError(path, f"PixelSpacing is {spacing.tolist()}; expected two lengths > 0 mm")
    stored = pixels_of(path, dataset)
    stored = stored[None] if stored.ndim == 2 else stored
    if stored.ndim != 3:
        raise FileError(path, f"holds an image of shape {stored.shape}; expected planes x rows x columns")
    offsets = _plane_offsets(path, dataset, orientation, first, stored.shape[0])
    if offsets[-1] < offsets[0]:
        stored, offsets = stored[::-1], offsets[::-1]
    first = first + offsets[0] * np.asarray(orientation.along_slices)
    step = _plane_step(path, dataset, offsets)
    shape = (int(stored.shape[0]), int(stored.shape[1]), int(stored.shape[2]))
    grid = orientation.grid(shape, (step, float(spacing[0]), float(spacing[1])), first.tolist())
    return orientation, grid, orientation.to_world(stored.astype(np.float64))


def _plane_offsets(path: Path, dataset: Dataset, orientation: Orientation, first: Floats, planes: int) -> Floats:
    """Return the distance of each plane from the image position along the planes' normal (planes,) [mm]."""
    if planes == 1 and not dataset.get("GridFrameOffsetVector"):
        return np.zeros(1)
    offsets = positions_of(path, dataset, "GridFrameOffsetVector", planes)
    if abs(offsets[0]) < _STARTS:
        return offsets
    normal = orientation.along_slices
    if normal[2] == 0 or abs(offsets[0] - first[2]) > ROUNDING:
        raise FileError(
            path,
            f"GridFrameOffsetVector starts at {offsets[0]:g} mm; expected 0 or, in axial images, the z of "
            f"ImagePositionPatient ({first[2]:g} mm)",
        )
    return np.asarray((offsets - first[2]) * normal[2])


def _plane_step(path: Path, dataset: Dataset, offsets: Floats) -> float:
    if offsets.size == 1:
        if not dataset.get("SliceThickness") or number_of(path, dataset, "SliceThickness") <= 0:
            raise FileError(path, "holds one dose plane and no SliceThickness > 0: its thickness is not known")
        return number_of(path, dataset, "SliceThickness")
    step, off = even_step(offsets)
    if step <= 0 or off.max() > ROUNDING * min(step, 1.0):
        steps = np.diff(offsets)
        raise FileError(
            path, f"dose planes are {steps.min():g} to {steps.max():g} mm apart; resample the dose to even planes"
        )
    return step
