"""A plan as an RTPLAN file that planning systems import: static fields, step and shoot, sliding windows and arcs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.rounding import rounded_plan
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, source_position
from radplan.geometry.rays import surface_distance
from radplan.io.dicom.case import DicomCase
from radplan.io.dicom.ct import CTSeries
from radplan.io.dicom.reading import Dataset, open_dataset, reading
from radplan.io.dicom.rtstruct_export import export_structures
from radplan.io.dicom.writing import (
    check_identity,
    decimal,
    describe_file,
    empty,
    identified,
    referring,
    series_of,
    write_whole,
)
from radplan.machines.limits import MachineLimits, limits_for, machine_limits
from radplan.machines.mlc import matching_mlc
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Intent = Literal["RESEARCH", "CURATIVE", "PALLIATIVE", "VERIFICATION", "MACHINE_QA", "SERVICE"]

_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_SHORT = 16
"""Characters of a short string: labels, names of machines and of beams."""


@dataclass(frozen=True)
class RTPlanOptions:
    """What an RTPLAN says beside the control points.

    Parameters
    ----------
    label : str
        Name of the plan in the planning system, up to 16 characters; the plan's own when empty.
    intent : str
        PlanIntent: ``"RESEARCH"`` unless another is asked for.
    machine : str
        The linac as the planning system knows it, up to 16 characters; the one in the fields when empty.
    manufacturer : str
        Of the linac.
    prescription : float, optional
        Dose prescribed to the target, a course total [Gy], > 0.
    target : str
        What it is prescribed to.
    beam_doses : mapping of int to float
        Dose of a fraction at the isocentre by field number [Gy].
    structure_set : str
        SOPInstanceUID of the RTSTRUCT that the plan was made on; that of the case when empty.

    Raises
    ------
    InputError
        When a text is too long, the intent unknown, or a dose not > 0.
    """

    label: str = ""
    intent: Intent = "RESEARCH"
    machine: str = ""
    manufacturer: str = ""
    prescription: float | None = None
    target: str = ""
    beam_doses: Mapping[int, float] = field(default_factory=dict)
    structure_set: str = ""

    def __post_init__(self) -> None:
        if self.intent not in get_args(Intent):
            raise InputError(f"intent must be one of {', '.join(get_args(Intent))}, got {self.intent!r}")
        for name in ("label", "machine"):
            if len(self.__dict__[name]) > _SHORT:
                raise InputError(f"{name} of an RTPLAN has up to {_SHORT} characters, got {self.__dict__[name]!r}")
        if self.prescription is not None and not (self.prescription > 0 and math.isfinite(self.prescription)):
            raise InputError(f"prescription must be > 0 Gy, got {self.prescription}")


def export_rtplan(
    plan: DeliveryPlan,
    source: DicomCase | Patient,
    path: str | Path,
    limits: MachineLimits | str | None = None,
    options: RTPlanOptions | None = None,
) -> Path:
    """Write a plan as an RTPLAN file: whole or not at all, unapproved, for research unless said otherwise.

    Positions, angles and monitor units are rounded to the steps of the machine first (`rounded_plan`); round the plan
    before its last dose is calculated, and that dose is the file's. A control point states its index, its weight and
    what has changed; for linacs without X jaws all devices, as their planning systems do.

    Parameters
    ----------
    plan : DeliveryPlan
        Fields with energy, of any technique.
    source : DicomCase or Patient
        Gives patient, study, frame of reference and structure set. A patient that came from no files, such as a
        phantom, gets identifiers of its own, the same every time. Structures that came from no file are written beside
        the plan: ``RS.dcm`` for ``RP.dcm``.
    path : path-like
        The file to write; one of that name is replaced.
    limits : MachineLimits or str, optional
        Dose rate, and the steps to round to; those of the library with this collimator when left out.
    options : RTPlanOptions, optional
        Label, intent, name of the linac, prescription.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When images lack identifiers, the patient lies otherwise than in the plan, a field has no energy, or the number
        of fractions is not known.
    FileError
        When the file cannot be written.
    """
    path, said = Path(path), RTPlanOptions() if options is None else options
    patient = source if isinstance(source, Patient) else source.patient
    series = series_of(source) if isinstance(source, Patient) else source.series
    check_identity(series)
    _check(plan, patient)
    chosen = _limits(plan, limits)
    exact = rounded_plan(plan, chosen)
    own = "" if isinstance(source, Patient) else source.structure_set
    structure_set = said.structure_set or own or structures_beside(path, patient, series)
    with reading(path):
        dataset = plan_level(exact.name, patient, series, said, structure_set)
        dataset.ToleranceTableSequence = [_tolerances(exact)]
        dataset.FractionGroupSequence = [_fraction_group(exact, said)]
        names = _unique_names(exact)
        dataset.BeamSequence = [
            _beam(treated, name, patient, chosen, said) for treated, name in zip(exact.fields, names, strict=True)
        ]
        write_whole(path, dataset)
    return path


def structures_path(path: Path) -> Path:
    """Return where the RTSTRUCT of an RTPLAN stands that has none of its own: ``RS.dcm`` beside ``RP.dcm``."""
    rest = path.name.removeprefix("RP")
    return path.with_name(f"RS{rest}" if rest != path.name else f"RS_{path.name}")


def structures_beside(path: Path, patient: Patient, series: CTSeries) -> str:
    """Write the structures beside the plan; return their SOPInstanceUID, empty where the patient has none."""
    if not patient.structures:
        return ""
    written = export_structures(structures_path(path), patient, series)
    return str(open_dataset(written).SOPInstanceUID)


def _check(plan: DeliveryPlan, patient: Patient) -> None:
    if plan.patient_position not in ("", patient.patient_position):
        raise InputError(
            f"plan {plan.name!r} treats the patient {plan.patient_position}, but patient {patient.name!r} lies "
            f"{patient.patient_position}"
        )
    if not plan.fractions:
        raise InputError(f"plan {plan.name!r} does not say in how many fractions: give DeliveryPlan(fractions=)")
    numbers = [treated.number for treated in plan.fields]
    if len(set(numbers)) != len(numbers):
        raise InputError(f"plan {plan.name!r} has fields of the same number: {', '.join(map(str, numbers))}")
    for treated in plan.fields:
        if treated.energy is None:
            raise InputError(f"{treated.label}: has no energy; a planning system needs one")
        if not treated.mu > 0:
            raise InputError(f"{treated.label}: has no monitor units")


def _limits(plan: DeliveryPlan, limits: MachineLimits | str | None) -> MachineLimits:
    if limits is not None:
        return machine_limits(limits)
    for treated in plan.fields:
        if treated.leaf_boundaries is not None:
            return limits_for(matching_mlc(treated.leaf_boundaries))
    raise InputError(f"plan {plan.name!r} has no leaves to know the linac by: give limits=")


def plan_level(
    name: str, patient: Patient, series: CTSeries, said: RTPlanOptions, structure_set: str, ions: bool = False
) -> Dataset:
    """Return a plan dataset without beams, fractions and tolerances: an RTPLAN, or an RT Ion Plan."""
    from pydicom.uid import RTIonPlanStorage, RTPlanStorage, generate_uid

    dataset = identified(series, {})
    now = describe_file(dataset, RTIonPlanStorage if ions else RTPlanStorage, "RTPLAN", "radplan plan")
    dataset.RTPlanLabel = said.label or shortened(name or "plan")
    dataset.RTPlanName = (said.label or name or "plan")[:64]
    dataset.RTPlanDate, dataset.RTPlanTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.PlanIntent = said.intent
    dataset.RTPlanGeometry = "PATIENT" if structure_set else "TREATMENT_DEVICE"
    if structure_set:
        dataset.ReferencedStructureSetSequence = [referring(_STRUCTURE_SET, structure_set)]
    dataset.ApprovalStatus = "UNAPPROVED"
    if said.prescription is not None:
        wanted = empty()
        wanted.DoseReferenceNumber, wanted.DoseReferenceUID = 1, generate_uid()
        wanted.DoseReferenceStructureType, wanted.DoseReferenceType = "SITE", "TARGET"
        if said.target:
            wanted.DoseReferenceDescription = said.target[:64]
        wanted.TargetPrescriptionDose = decimal(said.prescription)
        dataset.DoseReferenceSequence = [wanted]
    setup = empty()
    setup.PatientSetupNumber, setup.PatientPosition = 1, patient.patient_position
    setup.SetupTechnique = "ISOCENTRIC"
    dataset.PatientSetupSequence = [setup]
    return dataset


def _tolerances(plan: DeliveryPlan) -> Dataset:
    """Return a table of how far the linac may be from what the plan states."""
    table = empty()
    table.ToleranceTableNumber, table.ToleranceTableLabel = 1, "radplan"
    table.GantryAngleTolerance, table.BeamLimitingDeviceAngleTolerance = "0.5", "0.5"
    table.PatientSupportAngleTolerance = "0.5"
    devices = []
    for kind in _devices(plan.fields[0]):
        device = empty()
        device.RTBeamLimitingDeviceType, device.BeamLimitingDevicePositionTolerance = kind, "2"
        devices.append(device)
    table.BeamLimitingDeviceToleranceSequence = devices
    return table


def _fraction_group(plan: DeliveryPlan, said: RTPlanOptions) -> Dataset:
    group = empty()
    group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, plan.fractions
    group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = len(plan.fields), 0
    items = []
    for treated in plan.fields:
        item = empty()
        item.ReferencedBeamNumber, item.BeamMeterset = treated.number, decimal(treated.mu)
        if treated.number in said.beam_doses:
            item.BeamDose = decimal(said.beam_doses[treated.number])
            item.BeamDoseSpecificationPoint = [decimal(p) for p in treated.points[0].isocenter]
        items.append(item)
    group.ReferencedBeamSequence = items
    return group


def _beam(treated: TreatmentField, name: str, patient: Patient, limits: MachineLimits, said: RTPlanOptions) -> Dataset:
    beam, technique = empty(), treated.technique
    beam.BeamNumber, beam.BeamName = treated.number, name
    beam.BeamType = "STATIC" if technique in ("static", "step and shoot") else "DYNAMIC"
    beam.RadiationType, beam.TreatmentDeliveryType = "PHOTON", "TREATMENT"
    beam.TreatmentMachineName = said.machine or shortened(treated.machine)
    if said.manufacturer:
        beam.Manufacturer = said.manufacturer
    beam.PrimaryDosimeterUnit, beam.SourceAxisDistance = "MU", decimal(treated.sad)
    mode = empty()
    mode.FluenceMode = "STANDARD" if treated.fluence_mode == "STANDARD" else "NON_STANDARD"
    if treated.fluence_mode != "STANDARD":
        mode.FluenceModeID = treated.fluence_mode
    beam.PrimaryFluenceModeSequence = [mode]
    beam.BeamLimitingDeviceSequence = [_device(treated, kind) for kind in _devices(treated)]
    beam.ReferencedPatientSetupNumber, beam.ReferencedToleranceTableNumber = 1, 1
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.FinalCumulativeMetersetWeight = "1"
    beam.NumberOfControlPoints = len(treated.points)
    beam.ControlPointSequence = _control_points(treated, patient, limits)
    return beam


def _devices(treated: TreatmentField) -> dict[str, str]:
    """Return the beam-limiting devices of a field, and under which name control points hold them."""
    first = treated.points[0]
    devices = {}
    if first.jaws_x is not None:
        devices["ASYMX"] = "jaws_x"
    if first.jaws_y is not None:
        devices["ASYMY"] = "jaws_y"
    if first.leaves is not None:
        devices["MLCX" if treated.leaf_axis == "x" else "MLCY"] = "leaves"
    return devices


def _device(treated: TreatmentField, kind: str) -> Dataset:
    device = empty()
    device.RTBeamLimitingDeviceType, device.NumberOfLeafJawPairs = kind, 1
    if kind.startswith("MLC") and treated.leaf_boundaries is not None:
        device.NumberOfLeafJawPairs = treated.leaf_boundaries.size - 1
        device.LeafPositionBoundaries = [decimal(edge) for edge in treated.leaf_boundaries]
    return device


def _control_points(treated: TreatmentField, patient: Patient, limits: MachineLimits) -> list[Dataset]:
    arc = treated.technique == "arc"
    # Why: systems of linacs without X jaws state all devices at every control point of a beam in which any moves.
    repeats = limits.jaw_bounds(0) is None and treated.technique != "static"
    # Why: a millionth of 1000 MU is the thousandth of a MU in which monitor units are stated.
    digits = max(6, math.ceil(math.log10(treated.mu)) + 3)
    items = []
    for index, point in enumerate(treated.points):
        item = empty()
        item.ControlPointIndex = index
        item.CumulativeMetersetWeight = decimal(round(point.meterset / treated.mu, digits))
        before = treated.points[index - 1] if index else None
        if before is None:
            _begin(item, treated, patient, limits)
        if before is None or before.gantry != point.gantry or arc:
            item.GantryAngle = decimal(point.gantry)
        last = index == len(treated.points) - 1
        if arc:
            item.GantryRotationDirection = "NONE" if last else point.direction
        elif before is None:
            item.GantryRotationDirection = "NONE"
        _turned(item, before, point)
        devices = [
            _positions(kind, point.__dict__[name])
            for kind, name in _devices(treated).items()
            if before is None or repeats or not np.array_equal(before.__dict__[name], point.__dict__[name])
        ]
        if devices:
            item.BeamLimitingDevicePositionSequence = devices
        items.append(item)
    return items


def _begin(item: Dataset, treated: TreatmentField, patient: Patient, limits: MachineLimits) -> None:
    """Add what only the first control point states."""
    first = treated.points[0]
    item.NominalBeamEnergy = decimal(float(treated.energy or 0.0))
    item.DoseRateSet = decimal(limits.dose_rate(treated.energy, treated.fluence_mode))
    item.TableTopEccentricAngle, item.TableTopEccentricRotationDirection = "0", "NONE"
    item.TableTopPitchAngle, item.TableTopPitchRotationDirection = 0.0, "NONE"
    item.TableTopRollAngle, item.TableTopRollRotationDirection = 0.0, "NONE"
    item.TableTopVerticalPosition = item.TableTopLongitudinalPosition = item.TableTopLateralPosition = None
    item.IsocenterPosition = [decimal(p) for p in first.isocenter]
    distance = _surface_distance(treated, patient)
    if distance is not None:
        item.SourceToSurfaceDistance = decimal(round(distance, 1))


def _turned(item: Dataset, before: ControlPoint | None, point: ControlPoint) -> None:
    """Add the angles of collimator and couch where they are new."""
    if before is None or before.collimator != point.collimator:
        item.BeamLimitingDeviceAngle = decimal(point.collimator)
        item.BeamLimitingDeviceRotationDirection = "NONE"
    if before is None or before.couch != point.couch:
        item.PatientSupportAngle, item.PatientSupportRotationDirection = decimal(point.couch), "NONE"


def _positions(kind: str, stands: Floats) -> Dataset:
    """Return where a device stands: all leaves of the first bank, then all of the second."""
    device = empty()
    device.RTBeamLimitingDeviceType = kind
    device.LeafJawPositions = [decimal(position) for position in stands.T.ravel()]
    return device


def _surface_distance(treated: TreatmentField, patient: Patient) -> float | None:
    """Return the distance from the source to the skin along the axis [mm]; None where the axis misses the patient."""
    first = treated.points[0]
    rotation = beam_rotation(first.gantry, first.couch, first.collimator, patient.patient_position)
    source = source_position(first.isocenter, rotation, treated.sad)
    distance = float(surface_distance(patient.density(), patient.ct.grid, source, first.isocenter[None, :])[0])
    return distance if math.isfinite(distance) else None


def _unique_names(plan: DeliveryPlan) -> list[str]:
    """Return the names of the fields, up to 16 characters each and no two the same."""
    names: list[str] = []
    for treated in plan.fields:
        name = shortened(treated.name or f"field {treated.number}")
        if name in names:
            tail = f" {treated.number}"
            name = name[: _SHORT - len(tail)].strip() + tail
        names.append(name)
    return names


def shortened(text: str) -> str:
    """Return as much of a text as a DICOM short string holds."""
    return text[:_SHORT].strip()
