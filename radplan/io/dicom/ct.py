"""A CT series: slices put in order by where they lie, checked, and brought to the patient axes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.reading import (
    Dataset,
    number_of,
    numbers_of,
    open_dataset,
    pixels_of,
    positions_of,
    reading,
    text_of,
    whole_of,
)
from radplan.patient.ct import CT

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

IDENTITY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PositionReferenceIndicator",
)
"""What files exported for the same patient and study repeat."""

_UNEVEN = 0.1
"""Largest distance of a slice from its even place [mm], and [slice spacings] for thin slices."""

_LOWEST = -1024.0
"""Value of voxels that were not scanned, where the file marks them with less [HU]."""


@dataclass(frozen=True, eq=False)
class CTSeries:
    """A CT with the way back to the files it came from.

    Parameters
    ----------
    ct : CT
        The images, ``[z, y, x]`` in DICOM patient coordinates.
    orientation : Orientation
        How the files count rows, columns and slices; for exact export.
    frame_of_reference : str
        FrameOfReferenceUID, empty where the files state none.
    series : str
        SeriesInstanceUID.
    files : tuple of Path
        The slices in the order of their place along the files' slice direction.
    instances : tuple of str
        Their SOPInstanceUIDs.
    identity : mapping of str to str
        Attributes of the patient and study that exported files repeat; never shown or logged.
    """

    ct: CT = field(repr=False)
    orientation: Orientation
    frame_of_reference: str
    series: str
    files: tuple[Path, ...] = field(repr=False)
    instances: tuple[str, ...] = field(repr=False)
    identity: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Slice:
    """One image of a series, still in its file's order."""

    path: Path
    instance: str
    position: Floats
    cosines: Floats
    spacing: Floats
    shape: tuple[int, int]
    frame_of_reference: str
    patient_position: str
    thickness: float | None
    tilt: float
    values: npt.NDArray[np.float32] = field(repr=False)


def read_ct(files: Iterable[str | Path]) -> CTSeries:
    """Read one CT series; the order of the files does not matter.

    Stored values become HU by each file's own rescale slope and intercept. Voxels that the scanner marked as padding
    and that lie below -1024 HU become -1024 HU, which is announced.

    Parameters
    ----------
    files : iterable of path-like
        The slices, one per file.

    Raises
    ------
    FileError
        When a file is damaged, differs from the others in size, spacing, orientation or frame of reference, or when
        slices are missing, doubled, unevenly spaced or sheared by a gantry tilt; names the file and the cause.
    """
    paths = [Path(path) for path in files]
    if not paths:
        raise InputError("a CT series needs at least one file, got none")
    slices: list[_Slice] = []
    identity: dict[str, str] = {}
    series = ""
    for path in paths:
        dataset = open_dataset(path)
        with reading(path):
            slices.append(_read_slice(path, dataset))
            if not identity:
                identity = {key: text_of(path, dataset, key, "") for key in IDENTITY}
                series = text_of(path, dataset, "SeriesInstanceUID", "")
    first = slices[0]
    for other in slices[1:]:
        _check_alike(first, other)
    try:
        orientation = Orientation.from_cosines(first.cosines, first.patient_position)
    except InputError as error:
        tilt = f" (the file states a gantry tilt of {first.tilt:g} degrees)" if first.tilt else ""
        raise FileError(first.path, f"{error}{tilt}") from None
    slices, step = _in_order(slices, np.asarray(orientation.along_slices, dtype=np.float64))
    volume = orientation.to_world(np.stack([entry.values for entry in slices]))
    shape, spacing = (len(slices), *first.shape), (step, float(first.spacing[0]), float(first.spacing[1]))
    try:
        ct = CT(orientation.grid(shape, spacing, tuple(slices[0].position)), volume)
    except InputError as error:
        raise FileError(first.path, str(error)) from None
    return CTSeries(
        ct,
        orientation,
        first.frame_of_reference,
        series,
        tuple(entry.path for entry in slices),
        tuple(entry.instance for entry in slices),
        identity,
    )


def _read_slice(path: Path, dataset: Dataset) -> _Slice:
    if text_of(path, dataset, "Modality") != "CT":
        raise FileError(path, f"is a file of modality {text_of(path, dataset, 'Modality')}; expected CT")
    if dataset.get("NumberOfFrames") and whole_of(path, dataset, "NumberOfFrames") > 1:
        raise FileError(path, "is a multi-frame (enhanced) CT; export the series as one file per slice")
    spacing = positions_of(path, dataset, "PixelSpacing", 2)
    if (spacing <= 0).any():
        raise FileError(path, f"PixelSpacing is {spacing.tolist()}; expected two lengths > 0 mm")
    position = positions_of(path, dataset, "ImagePositionPatient", 3)
    cosines = numbers_of(path, dataset, "ImageOrientationPatient", 6)
    thickness = number_of(path, dataset, "SliceThickness") if dataset.get("SliceThickness") else None
    tilt = number_of(path, dataset, "GantryDetectorTilt") if dataset.get("GantryDetectorTilt") else 0.0
    values = _hounsfield(path, dataset)
    return _Slice(
        path,
        text_of(path, dataset, "SOPInstanceUID", ""),
        position,
        cosines,
        spacing,
        (int(values.shape[0]), int(values.shape[1])),
        text_of(path, dataset, "FrameOfReferenceUID", ""),
        text_of(path, dataset, "PatientPosition", ""),
        thickness,
        tilt,
        values,
    )


def _hounsfield(path: Path, dataset: Dataset) -> npt.NDArray[np.float32]:
    slope, intercept = number_of(path, dataset, "RescaleSlope"), number_of(path, dataset, "RescaleIntercept")
    if slope == 0:
        raise FileError(path, "RescaleSlope is 0; expected the factor from stored values to HU")
    if text_of(path, dataset, "RescaleType", "HU").upper() not in ("HU", "US"):
        raise FileError(path, f"RescaleType is {dataset.RescaleType}; expected HU")
    stored = pixels_of(path, dataset)
    if stored.ndim != 2:
        raise FileError(path, f"holds an image of shape {stored.shape}; expected rows x columns")
    values = (stored.astype(np.float64) * slope + intercept).astype(np.float32)
    if not np.isfinite(values).all():
        raise FileError(path, f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give values beyond any HU")
    if dataset.get("PixelPaddingValue") is not None:
        padded = (stored == whole_of(path, dataset, "PixelPaddingValue")) & (values < _LOWEST)
        if padded.any():
            logger.info("%s: %d voxels outside the scanned field become %g HU", path.name, padded.sum(), _LOWEST)
            values[padded] = _LOWEST
    return values


def _check_alike(first: _Slice, other: _Slice) -> None:
    """Refuse two files that cannot be slices of one volume."""
    pairs = (
        ("image size (rows, columns)", first.shape, other.shape, first.shape == other.shape),
        ("PixelSpacing", *_listed(first.spacing, other.spacing), np.allclose(first.spacing, other.spacing, atol=1e-4)),
        (
            "ImageOrientationPatient",
            *_listed(first.cosines, other.cosines),
            np.allclose(first.cosines, other.cosines, atol=1e-4),
        ),
        (
            "FrameOfReferenceUID",
            first.frame_of_reference,
            other.frame_of_reference,
            first.frame_of_reference == other.frame_of_reference,
        ),
        (
            "PatientPosition",
            first.patient_position,
            other.patient_position,
            first.patient_position == other.patient_position,
        ),
    )
    for name, one, two, equal in pairs:
        if not equal:
            raise FileError(other.path, f"{name} is {two}, that of {first.path.name} of the same series {one}")


def _listed(one: Floats, two: Floats) -> tuple[list[float], list[float]]:
    return one.tolist(), two.tolist()


def _in_order(slices: list[_Slice], normal: Floats) -> tuple[list[_Slice], float]:
    """Return the slices by their place along the normal, and the distance between neighbours [mm]."""
    slices = sorted(slices, key=lambda entry: float(entry.position @ normal))
    places = np.asarray([entry.position @ normal for entry in slices])
    if len(slices) == 1:
        if not slices[0].thickness or not slices[0].thickness > 0:
            raise FileError(
                slices[0].path, "is the only slice and states no SliceThickness > 0; more slices are needed"
            )
        return slices, slices[0].thickness
    steps = np.diff(places)
    for k in np.flatnonzero(steps < 0.01):
        raise FileError(
            slices[k + 1].path,
            f"lies at the same place as {slices[k].path.name} ({places[k]:g} mm along the slices): the series holds "
            "duplicate slices; keep one of each (phases of a 4D CT belong in separate folders)",
        )
    usual = float(np.sort(steps)[(steps.size - 1) // 2])
    for k in np.flatnonzero(steps > 1.5 * usual):
        count = steps[k] / usual - 1
        raise FileError(
            slices[k + 1].path,
            f"lies {steps[k]:g} mm from the next slice {slices[k].path.name}, others {usual:g} mm: "
            f"{count:.3g} slice(s) are missing between them; add them or resample the series",
        )
    even = places[0] + np.arange(len(slices)) * (places[-1] - places[0]) / (len(slices) - 1)
    off = np.abs(places - even)
    if off.max() > _UNEVEN * min(usual, 1.0):
        raise FileError(
            slices[int(off.argmax())].path,
            f"lies {off.max():.3g} mm from its place in an even series: slices are {steps.min():g} to "
            f"{steps.max():g} mm apart; resample the series to even spacing",
        )
    _refuse_shear(slices, normal)
    return slices, float(np.round((places[-1] - places[0]) / (len(slices) - 1), 9))


def _refuse_shear(slices: list[_Slice], normal: Floats) -> None:
    """Refuse slices that are shifted in their plane: a gantry tilt, or images cropped one by one."""
    for entry in slices[1:]:
        shift = entry.position - slices[0].position
        along = float(shift @ normal)
        across = float(np.linalg.norm(shift - along * normal))
        if across > max(0.01, 1e-3 * abs(along)):
            angle = float(np.degrees(np.arctan2(across, abs(along))))
            raise FileError(
                entry.path,
                f"is shifted by {across:.3g} mm within its plane against {slices[0].path.name}: the slices are sheared "
                f"by {angle:.3g} degrees (gantry tilt); reconstruct or resample the series without tilt",
            )
