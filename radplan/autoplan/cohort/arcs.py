"""Arcs of a cohort's patient: fluence, leaves, jaws and monitor units of every control point, and the dose of them.

Networks that go from anatomy to machine parameters learn from these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.autoplan.cohort.spec import ArcSpec
from radplan.autoplan.planner import arc_goals
from radplan.autoplan.policy import POLICIES, SearchState
from radplan.autoplan.protocol import Protocol
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.arc_bixels import ArcBixels
from radplan.delivery.arcs import ArcOptions, ArcOutcome, scaled_mu, search_arcs
from radplan.delivery.check import check_delivery
from radplan.delivery.rounding import rounded_plan
from radplan.engines import aperture_model
from radplan.machines import PhotonMachine
from radplan.machines.limits import machine_limits
from radplan.patient import Patient
from radplan.plan import Plan, evaluate

Floats = npt.NDArray[np.float64]

_SHARE = 3.0
"""Weight of target goals over the published one [1]."""


@dataclass(frozen=True, eq=False)
class CohortArcs:
    """Arcs of one patient.

    Parameters
    ----------
    plan : Plan
        Dose of the rounded control points by the aperture engine, on the protocol's grid.
    delivery : DeliveryPlan
        The control points.
    outcome : ArcOutcome
        What they were searched with.
    factor : float
        Monitor units of the control points over those that the search ended with [1].
    scores : mapping of str to float
        Monitor units, time, complexity and violations of the machine's limits.
    """

    plan: Plan
    delivery: DeliveryPlan
    outcome: ArcOutcome
    factor: float
    scores: dict[str, float]

    def write(self, path: Path) -> None:
        """Write control points, fluence maps and dose.

        ``fluence`` is the free fluence that serves the goals best and ``opened`` what the leaves let through, both
        (segments, rows, columns) in monitor units; ``columns`` and ``pairs`` say where. ``gantry``, ``collimator``,
        ``meterset``, ``leaves``, ``jaws_x`` and ``jaws_y`` are by control point, ``field`` tells the arc that each
        belongs to; ``mu`` and ``segment_field`` are by segment. ``dose`` is a course total [Gy].
        """
        search, bixels = self.outcome.search, self.outcome.search.matrix.bixels
        numbers = [(number, point) for number, field in enumerate(self.delivery.fields) for point in field.points]
        points = [point for _, point in numbers]
        first = self.delivery.fields[0]
        arrays: dict[str, Any] = {
            "dose": self.plan["physical_dose"].astype(np.float32),
            "fluence": _maps(bixels, self.factor * search.fluence()),
            "opened": _maps(bixels, self.factor * search.weights()),
            "columns": bixels.edges,
            "pairs": bixels.pairs,
            "leaf_boundaries": np.asarray(first.leaf_boundaries),
            "field": np.asarray([number for number, _ in numbers]),
            "gantry": np.asarray([point.gantry for point in points]),
            "collimator": np.asarray([point.collimator for point in points]),
            "meterset": np.asarray([point.meterset for point in points]),
            "leaves": np.stack([np.asarray(point.leaves) for point in points]),
            "mu": np.concatenate(
                [np.diff([point.meterset for point in field.points]) for field in self.delivery.fields]
            ),
            "segment_field": np.asarray(bixels.arc_of),
            "isocenter": np.asarray(bixels.isocentre),
        }
        for name in ("jaws_x", "jaws_y"):
            jaws = [vars(point)[name] for point in points]
            if all(jaw is not None for jaw in jaws):
                arrays[name] = np.stack(jaws)
        np.savez_compressed(path, **arrays)


def cohort_arcs(patient: Patient, protocol: Protocol, machine: PhotonMachine, spec: ArcSpec) -> CohortArcs:
    """Return arcs that serve the goals of a protocol's card, at its coverage.

    Parameters
    ----------
    patient : Patient
        Understood by the protocol.
    protocol : Protocol
        Goals, coverage and the grid of the dose.
    machine : PhotonMachine
        With monitor units.
    spec : ArcSpec
        How many arcs and how finely they are searched.

    Raises
    ------
    InputError
        When machine, limits and arcs do not go together.
    """
    limits = machine_limits(spec.limits)
    goals = arc_goals(POLICIES.get("adaptive")().goals(patient, protocol, SearchState(share=_SHARE)), protocol)
    target = next(name for name in protocol.targets if name in patient.structures)
    share, dose = protocol.normalise["percent"] / 100.0, protocol.normalise["level"] * protocol.targets[target]
    outcome = search_arcs(
        patient,
        goals,
        machine,
        arcs=spec.count,
        limits=limits,
        options=ArcOptions(spacing=spec.spacing, effort=spec.effort),
        grid=spec.grid,
        fractions=protocol.fractions,
        level=(target, share, dose),
    )
    plan = _plan(outcome.plan, patient, protocol, machine, spec)
    covered = plan.metrics(structures=[target], names=[f"D{100.0 * share:g}"])[target][f"D{100.0 * share:g}"]
    factor = dose / covered
    delivery = rounded_plan(scaled_mu(outcome.plan, factor), limits)
    judged = check_delivery(delivery, limits)
    judged.raise_for_errors()
    return CohortArcs(_plan(delivery, patient, protocol, machine, spec), delivery, outcome, factor, judged.scores())


def _plan(delivery: DeliveryPlan, patient: Patient, protocol: Protocol, machine: PhotonMachine, spec: ArcSpec) -> Plan:
    model = aperture_model(patient, delivery, machine, machine_limits(spec.limits).collimator(), protocol.grid)
    return evaluate(model, np.asarray(model.variables.start), patient, protocol.fractions)


def _maps(bixels: ArcBixels, values: Floats) -> npt.NDArray[np.float32]:
    """Return values (bixels,) on all rows and columns of every segment (segments, rows, columns)."""
    maps = [bixels.spread(values, segment) for segment in range(bixels.segments)]
    return np.asarray(maps, dtype=np.float32)
