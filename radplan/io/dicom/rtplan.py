"""Photon plans: RTPLAN files of any technique, as control points in monitor units."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, DeliveryPlan, Direction, TreatmentField
from radplan.errors import FileError, InputError
from radplan.io.dicom.reading import (
    Dataset,
    items_of,
    number_of,
    numbers_of,
    open_dataset,
    positions_of,
    reading,
    text_of,
    whole_of,
)

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_JAWS = {"X": "jaws_x", "ASYMX": "jaws_x", "Y": "jaws_y", "ASYMY": "jaws_y"}
_LEAVES: dict[str, Literal["x", "y"]] = {"MLCX": "x", "MLCY": "y"}
_ANGLES = {"GantryAngle": "gantry", "BeamLimitingDeviceAngle": "collimator", "PatientSupportAngle": "couch"}
_ABSENT = {"NumberOfWedges": "wedges", "NumberOfBlocks": "blocks"}
_TILTS = ("GantryPitchAngle", "TableTopPitchAngle", "TableTopRollAngle")


def read_plan(path: str | Path) -> DeliveryPlan:
    """Read a photon RTPLAN: static fields, step and shoot, sliding windows and arcs.

    Positions and angles that a control point does not repeat carry over. Meterset weights are scaled by their final
    value to the beam's monitor units. Beams without monitor units (setup, imaging) are left out, with a note in the
    log. A compensator without material is the fluence that a sliding window was made from, and not in the beam.

    Parameters
    ----------
    path : path-like
        The file.

    Raises
    ------
    FileError
        When the file is damaged, no photon plan, has no isocentre, several patient positions, wedges, blocks or
        compensators, or leaves that cross; beam and control point are named.
    """
    path = Path(path)
    dataset = open_dataset(path)
    with reading(path):
        if text_of(path, dataset, "Modality", "") != "RTPLAN":
            raise FileError(path, f"is a file of modality {text_of(path, dataset, 'Modality', '?')}; expected RTPLAN")
        if "IonBeamSequence" in dataset:
            raise FileError(path, "is a plan of proton or ion beams; expected photons")
        beams = items_of(dataset, "BeamSequence")
        if not beams:
            raise FileError(path, "has no BeamSequence: it holds no external beams")
        monitor_units, fractions = _fraction_group(path, dataset)
        position = _patient_position(path, dataset)
        fields = []
        for beam in beams:
            number = whole_of(path, beam, "BeamNumber")
            label = f"beam {number} ({text_of(path, beam, 'BeamName', 'without name')})"
            mu, delivery = monitor_units.get(number, 0.0), text_of(path, beam, "TreatmentDeliveryType", "TREATMENT")
            if mu <= 0.0:
                logger.info("%s: left out, it has no monitor units (%s)", label, delivery.lower())
            elif delivery not in ("TREATMENT", "CONTINUATION"):
                logger.info("%s: left out, it does not treat (%s)", label, delivery.lower())
            else:
                fields.append(_field(path, beam, number, label, mu))
        name = text_of(path, dataset, "RTPlanLabel", "plan")
        if not fields:
            raise FileError(path, "holds no treatment beam with monitor units (BeamMeterset)")
        return DeliveryPlan(name, tuple(fields), fractions, position)


def _fraction_group(path: Path, dataset: Dataset) -> tuple[dict[int, float], int | None]:
    """Return the monitor units of each beam number, and the number of fractions."""
    groups = items_of(dataset, "FractionGroupSequence")
    if len(groups) != 1:
        raise FileError(path, f"has {len(groups)} fraction groups; expected one: export each as a plan of its own")
    planned = groups[0].get("NumberOfFractionsPlanned")
    units: dict[int, float] = {}
    for item in items_of(groups[0], "ReferencedBeamSequence"):
        if item.get("BeamMeterset") is not None:
            units[whole_of(path, item, "ReferencedBeamNumber")] = number_of(path, item, "BeamMeterset")
    return units, None if planned is None else int(planned)


def _patient_position(path: Path, dataset: Dataset) -> str:
    setups = items_of(dataset, "PatientSetupSequence")
    positions = {text_of(path, item, "PatientPosition", "") for item in setups} - {""}
    if len(positions) > 1:
        raise FileError(path, f"has several patient positions ({', '.join(sorted(positions))}); expected one")
    return next(iter(positions), "")


def _field(path: Path, beam: Dataset, number: int, label: str, mu: float) -> TreatmentField:
    """Return one beam as a field in monitor units."""
    radiation = text_of(path, beam, "RadiationType", "PHOTON")
    if radiation != "PHOTON":
        raise FileError(path, f"{label}: its RadiationType is {radiation}; expected PHOTON")
    unit = text_of(path, beam, "PrimaryDosimeterUnit", "MU")
    if unit != "MU":
        raise FileError(path, f"{label}: its PrimaryDosimeterUnit is {unit}; expected MU")
    _refuse_modifiers(path, beam, label)
    boundaries, axis = _leaf_boundaries(path, beam, label)
    points = _control_points(path, beam, label, mu)
    first = items_of(beam, "ControlPointSequence")[0]
    modes = items_of(beam, "PrimaryFluenceModeSequence")
    mode = text_of(path, modes[0], "FluenceMode", "STANDARD") if modes else "STANDARD"
    if mode != "STANDARD":
        mode = text_of(path, modes[0], "FluenceModeID", mode)
    try:
        return TreatmentField(
            name=text_of(path, beam, "BeamName", f"beam {number}"),
            number=number,
            points=points,
            sad=number_of(path, beam, "SourceAxisDistance") if "SourceAxisDistance" in beam else 1000.0,
            leaf_boundaries=boundaries,
            leaf_axis=axis,
            energy=_energy(path, first),
            fluence_mode=mode,
            machine=text_of(path, beam, "TreatmentMachineName", ""),
        )
    except InputError as error:
        raise FileError(path, f"{label}: {error}") from None


def _energy(path: Path, first: Dataset) -> float | None:
    return number_of(path, first, "NominalBeamEnergy") if first.get("NominalBeamEnergy") is not None else None


def _refuse_modifiers(path: Path, beam: Dataset, label: str) -> None:
    """Raise for what stands in the beam and would not be calculated; say so of a bolus."""
    for keyword, what in _ABSENT.items():
        if beam.get(keyword) is not None and whole_of(path, beam, keyword) > 0:
            raise FileError(path, f"{label}: has {what}, which are not calculated; plan it without")
    if any(text_of(path, item, "MaterialID", "") for item in items_of(beam, "CompensatorSequence")):
        raise FileError(path, f"{label}: has compensators, which are not calculated; plan it without")
    if beam.get("NumberOfBoli") is not None and whole_of(path, beam, "NumberOfBoli") > 0:
        logger.warning(
            "%s: names a bolus; it counts where it lies in the CT inside the external contour, and where its density "
            "is given, by its structure or with_density(..., dosed=True)",
            label,
        )


def _leaf_boundaries(path: Path, beam: Dataset, label: str) -> tuple[Floats | None, Literal["x", "y"]]:
    """Return the leaf boundaries (n + 1,) [mm], or None, and the axis along which leaves move."""
    found: list[tuple[Floats, Literal["x", "y"]]] = []
    for device in items_of(beam, "BeamLimitingDeviceSequence"):
        kind = text_of(path, device, "RTBeamLimitingDeviceType")
        if kind in _LEAVES:
            pairs = whole_of(path, device, "NumberOfLeafJawPairs")
            found.append((positions_of(path, device, "LeafPositionBoundaries", pairs + 1), _LEAVES[kind]))
        elif kind not in _JAWS:
            raise FileError(path, f"{label}: has a beam-limiting device {kind}; known: {', '.join([*_JAWS, *_LEAVES])}")
    if len(found) > 1:
        raise FileError(path, f"{label}: has {len(found)} layers of leaves; expected one")
    return found[0] if found else (None, "x")


def _control_points(path: Path, beam: Dataset, label: str, mu: float) -> tuple[ControlPoint, ...]:
    """Return a beam's control points, with what is not repeated carried over."""
    items = items_of(beam, "ControlPointSequence")
    final = number_of(path, beam, "FinalCumulativeMetersetWeight")
    if not final > 0.0:
        raise FileError(path, f"{label}: FinalCumulativeMetersetWeight is {final:g}; expected a number > 0")
    state: dict[str, Floats | float | str] = {"direction": "NONE"}
    weight, points = 0.0, []
    for index, item in enumerate(items):
        where = f"{label}, control point {index}"
        if item.get("CumulativeMetersetWeight") is not None:
            weight = number_of(path, item, "CumulativeMetersetWeight")
        _update(path, item, where, state)
        lacking = [name for name in ("gantry", "collimator", "couch", "isocenter") if name not in state]
        if lacking:
            raise FileError(path, f"{where}: the plan does not state {', '.join(lacking)}")
        try:
            points.append(_point(mu * weight / final, state))
        except InputError as error:
            raise FileError(path, f"{where}: {error}") from None
    if abs(weight - final) > 1e-6 * final:
        raise FileError(
            path, f"{label}: its last control point is at meterset weight {weight:g}, but the final one is {final:g}"
        )
    return tuple(points)


def _update(path: Path, item: Dataset, where: str, state: dict[str, Floats | float | str]) -> None:
    """Take over what a control point states."""
    for keyword, name in _ANGLES.items():
        if item.get(keyword) is not None:
            state[name] = number_of(path, item, keyword)
    for keyword in _TILTS:
        tilt = number_of(path, item, keyword) if item.get(keyword) is not None else 0.0
        if min(tilt % 360.0, -tilt % 360.0) > 1e-3:
            raise FileError(path, f"{where}: {keyword} is {tilt:g} degree; only 0 is calculated")
    if item.get("GantryRotationDirection") is not None:
        direction = text_of(path, item, "GantryRotationDirection")
        state["direction"] = {"CCW": "CC"}.get(direction, direction)
    if item.get("IsocenterPosition") is not None:
        state["isocenter"] = positions_of(path, item, "IsocenterPosition", 3)
    for device in items_of(item, "BeamLimitingDevicePositionSequence"):
        kind = text_of(path, device, "RTBeamLimitingDeviceType")
        values = positions_of(path, device, "LeafJawPositions")
        if kind in _LEAVES:
            if values.size % 2:
                raise FileError(path, f"{where}: has {values.size} leaf positions; expected two for each pair")
            state["leaves"] = values.reshape(2, -1).T
        elif kind in _JAWS:
            state[_JAWS[kind]] = numbers_of(path, device, "LeafJawPositions", 2)


def _point(meterset: float, state: dict[str, Floats | float | str]) -> ControlPoint:
    def positions(name: str) -> Floats | None:
        return cast("Floats | None", state.get(name))

    return ControlPoint(
        meterset=meterset,
        gantry=float(cast(float, state["gantry"])),
        collimator=float(cast(float, state["collimator"])),
        couch=float(cast(float, state["couch"])),
        isocenter=cast(Floats, state["isocenter"]),
        jaws_x=positions("jaws_x"),
        jaws_y=positions("jaws_y"),
        leaves=positions("leaves"),
        direction=cast(Direction, state["direction"]),
    )
