"""What a plan file says of trade-offs: a Pareto front with a plan chosen from it, and goals served in order."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radplan.beams.beam import Beams
from radplan.errors import InputError
from radplan.influence import ForwardModel
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.staging import staged
from radplan.optim.solvers import AugmentedLagrangian
from radplan.optim.solvers.base import Callback
from radplan.patient.patient import Patient
from radplan.plan import Plan
from radplan.plan.pareto import Front, pareto
from radplan.plan.priorities import PriorityStep, priorities
from radplan.progress import report
from radplan.workflows.robust import composite
from radplan.workflows.setup import Task


def check_tradeoffs(spec: PlanSpec) -> None:
    """Raise `InputError` where a specification asks for trade-offs and for what does not go with them."""
    if spec.pareto is not None and spec.priorities is not None:
        raise InputError("a plan file states pareto or priorities, not both")
    asked = "pareto" if spec.pareto is not None else "priorities"
    if (spec.pareto or spec.priorities) and spec.delivery.technique == "vmat":
        raise InputError(f"{asked} weighs goals of fluence: take another technique than vmat, or drop {asked}")
    if spec.pareto is not None:
        unfit = {
            "constraints": bool(spec.constraints),
            "solver": spec.solver.name is not None,
            "background": spec.background is not None,
            "robust: composite": composite(spec) is not None,
        }
        if any(unfit.values()):
            named = ", ".join(name for name, present in unfit.items() if present)
            raise InputError(f"pareto searches many weights of plain goals and takes no {named}: leave it out")
    if spec.priorities is not None and spec.solver.name not in (None, AugmentedLagrangian.name):
        raise InputError(f"priorities needs the solver {AugmentedLagrangian.name!r}, got {spec.solver.name!r}")


def front_of(spec: PlanSpec, dij: ForwardModel, work: Task, patient: Patient, beams: Beams) -> Front:
    """Return the front that the section ``pareto`` asks for."""
    wanted = spec.pareto
    if wanted is None:
        raise InputError("the plan file has no section pareto")
    front = pareto(
        dij,
        work.goals,
        patient,
        spec.fractions,
        levels=wanted.levels,
        step=wanted.step,
        beams=beams,
        progress=lambda done, total: report("pareto", done, total),
    )
    lost = int(front.dominated.sum())
    detail = f"{len(front)} plans in {sum(front.iterations)} iterations, {lost or 'none'} dominated"
    report("pareto", detail=detail, finished=True)
    return front


def chosen(spec: PlanSpec, front: Front) -> Plan:
    """Return the plan nearest to the wishes, or the one in the middle of the front, at the goals' own weights."""
    wishes = {} if spec.pareto is None else spec.pareto.wishes
    if wishes:
        return front.navigate(wishes)
    return front.plan(int(np.argmin(np.sum(np.log(front.factors) ** 2, axis=1))))


def in_order(
    spec: PlanSpec,
    dij: ForwardModel,
    work: Task,
    patient: Patient,
    beams: Beams,
    background: Any,
    progress: Callback | None = None,
) -> tuple[Plan, tuple[PriorityStep, ...]]:
    """Return the plan that serves goals in the order of the file, and what each one reached."""
    wanted = spec.priorities
    if wanted is None:
        raise InputError("the plan file has no section priorities")
    solver = work.solver if isinstance(work.solver, AugmentedLagrangian) else None
    plan, steps = priorities(
        dij,
        work.goals,
        patient,
        spec.fractions,
        work.constraints,
        slack=wanted.slack,
        sufficient=wanted.sufficient,
        solver=solver,
        robust=composite(spec),
        beams=beams,
        background=background,
        progress=progress,
    )
    told = [f"{step.goal.label} {step.value:.4g} {step.unit}, kept at {step.bound:.4g}" for step in steps]
    report("priorities", detail=f"\n{'':<10} ".join(told), finished=True)
    return plan, steps


def save_front(front: Front, folder: str | Path) -> tuple[Path, ...]:
    """Write ``front.csv``, a row for each plan, and ``front.npz`` with its weights ``x (plans, variables)``.

    A row holds the factor on each goal's weight and each goal's value, unweighted [unit of its objective].
    """
    labels = front.labels
    header = ["plan", *(f"factor {label}" for label in labels), *labels, "iterations", "dominated"]
    rows = [
        [number, *map(_short, factors), *map(_short, values), iterations, int(lost)]
        for number, (factors, values, iterations, lost) in enumerate(
            zip(front.factors, front.values, front.iterations, front.dominated, strict=True)
        )
    ]
    with staged(folder, whole=False) as partial:
        _write_table(partial / "front.csv", header, rows)
        np.savez_compressed(partial / "front.npz", x=front.x, factors=front.factors, values=front.values)
    return Path(folder, "front.csv"), Path(folder, "front.npz")


def save_steps(steps: Sequence[PriorityStep], folder: str | Path) -> tuple[Path, ...]:
    """Write ``priorities.csv``: each goal in its turn, the value it reached, and the bound it then kept."""
    header = ["turn", "goal", "value", "bound", "unit", "iterations", "status"]
    rows = [
        [number, step.goal.label, _short(step.value), _short(step.bound), step.unit, step.solution.iterations,
         step.solution.status.value]
        for number, step in enumerate(steps, start=1)
    ]  # fmt: skip
    with staged(folder, whole=False) as partial:
        _write_table(partial / "priorities.csv", header, rows)
    return (Path(folder, "priorities.csv"),)


def _short(value: float) -> str:
    return f"{float(value):.6g}"


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
