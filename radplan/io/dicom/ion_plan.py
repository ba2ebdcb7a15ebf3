"""RT Ion Plans: scanned spots of any system, as fields of layers in monitor units."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.beams.range_shifter import RangeShifter
from radplan.beams.scanned import ScannedField, ScannedLayer, ScannedPlan
from radplan.errors import FileError, InputError
from radplan.io.dicom.beam_modifiers import TILTS
from radplan.io.dicom.reading import (
    Dataset,
    inside,
    items_of,
    number_of,
    numbers_of,
    open_dataset,
    positions_of,
    reading,
    text_of,
    whole_of,
)
from radplan.io.dicom.rtplan import fraction_group, patient_position

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_IONS = {(1, 1): "protons", (4, 2): "helium", (12, 6): "carbon"}
"""Radiation of a mass and atomic number."""

_SHAPERS = {
    "NumberOfBlocks": ("IonBlockSequence", "blocks or apertures"),
    "NumberOfCompensators": ("IonRangeCompensatorSequence", "range compensators"),
    "NumberOfWedges": ("IonWedgeSequence", "wedges"),
    "NumberOfRangeModulators": ("RangeModulatorSequence", "range modulators"),
    "NumberOfBoli": ("ReferencedBolusSequence", "boli"),
}
"""What may stand in an ion beam and is not calculated: count, sequence, and its name."""

_WEIGHT_TOLERANCE = 1e-3
"""Part of the field's meterset by which the cumulative weights may differ from the sum of the spots'."""


def is_ion_plan(path: str | Path) -> bool:
    """Return whether a file is an RT Ion Plan; False for anything that cannot be read as DICOM."""
    try:
        return "IonBeamSequence" in open_dataset(Path(path))
    except FileError:
        return False


def read_ion_plan(path: str | Path, range_shifters: Mapping[str, float] | None = None) -> ScannedPlan:
    """Read an RT Ion Plan of scanned spots.

    A spot's monitor units are its meterset weight times BeamMeterset over FinalCumulativeMetersetWeight. Positions are
    IEC gantry coordinates in the isocentre plane. What a control point does not repeat carries over. Beams without
    monitor units (setup, imaging) are left out, with a note in the log.

    Parameters
    ----------
    path : path-like
        The file.
    range_shifters : mapping of str to float, optional
        Water-equivalent thickness [mm] of range shifters by their ID, where the file does not state it.

    Raises
    ------
    FileError
        When the file is damaged, no RT Ion Plan, of another technique than static fields of scanned spots (uniform
        scanning, scattering, line scanning, arcs), or has apertures, compensators, modulators, wedges, boli or tilts;
        when spot positions, weights, energies or tunes are missing or contradict the metersets. Field, layer and
        attribute are named.
    """
    path = Path(path)
    dataset = open_dataset(path)
    with reading(path):
        if "IonBeamSequence" not in dataset:
            raise FileError(path, "is no RT Ion Plan: it has no IonBeamSequence")
        monitor_units, fractions = fraction_group(path, dataset)
        position = patient_position(path, dataset)
        fields = []
        for index, beam in enumerate(items_of(dataset, "IonBeamSequence"), start=1):
            with inside(f"item {index} of IonBeamSequence"):
                number = whole_of(path, beam, "BeamNumber")
            label = f"field {number} ({text_of(path, beam, 'BeamName', 'without name')})"
            mu, delivery = monitor_units.get(number, 0.0), text_of(path, beam, "TreatmentDeliveryType", "TREATMENT")
            if mu <= 0.0 or delivery not in ("TREATMENT", "CONTINUATION"):
                logger.info("%s: left out, it does not treat (%s, %g MU)", label, delivery.lower(), mu)
                continue
            with inside(label):
                fields.append(_field(path, beam, number, mu, range_shifters or {}))
        if not fields:
            raise FileError(path, "holds no treatment beam with monitor units (BeamMeterset)")
        try:
            return ScannedPlan(text_of(path, dataset, "RTPlanLabel", "plan"), tuple(fields), fractions, position)
        except InputError as error:
            raise FileError(path, str(error)) from None


def _field(path: Path, beam: Dataset, number: int, mu: float, known: Mapping[str, float]) -> ScannedField:
    _check_technique(path, beam)
    unit = text_of(path, beam, "PrimaryDosimeterUnit", "MU")
    if unit not in ("MU", "NP"):
        raise FileError(path, f"its PrimaryDosimeterUnit is {unit}; expected MU or NP")
    points = items_of(beam, "IonControlPointSequence")
    if len(points) < 2:
        raise FileError(path, f"has {len(points)} control points; expected two or more")
    pose = _pose(path, points)
    sad = numbers_of(path, beam, "VirtualSourceAxisDistances", 2)
    try:
        return ScannedField(
            name=text_of(path, beam, "BeamName", f"beam {number}"),
            number=number,
            gantry=pose["GantryAngle"],
            couch=pose["PatientSupportAngle"],
            isocenter=positions_of(path, points[0], "IsocenterPosition", 3),
            virtual_sad=(float(sad[0]), float(sad[1])),
            layers=_layers(path, beam, points, mu, known),
            radiation=_radiation(path, beam),
            unit=unit,
            snout=number_of(path, points[0], "SnoutPosition") if points[0].get("SnoutPosition") is not None else None,
            machine=text_of(path, beam, "TreatmentMachineName", ""),
        )
    except InputError as error:
        raise FileError(path, str(error)) from None


def _check_technique(path: Path, beam: Dataset) -> None:
    """Raise where a beam is no static field of scanned spots."""
    mode = text_of(path, beam, "ScanMode", "NONE")
    if mode not in ("MODULATED", "MODULATED_SPEC"):
        said = {"NONE": "passive scattering", "UNIFORM": "uniform scanning"}.get(mode, mode)
        raise FileError(
            path, f"is of the technique {said} (ScanMode {mode}), which is not calculated: scanned spots are"
        )
    kind = text_of(path, beam, "ModulatedScanModeType", "STATIONARY")
    if kind not in ("STATIONARY", "LEAPING", "LEAP"):
        raise FileError(
            path, f"is of the technique line scanning (ModulatedScanModeType {kind}), which is not calculated"
        )
    for count, (sequence, name) in _SHAPERS.items():
        stated = whole_of(path, beam, count) if beam.get(count) not in (None, "") else 0
        if stated or items_of(beam, sequence):
            raise FileError(path, f"has {name} ({sequence}), which are not calculated")
    for device in items_of(beam, "LateralSpreadingDeviceSequence"):
        spread = text_of(path, device, "LateralSpreadingDeviceType", "MAGNET")
        if spread != "MAGNET":
            raise FileError(path, f"is of the technique passive scattering ({spread}), which is not calculated")


def _radiation(path: Path, beam: Dataset) -> str:
    kind = text_of(path, beam, "RadiationType")
    if kind == "PROTON":
        return "protons"
    if kind != "ION":
        raise FileError(path, f"its RadiationType is {kind}; expected PROTON or ION")
    mass, charge = whole_of(path, beam, "RadiationMassNumber"), whole_of(path, beam, "RadiationAtomicNumber")
    if (mass, charge) not in _IONS:
        raise FileError(
            path, f"its ions have mass {mass} and charge {charge}; protons, helium and carbon are calculated"
        )
    return _IONS[mass, charge]


def _pose(path: Path, points: list[Dataset]) -> dict[str, float]:
    """Return gantry and couch angle; raise where they, the isocentre or a tilt change."""
    pose = {name: number_of(path, points[0], name) for name in ("GantryAngle", "PatientSupportAngle")}
    isocenter = positions_of(path, points[0], "IsocenterPosition", 3)
    for index, point in enumerate(points):
        with inside(f"control point {index}"):
            for name, first in pose.items():
                turned = point.get(name) is not None and abs(number_of(path, point, name) - first) > 1e-3
                if turned:
                    technique = "arc" if name == "GantryAngle" else "moving couch"
                    raise FileError(path, f"is of the technique {technique} ({name} changes), which is not calculated")
            if point.get("IsocenterPosition") is not None:
                moved = np.abs(positions_of(path, point, "IsocenterPosition", 3) - isocenter).max()
                if moved > 0.1:
                    raise FileError(path, f"moves its isocentre by {moved:g} mm, which is not calculated")
            for name in TILTS:
                angle = number_of(path, point, name) if point.get(name) is not None else 0.0
                if min(abs(angle), abs(angle - 360.0)) > 1e-3:
                    raise FileError(path, f"{name} is {angle:g} degrees; tilts are not calculated")
    return pose


def _layers(
    path: Path, beam: Dataset, points: list[Dataset], mu: float, known: Mapping[str, float]
) -> tuple[ScannedLayer, ...]:
    final = number_of(path, beam, "FinalCumulativeMetersetWeight")
    if not final > 0.0:
        raise FileError(path, f"FinalCumulativeMetersetWeight is {final:g}; expected a number > 0")
    state: dict[str, Any] = {"shifter": None}
    ends = [_cumulative(path, point, index) for index, point in enumerate(points)]
    layers: list[ScannedLayer] = []
    for index, point in enumerate(points):
        where = f"layer {len(layers) + 1}, control point {index}"
        with inside(where):
            if point.get("NominalBeamEnergy") is not None:
                state["energy"] = number_of(path, point, "NominalBeamEnergy")
            state["shifter"] = _range_shifter(path, beam, point, known, state["shifter"])
            weights = _spot_values(path, point, "ScanSpotMetersetWeights", 1)
            if not weights.any():
                continue
            if "energy" not in state:
                raise FileError(path, "has no NominalBeamEnergy")
            with inside(f"{state['energy']:g} MeV"):
                _check_weights(path, weights, index, ends, final)
                layers.append(_layer(path, point, weights[:, 0] * mu / final, state))
    if abs(ends[-1] - final) > 1e-6 * final:
        raise FileError(
            path, f"its last control point is at meterset weight {ends[-1]:g}, but the final one is {final:g}"
        )
    return tuple(layers)


def _layer(path: Path, point: Dataset, mu: Floats, state: Mapping[str, Any]) -> ScannedLayer:
    places = _spot_values(path, point, "ScanSpotPositionMap", 2)
    if places.shape[0] != mu.size:
        raise FileError(path, f"ScanSpotPositionMap holds {places.shape[0]} places for {mu.size} weights")
    if np.any(mu < 0.0):
        raise FileError(path, f"ScanSpotMetersetWeights holds {mu.min():g} MU; expected no number < 0")
    size = point.get("ScanningSpotSize")
    width = None if size is None else numbers_of(path, point, "ScanningSpotSize", 2)
    return ScannedLayer(
        energy=state["energy"],
        positions=places,
        mu=mu,
        spot_size=None if width is None else (float(width[0]), float(width[1])),
        tune=text_of(path, point, "ScanSpotTuneID"),
        paintings=whole_of(path, point, "NumberOfPaintings") if point.get("NumberOfPaintings") else 1,
        range_shifter=state["shifter"],
    )


def _spot_values(path: Path, point: Dataset, keyword: str, each: int) -> Floats:
    """Return the values of all spots, (spots, each), checked against the stated number of spots."""
    values = numbers_of(path, point, keyword)
    if point.get("NumberOfScanSpotPositions") is not None:
        count = whole_of(path, point, "NumberOfScanSpotPositions")
        if values.size != count * each:
            raise FileError(path, f"{keyword} holds {values.size} numbers; expected {count * each} for {count} spots")
    if values.size % each:
        raise FileError(path, f"{keyword} holds {values.size} numbers; expected pairs")
    return values.reshape(-1, each)


def _cumulative(path: Path, point: Dataset, index: int) -> float:
    with inside(f"control point {index}"):
        return number_of(path, point, "CumulativeMetersetWeight")


def _check_weights(path: Path, weights: Floats, index: int, ends: list[float], final: float) -> None:
    """Raise where the spots' weights are not what the meterset grows by to the next control point."""
    if index + 1 == len(ends):
        raise FileError(path, "is the last control point, but its spots have weights: no beam follows it")
    grown, given = ends[index + 1] - ends[index], float(weights.sum())
    if abs(grown - given) > _WEIGHT_TOLERANCE * final:
        raise FileError(path, f"its spots weigh {given:g}, but the cumulative meterset weight grows by {grown:g}")


def _range_shifter(
    path: Path, beam: Dataset, point: Dataset, known: Mapping[str, float], before: RangeShifter | None
) -> RangeShifter | None:
    """Return the range shifter from a control point on: all slabs that are in, as one."""
    settings = items_of(point, "RangeShifterSettingsSequence")
    if not settings:
        return before
    names = {
        whole_of(path, item, "RangeShifterNumber"): text_of(path, item, "RangeShifterID", "")
        for item in items_of(beam, "RangeShifterSequence")
    }
    total: RangeShifter | None = None
    for item in settings:
        if text_of(path, item, "RangeShifterSetting", "IN").upper() in ("OUT", "0"):
            continue
        name = names.get(whole_of(path, item, "ReferencedRangeShifterNumber"), "")
        with inside(f"range shifter {name or '(without ID)'}"):
            thickness = _thickness(path, item, name, known)
            if thickness <= 0.0:
                continue
            if item.get("IsocenterToRangeShifterDistance") is None:
                raise FileError(path, "has no IsocenterToRangeShifterDistance")
            distance = number_of(path, item, "IsocenterToRangeShifterDistance")
            slab = RangeShifter(thickness, distance)
            if total is not None:
                slab = replace(
                    slab,
                    thickness=slab.thickness + total.thickness,
                    isocenter_distance=min(slab.isocenter_distance, total.isocenter_distance),
                )
            total = slab
    return total


def _thickness(path: Path, item: Dataset, name: str, known: Mapping[str, float]) -> float:
    if name in known:
        return known[name]
    if item.get("RangeShifterWaterEquivalentThickness") is None:
        raise FileError(
            path,
            "has no RangeShifterWaterEquivalentThickness: give it in mm by the shifter's ID (range_shifters=, "
            f"--range-shifter {name or 'ID'}=MM)",
        )
    return number_of(path, item, "RangeShifterWaterEquivalentThickness")
