"""A plan in plain data: what was asked, what came out, and where it came from."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import numpy as np

from radplan import __version__
from radplan.beams.beam import Beam
from radplan.influence import Dij
from radplan.influence.saved import SavedModel
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.staging import FORMAT, NOTICE
from radplan.optim.solvers import Solver
from radplan.plan import Plan
from radplan.quantities.base import Quantity


def describe(plan: Plan, spec: PlanSpec | None = None, provenance: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what ``plan.json`` says, as plain data."""
    chosen = described_spec(plan) if spec is None else spec
    solution = plan.solution
    told = plan.told(chosen.outputs.quantities)
    tables = {quantity.name: _table(plan, quantity, chosen.metrics) for quantity in told}
    return {
        "format": FORMAT,
        "notice": NOTICE,
        "spec": chosen.model_dump(mode="json", exclude_none=True),
        "normalization": plan.normalization,
        "quantity": plan.prescribed,
        "metrics": tables.pop(plan.prescribed),
        "other_metrics": tables,
        "units": {"D*, gEUD": "Gy (course total)", "V*": "%", "HI, CI": "1"}
        | {quantity.name: plan.unit(quantity) for quantity in told},
        "solution": None
        if solution is None
        else {
            "status": solution.status.name.lower(),
            "reason": solution.reason,
            "value": float(solution.value),
            "iterations": solution.iterations,
        },
        "beams": None if plan.beams is None else [_described_beam(beam) for beam in plan.beams],
        "provenance": {
            "radplan": __version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "patient": plan.patient.name,
            "machine": plan.model.machine if isinstance(plan.model, Dij | SavedModel) else None,
            "device": plan.model.device.name,
            "dose_grid": {
                "shape_zyx": list(plan.model.grid.shape),
                "spacing_xyz_mm": list(plan.model.grid.spacing),
                "origin_xyz_mm": list(plan.model.grid.origin),
            },
            "voxels": int(np.size(plan.model.voxels)),
            "variables": int(plan.model.variables.count),
            **(provenance or {}),
        },
    }


def judged(plan: Plan, more: Sequence[str] = (), quantity: str | Quantity | None = None) -> dict[str, dict[str, float]]:
    """Return the usual metrics of each structure, and those asked for beside them where the quantity is a dose.

    Parameters
    ----------
    plan : Plan
        What is judged.
    more : sequence of str
        Metrics beside the usual ones; left out of quantities that do not add up, such as LET.
    quantity : str or Quantity, optional
        What is told; the prescribed one otherwise.
    """
    quantity = plan.prescribed if quantity is None else quantity
    table = plan.metrics(quantity)
    if not more or not plan.is_additive(quantity):
        return table
    return {name: row | plan.metrics(quantity, [name], more)[name] for name, row in table.items()}


def described_spec(plan: Plan) -> PlanSpec:
    """Return the specification that a plan made by script amounts to, as far as it knows.

    Dose grid, engine and solver are told where `dose_influence` and `optimize` made the plan. What beams were placed by
    (margin, targets, layer spacing) is not known from them.
    """
    data: dict[str, Any] = {
        "fractions": plan.fractions,
        "prescription": plan.patient.prescription,
        "quantity": plan.prescribed,
        "goals": [goal.to_spec() for goal in plan.goals],
        "constraints": [constraint.to_spec() for constraint in plan.constraints],
        "normalize": False,
        "robust": plan.robust,
        "engine": {"grid": _described_grid(plan), "device": plan.model.device.name},
    }
    if isinstance(plan.model, Dij):
        settings = dict(plan.model.settings)
        options = dict(settings.pop("options", {}))
        if "biology" in options:
            data["biology"] = options.pop("biology") or False
        data["engine"] |= {**settings, "options": options, "dtype": plan.model.dtype}
        data["machine"] = plan.model.machine
        data["radiation"] = plan.model.radiation
    if plan.solver is not None:
        data["solver"] = _described_solver(plan.solver)
    if plan.beams is not None:
        first = plan.beams[0]
        data["beams"] = {
            "gantry": [beam.gantry for beam in plan.beams],
            "couch": [beam.couch for beam in plan.beams],
            "collimator": [beam.collimator for beam in plan.beams],
            "bixel_width": first.bixel_width,
            "isocenter": [float(v) for v in plan.isocenter],
            "range_shifter": _described_shifter(first),
        }
    return PlanSpec.model_validate(data)


def _table(plan: Plan, quantity: Quantity, more: Sequence[str]) -> dict[str, dict[str, float | None]]:
    return {name: rounded(values) for name, values in judged(plan, more, quantity).items()}


def _described_grid(plan: Plan) -> Any:
    """Return the spacing of a dose grid that starts on the CT's first voxel; every other grid whole."""
    grid = plan.model.grid
    if grid == plan.patient.ct.grid.with_spacing(grid.spacing):
        return list(grid.spacing)
    return {"shape": list(grid.shape), "spacing": list(grid.spacing), "origin": list(grid.origin)}


def _described_solver(solver: Solver) -> dict[str, Any]:
    options = {entry.name: solver.__dict__[entry.name] for entry in fields(solver) if entry.init}  # type: ignore[arg-type]
    return {"name": solver.name, "options": options}


def _described_beam(beam: Beam) -> dict[str, Any]:
    told: dict[str, Any] = {
        "gantry": float(beam.gantry),
        "couch": float(beam.couch),
        "collimator": float(beam.collimator),
        "isocenter": [float(v) for v in beam.isocenter],
    }
    if beam.energies is None:
        return {**told, "bixels": beam.count}
    return {
        **told,
        "spots": beam.count,
        "layers": int(np.unique(beam.energies).size),
        "energies_mev_u": [float(np.min(beam.energies)), float(np.max(beam.energies))],
        "range_shifter": _described_shifter(beam),
    }


def _described_shifter(beam: Beam) -> dict[str, float] | None:
    shifter = beam.range_shifter
    if shifter is None:
        return None
    return {"thickness": shifter.thickness, "isocenter_distance": shifter.isocenter_distance}


def rounded(values: Mapping[str, float]) -> dict[str, float | None]:
    """Return metrics to a tenth of a milligray; null where not a number, as JSON has none.

    >>> rounded({"Dmean": 1.23456, "D95": float("nan")})
    {'Dmean': 1.2346, 'D95': None}
    """
    return {name: round(float(v), 4) if np.isfinite(v) else None for name, v in values.items()}
