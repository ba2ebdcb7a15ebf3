"""What a folder of DICOM files holds: patients, studies, series, and which refers to which."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from radplan.errors import FileError
from radplan.io.dicom.reading import Dataset, is_dicom, items_of, open_dataset, reading, text_of


@dataclass(frozen=True)
class FileEntry:
    """One DICOM file: what it is and what it refers to; nothing that is shown of it names the patient.

    Parameters
    ----------
    path : Path
        Where it lies.
    modality : str
        CT, RTSTRUCT, RTDOSE, RTPLAN, ...
    patient : str
        Eight hexadecimal digits that are equal for files of one patient.
    study, series, instance : str
        StudyInstanceUID, SeriesInstanceUID and SOPInstanceUID.
    frame_of_reference : str
        FrameOfReferenceUID, empty where the file states none.
    description : str
        SeriesDescription or StructureSetLabel or RTPlanLabel: free text, in which a name may stand.
    refers_to : frozenset of str
        UIDs of the series and files it refers to.
    localizer : bool
        Whether it is a scout view, no slice.
    """

    path: Path
    modality: str
    patient: str = ""
    study: str = ""
    series: str = ""
    instance: str = ""
    frame_of_reference: str = ""
    description: str = field(default="", repr=False)
    refers_to: frozenset[str] = frozenset()
    localizer: bool = False


@dataclass(frozen=True)
class Folder:
    """The DICOM files below a folder.

    Parameters
    ----------
    path : Path
        The folder.
    files : tuple of FileEntry
        The readable ones, by path.
    damaged : tuple of FileError
        Why each of the others cannot be read.
    others : int
        Number of files that are not DICOM.
    """

    path: Path
    files: tuple[FileEntry, ...]
    damaged: tuple[FileError, ...] = field(default=(), repr=False)
    others: int = 0

    def of(self, modality: str) -> tuple[FileEntry, ...]:
        """Return the files of one modality."""
        return tuple(entry for entry in self.files if entry.modality == modality)

    def series(self, modality: str = "CT") -> dict[str, tuple[FileEntry, ...]]:
        """Return the files of each image series by SeriesInstanceUID, scout views left out."""
        found: dict[str, list[FileEntry]] = {}
        for entry in self.of(modality):
            if not entry.localizer:
                found.setdefault(entry.series, []).append(entry)
        return {uid: tuple(entries) for uid, entries in found.items()}


def list_folder(path: str | Path) -> Folder:
    """Return what a folder and its subfolders hold; files that are not DICOM are counted, damaged ones are kept apart.

    Parameters
    ----------
    path : path-like
        A folder, or one file.

    Raises
    ------
    FileError
        When it does not exist or cannot be listed.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(path, "no such file or folder")
    try:
        paths = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    except OSError as error:
        raise FileError(path, f"cannot be listed: {error.strerror or error}") from None
    files: list[FileEntry] = []
    damaged: list[FileError] = []
    others = 0
    for file in paths:
        try:
            if is_dicom(file):
                files.append(read_entry(file))
            else:
                others += 1
        except FileError as error:
            damaged.append(error)
    return Folder(path, tuple(files), tuple(damaged), others)


def read_entry(path: Path) -> FileEntry:
    """Return what one DICOM file is and refers to.

    Raises
    ------
    FileError
        When it cannot be read as DICOM; says why.
    """
    dataset = open_dataset(path, pixels=False)
    with reading(path):
        modality = text_of(path, dataset, "Modality")
        known = text_of(path, dataset, "PatientID", "") + "\0" + text_of(path, dataset, "PatientName", "")
        kinds = text_of(path, dataset, "ImageType", "")
        labels = (text_of(path, dataset, key, "") for key in ("SeriesDescription", "StructureSetLabel", "RTPlanLabel"))
        return FileEntry(
            path,
            modality,
            hashlib.sha256(known.encode()).hexdigest()[:8],
            text_of(path, dataset, "StudyInstanceUID", ""),
            text_of(path, dataset, "SeriesInstanceUID", ""),
            text_of(path, dataset, "SOPInstanceUID", ""),
            text_of(path, dataset, "FrameOfReferenceUID", ""),
            next((label for label in labels if label), ""),
            _references(path, dataset, modality),
            "LOCALIZER" in kinds.upper(),
        )


def describe_folder(path: str | Path, descriptions: bool = False) -> str:
    """Return a listing of a folder's patients, studies and series, with what refers to what, as text.

    Patients are told apart by eight hexadecimal digits; no name, birth date or patient number appears.

    Parameters
    ----------
    path : path-like
        The folder.
    descriptions : bool
        Whether series descriptions and labels are shown: free text, in which names may stand.

    Raises
    ------
    FileError
        When the folder does not exist.
    """
    folder = list_folder(path)
    lines = [f"{folder.path}: {len(folder.files)} DICOM files, {folder.others} others, {len(folder.damaged)} damaged"]
    labels = {uid: label for label, uid, _ in _named_series(folder.files)}
    owners = {entry.instance: labels[entry.series] for entry in folder.files}
    for patient in _ordered(entry.patient for entry in folder.files):
        lines.append(f"patient {patient}")
        held = [entry for entry in folder.files if entry.patient == patient]
        for number, study in enumerate(_ordered(entry.study for entry in held), start=1):
            lines.append(f"  study {number} ({study or 'without UID'})")
            for label, _, entries in _named_series(folder.files):
                inside = [entry for entry in entries if entry.patient == patient and entry.study == study]
                if inside:
                    shown = f" {inside[0].description!r}" if descriptions and inside[0].description else ""
                    lines.extend(_series_lines(label + shown, inside, labels, owners))
    lines.extend(f"damaged: {error}" for error in folder.damaged)
    return "\n".join(lines)


def _series_lines(label: str, entries: list[FileEntry], labels: dict[str, str], owners: dict[str, str]) -> list[str]:
    first = entries[0]
    count = f"{len(entries)} file{'s' if len(entries) > 1 else ''}"
    frames = _ordered(entry.frame_of_reference for entry in entries if entry.frame_of_reference)
    lines = [f"    {label}: {count}, e.g. {first.path.name}, series {first.series or 'without UID'}"]
    if frames:
        lines.append(f"      frame of reference {', '.join(frames)}")
    meant = frozenset().union(*(entry.refers_to for entry in entries))
    here = _ordered([labels[uid] for uid in sorted(meant) if uid in labels])
    here = _ordered([*here, *(owners[uid] for uid in sorted(meant) if uid in owners)])
    if here:
        lines.append(f"      refers to {', '.join(here)}")
    elif meant:
        lines.append("      refers to files that are not here")
    return lines


def _named_series(files: Iterable[FileEntry]) -> list[tuple[str, str, list[FileEntry]]]:
    """Return label, UID and files of each series; labels such as ``CT 1`` count per modality."""
    found: dict[str, list[FileEntry]] = {}
    for entry in files:
        found.setdefault(entry.series, []).append(entry)
    counts: dict[str, int] = {}
    named: list[tuple[str, str, list[FileEntry]]] = []
    for uid, entries in found.items():
        modality = entries[0].modality
        counts[modality] = counts.get(modality, 0) + 1
        named.append((f"{modality} {counts[modality]}", uid, entries))
    return named


def _ordered(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _references(path: Path, dataset: Dataset, modality: str) -> frozenset[str]:
    found: set[str] = set()
    for keyword in ("ReferencedStructureSetSequence", "ReferencedRTPlanSequence", "ReferencedDoseSequence"):
        found |= {text_of(path, item, "ReferencedSOPInstanceUID", "") for item in items_of(dataset, keyword)}
    if modality == "RTSTRUCT":
        for frame in items_of(dataset, "ReferencedFrameOfReferenceSequence"):
            for study in items_of(frame, "RTReferencedStudySequence"):
                series = items_of(study, "RTReferencedSeriesSequence")
                found |= {text_of(path, item, "SeriesInstanceUID", "") for item in series}
        if not found - {""}:
            for roi in items_of(dataset, "ROIContourSequence"):
                for contour in items_of(roi, "ContourSequence"):
                    images = items_of(contour, "ContourImageSequence")
                    found |= {text_of(path, item, "ReferencedSOPInstanceUID", "") for item in images}
    return frozenset(found - {""})
