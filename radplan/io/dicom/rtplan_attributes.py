"""What DICOM asks of a photon RTPLAN, attribute by attribute; knows nothing of how radplan writes one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

Dataset = Any
Finding = tuple[str, str]

# Source: DICOM PS3.3, A.20.3 (RT Plan IOD), C.8.8.9 to C.8.8.14. Type 1: present and filled; type 2: present.
_PLAN_1 = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "RTPlanLabel",
    "RTPlanGeometry", "FractionGroupSequence", "BeamSequence",
)  # fmt: skip
_PLAN_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber",
    "ReferringPhysicianName", "StudyID", "SeriesNumber", "Manufacturer", "RTPlanDate", "RTPlanTime",
)  # fmt: skip
_GROUP_1 = ("FractionGroupNumber", "NumberOfBeams", "NumberOfBrachyApplicationSetups")
_GROUP_2 = ("NumberOfFractionsPlanned",)
_BEAM_1 = (
    "BeamNumber", "BeamType", "BeamLimitingDeviceSequence", "NumberOfWedges", "NumberOfCompensators", "NumberOfBoli",
    "NumberOfBlocks", "NumberOfControlPoints", "ControlPointSequence",
)  # fmt: skip
_BEAM_2 = ("RadiationType", "TreatmentMachineName")
_DEVICE_1 = ("RTBeamLimitingDeviceType", "NumberOfLeafJawPairs")
_FIRST_1 = (
    "GantryAngle", "GantryRotationDirection", "BeamLimitingDeviceAngle", "BeamLimitingDeviceRotationDirection",
    "PatientSupportAngle", "PatientSupportRotationDirection", "BeamLimitingDevicePositionSequence",
)  # fmt: skip
_FIRST_2 = (
    "IsocenterPosition", "TableTopVerticalPosition", "TableTopLongitudinalPosition", "TableTopLateralPosition",
)  # fmt: skip
_REFERENCE_1 = ("DoseReferenceNumber", "DoseReferenceStructureType", "DoseReferenceType")

_LENGTHS = {"DS": 16, "SH": 16, "CS": 16, "IS": 12, "LO": 64, "UI": 64}
_UID = re.compile(r"^(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+$")
_DECIMAL = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_GROUPS = (0x3002, 0x300A, 0x300C, 0x0020)
"""Groups of attributes whose values are looked at; others may have been changed to hide who the patient is."""

_WORDS = {
    "BeamType": ("STATIC", "DYNAMIC"),
    "RadiationType": ("PHOTON",),
    "PrimaryDosimeterUnit": ("MU",),
    "RTPlanGeometry": ("PATIENT", "TREATMENT_DEVICE"),
    "GantryRotationDirection": ("CW", "CC", "NONE"),
}


def attribute_findings(dataset: Dataset) -> Iterator[Finding]:
    """Tell what a file lacks or says in a way that is not allowed, as (place, what)."""
    yield from _value_findings(dataset, "plan")
    yield from _lacking(dataset, "plan", _PLAN_1, _PLAN_2)
    if str(dataset.get("RTPlanGeometry", "")) == "PATIENT" and not dataset.get("ReferencedStructureSetSequence"):
        yield "plan", "has RTPlanGeometry PATIENT, but no ReferencedStructureSetSequence"
    for number, item in _items(dataset, "DoseReferenceSequence"):
        yield from _lacking(item, f"dose reference {number}", _REFERENCE_1, ())
    for number, item in _items(dataset, "FractionGroupSequence"):
        yield from _lacking(item, f"fraction group {number}", _GROUP_1, _GROUP_2)
    for number, beam in _items(dataset, "BeamSequence"):
        yield from _beam_findings(beam, f"beam {beam.get('BeamNumber', f'at place {number}')}")
    yield from _reference_findings(dataset)


def _beam_findings(beam: Dataset, where: str) -> Iterator[Finding]:
    yield from _lacking(beam, where, _BEAM_1, _BEAM_2)
    for number, device in _items(beam, "BeamLimitingDeviceSequence"):
        yield from _lacking(device, f"{where}, beam-limiting device {number}", _DEVICE_1, ())
    if not beam.get("FinalCumulativeMetersetWeight"):
        yield where, "has no FinalCumulativeMetersetWeight"
    points = list(beam.get("ControlPointSequence") or [])
    if str(beam.get("NumberOfControlPoints", "")) != str(len(points)):
        yield where, f"says {beam.get('NumberOfControlPoints')} control points, but has {len(points)}"
    if points:
        yield from _lacking(points[0], f"{where}, control point 0", _FIRST_1, _FIRST_2)
    for index, point in enumerate(points):
        place = f"{where}, control point {index}"
        if str(point.get("ControlPointIndex", "")) != str(index):
            yield place, f"has ControlPointIndex {point.get('ControlPointIndex')}"
        if point.get("CumulativeMetersetWeight") is None:
            yield place, "has no CumulativeMetersetWeight"
        if str(point.get("GantryRotationDirection", "NONE")) not in (*_WORDS["GantryRotationDirection"], "CCW"):
            yield place, f"has GantryRotationDirection {point.GantryRotationDirection}"
    for keyword in ("BeamType", "RadiationType", "PrimaryDosimeterUnit"):
        given = str(beam.get(keyword, "") or "")
        if given and given not in _WORDS[keyword]:
            yield where, f"has {keyword} {given}; expected {' or '.join(_WORDS[keyword])}"


def _reference_findings(dataset: Dataset) -> Iterator[Finding]:
    """Tell which numbers refer to nothing, or are not the only ones of their kind."""
    beams = [str(beam.get("BeamNumber", "")) for _, beam in _items(dataset, "BeamSequence")]
    for number in sorted({number for number in beams if beams.count(number) > 1}):
        yield "plan", f"has {beams.count(number)} beams of number {number}"
    setups = {str(item.get("PatientSetupNumber", "")) for _, item in _items(dataset, "PatientSetupSequence")}
    tables = {str(item.get("ToleranceTableNumber", "")) for _, item in _items(dataset, "ToleranceTableSequence")}
    for _, beam in _items(dataset, "BeamSequence"):
        for keyword, known in (("ReferencedPatientSetupNumber", setups), ("ReferencedToleranceTableNumber", tables)):
            given = beam.get(keyword)
            if given is not None and str(given) not in known:
                yield f"beam {beam.get('BeamNumber')}", f"refers to {keyword} {given}, which the plan does not have"
    for place, group in _items(dataset, "FractionGroupSequence"):
        named = [str(item.get("ReferencedBeamNumber", "")) for _, item in _items(group, "ReferencedBeamSequence")]
        for name in named:
            if name not in beams:
                yield f"fraction group {place}", f"refers to beam {name}, which the plan does not have"
        if str(group.get("NumberOfBeams", "")) != str(len(named)):
            yield f"fraction group {place}", f"says {group.get('NumberOfBeams')} beams, but refers to {len(named)}"


def _value_findings(dataset: Dataset, where: str) -> Iterator[Finding]:
    """Tell which texts are longer than their value representation allows, and which numbers and UIDs are none."""
    from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
    from pydicom.dataelem import RawDataElement

    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        vr = element.VR
        if vr is None and dictionary_has_tag(tag):
            vr = dictionary_VR(tag)
        if vr == "SQ":
            for number, item in enumerate(dataset[tag].value):
                yield from _value_findings(item, f"{where}, {keyword_for_tag(tag)}[{number}]")
            continue
        if tag.group not in _GROUPS or vr not in _LENGTHS:
            continue
        if isinstance(element, RawDataElement):
            text = (element.value or b"").decode("latin-1")
            parts: Sequence[str] = text.rstrip("\0 ").split("\\")
        else:
            value = element.value
            parts = [str(part) for part in (value if isinstance(value, list | tuple) else [value]) if part is not None]
        yield from _part_findings(parts, vr, where, keyword_for_tag(tag))


def _part_findings(parts: Sequence[str], vr: str, where: str, keyword: str) -> Iterator[Finding]:
    for part in parts:
        said = part.strip()
        if not said:
            continue
        if len(part.rstrip(" \0")) > _LENGTHS[vr]:
            yield where, f"{keyword} holds {said!r}, longer than the {_LENGTHS[vr]} characters of {vr}"
        elif vr == "UI" and not _UID.match(said):
            yield where, f"{keyword} holds {said!r}, which is no UID"
        elif vr == "DS" and not _DECIMAL.match(said):
            yield where, f"{keyword} holds {said!r}, which is no finite decimal number"


def _lacking(dataset: Dataset, where: str, filled: Sequence[str], present: Sequence[str]) -> Iterator[Finding]:
    for keyword in filled:
        if keyword not in dataset:
            yield where, f"has no {keyword}"
        elif dataset[keyword].is_empty:
            yield where, f"has an empty {keyword}"
    for keyword in present:
        if keyword not in dataset:
            yield where, f"has no {keyword} (it may be empty)"


def _items(dataset: Dataset, keyword: str) -> Iterator[tuple[int, Dataset]]:
    yield from enumerate(dataset.get(keyword) or [], start=1)
