"""From a specification to a plan: the way that the command line, cohorts and scripts share."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from radplan import arrays
from radplan.beams.beam import Beams
from radplan.beams.place import place_beams
from radplan.engines.base import dose_influence
from radplan.errors import UnknownNameError
from radplan.influence import Dij, ForwardModel
from radplan.io.load import load_machine
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.save import save_plan
from radplan.machines import ParticleMachine, PhotonMachine
from radplan.machines.limits import machine_limits
from radplan.optim import Goal
from radplan.optim.solvers import Status
from radplan.optim.solvers.base import Progress
from radplan.patient.patient import Patient
from radplan.patient.plannable import check_plannable
from radplan.plan import Plan, deliverable, deliverable_at, optimize
from radplan.plan.angles import BeamSelection
from radplan.plan.pareto import Front
from radplan.plan.priorities import PriorityStep
from radplan.progress import Choice, listening, report
from radplan.quantities.base import Quantity
from radplan.workflows.angles import check_selection, chosen_beams, save_selection
from radplan.workflows.delivery import (
    Delivered,
    check_deliverable,
    check_fields,
    check_linac,
    deliver_arcs,
    deliver_fluence,
    save_delivery,
)
from radplan.workflows.radiation import beam_settings, check_radiation, machine_name
from radplan.workflows.robust import composite, wanted_scenarios
from radplan.workflows.setup import (
    Task,
    background_dose,
    check_names,
    dose_grid,
    filled,
    named_patient,
    prepare_patient,
    task,
    wanted_goals,
)
from radplan.workflows.tradeoffs import check_tradeoffs, chosen, front_of, in_order, save_front, save_steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from radplan.analysis.dvh import DVH
    from radplan.io.dicom.case import DicomCase

LiveMachine = PhotonMachine | ParticleMachine
Watch = Callable[[Plan], object]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What `run` made of a specification.

    Parameters
    ----------
    plan : Plan
        Optimised, brought to its level, and of particles deliverable.
    spec : PlanSpec
        As given, with everything said that it left to patient and machine: the same plan comes out of it again.
    patient : Patient
        With helpers, densities and tissues as asked for.
    machine : PhotonMachine or ParticleMachine
        What delivers.
    case : DicomCase, optional
        The images and structure set, where the patient came from DICOM.
    seconds : mapping of str to float
        Step -> seconds it took.
    delivered : Delivered, optional
        What a linac delivers, where the specification asks for more than fluence; the plan is then the dose of its
        exported file.
    front : Front, optional
        The Pareto front that the plan was chosen from.
    steps : tuple of PriorityStep
        What goals reached that were served in order.
    selection : BeamSelection, optional
        How the beams were chosen among candidates.
    """

    plan: Plan
    spec: PlanSpec
    patient: Patient
    machine: LiveMachine
    case: DicomCase | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    delivered: Delivered | None = None
    front: Front | None = None
    steps: tuple[PriorityStep, ...] = ()
    selection: BeamSelection | None = None

    @property
    def interrupted(self) -> bool:
        """Whether the search was interrupted; the plan is the best until then."""
        return self.plan.solution is not None and self.plan.solution.status is Status.INTERRUPTED

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the plan into a folder, as `radplan.io.save.save_plan` does."""
        particles = None if isinstance(self.machine, PhotonMachine) else self.machine
        provenance = {"case": self.spec.case, "seconds": dict(self.seconds)}
        paths = save_plan(self.plan, folder, self.spec, provenance, self.case, particles)
        if self.front is not None:
            paths += save_front(self.front, folder)
        if self.steps:
            paths += save_steps(self.steps, folder)
        if self.selection is not None:
            paths += save_selection(self.selection, folder)
        if self.delivered is None:
            return paths
        return paths + save_delivery(self.delivered, folder, self.spec, self.patient, self.case)


def run(
    spec: PlanSpec, progress: Choice = None, model: ForwardModel | None = None, watch: Watch | None = None
) -> Outcome:
    """Plan what a specification asks for; prints and draws nothing, and writes no file.

    Parameters
    ----------
    spec : PlanSpec
        As `read_plan_file` or `plan_spec` gives it, with a case.
    progress : bool or callable, optional
        True shows a bar, False nothing; a callable is told each `radplan.progress.Report`, with ``finished`` at the end
        of each step. Left out, a bar is shown where there is a terminal or a notebook.
    model : ForwardModel, optional
        The dose influence of an earlier run for the same patient, machine, beams and engine, which is then not
        calculated again: for other goals on the same beams.
    watch : callable, optional
        Given the plan as it is after each iteration of the search; ends the search by returning True.

    Raises
    ------
    RadplanError
        When a name is unknown, a file cannot be read, or what is asked for cannot be calculated; names are looked at
        before images are read, and everything else that can be known before dose is calculated.

    >>> from radplan.io.plan_file.reading import plan_spec
    >>> small = {"case": "box", "beams": {"gantry": [0, 90], "bixel_width": 20}, "engine": {"grid": 15}}
    >>> outcome = run(plan_spec(small), progress=False)
    >>> outcome.plan.normalization
    'OuterTarget D95 = 60 Gy'
    """
    with listening(progress):
        seconds: dict[str, float] = {}
        with _timed("patient", seconds):
            machine = _machine(spec)
            patient, case = named_patient(spec)
            goals = wanted_goals(spec, patient, machine.radiation)
            patient = prepare_patient(spec, patient)
            nz, ny, nx = patient.ct.grid.shape
            structures = ", ".join(patient.structures)
            report("patient", detail=f"{patient.name}: CT {nz} x {ny} x {nx}, structures {structures}", finished=True)
        spec = filled(spec, patient, machine, goals)
        work = task(spec, patient, machine)
        grid = dose_grid(spec, patient)
        judged = [goal.structure for goal in work.goals] + [bound.structure for bound in work.constraints]
        check_plannable(patient, judged, grid)
        background = background_dose(spec, grid, case)
        quantity = f"{machine.name}, {machine.radiation}, prescribed in {spec.quantity}"
        report("machine", detail=quantity, finished=True)
        check_deliverable(spec, patient, machine, case)
        if isinstance(machine, PhotonMachine) and spec.delivery.technique == "vmat":
            with _timed("arcs", seconds):
                level = _level(spec, patient, work.goals, work.constraints, spec.quantity or "physical_dose")
                delivered = deliver_arcs(spec, patient, machine, work.goals, level, case)
            return Outcome(replace(delivered.plan, goals=work.goals), spec, patient, machine, case, seconds, delivered)
        with _timed("beams", seconds):
            spec, selection = chosen_beams(spec, patient, machine, work)
            beams = _beams(spec, patient, machine, selection)
        with _timed("influence", seconds):
            dij = _influence(spec, patient, beams, machine, work) if model is None else model
        with _timed("optimise", seconds):
            plan, front, steps = _optimized(spec, dij, work, patient, beams, background, watch)
        with _timed("level", seconds):
            plan = _at_level(spec, plan)
        if not isinstance(machine, PhotonMachine) or spec.delivery.technique == "fluence":
            return Outcome(plan, spec, patient, machine, case, seconds, None, front, steps, selection)
        with _timed("delivery", seconds):
            delivered = deliver_fluence(plan, spec, machine, work.goals, normalization_level(spec, plan), case)
    shown = replace(delivered.plan, goals=work.goals)
    return Outcome(shown, spec, patient, machine, case, seconds, delivered, front, steps, selection)


def normalization_level(spec: PlanSpec, plan: Plan) -> tuple[str, Any, dict[str, float]] | None:
    """Return structure, quantity and level that a plan is brought to, None where it stays as optimised.

    When nothing is said and the patient has a prescription, that is D95 of the target with the highest goal; but not
    with constraints, which scaling could break.
    """
    return _level(spec, plan.patient, plan.goals, plan.constraints, plan.prescribed)


def _level(
    spec: PlanSpec, patient: Patient, goals: Sequence[Goal], constraints: Sequence[Any], quantity: str | Quantity
) -> tuple[str, Any, dict[str, float]] | None:
    wanted = spec.normalize
    if wanted is False:
        return None
    if wanted is not None:
        return wanted.structure, wanted.quantity or quantity, {wanted.metric: wanted.level}
    if constraints:
        return None
    level, targets = patient.prescription, patient.target_names
    if level is None or not targets:
        return None
    levels = dict.fromkeys(targets, 0.0)
    for goal in goals:
        if goal.structure in levels and isinstance(goal.objective.level, int | float):
            levels[goal.structure] = max(levels[goal.structure], float(goal.objective.level))
    return max(levels, key=lambda name: levels[name]), quantity, {"D95": level}


def curves_beside(spec: PlanSpec) -> dict[str, DVH]:
    """Return the curves of the DVH table that the outputs name, by the names of the patient's structures.

    Raises
    ------
    FileError
        When the table cannot be read; its path is relative to the case.
    UnknownNameError
        When the table has no structure of a name.
    """
    from radplan.io.dvh_table import read_dvh_table

    wanted = spec.outputs.beside
    if wanted is None:
        return {}
    if wanted.plan is not None:
        table = read_dvh_table(Path(wanted.plan) / "dvh.csv")
    else:
        case = Path(str(spec.case))
        table = read_dvh_table((case if case.is_dir() else case.parent) / str(wanted.table))
    for name in wanted.names.values():
        if name not in table:
            raise UnknownNameError("structure in the DVH table", name, table)
    return {ours: table[theirs] for ours, theirs in wanted.names.items()} if wanted.names else table


def influence_of(spec: PlanSpec, patient: Patient, machine: LiveMachine, beams: Beams | None = None) -> ForwardModel:
    """Return the dose influence that a specification asks for; beams are placed where they are not given."""
    placed = _beams(spec, patient, machine) if beams is None else beams
    return _influence(spec, patient, placed, machine, task(spec, patient, machine))


@contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[step] = round(time.perf_counter() - begun, 3)


def _machine(spec: PlanSpec) -> LiveMachine:
    """Return the machine, with every name of the specification looked at that needs no images."""
    arrays.as_device(spec.engine.device)
    machine = load_machine(machine_name(spec))
    check_radiation(spec, machine)
    check_linac(spec, machine)
    check_tradeoffs(spec)
    check_selection(spec)
    check_names(spec, machine)
    curves_beside(spec)
    return machine


def _beams(spec: PlanSpec, patient: Patient, machine: LiveMachine, selection: BeamSelection | None = None) -> Beams:
    shaped = isinstance(machine, PhotonMachine) and spec.delivery.technique != "fluence"
    mlc = machine_limits(spec.delivery.limits).mlc if shaped else None
    beams = place_beams(patient, machine, mlc=mlc, **beam_settings(spec.beams, machine))
    center = ", ".join(f"{value:.1f}" for value in beams[0].isocenter)
    energies = [energy for beam in beams if beam.energies is not None for energy in beam.energies]
    kind = f"spots of {min(energies):.0f}..{max(energies):.0f} MeV/u" if energies else "bixels"
    detail = f"{len(beams)} beams, {beams.count} {kind}, isocentre ({center}) mm"
    if selection is not None:
        detail += "; chosen from gantry " + ", ".join(f"{angle:g}" for angle in selection.gantry)
    report("beams", detail=detail, finished=True)
    if shaped:
        check_fields(spec, beams)
    return beams


def _influence(spec: PlanSpec, patient: Patient, beams: Beams, machine: LiveMachine, work: Task) -> Dij:
    setting = spec.engine
    report("influence", 0, len(beams))
    dij = dose_influence(
        patient,
        beams,
        machine,
        grid=dose_grid(spec, patient),
        engine=work.engine,
        stored=setting.stored,
        device=setting.device,
        dtype=setting.dtype,
        scenarios=wanted_scenarios(spec),
    )
    how = "stored" if setting.stored else "on the fly"
    cases = f"{len(dij.scenarios)} scenarios, " if len(dij.scenarios) > 1 else ""
    detail = f"{len(dij.voxels)} voxels, {', '.join(dij.images)}, {cases}{how}, on {dij.device.name}"
    report("influence", detail=detail, finished=True)
    return dij


def _optimized(
    spec: PlanSpec,
    dij: ForwardModel,
    work: Task,
    patient: Patient,
    beams: Beams,
    background: Any,
    watch: Watch | None = None,
) -> tuple[Plan, Front | None, tuple[PriorityStep, ...]]:
    front: Front | None = None
    steps: tuple[PriorityStep, ...] = ()
    told = None if watch is None else _watching(watch, dij, work, patient, beams, spec.fractions or 1)
    if spec.pareto is not None:
        front = front_of(spec, dij, work, patient, beams)
        plan = chosen(spec, front)
    elif spec.priorities is not None:
        plan, steps = in_order(spec, dij, work, patient, beams, background, told)
    else:
        plan = optimize(
            dij,
            work.goals,
            patient,
            fractions=spec.fractions,
            solver=work.solver,
            constraints=work.constraints,
            robust=composite(spec),
            beams=beams,
            background=background,
            progress=told,
        )
    solution = plan.solution
    if solution is not None:
        detail = f"{solution.status.value} after {solution.iterations} iterations: {solution.value:.6g}"
        more = solution.reason if solution.status is Status.CONVERGED else solution.advice
        advice = f"\n{'':<10} {more}" if more else ""
        report("optimise", detail=detail + advice, finished=True)
    return plan, front, steps


def _watching(
    watch: Watch, dij: ForwardModel, work: Task, patient: Patient, beams: Beams, fractions: int
) -> Callable[[Progress], object]:
    """Return a callback of the solver that shows the plan as it is now."""

    def told(now: Progress) -> object:
        x = np.array(arrays.to_numpy(now.x), dtype=np.float64)
        return watch(Plan(x, dij, patient, fractions, tuple(work.goals), given_beams=beams))

    return told


def _at_level(spec: PlanSpec, plan: Plan) -> Plan:
    """Return the plan scaled as asked; of particles, without spots below the machine's minimum unless refused."""
    level = normalization_level(spec, plan)
    stopped = plan.solution is not None and plan.solution.status is Status.INTERRUPTED
    if plan.model.radiation == "photons" or not spec.deliverable or stopped:
        return plan if level is None else plan.scaled(level[0], level[1], **level[2])
    if level is None:
        lasting, minimum = deliverable(plan)
    else:
        lasting, minimum = deliverable_at(plan, level[0], level[1], solver=None, **level[2])
    report("spots", detail=str(minimum), finished=True)
    return lasting
