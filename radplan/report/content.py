"""What a report says of a plan in words and tables: prescription, beams, goals, score, delivery and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from radplan.autoplan.scorecard import Score
from radplan.beams.control_points import DeliveryPlan
from radplan.errors import FileError
from radplan.influence import Dij
from radplan.influence.saved import SavedModel
from radplan.io.describe import judged
from radplan.optim.goals import Goal
from radplan.plan import Plan


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Parameters
    ----------
    heads : sequence of str
        Above the columns; the first column is a name, the others are numbers or words.
    rows : sequence of sequences of str
        As many cells as heads.
    note : str
        What stands below it.

    >>> Table(["a"], [["1"]]).rows
    [['1']]
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Delivery:
    """What is known of how a plan is delivered, from its folder.

    Parameters
    ----------
    fields : sequence of dict
        Leaves and jaws, as `radplan.report.delivered.field_data` gives them.
    report : mapping
        As ``delivery.json`` holds it.
    beams : Table, optional
        Angles, isocentre and monitor units of the fields.
    """

    fields: Sequence[Mapping[str, Any]] = ()
    report: Mapping[str, Any] = field(default_factory=dict)
    beams: Table | None = None


def prescription_table(plan: Plan, linac: str | None = None) -> Table:
    """Return what is prescribed: dose, fractions, quantity, normalisation, machine (or linac)."""
    dose = plan.patient.prescription
    unit = plan.unit(plan.prescribed)
    machine = plan.model.machine if isinstance(plan.model, Dij | SavedModel) else None
    rows = [
        ["prescribed dose", "not stated" if dose is None else f"{dose:g} {unit}"],
        ["fractions", str(plan.fractions)],
        ["dose per fraction", "not stated" if dose is None else f"{dose / plan.fractions:.3g} {unit}"],
        ["quantity", plan.title(plan.prescribed)],
        ["normalised to", plan.normalization or "as optimised"],
        ["radiation", plan.model.radiation],
        ["machine", machine or linac or "not stated"],
    ]
    if plan.solution is not None:
        rows.append(["search", f"{plan.solution.status.value} after {plan.solution.iterations} iterations"])
    return Table(["", ""], rows)


def beam_table(plan: Plan) -> Table | None:
    """Return angles, isocentre and size of every beam; None where the beams are not known."""
    if plan.beams is None:
        return None
    ions = any(beam.energies is not None for beam in plan.beams)
    heads = [
        "beam",
        "gantry [°]",
        "couch [°]",
        "collimator [°]",
        "isocentre (x, y, z) [mm]",
        "spots" if ions else "bixels",
    ]
    rows = []
    for number, beam in enumerate(plan.beams, start=1):
        center = ", ".join(f"{value:.1f}" for value in beam.isocenter)
        row = [str(number), f"{beam.gantry:g}", f"{beam.couch:g}", f"{beam.collimator:g}", center, str(beam.count)]
        if beam.energies is not None:
            row.append(f"{np.min(beam.energies):.1f} to {np.max(beam.energies):.1f}")
        rows.append(row)
    return Table([*heads, *(["energies [MeV/u]"] if ions else [])], rows)


def field_table(delivery: DeliveryPlan) -> Table:
    """Return angles, isocentre and monitor units of every field of a delivery."""
    rows = []
    for field_ in delivery:
        first, last = field_.points[0], field_.points[-1]
        turn = f"{first.gantry:g}" if first.gantry == last.gantry else f"{first.gantry:g} to {last.gantry:g}"
        center = ", ".join(f"{value:.1f}" for value in first.isocenter)
        rows.append(
            [
                field_.name,
                turn,
                f"{first.couch:g}",
                f"{first.collimator:g}",
                center,
                f"{field_.mu:.1f}",
                field_.technique,
            ]
        )
    heads = ["field", "gantry [°]", "couch [°]", "collimator [°]", "isocentre (x, y, z) [mm]", "MU", "technique"]
    return Table(heads, rows)


def goal_table(plan: Plan) -> Table | None:
    """Return every goal and constraint with what came out; None where there is none."""
    rows = [_goal(plan, goal) for goal in plan.goals]
    for bound in plan.constraints:
        low, high = bound.bounds
        within = f"{low:g} to {high:g}" if np.isfinite(low) and np.isfinite(high) else (
            f"at most {high:g}" if np.isfinite(high) else f"at least {low:g}")  # fmt: skip
        name = bound.metric or (bound.objective if isinstance(bound.objective, str) else bound.objective.name)
        came = ""
        if bound.metric is not None:
            came = (
                f"{plan.metrics(bound.quantity, [bound.structure], [bound.metric])[bound.structure][bound.metric]:.2f}"
            )
        rows.append([bound.structure, f"{name} {within}", _quantity(bound.quantity), "must", came])
    note = "Values of objectives are those of the whole structure, without the weight."
    return Table(["structure", "goal", "quantity", "weight", "value"], rows, note) if rows else None


def metric_tables(plan: Plan, more: Sequence[str] = ()) -> dict[str, Table]:
    """Return the usual metrics of every structure by the title of each quantity that the plan tells of."""
    tables = {}
    for quantity in plan.told():
        rows = judged(plan, more, quantity)
        heads = list(dict.fromkeys(name for row in rows.values() for name in row))
        cells = [[name, *(f"{row[head]:.2f}" if head in row else "" for head in heads)] for name, row in rows.items()]
        tables[f"{plan.title(quantity)} [{plan.unit(quantity)}]"] = Table(
            ["structure", *(f"{head} %" if head.startswith("V") else head for head in heads)], cells
        )
    return tables


def score_table(score: Score) -> Table:
    """Return the items of a score, and its total in the note."""
    rows = [
        [entry.item.label, f"{entry.value:.2f}", f"{entry.score:.2f}", f"{entry.item.maximum:.2f}"]
        for entry in score.items
    ]
    note = f"{score.total:.1f} of {score.maximum:.1f} points ({score.percent:.0f} %)."
    if score.dropped:
        note += f" Not judged, the patient lacks the structures: {', '.join(score.dropped)}."
    return Table(["criterion", "value", "points", "best"], rows, note)


def delivery_table(report: Mapping[str, Any]) -> Table | None:
    """Return the delivery report of ``delivery.json``; None where there is none."""
    if not report:
        return None
    words = {
        "limits": "linac",
        "mu": "monitor units of a fraction",
        "mu_per_gray": "MU per Gy",
        "beam_on_seconds": "seconds under beam",
        "largest_leaf_speed_share": "fastest leaf over its limit",
        "modulation_complexity": "modulation complexity",
        "violations": "violations of the linac's limits",
    }
    rows = [[text, _number(report[key])] for key, text in words.items() if key in report]
    rows += [
        [f"field {entry['name']}", f"{entry['technique']}, {entry['mu']:.1f} MU, {entry['seconds']:.1f} s"]
        for entry in report.get("fields", ())
    ]
    return Table(["", ""], rows)


def provenance_table(provenance: Mapping[str, Any], named: bool) -> Table:
    """Return where a plan came from; the case and the patient only where they may be named."""
    hidden = () if named else ("patient", "case")
    known = {key: value for key, value in provenance.items() if key not in hidden and value is not None}
    rows = [[key.replace("_", " "), _said(value)] for key, value in known.items()]
    return Table(["", ""], rows)


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return where a saved plan came from, and how its search ended, as ``plan.json`` says.

    Raises
    ------
    FileError
        When it cannot be read.
    """
    path = folder / "plan.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(path, f"cannot be read ({error})") from None
    search = {} if data.get("solution") is None else {"search": data["solution"]}
    return {**data.get("provenance", {}), **search}


def read_delivery(folder: Path) -> Delivery:
    """Return what a plan's folder says of its delivery: ``RP.dcm`` and ``delivery.json``, where they lie there.

    Raises
    ------
    FileError
        When one of them cannot be read.
    """
    from radplan.io.dicom import read_plan
    from radplan.report.delivered import field_data

    written, plan = folder / "delivery.json", folder / "RP.dcm"
    told: Mapping[str, Any] = {}
    if written.is_file():
        try:
            told = json.loads(written.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FileError(written, f"cannot be read ({error})") from None
    if not plan.is_file():
        return Delivery((), told)
    delivered = read_plan(plan)
    return Delivery(field_data(delivered), told, field_table(delivered))


def _goal(plan: Plan, goal: Goal) -> list[str]:
    options = ", ".join(f"{key} {_option(value)}" for key, value in goal.objective.parameters().items())
    values, weights = plan.structure_values(goal.quantity, goal.structure)
    came = f"{float(goal.objective.value(values, weights)):.4g}" if values.size else "no voxel"
    robust = "" if goal.robust == "nominal" else f" ({goal.robust})"
    text = goal.objective.name.replace("_", " ")
    return [goal.structure, f"{text}: {options}{robust}", _quantity(goal.quantity), f"{goal.weight:g}", came]


def _option(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _quantity(quantity: Any) -> str:
    return quantity if isinstance(quantity, str) else str(quantity.name)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key.replace('_', ' ')} {_said(entry)}" for key, entry in value.items())
    if isinstance(value, list | tuple):
        return " × ".join(_said(entry) for entry in value)
    return _number(value)
