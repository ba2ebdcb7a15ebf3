"""Automatic planning of one patient: from contours to the best-scored plan, nobody in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radplan.autoplan.delivered_ascent import DeliveredAscent
from radplan.autoplan.protocol import Protocol, load_protocol, understand
from radplan.autoplan.refine import Iterate, Progress, Refinement, Settings, refine
from radplan.autoplan.scorecard import Score
from radplan.beams import Beams, place_beams
from radplan.engines import ENGINES, dose_influence
from radplan.errors import UnknownNameError
from radplan.io import load_machine
from radplan.io.dicom import DicomCase
from radplan.io.plan_file.reading import PlanSpec, plan_spec
from radplan.machines import PhotonMachine
from radplan.machines.limits import machine_limits
from radplan.optim import Goal
from radplan.patient import Patient
from radplan.workflows.delivery import Delivered, check_deliverable, deliver_arcs, deliver_fluence

DELIVERED = ("step_and_shoot", "sliding_window", "vmat")
"""Techniques that end in a file for a linac."""
_EVENNESS, _EVENNESS_OF_REACHED = 25.0, 5.0
"""Weight of targets and rings in arcs over that in free fluence: leaves lose evenness before they lose organs [1].

For goals that ask for more than can be had, and for what a plan has reached already.
"""
_LEAF_ROW = 5.0
"""Largest width of bixels whose rows lie on leaf pairs [mm]."""


def auto_plan(
    patient: Patient,
    protocol: Protocol | str | Path,
    machine: Any = None,
    settings: Settings | None = None,
    device: str = "numpy",
    progress: Progress | None = None,
    limits: str | None = None,
) -> Refinement:
    """Return the refinement of a patient by a protocol: names, helpers, beams, dose influence, rounds of planning.

    Parameters
    ----------
    patient : Patient
        With contours, under any names.
    protocol : Protocol or str or path
        How to plan; a built-in name or a JSON file.
    machine : machine or str, optional
        What plans; the protocol's when left out.
    settings : Settings, optional
        How far the refinement goes.
    device : str
        Where to calculate.
    progress : callable, optional
        Told each iterate.
    limits : str, optional
        The linac whose leaf pairs bixels lie on, for fields that shall be delivered: see `auto_delivery`.

    Raises
    ------
    InputError
        When the patient has no target of the protocol, or two structures may be one.
    """
    chosen = protocol if isinstance(protocol, Protocol) else load_protocol(protocol)
    seen = understand(patient, chosen)
    planned = seen.patient
    given = machine if machine is not None else chosen.machine
    known = load_machine(given) if isinstance(given, str | Path) else given
    beams = template_beams(planned, chosen, known, None if limits is None else machine_limits(limits).mlc)
    options = {"lateral_cutoff": chosen.lateral_cutoff} if known.radiation == "photons" else {}
    engine = ENGINES.get("photon_pencil_beam")(**options) if known.radiation == "photons" else None
    dij = dose_influence(planned, beams, known, grid=chosen.grid, engine=engine, device=device)
    found = refine(planned, chosen, dij, settings, progress)
    return replace(found, notes=seen.notes)


def template_beams(patient: Patient, protocol: Protocol, machine: Any, mlc: str | None = None) -> Beams:
    """Return the fixed fields of a protocol for a patient; particles come from the two lateral fields.

    Parameters
    ----------
    patient : Patient
        With the protocol's targets.
    protocol : Protocol
        Whose template is used.
    machine : machine
        Which radiation.
    mlc : str, optional
        The collimator whose leaf pairs rows of bixels lie on.
    """
    if machine.radiation != "photons":
        return place_beams(patient, machine, gantry=[90.0, 270.0], bixel_width=protocol.bixel_width)
    width = protocol.bixel_width if mlc is None else min(protocol.bixel_width, _LEAF_ROW)
    return place_beams(
        patient, machine, gantry=protocol.beams.angles(patient), bixel_width=width,
        collimator=protocol.beams.collimator, couch=protocol.beams.couch, mlc=mlc,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class AutoDelivery:
    """What a linac delivers of an automatic plan, and what it scores.

    Parameters
    ----------
    delivered : Delivered
        Control points read back from the exported file, their dose and the delivery report.
    score : Score
        Of that dose, by the protocol's scorecard.
    spec : PlanSpec
        The plan file's form of what was delivered.
    iterates : tuple of Iterate
        Delivered plans in the order they were scored in, the losing ones too.
    """

    delivered: Delivered
    score: Score
    spec: PlanSpec
    iterates: tuple[Iterate, ...] = ()


def auto_delivery(
    refinement: Refinement,
    protocol: Protocol,
    machine: PhotonMachine,
    technique: str = "step_and_shoot",
    limits: str = "TrueBeam",
    arcs: int | None = None,
    case: DicomCase | None = None,
    intermediate_doses: int = 4,
    progress: Progress | None = None,
) -> AutoDelivery:
    """Return what a linac delivers of the best plan of a refinement, at the same coverage.

    Parameters
    ----------
    refinement : Refinement
        Whose best goals are served; fixed fields are those of its plan, made with the same `limits`.
    protocol : Protocol
        Scorecard, grid and arcs.
    machine : PhotonMachine
        A linac with monitor units.
    technique : {"step_and_shoot", "sliding_window", "vmat"}
        Fixed fields in shapes or in windows, or arcs.
    limits : str
        Of which linac.
    arcs : int, optional
        How many; the protocol's when left out.
    case : DicomCase, optional
        The images that the file refers to.
    intermediate_doses : int
        How often, at most, the delivered dose of sliding windows is calculated and their fluence climbs the card on.
    progress : callable, optional
        Told each delivered plan that is scored.

    Raises
    ------
    UnknownNameError
        When the technique is unknown.
    InputError
        When the machine cannot deliver, or bixels do not lie on leaf pairs.
    """
    if technique not in DELIVERED:
        raise UnknownNameError("delivered technique", technique, DELIVERED)
    plan = refinement.plan
    spec = delivery_specification(protocol, technique, limits, arcs)
    check_deliverable(spec, plan.patient, machine, case)
    target = next(name for name in protocol.targets if name in plan.patient.structures)
    metric = f"D{protocol.normalise['percent']:g}"
    dose = plan.metrics(plan.prescribed, [target], [metric])[target][metric]
    level = target, "physical_dose", {metric: dose}
    even = arc_goals(refinement.best.goals, protocol, _EVENNESS_OF_REACHED)
    iterates: list[Iterate] = []

    def told(iterate: Iterate) -> None:
        iterates.append(iterate)
        if progress is not None:
            progress(iterate)

    ascent = DeliveredAscent(
        protocol, machine, machine_limits(limits), (target, metric, dose), spec.delivery.grid,
        intermediate_doses=intermediate_doses, told=told,
    )  # fmt: skip
    if technique == "vmat":
        delivered = deliver_arcs(spec, plan.patient, machine, even, level, case, ascent.climbed)
    else:
        delivered = deliver_fluence(plan, spec, machine, even, level, case, ascent.climbed_fields)
    return AutoDelivery(delivered, protocol.scorecard.score(delivered.plan), spec, tuple(iterates))


def arc_goals(goals: Sequence[Goal], protocol: Protocol, evenness: float = _EVENNESS) -> list[Goal]:
    """Return goals for arcs: those of targets and rings weigh more, because leaves lose evenness first."""
    even = (*protocol.targets, *(protocol.rings or {}))
    return [replace(goal, weight=evenness * goal.weight) if goal.structure in even else goal for goal in goals]


def delivery_specification(protocol: Protocol, technique: str, limits: str, arcs: int | None = None) -> PlanSpec:
    """Return the plan file's form of what is delivered of a protocol's plan."""
    wanted: dict[str, Any] = {"technique": technique, "limits": limits}
    if technique == "vmat":
        wanted["arcs"] = arcs or protocol.beams.arcs
    if technique == "sliding_window":
        wanted["refine"] = False  # their fluence climbs the card instead
    return plan_spec({"fractions": protocol.fractions, "engine": {"grid": protocol.grid}, "delivery": wanted})
