"""Automatic planning of one patient: from contours to the best-scored plan, nobody in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from radplan.autoplan.protocol import Protocol, load_protocol, understand
from radplan.autoplan.refine import Progress, Refinement, Settings, refine
from radplan.autoplan.scorecard import Score
from radplan.beams import Beams, place_beams
from radplan.engines import ENGINES, dose_influence
from radplan.io import load_machine
from radplan.io.dicom import DicomCase
from radplan.io.plan_file.reading import PlanSpec, plan_spec
from radplan.machines import PhotonMachine
from radplan.optim import Goal
from radplan.patient import Patient
from radplan.workflows.delivery import Delivered, check_deliverable, deliver_arcs

_EVENNESS = 25.0
"""Weight of targets and rings in arcs over that in free fluence: leaves lose evenness before they lose organs [1]."""


def auto_plan(
    patient: Patient,
    protocol: Protocol | str | Path,
    machine: Any = None,
    settings: Settings | None = None,
    device: str = "numpy",
    progress: Progress | None = None,
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
    beams = template_beams(planned, chosen, known)
    options = {"lateral_cutoff": chosen.lateral_cutoff} if known.radiation == "photons" else {}
    engine = ENGINES.get("photon_pencil_beam")(**options) if known.radiation == "photons" else None
    dij = dose_influence(planned, beams, known, grid=chosen.grid, engine=engine, device=device)
    found = refine(planned, chosen, dij, settings, progress)
    return replace(found, notes=seen.notes)


def template_beams(patient: Patient, protocol: Protocol, machine: Any) -> Beams:
    """Return the fixed fields of a protocol for a patient; particles come from the two lateral fields.

    Parameters
    ----------
    patient : Patient
        With the protocol's targets.
    protocol : Protocol
        Whose template is used.
    machine : machine
        Which radiation.
    """
    if machine.radiation != "photons":
        return place_beams(patient, machine, gantry=[90.0, 270.0], bixel_width=protocol.bixel_width)
    return place_beams(
        patient, machine, gantry=protocol.beams.angles(patient), bixel_width=protocol.bixel_width,
        collimator=protocol.beams.collimator, couch=protocol.beams.couch,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class AutoArcs:
    """Arcs of an automatic plan: what the linac delivers, and what it scores.

    Parameters
    ----------
    delivered : Delivered
        Control points read back from the exported file, their dose and the delivery report.
    score : Score
        Of that dose, by the protocol's scorecard.
    """

    delivered: Delivered
    score: Score


def auto_arcs(
    refinement: Refinement,
    protocol: Protocol,
    machine: PhotonMachine,
    arcs: int | None = None,
    limits: str = "TrueBeam",
    case: DicomCase | None = None,
) -> AutoArcs:
    """Return arcs that serve the goals of the best plan of a refinement, at the same coverage.

    Parameters
    ----------
    refinement : Refinement
        Whose best goals are served.
    protocol : Protocol
        Coverage and scorecard.
    machine : PhotonMachine
        A linac with monitor units.
    arcs : int, optional
        How many; the protocol's when left out.
    limits : str
        Of which linac.
    case : DicomCase, optional
        The images that the file refers to.
    """
    spec = arc_specification(protocol, arcs, limits)
    patient = refinement.plan.patient
    check_deliverable(spec, patient, machine, case)
    target = next(name for name in protocol.targets if name in patient.structures)
    percent, share = protocol.normalise["percent"], protocol.normalise["level"]
    level = target, "physical_dose", {f"D{percent:g}": share * protocol.targets[target]}
    goals = arc_goals(refinement.best.goals, protocol)
    delivered = deliver_arcs(spec, patient, machine, goals, level, case)
    return AutoArcs(delivered, protocol.scorecard.score(delivered.plan))


def arc_goals(goals: Sequence[Goal], protocol: Protocol) -> list[Goal]:
    """Return goals for arcs: those of targets and rings weigh more, because leaves lose evenness first."""
    even = (*protocol.targets, *(protocol.rings or {}))
    return [replace(goal, weight=_EVENNESS * goal.weight) if goal.structure in even else goal for goal in goals]


def arc_specification(protocol: Protocol, arcs: int | None = None, limits: str = "TrueBeam") -> PlanSpec:
    """Return the plan file's form of a protocol's arcs."""
    return plan_spec(
        {
            "fractions": protocol.fractions,
            "engine": {"grid": protocol.grid},
            "delivery": {"technique": "vmat", "arcs": arcs or protocol.beams.arcs, "limits": limits},
        }
    )
