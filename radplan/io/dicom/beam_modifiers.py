"""What a plan file states of a beam beside its openings: refused where it shapes or moves it, told where not known."""

from __future__ import annotations

import logging
from pathlib import Path

from radplan.errors import FileError
from radplan.io.dicom.reading import Dataset, items_of, number_of, text_of, whole_of

logger = logging.getLogger(__name__)

TILTS = ("GantryPitchAngle", "TableTopPitchAngle", "TableTopRollAngle", "TableTopEccentricAngle")
"""Turns that are calculated only at 0 [degree]."""

_TABLE = ("TableTopVerticalPosition", "TableTopLongitudinalPosition", "TableTopLateralPosition")

_TRAYS = {"TotalBlockTrayFactor": 1.0, "TotalCompensatorTrayFactor": 1.0, "TotalBlockTrayWaterEquivalentThickness": 0.0}
_TRAYS |= {"TotalWedgeTrayWaterEquivalentThickness": 0.0, "TotalCompensatorTrayWaterEquivalentThickness": 0.0}
"""Attributes of trays in the beam, and the value of none."""

_BEAM_WORDS = """
    BeamNumber BeamName BeamDescription BeamType RadiationType TreatmentMachineName PrimaryDosimeterUnit
    SourceAxisDistance BeamLimitingDeviceSequence TreatmentDeliveryType FinalCumulativeMetersetWeight
    NumberOfControlPoints ControlPointSequence PrimaryFluenceModeSequence NumberOfWedges WedgeSequence
    NumberOfCompensators CompensatorSequence NumberOfBoli ReferencedBolusSequence NumberOfBlocks BlockSequence
    ApplicatorSequence GeneralAccessorySequence HighDoseTechniqueType Manufacturer ManufacturerModelName
    InstitutionName InstitutionAddress InstitutionalDepartmentName InstitutionalDepartmentTypeCodeSequence
    DeviceSerialNumber SoftwareVersions ManufacturerDeviceClassUID ManufacturerDeviceIdentifier
    DateOfManufacture DateOfInstallation DeviceAlternateIdentifier UDISequence ReferencedPatientSetupNumber
    ReferencedToleranceTableNumber ReferencedReferenceImageSequence ReferencedDoseSequence
    ReferencedDoseReferenceSequence PlannedVerificationImageSequence EntityLongLabel
    EquipmentFrameOfReferenceUID TreatmentMachineSequence DoseCalibrationConditionsVerifiedFlag
    DoseCalibrationConditionsSequence RadiationDeviceConfigurationAndCommissioningKeySequence
    ReferencedSetupImageSequence DepthValueAveragingFlag BeamDeliveryDurationLimit RadiationMachineName
"""
_BEAM = frozenset([*_BEAM_WORDS.split(), *_TRAYS])
"""Attributes of a beam that are understood, or say nothing about its dose."""

_POINT_WORDS = """
    ControlPointIndex CumulativeMetersetWeight NominalBeamEnergy NominalBeamEnergyUnit DoseRateSet GantryAngle
    GantryRotationDirection GantryPitchRotationDirection BeamLimitingDeviceAngle
    BeamLimitingDeviceRotationDirection PatientSupportAngle PatientSupportRotationDirection
    BeamLimitingDevicePositionSequence IsocenterPosition SourceToSurfaceDistance SurfaceEntryPoint
    SourceToExternalContourDistance ExternalContourEntryPoint TableTopEccentricRotationDirection
    TableTopEccentricAxisDistance TableTopPitchRotationDirection TableTopRollRotationDirection
    TableTopPositionAlignmentUID WedgePositionSequence ReferencedDoseReferenceSequence ReferencedDoseSequence
    CumulativeDoseReferenceCoefficient
"""
_POINT = frozenset([*_POINT_WORDS.split(), *TILTS, *_TABLE])
"""Attributes of a control point that are understood, or say nothing about its dose."""

_SHADOWS = ("GRATICULE", "IMAGE_DETECTOR", "RETICLE")
"""Accessories in the beam's way that attenuate next to nothing."""


def check_modifiers(path: Path, beam: Dataset, label: str) -> None:
    """Raise `FileError` for what stands in the beam and would not be calculated; tell of a bolus and the unknown."""
    if _count(path, beam, "NumberOfWedges", "WedgeSequence") and not _wedges_are_out(path, beam):
        raise FileError(path, "has wedges, which are not calculated; plan it without")
    if _count(path, beam, "NumberOfBlocks", "BlockSequence"):
        raise FileError(path, "has blocks, which are not calculated; plan it without")
    if any(text_of(path, item, "MaterialID", "") for item in items_of(beam, "CompensatorSequence")):
        raise FileError(path, "has compensators, which are not calculated; plan it without")
    for item in items_of(beam, "ApplicatorSequence"):
        said = [text_of(path, item, f"Applicator{key}", "") for key in ("Type", "ID", "Description")]
        raise FileError(
            path,
            f"has an applicator or cone ({', '.join(filter(None, said))}), which is not calculated; plan it without",
        )
    for item in items_of(beam, "GeneralAccessorySequence"):
        kind = text_of(path, item, "GeneralAccessoryType", "") or "of no stated type"
        if kind not in _SHADOWS:
            raise FileError(path, f"has an accessory ({kind}), which is not calculated; plan it without")
    for keyword, none in _TRAYS.items():
        if beam.get(keyword) is not None and abs(number_of(path, beam, keyword) - none) > 1e-6:
            raise FileError(path, f"{keyword} is {number_of(path, beam, keyword):g}: trays are not calculated")
    technique = text_of(path, beam, "HighDoseTechniqueType", "NORMAL")
    if technique != "NORMAL":
        logger.warning("%s: is of the technique %s; its dose is calculated as of any field", label, technique)
    if _count(path, beam, "NumberOfBoli", "ReferencedBolusSequence"):
        logger.warning(
            "%s: names a bolus; it counts where it lies in the CT inside the external contour, and where its density "
            "is given, by its structure or with_density(..., dosed=True)",
            label,
        )
    unknown = _unknown(beam, _BEAM)
    unknown |= set().union(*(_unknown(item, _POINT) for item in items_of(beam, "ControlPointSequence")))
    if unknown:
        logger.warning("%s: states %s, which is not looked at", label, ", ".join(sorted(unknown)))


def check_compensators(path: Path, beam: Dataset, technique: str) -> None:
    """Raise for a compensator without material where leaves do not move: it is not what a sliding window came from."""
    if technique in ("static", "arc") and _count(path, beam, "NumberOfCompensators", "CompensatorSequence"):
        raise FileError(path, "has compensators, and leaves that do not make their fluence; plan it without")


def check_pose(path: Path, item: Dataset, before: dict[str, float], moved: bool) -> None:
    """Raise for turns that are not calculated, and for a table that moves under an isocentre that does not.

    Parameters
    ----------
    path : Path
        For messages.
    item : Dataset
        A control point.
    before : dict of str to float
        Table positions stated so far [mm]; those of this control point are added.
    moved : bool
        Whether the isocentre has moved in the patient since the first control point.
    """
    for keyword in TILTS:
        tilt = number_of(path, item, keyword) if item.get(keyword) is not None else 0.0
        if min(tilt % 360.0, -tilt % 360.0) > 1e-3:
            raise FileError(path, f"{keyword} is {tilt:g} degree; only 0 is calculated")
    for keyword in _TABLE:
        if item.get(keyword) is not None:
            position = number_of(path, item, keyword)
            if not moved and abs(before.setdefault(keyword, position) - position) > 0.1:
                raise FileError(
                    path,
                    f"{keyword} moves from {before[keyword]:g} to {position:g} mm, but the isocentre does not move in "
                    "the patient: a table that moves under beam is not calculated",
                )


def _count(path: Path, beam: Dataset, keyword: str, sequence: str) -> int:
    """Return how many there are by the number stated or the items listed, whichever is more."""
    stated = whole_of(path, beam, keyword) if beam.get(keyword) is not None else 0
    return max(stated, len(items_of(beam, sequence)))


def _wedges_are_out(path: Path, beam: Dataset) -> bool:
    """Return whether every wedge is stated to be out, at the first control point and wherever it is stated again."""
    count = _count(path, beam, "NumberOfWedges", "WedgeSequence")
    points = items_of(beam, "ControlPointSequence")
    stated = [items_of(point, "WedgePositionSequence") for point in points]
    out = all(text_of(path, item, "WedgePosition", "") == "OUT" for items in stated for item in items)
    return bool(stated) and len(stated[0]) >= count and out


def _unknown(item: Dataset, known: frozenset[str]) -> set[str]:
    """Return the standard attributes of an item that have a value and are not known."""
    from pydicom.datadict import keyword_for_tag

    keywords = {keyword_for_tag(tag) for tag in item.keys()} - known - {""}  # noqa: SIM118
    return {keyword for keyword in keywords if item.get(keyword) not in (None, "", [])}
