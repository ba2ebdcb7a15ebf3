"""A plan in the scenarios of its model: one plan for each case, tables of metrics, and bands of DVHs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from radplan.analysis.dvh import DVH, common_levels, cumulative_dvh
from radplan.engines.base import Machine, dose_influence, engine_from_spec
from radplan.errors import InputError, UnknownNameError
from radplan.influence import Dij, ForwardModel, Scenarios
from radplan.influence.cases import model_of_case
from radplan.machines import library_machine
from radplan.patient.patient import Patient
from radplan.plan.course import Plan
from radplan.quantities.base import Quantity

Floats = NDArray[np.float64]


def in_scenarios(
    model: ForwardModel, patient: Patient, scenarios: Scenarios, machine: Machine | None = None
) -> ForwardModel:
    """Return a `Dij` calculated again in scenarios, on the fly: beams, engine, grid, device and dtype are its own.

    Parameters
    ----------
    model : ForwardModel
        As `radplan.dose_influence` made it.
    patient : Patient
        As it was made for.
    scenarios : Scenarios
        The cases.
    machine : Machine, optional
        As it was made for; the built-in one of that name when left out.

    Raises
    ------
    InputError
        When the model does not know how it was calculated.
    UnknownNameError
        When no built-in machine has the name.
    """
    if not isinstance(model, Dij) or model.beams is None or "name" not in model.settings:
        raise InputError(
            "only a Dij that dose_influence made can be calculated in scenarios: give one that has them "
            "already, as dose_influence(..., scenarios=) or over_cases make it"
        )
    return dose_influence(
        patient,
        model.beams,
        library_machine(str(model.machine)) if machine is None else machine,
        model.grid,
        engine_from_spec(model.settings),
        stored=False,
        device=model.device,
        dtype=model.dtype,
        voxels=model.voxels,
        scenarios=scenarios,
    )


@dataclass(frozen=True, eq=False)
class DVHBand:
    """The DVHs of one structure in all scenarios.

    Parameters
    ----------
    nominal : DVH
        That of the first scenario.
    lower, upper : array of shape (k,) [%]
        Smallest and largest volume of any scenario at each level of the nominal one.
    """

    nominal: DVH
    lower: Floats
    upper: Floats


def plan_of_case(plan: Plan, case: int | str) -> Plan:
    """Return a plan as it is in one scenario of its model, named or counted from 0; the variables stay.

    Raises
    ------
    UnknownNameError
        When no scenario has that name.
    InputError
        When there is no scenario of that number, or the model cannot be taken apart.

    >>> from radplan import Dij, Grid, evaluate, load_patient
    >>> from radplan.influence import Scenarios
    >>> patient = load_patient("box")
    >>> doses = [np.full((patient.ct.grid.size, 1), dose) for dose in (0.5, 0.6)]
    >>> cases = Scenarios(("nominal", "swollen"), (0.5, 0.5))
    >>> model = Dij.from_matrices({"physical_dose": doses}, patient.ct.grid, scenarios=cases)
    >>> plan = evaluate(model, [2.0], patient, fractions=30)
    >>> round(float(plan_of_case(plan, "swollen")["physical_dose"].max()), 3)  # 30 x 2 x 0.6 Gy
    36.0
    """
    names = plan.model.scenarios.names
    if isinstance(case, str) and case not in names:
        raise UnknownNameError("scenario", case, names)
    number = names.index(case) if isinstance(case, str) else case
    return replace(plan, model=model_of_case(plan.model, number))


def scenario_metrics(
    plan: Plan,
    quantity: str | Quantity | None = None,
    structures: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return scenario -> structure -> metric -> value, as `Plan.metrics` gives them for each.

    Parameters
    ----------
    plan : Plan
        What is judged.
    quantity : str or Quantity, optional
        In what; the prescribed quantity when left out.
    structures, names : sequence of str, optional
        As `Plan.metrics` takes them.
    """
    judged = plan.prescribed if quantity is None else quantity
    return {
        name: plan_of_case(plan, number).metrics(judged, structures, names)
        for number, name in enumerate(plan.model.scenarios.names)
    }


def dvh_bands(
    plan: Plan, quantity: str | Quantity | None = None, structures: Sequence[str] | None = None
) -> dict[str, DVHBand]:
    """Return the DVH of each structure in the nominal scenario, and how far those of all scenarios reach from it.

    Parameters
    ----------
    plan : Plan
        With a model of several scenarios; of one, bands have no width.
    quantity : str or Quantity, optional
        In what; the prescribed quantity when left out.
    structures : sequence of str, optional
        Which; all that are judged when left out.

    Raises
    ------
    InputError
        When no structure has voxels.
    """
    judged = plan.prescribed if quantity is None else quantity
    plans = [plan_of_case(plan, number) for number in range(len(plan.model.scenarios))]
    nominal = plans[0].dvh(judged, structures)
    values = {name: [case.structure_values(judged, name) for case in plans] for name in nominal}
    levels = common_levels({f"{name} {k}": pair[0] for name, cases in values.items() for k, pair in enumerate(cases)})
    bands = {}
    for name, curve in nominal.items():
        volumes = np.stack([cumulative_dvh(*pair, levels) for pair in values[name] if pair[0].size])
        first = replace(curve, levels=levels, percent=volumes[0])
        bands[name] = DVHBand(first, volumes.min(axis=0), volumes.max(axis=0))
    return bands


def extremes(table: Mapping[str, Mapping[str, Mapping[str, float]]], structure: str, name: str) -> tuple[float, float]:
    """Return the smallest and the largest value of a metric in a table of `scenario_metrics`.

    Raises
    ------
    InputError
        When no scenario has the metric of that structure.

    >>> extremes({"nominal": {"PTV": {"D95": 59.0}}, "x +5 mm": {"PTV": {"D95": 57.5}}}, "PTV", "D95")
    (57.5, 59.0)
    """
    found = [rows[structure][name] for rows in table.values() if name in rows.get(structure, {})]
    if not found:
        raise InputError(f"no scenario has {name} of {structure!r}")
    return min(found), max(found)
