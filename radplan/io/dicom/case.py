"""A folder of DICOM files as a patient: the CT series and the structure set that belong together."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from radplan.errors import FileError
from radplan.geometry.frames import PATIENT_POSITIONS
from radplan.io.dicom.contours import Ends
from radplan.io.dicom.ct import CTSeries, read_ct
from radplan.io.dicom.folder import FileEntry, Folder, list_folder
from radplan.io.dicom.reading import items_of, open_dataset, reading, text_of
from radplan.io.dicom.rtstruct import read_structure_set
from radplan.patient.ct import HUTable, hu_table
from radplan.patient.patient import DensityOverride, Patient
from radplan.patient.structures import Structures

logger = logging.getLogger(__name__)

SeriesFiles = tuple[FileEntry, ...]


@dataclass(frozen=True, eq=False)
class DicomCase:
    """A patient with the series it came from.

    Parameters
    ----------
    patient : Patient
        Named after the folder, never after the person.
    series : CTSeries
        The images with their orientation and identity, for export.
    structure_set : str
        SOPInstanceUID of the RTSTRUCT file, or empty.
    """

    patient: Patient
    series: CTSeries
    structure_set: str = ""


def read_patient(
    folder: str | Path,
    series: str | None = None,
    structure_set: str | Path | None = None,
    allow_other_frame: bool = False,
    table: HUTable | str | Path = "schneider",
    ends: Ends = "flat",
    resample: bool = False,
) -> Patient:
    """Read the patient of a folder: `read_case` without the way back to the files."""
    return read_case(folder, series, structure_set, allow_other_frame, table, ends, resample).patient


def read_case(
    folder: str | Path,
    series: str | None = None,
    structure_set: str | Path | None = None,
    allow_other_frame: bool = False,
    table: HUTable | str | Path = "schneider",
    ends: Ends = "flat",
    resample: bool = False,
) -> DicomCase:
    """Read a CT series and the structure set that belongs to it.

    With one CT series and one RTSTRUCT in the folder there is nothing to choose. Of several series that is taken which
    the structure set refers to. Without a structure set the patient has no structures, which is announced, as are
    damaged files that are left out.

    Parameters
    ----------
    folder : path-like
        Where the files are; subfolders count.
    series : str, optional
        SeriesInstanceUID of the CT to take.
    structure_set : str or path-like, optional
        SOPInstanceUID or file of the RTSTRUCT to take.
    allow_other_frame : bool
        Whether contours of another frame of reference than the images' are taken as they are.
    table : HUTable, str or path-like
        From Hounsfield units to electron density.
    ends : "flat" or "tapered"
        How structures end beyond their last contours; see `fill_contours`.
    resample : bool
        Whether slices at uneven distances are brought to even ones; see `read_ct`.

    Raises
    ------
    FileError
        When there is no CT, more than one choice, a damaged DICOM file where images or structures are missing, or a
        file that contradicts the others.
    """
    folder = Path(folder)
    chosen_table = table if isinstance(table, HUTable) else hu_table(table)
    held = list_folder(folder)
    whole = held.series() and held.of("RTSTRUCT")
    if held.damaged and not whole:
        raise held.damaged[0]
    for error in held.damaged:
        logger.warning("left out: %s", error)
    if not held.series():
        kinds = ", ".join(sorted({entry.modality for entry in held.files})) or "no DICOM file"
        raise FileError(folder, f"holds no CT series (found: {kinds}); expected a folder of CT slices")
    contours = choose_structure_set(held, structure_set)
    chosen = _choose_series(held, series, contours)
    images = read_ct((entry.path for entry in chosen), resample)
    position = _position(images)
    structures, densities = Structures(), tuple[DensityOverride, ...]()
    if contours is None:
        logger.warning("%s holds no RTSTRUCT: the patient has no structures", folder)
    else:
        frame = images.frame_of_reference
        structures, densities = read_structure_set(contours.path, images.ct.grid, frame, allow_other_frame, ends)
    name = folder.name or folder.resolve().name
    patient = Patient(
        name, images.ct, structures, hu_table=chosen_table, overrides=densities, patient_position=position
    )
    return DicomCase(patient, images, contours.instance if contours else "")


def region_names(folder: str | Path) -> list[str] | None:
    """Return the names of all regions in the structure sets of a folder, without reading images or contours.

    None where they do not say what the structures will be called: no structure set, a name that repeats or is missing,
    a file that cannot be read.
    """
    names: list[str] = []
    for entry in list_folder(folder).of("RTSTRUCT"):
        try:
            dataset = open_dataset(entry.path)
            with reading(entry.path):
                items = items_of(dataset, "StructureSetROISequence")
                own = [text_of(entry.path, item, "ROIName", "") for item in items]
        except FileError:
            return None
        if "" in own or len(set(own)) < len(own):
            return None
        names += own
    return list(dict.fromkeys(names)) or None


def _position(images: CTSeries) -> str:
    """Return how the patient lay; head first supine where the files do not say."""
    stated = images.orientation.patient_position
    if stated not in ("", *PATIENT_POSITIONS):
        raise FileError(
            images.files[0], f"PatientPosition is {stated!r}; expected one of {', '.join(PATIENT_POSITIONS)}"
        )
    if not stated:
        logger.warning("the images do not say how the patient lay: head first, supine (HFS) is assumed")
    elif stated != "HFS":
        logger.warning("the patient lay %s: beam angles are those of the room, in which the patient is turned", stated)
    return stated or "HFS"


def choose_structure_set(held: Folder, wanted: str | Path | None = None) -> FileEntry | None:
    """Return the structure set of a folder: the one wanted, by SOPInstanceUID or file, or the only one there is.

    Raises
    ------
    FileError
        When the one wanted is not there, or there are several to choose from.
    """
    found = held.of("RTSTRUCT")
    if wanted is not None:
        for entry in found:
            if entry.instance == str(wanted) or entry.path.resolve() == Path(wanted).resolve():
                return entry
        raise FileError(held.path, f"holds no structure set {wanted}; {_files(found)}")
    if len(found) > 1:
        raise FileError(
            held.path,
            f"holds {len(found)} structure sets: choose one by UID or file, with structure_set= or --structure-set, "
            f"in a plan file dicom: {{structure_set: ...}}; {_files(found)}",
        )
    return found[0] if found else None


def _choose_series(held: Folder, wanted: str | None, contours: FileEntry | None) -> SeriesFiles:
    found = held.series()
    if wanted is not None:
        if wanted not in found:
            raise FileError(held.path, f"holds no CT series {wanted}; {_series(found)}")
        return found[wanted]
    if len(found) == 1:
        return next(iter(found.values()))
    if contours is not None:
        meant = [
            files
            for uid, files in found.items()
            if uid in contours.refers_to or any(entry.instance in contours.refers_to for entry in files)
        ]
        if len(meant) == 1:
            logger.info("of %d CT series that of the structure set is taken", len(found))
            return meant[0]
    raise FileError(
        held.path,
        f"holds {len(found)} CT series: choose one by its UID, with series= or --series, in a plan file "
        f"dicom: {{series: ...}}; {_series(found)}",
    )


def _files(entries: SeriesFiles) -> str:
    return "found: " + (", ".join(f"{entry.path.name} ({entry.instance})" for entry in entries) or "none")


def _series(found: Mapping[str, SeriesFiles]) -> str:
    return "found: " + ", ".join(f"{uid or 'without UID'} ({len(files)} slices)" for uid, files in found.items())
