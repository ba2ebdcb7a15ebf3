"""Who a plan is calculated on: the patient it was made for, that contour filled with water, or a phantom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import DeliveryPlan
from radplan.beams.errors import shifted_fields
from radplan.beams.scanned import ScannedPlan
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.io.dicom import DicomCase, PlanReference, list_folder, read_case, read_water_case
from radplan.io.load import load_patient
from radplan.patient.ct import hu_table
from radplan.patient.patient import Patient
from radplan.patient.phantoms import PHANTOMS, water_cylinder
from radplan.patient.structures import Structure
from radplan.patient.supports import with_supports

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

VERIFICATION: Mapping[str, Callable[[], Patient]] = {"cylinder": water_cylinder, **PHANTOMS}
"""Phantoms that a plan is moved into: the isocentre of its first field goes to the middle of their contour."""


@dataclass(frozen=True)
class SceneOptions:
    """How the patient is taken.

    Parameters
    ----------
    water : bool
        Whether the external contour is filled with water, images or not.
    supports : bool
        Whether what the CT shows outside the external contour (couch top, mattress, mask) attenuates the beam.
    allow_other_frame : bool
        Whether a plan of another frame of reference, or of none and another structure set, is taken nevertheless.
    isocenter : (float, float, float), optional
        World position to move the first field's isocentre to, the others along with it [mm].
    structure_set : str or path-like, optional
        SOPInstanceUID or file of the structure set to take; of several that which the plan refers to otherwise.
    series : str, optional
        SeriesInstanceUID of the CT to take; of several that which the structure set refers to otherwise.
    hu_table : str or path-like, optional
        HU table, by name or file; the patient's own otherwise.
    patient_position : str
        How the patient lies (``"HFDR"``), in place of what the plan says; empty: as the plan says.
    densities : mapping of str to float
        By structure, later ones over earlier ones: electron density relative to water, for ions the relative stopping
        power, whatever the images show.

    >>> SceneOptions().water
    False
    """

    water: bool = False
    supports: bool = False
    allow_other_frame: bool = False
    isocenter: tuple[float, float, float] | None = None
    structure_set: str | Path | None = None
    series: str | None = None
    hu_table: str | Path | None = None
    patient_position: str = ""
    densities: Mapping[str, float] = field(default_factory=dict)


def scene_of(
    patient: str | Path | Patient | DicomCase,
    delivery: DeliveryPlan,
    belongs: PlanReference | None,
    options: SceneOptions,
) -> tuple[Patient, DicomCase | None, DeliveryPlan, tuple[str, ...]]:
    """Return patient, DICOM case where there is one, the plan as placed there, and what is to be said about it.

    Raises
    ------
    FileError
        When the patient cannot be read, or the plan was made on another one.
    InputError
        When the plan says of no image what the patient has, or the patient lies otherwise than in the plan.
    """
    notes: list[str] = []
    if options.patient_position:
        stated = delivery.patient_position or "nothing"
        notes.append(f"the patient lies {options.patient_position}; the plan says {stated}")
        delivery = replace(delivery, patient_position=options.patient_position)
    found, case, phantom = _patient(patient, belongs, options)
    if options.hu_table is not None:
        found = replace(found, hu_table=hu_table(options.hu_table))
    unknown = phantom or (case is not None and not case.series.orientation.patient_position)
    if unknown and delivery.patient_position:
        found = replace(found, patient_position=delivery.patient_position)
    if case is not None and belongs is not None:
        notes += _check_belonging(delivery, belongs, case, options.allow_other_frame)
    target = options.isocenter
    if target is None and phantom:
        target = middle_of(found.external)
    if target is not None:
        delivery = moved_to(delivery, target)
        said = ", ".join(f"{value:.1f}" for value in target)
        notes.append(f"the plan's isocentre is moved to ({said}) mm")
    if found.external not in found.structures.values():
        found = found.with_structure(found.external.name, found.external)
        volume = found.external.volume / 1000
        notes.append(f"the external contour was found by threshold ({volume:.0f} cm3)")
    if options.water and case is not None and case.series.files:
        found = found.with_density(replace(found.external, fraction=None), 1.0)
    if options.water:
        notes.append("the external contour is filled with water")
    for name, density in options.densities.items():
        if name not in found.structures:
            raise UnknownNameError("structure whose density is given", name, found.structures)
        found = found.with_density(replace(found.structures[name], fraction=None), density)
        notes.append(f"{name} has the density {density:g} relative to water")
    if options.supports:
        found, volume = with_supports(found)
        notes.append(f"supports outside the external contour attenuate the beam ({volume / 1000:.0f} cm3 of water)")
    _check_position(found, case, delivery)
    return found, case, delivery, tuple(notes)


def course_fractions(given: int | None, plan: DeliveryPlan | ScannedPlan) -> int:
    """Return the number of fractions that was given, else that of the plan.

    Raises
    ------
    InputError
        When neither says it, or it is no whole number >= 1.
    """
    count = plan.fractions if given is None else given
    if count is None:
        raise InputError(f"plan {plan.name!r} does not say how many fractions it has: give fractions=")
    if not (count >= 1 and float(count).is_integer()):
        whose = f" from plan {plan.name!r}: give fractions=" if given is None else ""
        raise InputError(f"fractions must be a whole number >= 1, got {count}{whose}")
    return int(count)


def _patient(
    given: str | Path | Patient | DicomCase, belongs: PlanReference | None, options: SceneOptions
) -> tuple[Patient, DicomCase | None, bool]:
    """Return patient, case, and whether it is a phantom."""
    if isinstance(given, DicomCase):
        return given.patient, given, False
    if isinstance(given, Patient):
        return given, None, False
    if str(given) in VERIFICATION:
        return VERIFICATION[str(given)](), None, True
    path = Path(given)
    if not path.is_dir() and not (options.water and path.is_file()):
        return load_patient(given), None, False
    folder = list_folder(path)
    structure_set = options.structure_set
    if structure_set is None and belongs is not None:
        sets = [entry.instance for entry in folder.of("RTSTRUCT")]
        structure_set = belongs.structure_set if belongs.structure_set in sets else None
    if options.water and not folder.series():
        case = read_water_case(path, structure_set=structure_set)
    elif not folder.series() and folder.of("RTSTRUCT"):
        raise FileError(path, "holds no CT series, but a structure set: fill its external contour with water (--water)")
    else:
        case = read_case(path, options.series, structure_set)
    return case.patient, case, False


def _check_belonging(delivery: DeliveryPlan, belongs: PlanReference, case: DicomCase, allowed: bool) -> tuple[str, ...]:
    """Raise where nothing says that plan and patient share coordinates; tell of another structure set."""
    frame, drawn = case.series.frame_of_reference, belongs.structure_set
    same_set = bool(drawn) and drawn == case.structure_set
    if belongs.frame_of_reference and frame and belongs.frame_of_reference != frame:
        cause = f"its frame of reference is {belongs.frame_of_reference}, that of the images {frame}"
    elif not belongs.frame_of_reference and not same_set:
        cause = (
            f"it states no frame of reference, and its structure set {drawn or '(not stated)'} is not the patient's "
            f"({case.structure_set or 'none'})"
        )
    else:
        note = "the plan was made on another structure set of the same frame of reference"
        return () if same_set or not drawn else (note,)
    if not allowed:
        raise InputError(
            f"plan {delivery.name!r} and patient {case.patient.name!r} may not share coordinates: {cause}; give the "
            "patient it was made on, or allow another frame if you know that they do (--allow-other-frame)"
        )
    return (f"taken in spite of this: {cause}",)


def _check_position(patient: Patient, case: DicomCase | None, delivery: DeliveryPlan) -> None:
    lay = case.series.orientation.patient_position if case is not None else ""
    planned = delivery.patient_position
    if planned and lay and planned != lay:
        raise InputError(f"plan {delivery.name!r} treats the patient {planned}, but the images show it {lay}")
    if planned and planned != patient.patient_position:
        raise InputError(
            f"plan {delivery.name!r} treats the patient {planned}, but patient {patient.name!r} lies "
            f"{patient.patient_position}"
        )
    low, high = patient.ct.grid.bounds
    for one in delivery:
        for index, point in enumerate(one.points):
            if np.any(point.isocenter < low) or np.any(point.isocenter > high):
                raise InputError(
                    f"{one.label}, control point {index}: its isocentre {point.isocenter.tolist()} mm lies outside "
                    f"the images ({low.tolist()} to {high.tolist()} mm): does the plan belong to this patient?"
                )


def moved_to(delivery: DeliveryPlan, isocenter: npt.ArrayLike) -> DeliveryPlan:
    """Return a plan whose first field's isocentre lies at a world position (3,) [mm]; the others move along.

    >>> from radplan.beams.control_points import ControlPoint, TreatmentField
    >>> points = tuple(ControlPoint(m, 0.0, 0.0, 0.0, [1.0, 2.0, 3.0]) for m in (0.0, 100.0))
    >>> moved = moved_to(DeliveryPlan("boost", (TreatmentField("AP", 1, points, 1000.0),)), [0.0, 0.0, 0.0])
    >>> moved.fields[0].points[1].isocenter.tolist()
    [0.0, 0.0, 0.0]
    """
    shift = np.asarray(isocenter, dtype=np.float64) - delivery.fields[0].points[0].isocenter
    return replace(delivery, fields=shifted_fields(delivery, shift))


def middle_of(structure: Structure) -> tuple[float, float, float]:
    """Return the middle of the box around a structure, a world position [mm]."""
    points = structure.grid.points(structure.voxels)
    x, y, z = (0.5 * (points.min(axis=0) + points.max(axis=0))).tolist()
    return x, y, z
