"""A CT series: slices put in order by where they lie, checked, and brought to the patient axes."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.reading import (
    ROUNDING,
    Dataset,
    even_step,
    number_of,
    numbers_of,
    open_dataset,
    pixels_of,
    positions_of,
    reading,
    text_of,
    whole_of,
)
from radplan.io.dicom.uneven import even_slices
from radplan.patient.ct import CT
from radplan.progress import each

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

_LOWEST = -1024.0
"""Value of voxels that were not scanned, where the file marks them with less [HU]."""


_OR_ALLOW = ", or allow planes to be interpolated (resample=True; in a plan file dicom: {resample: true})"


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


def read_ct(files: Iterable[str | Path], resample: bool = False) -> CTSeries:
    """Read one CT series; the order of the files does not matter.

    Stored values become HU by each file's own rescale slope and intercept. Voxels that the scanner marked as padding
    and that lie below -1024 HU become -1024 HU. A file that cannot be read, differs from most others (a scout view) or
    repeats a slice is left out where the rest is a series without a hole. Both are announced.

    Parameters
    ----------
    files : iterable of path-like
        The slices, one per file.
    resample : bool
        Whether slices at uneven distances are taken, too: planes between them, at the smallest distance that neighbours
        have, are then interpolated linearly, and the series refers to no single image any more. This is announced.

    Raises
    ------
    FileError
        When slices are missing, damaged within the series, different at one place, unevenly spaced or sheared by a
        gantry tilt, or half of the files differ from each other; names the file and the cause.
    """
    paths = [Path(path) for path in files]
    if not paths:
        raise InputError("a CT series needs at least one file, got none")
    slices: list[_Slice] = []
    odd: list[FileError] = []
    identity: dict[str, str] = {}
    series = ""
    for path in each("patient", paths, "slices"):
        try:
            dataset = open_dataset(path)
            with reading(path):
                slices.append(_read_slice(path, dataset))
                if not identity:
                    identity = {key: text_of(path, dataset, key, "") for key in IDENTITY}
                    series = text_of(path, dataset, "SeriesInstanceUID", "")
        except FileError as error:
            odd.append(error)
    slices = _alike(slices, odd)
    if len(odd) >= max(len(slices), 1):
        raise odd[0]
    first = slices[0]
    try:
        orientation = Orientation.from_cosines(first.cosines, first.patient_position)
    except InputError as error:
        tilt = f" (the file states a gantry tilt of {first.tilt:g} degrees)" if first.tilt else ""
        raise FileError(first.path, f"{error}{tilt}") from None
    try:
        slices, step = _in_order(slices, np.asarray(orientation.along_slices, dtype=np.float64), resample)
    except FileError:
        if odd:
            raise odd[0] from None
        raise
    for reason in odd:
        logger.warning("left out of the CT: %s", reason)
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
        tuple(entry.instance for entry in slices) if all(entry.instance for entry in slices) else (),
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


def _alike(slices: list[_Slice], odd: list[FileError]) -> list[_Slice]:
    """Return the slices that most others are like; `odd` gets an error for each of the rest."""
    alike: list[_Slice] = []
    for first in slices:
        group = [other for other in slices if _difference(first, other) is None]
        alike = group if len(group) > len(alike) else alike
        if 2 * len(alike) > len(slices):
            break
    odd.extend(error for other in slices if (error := _difference(alike[0], other)) is not None)
    return alike


def _difference(first: _Slice, other: _Slice) -> FileError | None:
    """Return why two files cannot be slices of one volume, None where they can."""
    cosines = np.allclose(first.cosines, other.cosines, atol=1e-4)
    pairs = (
        ("image size (rows, columns)", first.shape, other.shape, first.shape == other.shape),
        ("PixelSpacing", *_listed(first.spacing, other.spacing), _same_spacing(first, other)),
        ("ImageOrientationPatient", *_listed(first.cosines, other.cosines), cosines),
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
    for name, usual, own, equal in pairs:
        if not equal:
            return FileError(other.path, f"{name} is {own}, that of {first.path.name} of the same series {usual}")
    return None


def _same_spacing(first: _Slice, other: _Slice) -> bool:
    """Return whether pixels lie where they lie in the other image, counted from its middle, but for rounding."""
    reach = 0.5 * np.asarray(first.shape) * np.abs(first.spacing - other.spacing)
    return bool(np.all(reach <= ROUNDING))


def _listed(one: Floats, two: Floats) -> tuple[list[float], list[float]]:
    return one.tolist(), two.tolist()


def _in_order(slices: list[_Slice], normal: Floats, resample: bool = False) -> tuple[list[_Slice], float]:
    """Return the slices by their place along the normal, and the distance between neighbours [mm]."""
    slices = sorted(slices, key=lambda entry: float(entry.position @ normal))
    places = np.asarray([entry.position @ normal for entry in slices])
    if len(slices) == 1:
        if not slices[0].thickness or not slices[0].thickness > 0:
            raise FileError(
                slices[0].path, "is the only slice and states no SliceThickness > 0; more slices are needed"
            )
        return slices, slices[0].thickness
    slices = _each_once(slices, places)
    places = np.asarray([entry.position @ normal for entry in slices])
    if len(slices) == 1:
        return _in_order(slices, normal)
    steps = np.diff(places)
    if resample and even_step(places)[1].max() > ROUNDING * min(float(steps.min()), 1.0):
        _refuse_shear(slices, normal)
        return _evened(slices, places, normal)
    usual = float(np.sort(steps)[(steps.size - 1) // 2])
    for k in np.flatnonzero(steps > 1.5 * usual):
        count = steps[k] / usual - 1
        raise FileError(
            slices[k + 1].path,
            f"lies {steps[k]:g} mm from the next slice {slices[k].path.name}, others {usual:g} mm: "
            f"{count:.3g} slice(s) are missing between them; add them{_OR_ALLOW}",
        )
    step, off = even_step(places)
    if off.max() > ROUNDING * min(usual, 1.0):
        raise FileError(
            slices[int(off.argmax())].path,
            f"lies {off.max():.3g} mm from its place in an even series: slices are {steps.min():g} to "
            f"{steps.max():g} mm apart; resample the series to even spacing{_OR_ALLOW}",
        )
    _refuse_shear(slices, normal)
    return slices, step


def _evened(slices: list[_Slice], places: Floats, normal: Floats) -> tuple[list[_Slice], float]:
    """Return slices at even places between the first and the last, interpolated; they are no files' own any more."""
    values, step = even_slices(np.stack([entry.values for entry in slices]), places)
    steps = np.diff(places)
    logger.warning(
        "slices are %g to %g mm apart: resampled to %d planes every %g mm, linear between neighbours",
        steps.min(), steps.max(), len(values), step,
    )  # fmt: skip
    nearest = [slices[int(np.argmin(np.abs(places - place)))] for place in places[0] + step * np.arange(len(values))]
    first = slices[0].position
    return [
        replace(source, values=plane, instance="", position=first + k * step * normal)
        for k, (source, plane) in enumerate(zip(nearest, values, strict=True))
    ], step


def _each_once(slices: list[_Slice], places: Floats) -> list[_Slice]:
    """Return the slices without copies of the same image; refuse two different ones at one place."""
    kept = slices[:1]
    for k in range(1, len(slices)):
        if places[k] - places[k - 1] >= 0.01:
            kept.append(slices[k])
            continue
        if not np.array_equal(slices[k].values, kept[-1].values):
            raise FileError(
                slices[k].path,
                f"lies at the same place as {kept[-1].path.name} ({places[k]:g} mm along the slices): the series holds "
                "duplicate slices; keep one of each (phases of a 4D CT belong in separate folders)",
            )
        logger.warning("%s repeats %s and is left out", slices[k].path.name, kept[-1].path.name)
    return kept


def _refuse_shear(slices: list[_Slice], normal: Floats) -> None:
    """Refuse slices that are shifted in their plane: a gantry tilt, or images cropped one by one."""
    for entry in slices[1:]:
        shift = entry.position - slices[0].position
        along = float(shift @ normal)
        across = float(np.linalg.norm(shift - along * normal))
        if across > max(ROUNDING, 1e-3 * abs(along)):
            angle = float(np.degrees(np.arctan2(across, abs(along))))
            raise FileError(
                entry.path,
                f"is shifted by {across:.3g} mm within its plane against {slices[0].path.name}: the slices are sheared "
                f"by {angle:.3g} degrees (gantry tilt); reconstruct or resample the series without tilt",
            )
