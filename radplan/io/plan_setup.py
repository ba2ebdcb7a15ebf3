"""What a plan file asks for, made: the patient with its helpers, the goals, the solver, the engine.

Everything here is quick and comes before the long work, so that a misspelt name costs seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from radplan.analysis.metrics import is_level, metric
from radplan.engines import ENGINES, Engine
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.io.plan_file import EXAMPLE, ConstraintSpec, DicomSpec, GoalSpec, PlanSpec, QuantitySpec
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal, objective_from_spec, quantity_from_spec
from radplan.optim.solvers import SOLVERS, Solver
from radplan.patient.ct import hu_table
from radplan.patient.patient import Patient, find_external
from radplan.patient.phantoms import PHANTOMS
from radplan.quantities import QUANTITIES

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase

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
    if spec.case not in PHANTOMS and Path(spec.case).is_dir():
        from radplan.io.dicom import read_case

        wish = spec.dicom or DicomSpec()
        case = read_case(spec.case, wish.series, wish.structure_set, wish.allow_other_frame)
        return case.patient, case
    if spec.dicom is not None:
        raise InputError(f"dicom: chooses among the files of a DICOM folder, but {spec.case} is none: leave it out")
    return load.load_patient(spec.case), None


def prepare_patient(spec: PlanSpec, patient: Patient) -> Patient:
    """Return the patient with HU table, prescription, external contour, helper structures and densities as asked.

    Helpers are made in the order they are written and may be built of earlier ones.

    Raises
    ------
    InputError
        When a structure expression cannot be read, a name is taken, or there are two external contours.

    >>> from radplan.io.plan_file import plan_spec
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
    return patient


def wanted_goals(spec: PlanSpec, patient: Patient) -> list[dict[str, Any]]:
    """Return the goals of the plan file as plain data, else those that travel with the patient.

    Raises
    ------
    InputError
        When there are none; shows how to write them.
    """
    goals = [goal.model_dump(exclude_unset=True) for goal in spec.goals] or [dict(goal) for goal in patient.goals]
    if not goals:
        raise InputError(
            f"no goals travel with {patient.name!r}: write a plan file for its structures "
            f"({', '.join(patient.structures)}) and give it with --plan, such as {EXAMPLE}"
        )
    return goals


def task(spec: PlanSpec, patient: Patient) -> Task:
    """Return what the plan file asks to be done for a patient that `prepare_patient` has made ready.

    Raises
    ------
    UnknownNameError
        When a structure, objective, quantity, solver, engine or option has no such name; gives the nearest.
    InputError
        When a value does not fit.
    """
    names = list(patient.structures)
    if spec.normalize:
        patient.structures[spec.normalize.structure]
        if not is_level(spec.normalize.metric):
            raise InputError(f"normalize: {spec.normalize.metric} does not grow with the dose; take D95 or Dmean, say")
    for name in spec.metrics:
        metric(name, [1.0], volume=1.0)
    if spec.beams.targets is not None:
        for name in spec.beams.targets:
            patient.structures[name]
    for kind, part in (("solver", spec.solver), ("engine", spec.engine)):
        if part.options and part.name is None:
            raise InputError(f"the {kind} has options ({', '.join(part.options)}) but no name: add `name:` beside them")
    goals = [goal for entry in spec.goals for goal in _goals(entry, matching(entry.structure, names))]
    constraints = [made for entry in spec.constraints for made in _constraints(entry, names)]
    for quantity in (*(goal.quantity for goal in goals), *(entry.quantity for entry in constraints)):
        if isinstance(quantity, str):
            QUANTITIES.get(quantity)
    return Task(
        tuple(goals),
        tuple(constraints),
        None if spec.solver.name is None else _made(SOLVERS.get(spec.solver.name), "solver", spec.solver.options),
        None if spec.engine.name is None else _made(ENGINES.get(spec.engine.name), "engine", spec.engine.options),
    )


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
        try:
            with np.load(path) as held:
                dose = np.asarray(held["dose"], dtype=np.float64)
                source = Grid(tuple(held["shape"]), tuple(held["spacing"]), tuple(held["origin"]))
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise FileError(path, f"is no dose of an earlier plan as save_plan writes it ({error})") from None
        return np.asarray(resample_linear(dose, source, grid))
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
        raise UnknownNameError("structure", pattern, known)
    return found


def _goals(entry: GoalSpec, structures: Sequence[str]) -> list[Goal]:
    data = entry.model_dump(exclude_unset=True)
    return [Goal.from_spec({**data, "structure": name}) for name in structures]


def _constraints(entry: ConstraintSpec, names: Sequence[str]) -> list[Constraint]:
    objective = objective_from_spec(entry.objective, entry.parameters)
    quantity = entry.quantity.model_dump() if isinstance(entry.quantity, QuantitySpec) else entry.quantity
    return [
        Constraint(name, objective, entry.lower, entry.upper, quantity_from_spec(quantity))
        for name in matching(entry.structure, names)
    ]


def _made(cls: Any, kind: str, options: Mapping[str, Any]) -> Any:
    """Return an instance of a registered class with its options, refusing those it does not have."""
    known = [entry.name for entry in fields(cls) if entry.init]
    for key in options:
        if key not in known:
            raise UnknownNameError(f"option of the {kind} {cls.name!r}", key, known)
    return cls(**options)
