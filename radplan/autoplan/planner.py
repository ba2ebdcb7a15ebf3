"""Automatic planning of one patient: from contours to the best-scored plan, nobody in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from radplan.autoplan.protocol import Protocol, load_protocol, understand
from radplan.autoplan.refine import Progress, Refinement, Settings, refine
from radplan.beams import Beams, place_beams
from radplan.engines import ENGINES, dose_influence
from radplan.io import load_machine
from radplan.patient import Patient


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
