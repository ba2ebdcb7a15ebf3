"""What a plan file asks for, made: the patient with its helpers, the goals, the solver, the engine.

Everything here is quick and comes before the long work, so that a misspelt name costs seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radplan.analysis.metrics import is_level, metric
from radplan.engines import Engine
from radplan.engines.base import Machine
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.io.cohort_patient import is_cohort_patient
from radplan.io.images import is_image_folder
from radplan.io.openkbp import is_openkbp
from radplan.io.plan_file.reading import EXAMPLE, PlanSpec, plan_spec
from radplan.io.plan_file.sections import ConstraintSpec, DicomSpec, GoalSpec, GridSpec
from radplan.io.save import read_saved_dose
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal
from radplan.optim.solvers import SOLVERS, Solver
from radplan.patient.ct import hu_table
from radplan.patient.patient import Patient, find_external
from radplan.patient.phantoms import ION_GOALS, PHANTOMS, phantom
from radplan.patient.structures import Structures
from radplan.plan import DEFAULT_FRACTIONS
from radplan.quantities import QUANTITIES
from radplan.workflows.radiation import OPPOSED, check_reach, made, prescribed_in, wanted_engine
from radplan.workflows.robust import reduction_of, wanted_scenarios

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase

logger = logging.getLogger(__name__)

_WILD = "*?["


@dataclass(frozen=True, eq=False)
class Task:
    """What there is to optimise: goals, constraints, solver and engine, None for the default ones.

    >>> Task((), (), None, None).goals
    ()
    """

    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    solver: Solver | None
    engine: Engine | None


def named_patient(spec: PlanSpec) -> tuple[Patient, DicomCase | None]:
    """Return the patient that the specification names, and the DICOM case it came from, where it did.

    Raises
    ------
    InputError
        When no case is named, or a DICOM choice is made for another kind of case.
    RadplanError
        When the case cannot be read.
    """
    from radplan.io import load

    if spec.case is None:
        raise InputError("no case to plan: name a DICOM folder, a matRad .mat file or a built-in phantom")
    if (
        spec.case not in PHANTOMS
        and Path(spec.case).is_dir()
        and not (is_openkbp(spec.case) or is_image_folder(spec.case) or is_cohort_patient(spec.case))
    ):
        from radplan.io.dicom import read_case

        wish = spec.dicom or DicomSpec()
        case = read_case(spec.case, wish.series, wish.structure_set, wish.allow_other_frame, resample=wish.resample)
        return case.patient, case
    if spec.dicom is not None:
        raise InputError(f"dicom: chooses among the files of a DICOM folder, but {spec.case} is none: leave it out")
    return load.load_patient(spec.case), None


def prepare_patient(spec: PlanSpec, patient: Patient) -> Patient:
    """Return the patient with HU table, prescription, external contour, helpers, densities and tissues as asked.

    Helpers are made in the order they are written and may be built of earlier ones.

    Raises
    ------
    InputError
        When a structure expression cannot be read, a name is taken, or there are two external contours.

    >>> from radplan.io.plan_file.reading import plan_spec
    >>> from radplan.patient.phantoms import phantom
    >>> spec = plan_spec({"structures": {"Shell": "ring(OuterTarget, 3 mm, 9 mm)"}})
    >>> prepare_patient(spec, phantom("box")).structures["Shell"].effective_priority
    2
    """
    if spec.hu_table is not None:
        patient = replace(patient, hu_table=hu_table(spec.hu_table))
    if spec.prescription is not None:
        patient = replace(patient, prescription=spec.prescription)
    if spec.external is not None:
        outline = find_external(patient.ct, spec.external.threshold)
        patient = patient.with_structure(spec.external.name, outline)
    for name, helper in spec.structures.items():
        priority = 2 if helper.role == "ignored" and helper.priority is None else helper.priority
        patient = patient.with_structure(name, helper.shape, helper.role, priority)
    for wish in spec.densities:
        patient = patient.with_density(wish.structure, wish.density, wish.hu, wish.dosed)
    for tissue in spec.tissues:
        chosen = matching(tissue.structure, patient.structures)
        held = [
            replace(s, alpha_x=tissue.alpha_x, beta_x=tissue.beta_x) if s.name in chosen else s
            for s in patient.structures.values()
        ]
        patient = replace(patient, structures=Structures(held, patient.structures.left_out))
    return patient


def wanted_goals(spec: PlanSpec, patient: Patient, radiation: str = "photons") -> list[dict[str, Any]]:
    """Return the goals of the plan file as plain data, else those that travel with the patient.

    Built-in phantoms have goals of their own for ions.

    Raises
    ------
    InputError
        When there are none; shows how to write them.
    """
    goals = [goal.model_dump(exclude_unset=True) for goal in spec.goals]
    if not goals and radiation != "photons" and spec.case in ION_GOALS:
        return [
            {"structure": name, "objective": objective, "parameters": {"reference": level}, "weight": weight}
            for name, objective, level, weight in ION_GOALS[str(spec.case)]
        ]
    goals = goals or [goal.to_spec() for goal in patient.goals]
    if not goals:
        raise InputError(
            f"no goals travel with {patient.name!r}: write a plan file for its structures "
            f"({', '.join(patient.structures)}) and give it with --plan, such as {EXAMPLE}"
        )
    return goals


def filled(spec: PlanSpec, patient: Patient, machine: Machine, goals: Sequence[Mapping[str, Any]]) -> PlanSpec:
    """Return the specification with everything said that it leaves to patient and machine.

    Goals, constraints and the normalisation without a quantity take that of the prescription; so do goals on physical
    dose that travel with the patient, who does not know what will be delivered.

    Parameters
    ----------
    spec : PlanSpec
        As written.
    patient : Patient
        As `prepare_patient` made it.
    machine : Machine
        What delivers.
    goals : sequence of mapping
        As `wanted_goals` gives them.
    """
    asked = wanted_engine(spec, machine)
    engine = asked.resolved(patient, machine)
    more = {name: value for name, value in engine.to_options().items() if name not in asked.to_options()}
    quantity = prescribed_in(spec, machine, engine)
    if machine.radiation != "photons" and patient.goals and not spec.goals and spec.case not in ION_GOALS:
        logger.warning(
            "the goals that travel with %s were made for photons; plans of %s that follow them are less even and "
            "hotter: write goals of your own, as in docs/examples/proton_tg119.yaml",
            patient.name, machine.radiation,
        )  # fmt: skip
    data = spec.model_dump(exclude_unset=True)

    def with_quantity(term: Mapping[str, Any], travels: bool = False) -> dict[str, Any]:
        own = term.get("quantity")
        return {**term, "quantity": quantity if own is None or (travels and own == "physical_dose") else own}

    beams = dict(data.get("beams", {}))
    if machine.radiation != "photons":
        beams = {"gantry": OPPOSED, "bixel_width": beams.pop("spot_spacing", 5.0), **beams}
    filling = {
        "machine": spec.machine or machine.name,
        "fractions": spec.fractions or patient.fractions or DEFAULT_FRACTIONS,
        "prescription": patient.prescription,
        "quantity": quantity,
        "beams": beams,
        "engine": {**data.get("engine", {}), "name": engine.name, "options": {**spec.engine.options, **more}},
        "goals": [with_quantity(goal, travels=not spec.goals) for goal in goals],
        "constraints": [with_quantity(entry) for entry in data.get("constraints", ())],
    }
    if spec.normalize:
        filling["normalize"] = with_quantity(data["normalize"])
    return plan_spec(data | filling)


def task(spec: PlanSpec, patient: Patient, machine: Machine | None = None) -> Task:
    """Return what the plan file asks to be done for a patient that `prepare_patient` has made ready.

    Raises
    ------
    UnknownNameError
        When a structure, objective, quantity, solver, engine, option or RBE model has no such name; gives the nearest.
    InputError
        When a value does not fit, or a quantity needs what engine and machine will not give.
    """
    names = patient.structures
    if spec.normalize:
        patient.structures[spec.normalize.structure]
        if not is_level(spec.normalize.metric):
            raise InputError(f"normalize: {spec.normalize.metric} does not grow with the dose; take D95 or Dmean, say")
    for name in spec.metrics:
        metric(name, [1.0], volume=1.0)
    if spec.beams.targets is not None:
        for name in spec.beams.targets:
            patient.structures[name]
    goals = tuple(goal for entry in spec.goals for goal in _goals(spec, entry, matching(entry.structure, names)))
    constraints = tuple(item for entry in spec.constraints for item in _constraints(entry, names))
    wanted = _quantities(spec, (*goals, *constraints))
    engine = None
    if machine is not None:
        engine = wanted_engine(spec, machine)
        check_reach(wanted, machine, engine)
    return Task(goals, constraints, _solver(spec), engine)


def check_names(spec: PlanSpec, machine: Machine) -> None:
    """Look at every name that needs no images: engine, solver, objectives, quantities, metrics, and structures.

    Raises
    ------
    UnknownNameError
        When nothing answers to a name; gives the nearest.
    InputError
        When an option or a parameter does not fit.
    """
    wanted_engine(spec, machine)
    wanted_scenarios(spec)
    _solver(spec)
    for name in spec.metrics:
        metric(name, [1.0], volume=1.0)
    goals = [goal for entry in spec.goals for goal in _goals(spec, entry, [entry.structure])]
    bounds = [item for entry in spec.constraints for item in _constraints(entry, [entry.structure])]
    _quantities(spec, (*goals, *bounds))
    known = structure_names(spec)
    if known is not None:
        for pattern in (*(goal.structure for goal in spec.goals), *(bound.structure for bound in spec.constraints)):
            matching(pattern, known)
        for name in (*([spec.normalize.structure] if spec.normalize else ()), *(spec.beams.targets or ())):
            if name not in known:
                raise UnknownNameError("structure", name, known)


def structure_names(spec: PlanSpec) -> list[str] | None:
    """Return the structures that a plan may name, as far as they are known before images are read; else None.

    >>> structure_names(plan_spec({"case": "box", "structures": {"Shell": "ring(OuterTarget, 3 mm, 9 mm)"}}))
    ['BODY', 'OuterTarget', 'Shell']
    """
    if spec.case is None:
        return None
    if spec.case in PHANTOMS:
        names: list[str] | None = list(phantom(spec.case).structures)
    elif Path(spec.case).is_dir():
        from radplan.io.dicom import region_names

        names = region_names(spec.case)
    else:
        return None
    if names is None:
        return None
    return [*names, *([] if spec.external is None else [spec.external.name]), *spec.structures]


def _solver(spec: PlanSpec) -> Solver | None:
    if spec.solver.options and spec.solver.name is None:
        raise InputError(f"the solver has options ({', '.join(spec.solver.options)}) but no name: add `name:` beside")
    return None if spec.solver.name is None else made(SOLVERS.get(spec.solver.name), "solver", spec.solver.options)


def _quantities(spec: PlanSpec, terms: Sequence[Goal | Constraint]) -> list[str]:
    """Return the names of all quantities asked for, each one known; refuse two that would be saved under one name."""
    asked = [term.quantity for term in terms]
    if spec.normalize and spec.normalize.quantity is not None:
        asked.append(spec.normalize.quantity)
    asked += spec.outputs.quantities or ()
    named = {entry: entry if isinstance(entry, str) else entry.name for entry in asked}
    for name in named.values():
        QUANTITIES.get(name)
    saved = [named[term.quantity] for term in terms if not isinstance(term.quantity, str)]
    kinds = {term.quantity for term in terms if not isinstance(term.quantity, str)}
    for name in saved:
        if len([kind for kind in kinds if named[kind] == name]) > 1:
            raise InputError(f"the goals hold {name!r} with different options; a plan can be judged by one: {kinds}")
    return list(named.values())


def dose_grid(spec: PlanSpec, patient: Patient) -> Grid:
    """Return the dose grid: the one that the specification states, or one of its spacing on the CT's first voxel.

    >>> from radplan.patient.phantoms import phantom
    >>> dose_grid(plan_spec({"engine": {"grid": 6}}), phantom("box")).spacing
    (6.0, 6.0, 6.0)
    """
    wish = spec.engine.grid
    if isinstance(wish, GridSpec):
        return Grid(wish.shape, wish.spacing, wish.origin)
    return patient.ct.grid.with_spacing(wish)


def background_dose(spec: PlanSpec, grid: Grid, case: DicomCase | None) -> NDArray[np.float64] | None:
    """Return the dose (nz, ny, nx) [Gy] of the earlier plan that the plan file names, trilinear on the dose grid.

    Raises
    ------
    FileError
        When the file cannot be read, is no dose, or lies in another frame of reference than the images.
    """
    if spec.background is None:
        return None
    path = Path(spec.background)
    if path.suffix.lower() == ".npz":
        return np.asarray(resample_linear(*read_saved_dose(path), grid))
    from radplan.io.dicom import read_dose

    image = read_dose(path, None if case is None else case.series.frame_of_reference)
    if (image.dose_type, image.summation) != ("PHYSICAL", "PLAN"):
        raise FileError(path, f"holds {image.dose_type} dose of a {image.summation}; expected PHYSICAL of a PLAN")
    return np.asarray(resample_linear(image.dose, image.grid, grid))


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Return the names that a pattern fits, in their order: itself where it is a name, else by ``*``, ``?``, ``[ab]``.

    Raises
    ------
    UnknownNameError
        When none fits.

    >>> matching("LUNG_*", ["LUNGS", "LUNG_R", "LUNG_L"])
    ['LUNG_R', 'LUNG_L']
    """
    known = list(names)
    if pattern in known:
        return [pattern]
    found = [name for name in known if fnmatchcase(name, pattern)] if any(sign in pattern for sign in _WILD) else []
    if not found:
        why = names.why_absent(pattern) if isinstance(names, Structures) else ""
        raise UnknownNameError("structure", pattern, known, why)
    return found


def _goals(spec: PlanSpec, entry: GoalSpec, structures: Iterable[str]) -> list[Goal]:
    data = {**entry.model_dump(exclude_unset=True), "robust": reduction_of(entry, spec)}
    return [Goal.from_spec({**data, "structure": name}) for name in structures]


def _constraints(entry: ConstraintSpec, names: Iterable[str]) -> list[Constraint]:
    data = entry.model_dump(exclude_unset=True)
    return [Constraint.from_spec({**data, "structure": name}) for name in matching(entry.structure, names)]
