"""Beams that a plan file leaves to be chosen among candidates: `beams: {gantry: [...], select: 5}`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from radplan.errors import InputError
from radplan.io.plan_file.reading import PlanSpec
from radplan.io.staging import staged
from radplan.machines import ParticleMachine, PhotonMachine
from radplan.patient.patient import Patient
from radplan.plan.angles import BeamSelection, select_beams
from radplan.workflows.radiation import beam_settings
from radplan.workflows.robust import wanted_scenarios
from radplan.workflows.setup import Task, dose_grid

COARSER = 2.0
"""How many times coarser spots, layers and dose grid are in the choice than in the plan."""


def check_selection(spec: PlanSpec) -> None:
    """Raise `InputError` where beams are to be chosen in a way that cannot be.

    >>> from radplan.io.plan_file.reading import plan_spec
    >>> check_selection(plan_spec({"beams": {"gantry": [0, 90, 180], "select": 2}}))
    """
    beams = spec.beams
    if beams.select is None:
        return
    if spec.delivery.technique == "vmat":
        raise InputError("beams: select chooses fixed beams, but vmat delivers arcs: leave one out")
    if isinstance(beams.collimator, tuple) or beams.collimator:
        raise InputError("beams: candidates of select have the collimator at 0 degrees: leave collimator out")
    if beams.select > len(beams.gantry):
        raise InputError(
            f"beams: select: {beams.select} of {len(beams.gantry)} gantry angles: give more candidates as gantry"
        )


def chosen_beams(
    spec: PlanSpec, patient: Patient, machine: PhotonMachine | ParticleMachine, work: Task
) -> tuple[PlanSpec, BeamSelection | None]:
    """Return the specification with the beams that were chosen, and how; as it is where nothing is to be chosen.

    Spots and dose grid are coarser in the choice than in the plan.
    """
    beams = spec.beams
    if beams.select is None:
        return spec, None
    settings = beam_settings(beams, machine)
    settings.pop("collimator")
    settings["bixel_width"] *= COARSER
    if settings["layer_spacing"] is not None:
        settings["layer_spacing"] *= COARSER
    wanted = spec.engine.grid
    grid: Any = dose_grid(spec, patient)
    if isinstance(wanted, float | int):
        grid = COARSER * wanted
    elif isinstance(wanted, tuple):
        grid = tuple(COARSER * side for side in wanted)
    selection = select_beams(
        patient,
        machine,
        work.goals,
        beams.select,
        fractions=spec.fractions,
        grid=grid,
        engine=work.engine,
        stored=spec.engine.stored,
        device=spec.engine.device,
        scenarios=wanted_scenarios(spec),
        **settings,
    )
    told = beams.model_copy(update={"gantry": selection.gantry, "couch": selection.couch, "select": None})
    return spec.model_copy(update={"beams": told}), selection


def save_selection(selection: BeamSelection, folder: str | Path) -> tuple[Path, ...]:
    """Write ``beam_selection.csv``: for each number of beams the one added, the cost, all beams, and each trial."""
    with (
        staged(folder, whole=False) as partial,
        (partial / "beam_selection.csv").open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(
            ["beams", "gantry", "couch", "cost", "candidate gantry", "candidate couch", "cost when tried", "all gantry"]
        )
        for number, (angles, beams, cost, tried) in enumerate(
            zip(selection.added, selection.sets, selection.costs, selection.trials, strict=True), start=1
        ):
            every = " ".join(f"{beam[0]:g}" for beam in beams)
            for candidate, trial in tried.items():
                table.writerow([number, *angles[:2], f"{cost:.6g}", *candidate[:2], f"{trial:.6g}", every])
    return (Path(folder, "beam_selection.csv"),)
