"""A plan of scanned spots as an RT Ion Plan file that other systems read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from radplan.beams.range_shifter import RangeShifter
from radplan.beams.scanned import ScannedField, ScannedLayer, ScannedPlan
from radplan.errors import InputError
from radplan.io.dicom.case import DicomCase
from radplan.io.dicom.reading import Dataset, reading
from radplan.io.dicom.rtplan_export import RTPlanOptions, plan_level, shortened, structures_beside
from radplan.io.dicom.writing import check_identity, decimal, empty, series_of, write_whole
from radplan.patient.patient import Patient

_IONS = {"helium": (4, 2), "carbon": (12, 6)}
"""Mass and atomic number."""

_TUNE = "1"
"""Spot tune of layers that have none: a delivery system wants one named."""


def export_ion_plan(
    plan: ScannedPlan, source: DicomCase | Patient, path: str | Path, options: RTPlanOptions | None = None
) -> Path:
    """Write a plan of scanned spots as an RT Ion Plan file: whole or not at all, unapproved, for research.

    Every layer has two control points: one with its spots, one with the same spots and no weight. Weights are monitor
    units; places and weights have single precision, as DICOM keeps them, and metersets are those of rounded weights.

    Parameters
    ----------
    plan : ScannedPlan
        With its number of fractions.
    source : DicomCase or Patient
        Gives patient, study, frame of reference and structure set, as in `export_rtplan`; structures that came from no
        file are written beside the plan.
    path : path-like
        The file to write; one of that name is replaced.
    options : RTPlanOptions, optional
        Label, intent, name of the machine, prescription.

    Raises
    ------
    InputError
        When the patient lies otherwise than in the plan, images lack identifiers, or fractions are not known.
    FileError
        When the file cannot be written.
    """
    path, said = Path(path), RTPlanOptions() if options is None else options
    patient = source if isinstance(source, Patient) else source.patient
    series = series_of(source) if isinstance(source, Patient) else source.series
    check_identity(series)
    if plan.patient_position not in ("", patient.patient_position):
        raise InputError(
            f"plan {plan.name!r} treats the patient {plan.patient_position}, but patient {patient.name!r} lies "
            f"{patient.patient_position}"
        )
    if not plan.fractions:
        raise InputError(f"plan {plan.name!r} does not say in how many fractions: give ScannedPlan(fractions=)")
    own = "" if isinstance(source, Patient) else source.structure_set
    structure_set = said.structure_set or own or structures_beside(path, patient, series)
    with reading(path):
        dataset = plan_level(plan.name, patient, series, said, structure_set, ions=True)
        group, items = empty(), []
        group.FractionGroupNumber, group.NumberOfFractionsPlanned = 1, plan.fractions
        group.NumberOfBeams, group.NumberOfBrachyApplicationSetups = len(plan), 0
        for field in plan:
            item = empty()
            item.ReferencedBeamNumber, item.BeamMeterset = field.number, decimal(_meterset(field))
            items.append(item)
        group.ReferencedBeamSequence = items
        dataset.FractionGroupSequence = [group]
        dataset.IonBeamSequence = [_beam(field, said) for field in plan]
        write_whole(path, dataset, implicit=True)
    return path


def _rounded(layer: ScannedLayer) -> list[float]:
    return [float(value) for value in layer.mu.astype(np.float32)]


def _meterset(field: ScannedField) -> float:
    return float(sum(sum(_rounded(layer)) for layer in field.layers))


def _beam(field: ScannedField, said: RTPlanOptions) -> Dataset:
    beam = empty()
    beam.BeamNumber, beam.BeamName = field.number, shortened(field.name)
    beam.BeamType, beam.TreatmentDeliveryType = "STATIC", "TREATMENT"
    beam.TreatmentMachineName = said.machine or shortened(field.machine)
    beam.Manufacturer = said.manufacturer
    beam.PrimaryDosimeterUnit = field.unit
    beam.RadiationType = "PROTON" if field.radiation == "protons" else "ION"
    if field.radiation != "protons":
        beam.RadiationMassNumber, beam.RadiationAtomicNumber = _IONS[field.radiation]
        beam.RadiationChargeState = beam.RadiationAtomicNumber
    beam.ScanMode, beam.ModulatedScanModeType = "MODULATED", "STATIONARY"
    beam.VirtualSourceAxisDistances = [float(distance) for distance in field.virtual_sad]
    beam.NumberOfWedges = beam.NumberOfCompensators = beam.NumberOfBoli = beam.NumberOfBlocks = 0
    beam.NumberOfLateralSpreadingDevices = beam.NumberOfRangeModulators = 0
    shifters = [s for s in dict.fromkeys(layer.range_shifter for layer in field.layers) if s is not None]
    beam.NumberOfRangeShifters = len(shifters)
    if shifters:
        beam.RangeShifterSequence = [_slab(number) for number in range(1, len(shifters) + 1)]
    beam.PatientSupportType, beam.ReferencedPatientSetupNumber = "TABLE", 1
    beam.FinalCumulativeMetersetWeight = decimal(_meterset(field))
    points = _control_points(field, shifters)
    beam.NumberOfControlPoints, beam.IonControlPointSequence = len(points), points
    return beam


def _slab(number: int) -> Dataset:
    slab = empty()
    slab.RangeShifterNumber, slab.RangeShifterID, slab.RangeShifterType = number, f"RS{number}", "BINARY"
    return slab


def _control_points(field: ScannedField, shifters: list[RangeShifter]) -> list[Dataset]:
    points: list[Dataset] = []
    total = 0.0
    before: RangeShifter | None = None
    for layer in field.layers:
        weights = _rounded(layer)
        for shown in (weights, [0.0] * layer.count):
            point = empty()
            point.ControlPointIndex, point.CumulativeMetersetWeight = len(points), decimal(total)
            point.NominalBeamEnergy = decimal(layer.energy)
            if not points:
                _begin(point, field)
            if shifters and (not points or layer.range_shifter != before):
                point.RangeShifterSettingsSequence = _settings(layer, shifters)
                before = layer.range_shifter
            point.ScanSpotTuneID = layer.tune or _TUNE
            point.NumberOfScanSpotPositions = layer.count
            point.ScanSpotPositionMap = [float(place) for place in layer.positions.astype(np.float32).reshape(-1)]
            point.ScanSpotMetersetWeights = shown
            if layer.spot_size is not None:
                point.ScanningSpotSize = list(layer.spot_size)
            point.NumberOfPaintings = layer.paintings
            points.append(point)
            if shown is weights:
                total += sum(weights)
    return points


def _begin(point: Dataset, field: ScannedField) -> None:
    """Add what holds for the whole field."""
    point.GantryAngle, point.GantryRotationDirection = decimal(field.gantry), "NONE"
    point.PatientSupportAngle, point.PatientSupportRotationDirection = decimal(field.couch), "NONE"
    point.BeamLimitingDeviceAngle, point.BeamLimitingDeviceRotationDirection = "0", "NONE"
    point.GantryPitchAngle = point.TableTopPitchAngle = point.TableTopRollAngle = 0.0
    point.TableTopPitchRotationDirection = point.TableTopRollRotationDirection = "NONE"
    point.TableTopVerticalPosition = point.TableTopLongitudinalPosition = point.TableTopLateralPosition = None
    point.IsocenterPosition = [decimal(value) for value in field.isocenter]
    if field.snout is not None:
        point.SnoutPosition = field.snout


def _settings(layer: ScannedLayer, shifters: list[RangeShifter]) -> list[Dataset]:
    items = []
    for number, shifter in enumerate(shifters, start=1):
        item = empty()
        item.ReferencedRangeShifterNumber = number
        item.RangeShifterSetting = "IN" if layer.range_shifter == shifter else "OUT"
        item.IsocenterToRangeShifterDistance = shifter.isocenter_distance
        item.RangeShifterWaterEquivalentThickness = shifter.thickness
        items.append(item)
    return items
