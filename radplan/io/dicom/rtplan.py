"""Photon plans: RTPLAN files of any technique, as control points in monitor units."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, DeliveryPlan, Direction, TreatmentField
from radplan.errors import FileError, InputError
from radplan.io.dicom.beam_modifiers import check_compensators, check_modifiers, check_pose
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

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_JAWS = {"X": "jaws_x", "ASYMX": "jaws_x", "Y": "jaws_y", "ASYMY": "jaws_y"}
_LEAVES: dict[str, Literal["x", "y"]] = {"MLCX": "x", "MLCY": "y"}
_ANGLES = {"GantryAngle": "gantry", "BeamLimitingDeviceAngle": "collimator", "PatientSupportAngle": "couch"}


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
        When the file is damaged, no photon plan, has no isocentre, several patient positions, leaves that cross, or
        states what shapes or moves the beam and is not calculated: wedges (but those that are out), blocks, cones,
        compensators, trays, tilts, a moving table. Beam, control point and device are named.
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
        monitor_units, fractions = fraction_group(path, dataset)
        position = patient_position(path, dataset)
        fields = []
        for index, beam in enumerate(beams, start=1):
            with inside(f"item {index} of BeamSequence"):
                number = whole_of(path, beam, "BeamNumber")
            label = f"beam {number} ({text_of(path, beam, 'BeamName', 'without name')})"
            mu, delivery = monitor_units.get(number, 0.0), text_of(path, beam, "TreatmentDeliveryType", "TREATMENT")
            if mu <= 0.0:
                logger.info("%s: left out, it has no monitor units (%s)", label, delivery.lower())
            elif delivery not in ("TREATMENT", "CONTINUATION"):
                logger.info("%s: left out, it does not treat (%s)", label, delivery.lower())
            else:
                with inside(label):
                    fields.append(_field(path, beam, number, label, mu))
        name = text_of(path, dataset, "RTPlanLabel", "plan")
        if not fields:
            raise FileError(path, "holds no treatment beam with monitor units (BeamMeterset)")
        return DeliveryPlan(name, tuple(fields), fractions, position)


def fraction_group(path: Path, dataset: Dataset) -> tuple[dict[int, float], int | None]:
    """Return the monitor units of each beam number, and the number of fractions."""
    groups = items_of(dataset, "FractionGroupSequence")
    if len(groups) != 1:
        raise FileError(path, f"has {len(groups)} fraction groups; expected one: export each as a plan of its own")
    if groups[0].get("NumberOfBrachyApplicationSetups"):
        logger.warning("the plan has brachytherapy applications besides, which are not calculated")
    stated = groups[0].get("NumberOfFractionsPlanned") not in (None, "")
    planned = whole_of(path, groups[0], "NumberOfFractionsPlanned") if stated else None
    units: dict[int, float] = {}
    for index, item in enumerate(items_of(groups[0], "ReferencedBeamSequence"), start=1):
        if item.get("BeamMeterset") is not None:
            with inside(f"item {index} of ReferencedBeamSequence"):
                units[whole_of(path, item, "ReferencedBeamNumber")] = number_of(path, item, "BeamMeterset")
    return units, planned


def patient_position(path: Path, dataset: Dataset) -> str:
    """Return how the patient lies, empty where the plan does not say; raise where it says several things."""
    setups = items_of(dataset, "PatientSetupSequence")
    positions = {text_of(path, item, "PatientPosition", "") for item in setups} - {""}
    if len(positions) > 1:
        raise FileError(path, f"has several patient positions ({', '.join(sorted(positions))}); expected one")
    return next(iter(positions), "")


def _field(path: Path, beam: Dataset, number: int, label: str, mu: float) -> TreatmentField:
    """Return one beam as a field in monitor units."""
    radiation = text_of(path, beam, "RadiationType", "PHOTON")
    if radiation != "PHOTON":
        raise FileError(path, f"its RadiationType is {radiation}; expected PHOTON")
    unit = text_of(path, beam, "PrimaryDosimeterUnit", "MU")
    if unit != "MU":
        raise FileError(path, f"its PrimaryDosimeterUnit is {unit}; expected MU")
    check_modifiers(path, beam, label)
    boundaries, axis = _leaf_boundaries(path, beam)
    points = _control_points(path, beam, mu)
    modes = items_of(beam, "PrimaryFluenceModeSequence")
    mode = text_of(path, modes[0], "FluenceMode", "STANDARD") if modes else "STANDARD"
    if mode != "STANDARD":
        mode = text_of(path, modes[0], "FluenceModeID", mode)
    try:
        field = TreatmentField(
            name=text_of(path, beam, "BeamName", f"beam {number}"),
            number=number,
            points=points,
            sad=number_of(path, beam, "SourceAxisDistance") if "SourceAxisDistance" in beam else 1000.0,
            leaf_boundaries=boundaries,
            leaf_axis=axis,
            energy=_energy(path, items_of(beam, "ControlPointSequence")),
            fluence_mode=mode,
            machine=text_of(path, beam, "TreatmentMachineName", ""),
        )
    except InputError as error:
        raise FileError(path, str(error)) from None
    check_compensators(path, beam, field.technique)
    return field


def _energy(path: Path, points: list[Dataset]) -> float | None:
    """Return the nominal energy of all control points [MV]; None where it is not stated."""
    stated = [
        number_of(path, item, "NominalBeamEnergy") for item in points if item.get("NominalBeamEnergy") is not None
    ]
    if len(set(stated)) > 1:
        raise FileError(path, f"changes its NominalBeamEnergy from {stated[0]:g} MV; one energy is calculated")
    return stated[0] if stated else None


def _leaf_boundaries(path: Path, beam: Dataset) -> tuple[Floats | None, Literal["x", "y"]]:
    """Return the leaf boundaries (n + 1,) [mm], or None, and the axis along which leaves move."""
    found: list[tuple[Floats, Literal["x", "y"]]] = []
    for device in items_of(beam, "BeamLimitingDeviceSequence"):
        kind = text_of(path, device, "RTBeamLimitingDeviceType")
        if kind in _LEAVES:
            with inside(kind):
                pairs = whole_of(path, device, "NumberOfLeafJawPairs")
                found.append((positions_of(path, device, "LeafPositionBoundaries", pairs + 1), _LEAVES[kind]))
        elif kind not in _JAWS:
            raise FileError(path, f"has a beam-limiting device {kind}; known: {', '.join([*_JAWS, *_LEAVES])}")
    if len(found) > 1:
        raise FileError(path, f"has {len(found)} layers of leaves; expected one")
    return found[0] if found else (None, "x")


def _control_points(path: Path, beam: Dataset, mu: float) -> tuple[ControlPoint, ...]:
    """Return a beam's control points, with what is not repeated carried over."""
    final = number_of(path, beam, "FinalCumulativeMetersetWeight")
    if not final > 0.0:
        raise FileError(path, f"FinalCumulativeMetersetWeight is {final:g}; expected a number > 0")
    state: dict[str, Floats | float | str] = {"direction": "NONE"}
    table: dict[str, float] = {}
    weight = 0.0
    points: list[ControlPoint] = []
    for index, item in enumerate(items_of(beam, "ControlPointSequence")):
        with inside(f"control point {index}"):
            if item.get("CumulativeMetersetWeight") is not None:
                weight = number_of(path, item, "CumulativeMetersetWeight")
            _update(path, item, state)
            lacking = [name for name in ("gantry", "collimator", "couch", "isocenter") if name not in state]
            if lacking:
                raise FileError(path, f"the plan does not state {', '.join(lacking)}")
            try:
                points.append(_point(mu * weight / final, state))
            except InputError as error:
                raise FileError(path, str(error)) from None
            moved = not np.allclose(points[0].isocenter, points[-1].isocenter, rtol=0.0, atol=0.1)
            check_pose(path, item, table, moved)
    if abs(weight - final) > 1e-6 * final:
        raise FileError(
            path, f"its last control point is at meterset weight {weight:g}, but the final one is {final:g}"
        )
    return tuple(points)


def _update(path: Path, item: Dataset, state: dict[str, Floats | float | str]) -> None:
    """Take over what a control point states."""
    for keyword, name in _ANGLES.items():
        if item.get(keyword) is not None:
            state[name] = number_of(path, item, keyword)
    if item.get("GantryRotationDirection") is not None:
        direction = text_of(path, item, "GantryRotationDirection")
        state["direction"] = {"CCW": "CC"}.get(direction, direction)
    if item.get("IsocenterPosition") is not None:
        state["isocenter"] = positions_of(path, item, "IsocenterPosition", 3)
    for device in items_of(item, "BeamLimitingDevicePositionSequence"):
        kind = text_of(path, device, "RTBeamLimitingDeviceType")
        with inside(kind):
            values = positions_of(path, device, "LeafJawPositions")
            if kind in _LEAVES:
                if values.size % 2:
                    raise FileError(path, f"has {values.size} leaf positions; expected two for each pair")
                state["leaves"] = values.reshape(2, -1).T
            elif kind in _JAWS:
                state[_JAWS[kind]] = numbers_of(path, device, "LeafJawPositions", 2)
            else:
                raise FileError(path, f"is not known: {', '.join([*_JAWS, *_LEAVES])}")


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
