"""A plan of scanned ions of any system, calculated again from its spots and monitor units."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.analysis.dvh import DVH
from radplan.analysis.gamma import GammaCriteria
from radplan.arrays import to_numpy
from radplan.beams.beam import Beam, Beams
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.beams.scanned import ScannedField, ScannedPlan, check_spots, spot_beams
from radplan.engines import dose_influence
from radplan.engines.particle.pencil_beam import ParticlePencilBeam
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, ForwardModel, Scenarios
from radplan.influence.cases import model_of_case, over_cases
from radplan.influence.joined import JoinedModel
from radplan.influence.saved import SavedModel
from radplan.io.dicom import DicomCase, PlanReference, read_ion_plan, read_plan_reference
from radplan.io.load import load_machine
from radplan.io.reference import ReferenceDose, read_reference
from radplan.machines import ParticleMachine, at_energies, scanned_from
from radplan.machines.files import GENERIC
from radplan.patient.patient import Patient
from radplan.plan import Plan, evaluate
from radplan.progress import Choice, listening
from radplan.recalc.comparison import Comparison, compare
from radplan.recalc.scene import SceneOptions, course_fractions, scene_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class IonRecalculation:
    """A plan of scanned ions calculated again, and how it compares. Doses are course totals.

    Parameters
    ----------
    plan : Plan
        Dose, RBE-weighted dose, LETd, DVHs and metrics on the dose grid; its variables are the weights of the spots.
    scanned : ScannedPlan
        What was calculated, where it was calculated.
    machine : ParticleMachine
        The machine, at the plan's energies.
    comparison : Comparison, optional
        Where a reference was given.
    notes : tuple of str
        What a reader of the numbers has to know.
    case : DicomCase, optional
        The images and structure set, where they came from DICOM.
    belongs : PlanReference
        What the plan file refers to.
    """

    plan: Plan
    scanned: ScannedPlan
    machine: ParticleMachine
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    case: DicomCase | None = field(default=None, repr=False)
    belongs: PlanReference = field(default_factory=PlanReference)

    @property
    def dose(self) -> npt.NDArray[np.float64]:
        """The dose that is compared, physical or RBE-weighted, of the course (nz, ny, nx) [Gy or Gy(RBE)]."""
        quantity = "physical_dose" if self.comparison is None else self.comparison.quantity
        return np.nan_to_num(np.maximum(np.asarray(self.plan[quantity], dtype=np.float64), 0.0))

    @property
    def grid(self) -> Grid:
        """The dose grid."""
        return self.plan.model.grid

    @property
    def fractions(self) -> int:
        """Number of fractions in the course."""
        return self.plan.fractions

    def dvh(self) -> dict[str, DVH]:
        """Return the cumulative DVH of each structure of the dose that is compared, course totals."""
        return self.plan.dvh("physical_dose" if self.comparison is None else self.comparison.quantity)

    @property
    def summary(self) -> str:
        """Patient, machine, fields, spots and course in a line."""
        count, spots = len(self.scanned), sum(one.count for one in self.scanned)
        fields = f"{count} field{'s' if count > 1 else ''} of {self.scanned.radiation}, {spots} spots"
        course = f"{self.fractions} fraction{'s' if self.fractions > 1 else ''}"
        return f"{self.plan.patient.name} · {self.machine.name} · {fields} · {self.scanned.mu:.0f} MU · {course}"


def recalculate_ions(
    plan: str | Path | ScannedPlan,
    patient: str | Path | Patient | DicomCase,
    machine: str | Path | ParticleMachine | None = None,
    grid: float | tuple[float, float, float] | Grid = 3.0,
    *,
    engine: ParticlePencilBeam | None = None,
    fractions: int | None = None,
    reference: str | Path | Sequence[str | Path] | ReferenceDose | None = None,
    names: Mapping[str, str] | None = None,
    fit_factor: bool | str = False,
    gamma: GammaCriteria | None = None,
    skin: float = 0.0,
    scene: SceneOptions | None = None,
    range_shifters: Mapping[str, float] | None = None,
    device: str = "numpy",
    dtype: str = "float32",
    progress: Choice = None,
    scenarios: Scenarios | None = None,
) -> IonRecalculation:
    """Calculate dose, RBE-weighted dose and LETd of a plan of scanned ions, and put the dose beside a reference.

    Parameters
    ----------
    plan : path-like or ScannedPlan
        An RT Ion Plan: static fields of scanned spots.
    patient : path-like, Patient or DicomCase
        A DICOM folder, anything else `load_patient` takes, or ``"cylinder"``; into a phantom the plan is moved.
    machine : path-like or ParticleMachine, optional
        As `radplan commission` makes it; generic ones by radiation otherwise. Energies between its tables are
        interpolated; its scanning distances are those of the plan.
    grid : float, (float, float, float) or Grid
        Dose grid, or its spacing [mm].
    engine : ParticlePencilBeam, optional
        How dose is calculated.
    fractions : int, optional
        Number of fractions, 1 or more; the plan's otherwise.
    reference : path-like, several of them, or ReferenceDose, optional
        RTDOSE or NRRD dose, DVH table, or one of each. With a dose of the type EFFECTIVE the RBE-weighted dose is
        compared.
    names, fit_factor, gamma, skin
        See `radplan.recalc.compare`.
    scene : SceneOptions, optional
        How the patient is taken: water, densities of structures, supports, other frames.
    range_shifters : mapping of str to float, optional
        Water-equivalent thickness [mm] by the shifter's ID, where the file does not state it.
    device, dtype : str
        Where it runs, and ``"float32"`` or ``"float64"``.
    progress : bool or callable, optional
        As in `radplan.recalculate`.
    scenarios : Scenarios, optional
        Cases of setup and range to calculate beside the nominal one.

    Raises
    ------
    FileError
        When a file cannot be read or holds what cannot be calculated; field, layer and attribute are named.
    InputError
        When plan, patient, machine and reference do not belong together: an energy or the MU of a spot outside what the
        machine delivers names field and layer.
    """
    with listening(progress):
        belongs = PlanReference() if isinstance(plan, ScannedPlan) else read_plan_reference(plan)
        scanned = plan if isinstance(plan, ScannedPlan) else read_ion_plan(plan, range_shifters)
        count = course_fractions(fractions, scanned)
        where = SceneOptions() if scene is None else scene
        placed = belongs if belongs.instance else None
        lying, case, delivery, notes = scene_of(patient, _placement(scanned), placed, where)
        scanned = replace(
            scanned,
            fields=tuple(_moved(a, b) for a, b in zip(scanned, delivery, strict=True)),
            patient_position=delivery.patient_position,
        )
        chosen, said = _machine(machine, scanned)
        given = None
        if reference is not None:
            given = reference if isinstance(reference, ReferenceDose) else read_reference(
                reference, case, where.allow_other_frame, effective=True
            )  # fmt: skip
        lying = replace(lying, fractions=count, prescription=belongs.prescription or lying.prescription)
        lying = replace(lying, patient_position=scanned.patient_position or lying.patient_position)
        model, weights, beams = _model(
            lying, scanned, chosen, grid, engine=engine or ParticlePencilBeam(lateral="accurate"), device=device,
            dtype=dtype, scenarios=scenarios,
        )  # fmt: skip
        evaluated = replace(evaluate(model, weights, lying, count, beams), normalization="recalculated")
    compared = None
    if given is not None:
        quantity = "rbe_x_dose" if given.dose is not None and given.dose.dose_type == "EFFECTIVE" else "physical_dose"
        compared = compare(evaluated, given, names, fit_factor, gamma, skin, quantity)
    notes = (*said, *notes)
    for note in notes:
        logger.info("%s", note)
    return IonRecalculation(evaluated, scanned, chosen, compared, notes, case, belongs)


def _machine(
    given: str | Path | ParticleMachine | None, scanned: ScannedPlan
) -> tuple[ParticleMachine, tuple[str, ...]]:
    """Return the machine at the plan's energies, checked against the plan, and what is to be said about it."""
    name = GENERIC[scanned.radiation] if given is None else given
    machine = name if isinstance(name, ParticleMachine) else load_machine(name)
    if not isinstance(machine, ParticleMachine):
        raise InputError(
            f"machine {machine.name!r} gives {machine.radiation}, not scanned ions: give --machine of a beam model "
            "(radplan commission protons) or a generic one (radplan machines)"
        )
    check_spots(scanned, machine)
    notes = (
        ("generic machine; blind: not fitted to the clinic's beam, nor to its monitor units",) if given is None else ()
    )
    return at_energies(machine, scanned.energies), notes


def _model(
    patient: Patient, scanned: ScannedPlan, machine: ParticleMachine, grid: Any, **asked: Any
) -> tuple[ForwardModel, npt.NDArray[np.float64], Beams]:
    """Return the forward model of all fields, those of one pair of scanning distances together, weights and beams."""
    models: list[ForwardModel] = []
    weights: list[npt.NDArray[np.float64]] = []
    shot: list[Beam] = []
    for distances in dict.fromkeys(one.virtual_sad for one in scanned):
        near = scanned_from(machine, distances)
        fields = tuple(one for one in scanned if one.virtual_sad == distances)
        beams, own = spot_beams(replace(scanned, fields=fields, patient_position=patient.patient_position), near)
        models.append(_kept(dose_influence(patient, beams, near, grid, stored=False, **asked), own))
        weights.append(own)
        shot += beams
    whole = models[0] if len(models) == 1 else JoinedModel.of(models)
    return whole, np.concatenate(weights), Beams(tuple(shot), scanned.radiation, machine.name)


def _kept(model: Dij, weights: npt.NDArray[np.float64]) -> ForwardModel:
    """Return a model that calculates the images of these weights once, in each scenario, and keeps them."""
    cases = [model_of_case(model, number) for number in range(len(model.scenarios.names))]
    kept = []
    for case in cases:
        assert isinstance(case, Dij)
        images = {name: to_numpy(values) for name, values in case.forward(case.device.asarray(weights)).items()}
        kept.append(SavedModel(case.rows, images, weights, case.radiation, case.machine, partial(_itself, case)))
    return kept[0] if len(kept) == 1 else over_cases(kept, model.scenarios)


def _itself(model: ForwardModel) -> ForwardModel:
    return model


def _placement(scanned: ScannedPlan) -> DeliveryPlan:
    """Return what says where the fields of a plan lie: open fields in its poses."""
    fields = []
    for one in scanned:
        points = tuple(ControlPoint(mu, one.gantry, 0.0, one.couch, one.isocenter) for mu in (0.0, 1.0))
        fields.append(TreatmentField(one.name, one.number, points, min(one.virtual_sad)))
    return DeliveryPlan(scanned.name, tuple(fields), scanned.fractions, scanned.patient_position)


def _moved(one: ScannedField, there: TreatmentField) -> ScannedField:
    return replace(one, isocenter=np.asarray(there.points[0].isocenter, dtype=np.float64))
