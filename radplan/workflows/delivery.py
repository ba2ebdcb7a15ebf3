"""From goals or a fluence to a file that a linac delivers, and the dose that the file gives, beside two others."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_dilation

from radplan.analysis.gamma import GammaCriteria, gamma_index
from radplan.beams.beam import Beams
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.arc_bixels import bixel_beams
from radplan.delivery.arcs import ArcOptions, ArcOutcome, check_arcs, scaled_mu, search_arcs
from radplan.delivery.bixel_apertures import bixel_apertures
from radplan.delivery.check import DeliveryReport, check_delivery
from radplan.delivery.refine import refine_apertures
from radplan.delivery.rounding import rounded_plan
from radplan.delivery.sequencing import sequence
from radplan.delivery.sequencing.sequence import check_sequence
from radplan.engines import ApertureModel, aperture_model, dose_influence
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence import Dij
from radplan.io.dicom import RTPlanOptions, export_rtplan, read_plan, read_plan_reference, write_dose
from radplan.io.dicom.rtplan_export import structures_path
from radplan.io.dicom.writing import check_identity, series_of
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.staging import staged
from radplan.machines.limits import MachineLimits, machine_limits
from radplan.machines.photon import PhotonMachine
from radplan.optim import Goal
from radplan.patient.patient import Patient
from radplan.plan import Plan, evaluate
from radplan.plan.resequence import resequence
from radplan.progress import report
from radplan.workflows.radiation import check_density_scaling

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase

Floats = npt.NDArray[np.float64]
Level = tuple[str, Any, dict[str, float]]

METRICS = ("Dmean", "D95", "D10", "D2")
"""What the doses are compared by."""


@dataclass(frozen=True)
class Agreement:
    """How the exact engine's dose compares with the optimised apertures' after one factor, on the same voxels.

    Parameters
    ----------
    factor : float
        Exact dose over the apertures' dose, fitted.
    dice_50, dice_95 : float
        Overlap of what gets 50 and 95 % of the level, 1 is the same.
    mean_difference : float
        Mean of the absolute difference where either is above a tenth of the maximum, over the level [%].
    gamma : float
        Share of voxels within 3 % and 3 mm [%].
    d10 : mapping of str to (float, float)
        D10 of every target and organ by the apertures, times the factor, and by the exact engine [Gy].
    """

    factor: float
    dice_50: float
    dice_95: float
    mean_difference: float
    gamma: float
    d10: Mapping[str, tuple[float, float]]

    def described(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        return {**self.__dict__, "d10": {name: list(pair) for name, pair in self.d10.items()}}


@dataclass(frozen=True, eq=False)
class Delivered:
    """A plan that a linac delivers, with what is told about it.

    Parameters
    ----------
    delivery : DeliveryPlan
        As read back from the exported file.
    limits : MachineLimits
        Of the linac.
    report : DeliveryReport
        Limits, times, scores.
    doses : mapping of str to Plan
        ``"fluence optimum"``, ``"optimised apertures"`` and ``"exported file"``, in this order, at the same level; the
        first two only where they were asked for.
    agreement : Agreement, optional
        Of the last two.
    """

    delivery: DeliveryPlan
    limits: MachineLimits
    report: DeliveryReport
    doses: Mapping[str, Plan]
    agreement: Agreement | None = None

    @property
    def plan(self) -> Plan:
        """The dose of the exported file."""
        return self.doses["exported file"]

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return metrics [Gy] by dose and structure."""
        names = _judged(self.plan.patient)
        return {label: plan.metrics(structures=names, names=list(METRICS)) for label, plan in self.doses.items()}

    def described(self) -> dict[str, Any]:
        """Return the report as plain data."""
        per_gray, model = self.report.mu / self._dose_per_fraction, self.plan.model
        return {
            "limits": self.limits.name,
            "density_scaling": isinstance(model, ApertureModel) and model.density_scaling,
            **self.report.scores(),
            "mu_per_gray": per_gray,
            "fields": [
                {"name": field.name, "technique": field.technique, "mu": field.mu, "seconds": float(times.beam_on)}
                for field, times in zip(self.delivery.fields, self.report.times, strict=True)
            ],
            "doses": self.table(),
            "exact_against_apertures": None if self.agreement is None else self.agreement.described(),
        }

    @property
    def _dose_per_fraction(self) -> float:
        """Mean dose per fraction of the target that gets most [Gy]."""
        plan = self.plan
        means = plan.metrics(structures=list(plan.patient.target_names), names=["Dmean"])
        return max(values["Dmean"] for values in means.values()) / plan.fractions


def deliver_arcs(
    spec: PlanSpec,
    patient: Patient,
    machine: PhotonMachine,
    goals: Sequence[Goal],
    level: Level | None,
    case: DicomCase | None = None,
    finish: Callable[[ArcOutcome, Patient], ArcOutcome] | None = None,
) -> Delivered:
    """Return arcs planned from goals, as read back from their file.

    Parameters
    ----------
    spec : PlanSpec
        With ``delivery.technique`` ``"vmat"``.
    patient, machine : Patient, PhotonMachine
        For whom and with what.
    goals : sequence of Goal
        Of doses.
    level : (structure, quantity, metric and Gy), optional
        What monitor units are scaled to.
    case : DicomCase, optional
        The images that the file refers to.
    finish : callable, optional
        Given what the search ended with and the patient, returns arcs that are better by another measure.
    """
    wanted, limits = spec.delivery, machine_limits(spec.delivery.limits)
    outcome = search_arcs(
        patient,
        goals,
        machine,
        limits=limits,
        arcs=wanted.arcs,
        options=_options(spec),
        grid=_spacing(spec),
        fractions=spec.fractions,
        isocenter=spec.beams.isocenter,
        level=_volume_level(level, goals),
    )
    if finish is not None:
        outcome = finish(outcome, patient)
    doses: dict[str, Plan] = {}
    if wanted.compare:
        weights = outcome.search.weights()
        free = outcome.search.fluence()
        doses = _bixel_plans(outcome, {"fluence optimum": free, "optimised apertures": weights}, patient, machine, spec)
    return _finished(outcome.plan, doses, spec, patient, machine, limits, level, case)


def deliver_fluence(
    fluence: Plan,
    spec: PlanSpec,
    machine: PhotonMachine,
    goals: Sequence[Goal],
    level: Level | None,
    case: DicomCase | None = None,
    finish: Callable[[DeliveryPlan, Plan], DeliveryPlan] | None = None,
) -> Delivered:
    """Return step and shoot or sliding windows of a plan of bixel weights, as read back from their file.

    Parameters
    ----------
    fluence : Plan
        Optimised on bixels whose rows are leaf pairs.
    spec, machine, goals, level, case
        As for `deliver_arcs`.
    finish : callable, optional
        Given the refined shapes and the plan of the fluence, returns shapes that are better by another measure.
    """
    wanted, limits = spec.delivery, machine_limits(spec.delivery.limits)
    mlc, patient = limits.collimator(), fluence.patient
    method = wanted.method if wanted.technique == "step_and_shoot" else "sliding_window"
    if not isinstance(fluence.model, Dij):
        raise InputError("apertures are refined on a Dij: set engine: {stored: true}")
    if wanted.intermediate_doses:
        steps = resequence(
            fluence, machine, mlc, method=method, levels=wanted.levels, limits=limits,
            intermediate_doses=wanted.intermediate_doses,
        )  # fmt: skip
    else:
        steps = sequence(fluence, mlc, method=method, levels=wanted.levels, limits=limits, machine=machine)
    shapes = [len(field.segments) for field in steps.fields]
    report("sequence", detail=f"{method}: {sum(shapes)} segments, {steps.mu:.0f} MU", finished=True)
    if wanted.refine:
        steps = refine_apertures(
            steps, goals, patient, machine, mlc, limits=limits, dij=fluence.model, fractions=fluence.fractions
        )
    if finish is not None:
        steps = finish(steps, fluence)
    doses: dict[str, Plan] = {}
    if wanted.compare:
        inner = bixel_apertures(fluence.model, steps, mlc, limits=limits)
        apertures = evaluate(fluence.model, inner.weights(np.array(inner.variables.start)), patient, fluence.fractions)
        doses = {"fluence optimum": fluence, "optimised apertures": apertures}
    return _finished(steps, doses, spec, patient, machine, limits, level, case)


def deliver_plan(
    plan: DeliveryPlan,
    spec: PlanSpec,
    patient: Patient,
    machine: PhotonMachine,
    level: Level | None,
    case: DicomCase | None = None,
) -> Delivered:
    """Return a plan of control points, such as a network's, as read back from its file.

    Parameters
    ----------
    plan : DeliveryPlan
        Within the limits of the specification's linac, or near them.
    spec, patient, machine, level, case
        As for `deliver_arcs`.
    """
    return _finished(plan, {}, spec, patient, machine, machine_limits(spec.delivery.limits), level, case)


def check_linac(spec: PlanSpec, machine: Any) -> None:
    """Refuse what a linac cannot deliver whatever the patient, before images are read.

    Raises
    ------
    UnknownNameError
        When the linac or its collimator is unknown.
    InputError
        When the machine has no monitor units or is none of photons, or arcs and fields are asked for with what they do
        not take or the linac cannot do.
    """
    wanted = spec.delivery
    if wanted.technique == "fluence":
        return
    if not isinstance(machine, PhotonMachine) or machine.reference is None:
        raise InputError(f"{wanted.technique} needs a photon machine with monitor units, but {machine.name!r} is none")
    limits = machine_limits(wanted.limits)
    limits.collimator()  # refuses one that is unknown
    refused = {
        "constraints": bool(spec.constraints),
        "robust": spec.robust is not None,
        "background": spec.background is not None,
    }
    named = [name for name, given in refused.items() if given]
    if named:
        raise InputError(f"{wanted.technique} takes goals, but no {' or '.join(named)}: write them as goals")
    if wanted.technique == "vmat":
        check_arcs(wanted.arcs, _options(spec), limits)


def check_deliverable(spec: PlanSpec, patient: Patient, machine: Any, case: DicomCase | None) -> None:
    """Refuse what cannot be delivered before any long work.

    Raises
    ------
    InputError
        As for `check_linac`, or when the images lack identifiers that a file must carry.
    """
    check_linac(spec, machine)
    if spec.delivery.technique != "fluence":
        check_density_scaling(spec, patient, machine)
        check_identity(series_of(patient) if case is None else case.series)


def check_fields(spec: PlanSpec, beams: Beams) -> None:
    """Refuse beams that cannot be sequenced for the linac, before their dose is calculated.

    Raises
    ------
    InputError
        As for `radplan.delivery.sequencing.sequence.check_sequence`.
    """
    wanted = spec.delivery
    method = wanted.method if wanted.technique == "step_and_shoot" else wanted.technique
    check_sequence(beams, machine_limits(wanted.limits), method, wanted.refine)


def save_delivery(
    delivered: Delivered, folder: str | Path, spec: PlanSpec, patient: Patient, case: DicomCase | None = None
) -> tuple[Path, ...]:
    """Write ``RP.dcm`` (and ``RS.dcm`` for a patient that came from no files), ``RD.dcm`` and ``delivery.json``.

    The dose is that of the file, a course total; the report holds times, scores and the three doses.
    """
    folder = Path(folder)
    plan, source = delivered.plan, None if case is None else case.series
    with staged(folder, whole=False) as partial:
        path = _export(delivered.delivery, partial / "RP.dcm", spec, patient, delivered.limits, case)
        belongs = read_plan_reference(path)
        beside = [one.name for one in (path, structures_path(path)) if one.exists()]
        write_dose(
            partial / "RD.dcm",
            np.maximum(plan["physical_dose"], 0.0),
            plan.model.grid,
            series_of(patient) if source is None else source,
            plan=belongs.instance,
            structure_set=belongs.structure_set,
            comment=f"recalculated from RP.dcm, {plan.fractions} fractions, not for clinical use",
        )
        text = json.dumps(delivered.described(), indent=1, allow_nan=False)
        (partial / "delivery.json").write_text(text + "\n", encoding="utf-8")
    return tuple(folder / name for name in (*beside, "RD.dcm", "delivery.json"))


def _options(spec: PlanSpec) -> ArcOptions:
    wanted = spec.delivery
    return ArcOptions(
        spacing=wanted.spacing,
        beam_time=wanted.beam_time,
        collimators=wanted.collimators,
        couches=wanted.couches,
        start=wanted.start,
        stop=wanted.stop,
        avoid=wanted.avoid,
        effort=wanted.effort,
        seed=wanted.seed,
    )


def _export(
    plan: DeliveryPlan,
    path: str | Path,
    spec: PlanSpec,
    patient: Patient,
    limits: MachineLimits,
    case: DicomCase | None,
) -> Path:
    said = RTPlanOptions(
        machine=spec.delivery.machine,
        prescription=patient.prescription,
        target=patient.target_names[0] if patient.target_names else "",
    )
    return export_rtplan(plan, patient if case is None else replace(case, patient=patient), path, limits, said)


def _finished(
    plan: DeliveryPlan,
    doses: dict[str, Plan],
    spec: PlanSpec,
    patient: Patient,
    machine: PhotonMachine,
    limits: MachineLimits,
    level: Level | None,
    case: DicomCase | None,
) -> Delivered:
    """Bring a plan to its level on the fine grid, export it, read it back and calculate what the file gives."""
    fractions, factor = plan.fractions or spec.fractions or 30, 1.0
    if level is not None:
        ((metric, wanted),) = level[2].items()
        there = _voxels_about(patient, level[0], patient.ct.grid.with_spacing(spec.delivery.grid))
        dose = _dose_of(plan, patient, machine, limits, spec.delivery.grid, fractions, there)
        found = dose.metrics(structures=[level[0]], names=[metric], quantity=level[1])[level[0]][metric]
        factor = wanted / found
        plan = rounded_plan(scaled_mu(plan, factor), limits)
    with tempfile.TemporaryDirectory() as folder:
        path = _export(plan, Path(folder, "RP.dcm"), spec, patient, limits, case)
        read = read_plan(path)
    judged = check_delivery(read, limits)
    judged.raise_for_errors()
    named = None if level is None else _named(level)
    exact = replace(_dose_of(read, patient, machine, limits, spec.delivery.grid, fractions), normalization=named)
    levelled = {
        label: one if level is None else one.scaled(level[0], level[1], **level[2]) for label, one in doses.items()
    }
    agreement = None
    if "optimised apertures" in doses:
        inner = replace(doses["optimised apertures"], x=factor * doses["optimised apertures"].x)
        same = _dose_of(read, patient, machine, limits, inner.model.grid, fractions)
        agreement = _agreement(inner, same, level)
    report("delivery", detail=str(judged), finished=True)
    return Delivered(read, limits, judged, {**levelled, "exported file": exact}, agreement)


def _voxels_about(patient: Patient, structure: str, grid: Grid) -> npt.NDArray[np.int64]:
    """Return the voxels of the body that decide the dose of a structure: its own and their neighbours."""
    own = np.zeros(grid.shape, dtype=bool)
    own.reshape(-1)[patient.structure_weights(structure, grid)[0]] = True
    near = np.flatnonzero(binary_dilation(own, np.ones((3, 3, 3), dtype=bool)))
    return np.intersect1d(near, patient.body_voxels(grid))


def _dose_of(
    plan: DeliveryPlan,
    patient: Patient,
    machine: PhotonMachine,
    limits: MachineLimits,
    grid: Any,
    fractions: int,
    voxels: Literal["body"] | npt.NDArray[np.int64] = "body",
) -> Plan:
    model = aperture_model(patient, plan, machine, limits.collimator(), grid, voxels=voxels, limits=limits)
    return evaluate(model, np.asarray(model.variables.start), patient, fractions)


def _bixel_plans(
    outcome: ArcOutcome, fluences: Mapping[str, Floats], patient: Patient, machine: PhotonMachine, spec: PlanSpec
) -> dict[str, Plan]:
    """Return the dose of fluences (bixels,) in the whole body, calculated on the fly."""
    matrix, mlc = outcome.search.matrix, outcome.search.mlc
    beams, parts = bixel_beams(patient, machine, mlc, matrix.bixels, range(matrix.bixels.segments))
    dij = dose_influence(patient, beams, machine, grid=matrix.grid, stored=False)
    fractions = outcome.plan.fractions or 30
    return {label: evaluate(dij, fluence[parts], patient, fractions) for label, fluence in fluences.items()}


def _judged(patient: Patient) -> list[str]:
    """Return the names of targets and organs at risk."""
    return [one.name for one in patient.structures.values() if one.role in ("target", "oar")]


def _agreement(inner: Plan, exact: Plan, level: Level | None) -> Agreement:
    """Return how two doses on the same grid compare; reading them on different grids would compare the grids."""
    one, two = (np.asarray(plan["physical_dose"], dtype=np.float64) for plan in (inner, exact))
    factor = float(np.sum(one * two) / np.sum(one**2))
    one = factor * one
    reference = float(two.max()) if level is None else next(iter(level[2].values()))
    seen = np.maximum(one, two) > 0.1 * two.max()
    overlap = {}
    for share in (0.5, 0.95):
        first, second = one >= share * reference, two >= share * reference
        overlap[share] = 2.0 * float(np.sum(first & second)) / max(float(first.sum() + second.sum()), 1.0)
    grid = inner.model.grid
    passed = gamma_index(one, grid, two, grid, GammaCriteria(3.0, 3.0)).passing
    difference = 100.0 * float(np.mean(np.abs(one - two)[seen])) / reference
    names = _judged(exact.patient)
    apertures, whole = (plan.metrics(structures=names, names=["D10"]) for plan in (inner, exact))
    d10 = {name: (factor * float(apertures[name]["D10"]), float(row["D10"])) for name, row in whole.items()}
    return Agreement(factor, overlap[0.5], overlap[0.95], difference, float(passed), d10)


def _spacing(spec: PlanSpec) -> float:
    given = spec.engine.grid
    if not isinstance(given, int | float):
        raise InputError("arcs are searched on a grid of one spacing: write engine: {grid: 5}")
    return float(given)


def _volume_level(level: Level | None, goals: Sequence[Goal]) -> tuple[str, float, float] | None:
    """Return a level of the kind D95 as structure, share of volume and dose; None where it is of another kind."""
    if level is None or level[0] not in {goal.structure for goal in goals}:
        return None
    ((name, dose),) = level[2].items()
    percent = name.removeprefix("D")
    return (level[0], float(percent) / 100.0, dose) if percent.replace(".", "", 1).isdigit() else None


def _named(level: Level) -> str:
    ((name, dose),) = level[2].items()
    return f"{level[0]} {name} = {dose:g} Gy"
