"""What an RTPLAN belongs to: its frame of reference, structure set and prescription."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from radplan.errors import FileError
from radplan.io.dicom.reading import items_of, number_of, open_dataset, reading, text_of


@dataclass(frozen=True)
class PlanReference:
    """What a plan says of where it belongs.

    Parameters
    ----------
    instance : str
        SOPInstanceUID of the plan, or empty.
    frame_of_reference : str
        FrameOfReferenceUID of its coordinates, or empty.
    structure_set : str
        SOPInstanceUID of the structure set it was made on, or empty.
    prescription : float, optional
        Highest dose prescribed to a target, a course total [Gy].

    >>> PlanReference(prescription=46.0).frame_of_reference
    ''
    """

    instance: str = ""
    frame_of_reference: str = ""
    structure_set: str = ""
    prescription: float | None = None


def read_plan_reference(path: str | Path) -> PlanReference:
    """Return what an RTPLAN file refers to.

    Raises
    ------
    FileError
        When the file cannot be read or is no RTPLAN.
    """
    path = Path(path)
    dataset = open_dataset(path)
    with reading(path):
        if text_of(path, dataset, "Modality", "") != "RTPLAN":
            raise FileError(path, f"is a file of modality {text_of(path, dataset, 'Modality', '?')}; expected RTPLAN")
        drawn = items_of(dataset, "ReferencedStructureSetSequence")
        levels = [
            number_of(path, item, "TargetPrescriptionDose")
            for item in items_of(dataset, "DoseReferenceSequence")
            if item.get("TargetPrescriptionDose") is not None
        ]
        known = [level for level in levels if math.isfinite(level) and level > 0]
        return PlanReference(
            instance=text_of(path, dataset, "SOPInstanceUID", ""),
            frame_of_reference=text_of(path, dataset, "FrameOfReferenceUID", ""),
            structure_set=text_of(path, drawn[0], "ReferencedSOPInstanceUID", "") if drawn else "",
            prescription=max(known) if known else None,
        )
