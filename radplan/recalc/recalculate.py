"""A photon plan of any system, calculated again from its leaves, jaws and monitor units."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from radplan.analysis.dvh import DVH
from radplan.analysis.gamma import GammaCriteria
from radplan.beams.beam import Beam, Beams
from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.engines import ApertureModel, ApertureOptions, PhotonAperture, forward_model
from radplan.engines.photon.terms import scales_with_density
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import ForwardModel, Scenarios
from radplan.influence.cases import model_of_case
from radplan.influence.joined import JoinedModel
from radplan.io.dicom import DicomCase, PlanReference, read_plan, read_plan_reference
from radplan.io.reference import ReferenceDose, read_reference
from radplan.machines import MLC, PhotonMachine, Reference, library_mlc, matching_mlc
from radplan.patient.names import names_lung
from radplan.patient.patient import Patient
from radplan.plan import Plan, evaluate
from radplan.progress import Choice, listening
from radplan.recalc.comparison import Comparison, compare
from radplan.recalc.linac import machines_of
from radplan.recalc.scene import SceneOptions, course_fractions, scene_of

logger = logging.getLogger(__name__)

_ARROW_STEP = 30.0
"""Distance of the directions that stand for an arc in figures [degree]."""


@dataclass(frozen=True, eq=False)
class Recalculation:
    """A plan calculated again, and how it compares. Doses are course totals: of one fraction times their number.

    Parameters
    ----------
    plan : Plan
        Dose, DVHs, metrics on the dose grid; its variables are leaves, jaws and monitor units as the file has them.
    delivery : DeliveryPlan
        What was calculated, where it was calculated.
    machines : tuple of PhotonMachine
        Linac model of each field.
    mlcs : tuple of MLC or None
        Collimator of each field.
    options : ApertureOptions
        How dose was calculated.
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
    delivery: DeliveryPlan
    machines: tuple[PhotonMachine, ...]
    mlcs: tuple[MLC | None, ...]
    options: ApertureOptions
    comparison: Comparison | None = None
    notes: tuple[str, ...] = ()
    case: DicomCase | None = field(default=None, repr=False)
    belongs: PlanReference = field(default_factory=PlanReference)

    @property
    def machine_names(self) -> tuple[str, ...]:
        """Names of the linac models, each once."""
        return tuple(dict.fromkeys(machine.name for machine in self.machines))

    @property
    def dose(self) -> npt.NDArray[np.float64]:
        """Dose of the course (nz, ny, nx) [Gy]; 0 where nothing is calculated."""
        return np.maximum(np.asarray(self.plan["physical_dose"], dtype=np.float64), 0.0)

    @property
    def grid(self) -> Grid:
        """The dose grid."""
        return self.plan.model.grid

    @property
    def fractions(self) -> int:
        """Number of fractions in the course."""
        return self.plan.fractions

    @property
    def factor(self) -> float | None:
        """What the dose would have to be multiplied with to fit the reference, where that was asked for."""
        return None if self.comparison is None else self.comparison.factor

    @property
    def summary(self) -> str:
        """Patient, machine, fields, monitor units and course in a line."""
        delivery, techniques = self.delivery, sorted({field.technique for field in self.delivery})
        count = len(delivery)
        fields = f"{count} {' and '.join(techniques)} field{'s' if count > 1 else ''}"
        machines = " and ".join(self.machine_names)
        course = f"{self.fractions} fraction{'s' if self.fractions > 1 else ''}"
        return f"{self.plan.patient.name} · {machines} · {fields} · {delivery.mu:.0f} MU · {course}"

    def dvh(self) -> dict[str, DVH]:
        """Return the cumulative DVH of each structure, course totals."""
        return self.plan.dvh()


def recalculate(
    plan: str | Path | DeliveryPlan,
    patient: str | Path | Patient | DicomCase,
    machine: str | Path | PhotonMachine | Sequence[str | Path | PhotonMachine] | None = None,
    mlc: str | MLC | None = None,
    calibration: Literal["machine", "isocentric"] | Reference = "machine",
    grid: float | tuple[float, float, float] | Grid = 3.0,
    options: ApertureOptions | None = None,
    fractions: int | None = None,
    reference: str | Path | Sequence[str | Path] | ReferenceDose | None = None,
    names: Mapping[str, str] | None = None,
    fit_factor: bool | str = False,
    gamma: GammaCriteria | None = None,
    skin: float = 0.0,
    scene: SceneOptions | None = None,
    device: str = "numpy",
    dtype: str = "float32",
    progress: Choice = None,
    scenarios: Scenarios | None = None,
) -> Recalculation:
    """Calculate the dose of a photon plan from its leaves, jaws and monitor units, and put it beside a reference.

    Parameters
    ----------
    plan : path-like or DeliveryPlan
        An RTPLAN file: static fields, step and shoot, sliding windows or arcs.
    patient : path-like, Patient or DicomCase
        A DICOM folder, anything else `load_patient` takes, or ``"cylinder"``; into a phantom the plan is moved.
    machine : path-like or PhotonMachine, or several, optional
        Linac model; of several each field takes that of the nearest energy. Generic ones by nominal energy otherwise.
    mlc : str or MLC, optional
        Collimator; the known one with the plan's leaf boundaries otherwise.
    calibration : "machine", "isocentric" or Reference
        What a monitor unit is worth: as the machine has it (the shipped ones: 1 cGy at the depth of maximum, 10x10 at
        the surface, SSD 100 cm), the same with that point in the isocentre, or another condition.
    grid : float, (float, float, float) or Grid
        Dose grid, or its spacing [mm].
    options : ApertureOptions, optional
        How dose is calculated.
    fractions : int, optional
        Number of fractions, 1 or more; the plan's otherwise.
    reference : path-like, several of them, or ReferenceDose, optional
        RTDOSE or NRRD dose, DVH table, or one of each.
    names, fit_factor, gamma, skin
        See `radplan.recalc.compare`.
    scene : SceneOptions, optional
        How the patient is taken: water, supports, other frames.
    device, dtype : str
        Where it runs, and ``"float32"`` or ``"float64"``.
    progress : bool or callable, optional
        True shows a bar with the time left, False nothing, a callable is told each `radplan.progress.Report`; left
        out, a bar is shown in a terminal or a notebook.
    scenarios : Scenarios, optional
        Cases of setup and range to calculate beside the nominal one, each as long as it: see `radplan.plan.dvh_bands`.

    Raises
    ------
    FileError
        When a file cannot be read or holds what cannot be calculated; beam and control point are named.
    InputError
        When plan, patient, machine and reference do not belong together.
    """
    with listening(progress):
        belongs = PlanReference() if isinstance(plan, DeliveryPlan) else read_plan_reference(plan)
        delivery = plan if isinstance(plan, DeliveryPlan) else read_plan(plan)
        count = course_fractions(fractions, delivery)
        linacs, said = machines_of(machine, delivery, calibration)
        where, chosen = SceneOptions() if scene is None else scene, ApertureOptions() if options is None else options
        collimator = library_mlc(mlc) if isinstance(mlc, str) else mlc
        mlcs = tuple(_mlc(*pair, collimator) for pair in zip(delivery, linacs, strict=True))
        held, case, delivery, notes = scene_of(patient, delivery, belongs if belongs.instance else None, where)
        beside = _reference(reference, case, where.allow_other_frame)
        held = replace(held, fractions=count, prescription=belongs.prescription or held.prescription)
        chosen, wide = _density_scaling(chosen, held, linacs)
        asked = {"grid": grid, "device": device, "dtype": dtype, "scenarios": scenarios}
        model = _model(held, delivery, linacs, PhotonAperture(collimator, chosen), **asked)
        arrows = _arrows(delivery, linacs)
        evaluated = replace(evaluate(model, model.variables.start, held, count, arrows), normalization="recalculated")
    compared = None if beside is None else compare(evaluated, beside, names, fit_factor, gamma, skin)
    notes = (*said, *wide, *_announced(delivery, chosen), *notes, *_strangers(beside, belongs))
    for note in notes:
        logger.info("%s", note)
    return Recalculation(evaluated, delivery, linacs, mlcs, chosen, compared, notes, case, belongs)


def _model(
    patient: Patient,
    delivery: DeliveryPlan,
    machines: Sequence[PhotonMachine],
    engine: PhotonAperture,
    **asked: Any,
) -> ForwardModel:
    """Return the forward model of all fields, those of one machine together."""
    groups: dict[int, list[TreatmentField]] = {}
    known = {id(machine): machine for machine in machines}
    for treated, machine in zip(delivery, machines, strict=True):
        groups.setdefault(id(machine), []).append(treated)
    # Why no position: `scene_of` has looked at it.
    models = [
        forward_model(
            patient, replace(delivery, fields=tuple(fields), patient_position=""), known[key], engine=engine, **asked
        )
        for key, fields in groups.items()
    ]
    return models[0] if len(models) == 1 else JoinedModel.of(models)


def _mlc(field: TreatmentField, machine: PhotonMachine, given: MLC | None) -> MLC | None:
    if field.leaf_boundaries is None:
        return None
    try:
        return machine.collimation.of(matching_mlc(field.leaf_boundaries)) if given is None else given
    except InputError as error:
        raise InputError(f"{field.label}: {error}") from None


def _reference(
    given: str | Path | Iterable[str | Path] | ReferenceDose | None, case: DicomCase | None, allowed: bool
) -> ReferenceDose | None:
    if given is None or isinstance(given, ReferenceDose):
        return given
    return read_reference(given, case, allowed)


def _strangers(reference: ReferenceDose | None, belongs: PlanReference) -> tuple[str, ...]:
    """Return what is to be said of a reference dose that says it belongs to another plan."""
    named = "" if reference is None or reference.dose is None else reference.dose.plan
    if not named or not belongs.instance or named == belongs.instance:
        return ()
    return (f"the reference dose belongs to another plan ({named}) than the one calculated ({belongs.instance})",)


def _density_scaling(
    options: ApertureOptions, patient: Patient, machines: Sequence[PhotonMachine]
) -> tuple[ApertureOptions, tuple[str, ...]]:
    """Return the options with density scaling said where all machines have the same, and what is to be said of it."""
    asked = options.density_scaling
    scaled = {scales_with_density(patient, machine, asked) for machine in machines}
    told: tuple[str, ...] = ()
    if scaled == {True}:
        why = "as lungs are contoured" if asked is None else "as asked"
        told = (f"density scaling: kernels are wider where density is low, {why}",)
    elif any(names_lung(name) for name in patient.structures):
        why = "which a machine's kernel does not allow" if asked is None else "which was refused"
        told = (
            "lung: kernels are as wide as in water, which beside Monte Carlo is 2 to 6 % too much dose in and behind "
            f"lung, 5 to 15 % in fields of 5 cm; density scaling mends that, {why}",
        )
    return (replace(options, density_scaling=scaled.pop()) if len(scaled) == 1 else options), told


def _announced(delivery: DeliveryPlan, options: ApertureOptions) -> tuple[str, ...]:
    """Return what the calculation leaves out of this plan."""
    turning, steps = [one for one in delivery if one.technique == "arc"], options.gantry_steps
    if not turning:
        return ()
    return (f"{len(turning)} arcs: each segment at {steps} gantry position{'s' if steps > 1 else ''}",)


def _arrows(delivery: DeliveryPlan, machines: Sequence[PhotonMachine]) -> Beams:
    """Return a direction for each field, and several for an arc, to show in figures."""
    found: list[Beam] = []
    for one, machine in zip(delivery, machines, strict=True):
        last: float | None = None
        for segment in one.segments:
            gantry = segment.gantry(0.5)
            if last is None or (one.technique == "arc" and abs((gantry - last + 180) % 360 - 180) >= _ARROW_STEP):
                pose = segment.start
                found.append(
                    Beam(
                        gantry, pose.couch, pose.collimator, pose.isocenter, machine.sad, 10.0, np.asarray([[0.0, 0.0]])
                    )
                )
                last = gantry
    return Beams(tuple(found), "photons", " and ".join(dict.fromkeys(machine.name for machine in machines)))


def control_points(recalculation: Recalculation) -> list[dict[str, object]]:
    """Return per field its name, technique, monitor units and number of control points, as calculated."""
    model = recalculation.plan.model
    models = model.models if isinstance(model, JoinedModel) else (model,)
    units: dict[int, float] = {}
    start = 0
    for part in models:
        nominal = model_of_case(part, 0)
        if isinstance(nominal, ApertureModel):
            given = recalculation.plan.x[start : start + part.variables.count]
            units |= {layout.field.number: float(given[layout.mu_slice].sum()) for layout in nominal.layouts}
        start += part.variables.count
    return [
        {
            "number": one.number,
            "name": one.name,
            "technique": one.technique,
            "mu": units.get(one.number, one.mu),
            "control_points": len(one.points),
            "gantry": [one.points[0].gantry, one.points[-1].gantry],
            "energy": one.energy,
            "mlc": None if mlc is None else mlc.name,
            "machine": machine.name,
        }
        for one, mlc, machine in zip(recalculation.delivery, recalculation.mlcs, recalculation.machines, strict=True)
    ]
