"""A plan judged by an independent dose: the same photons or protons, transported by a Monte Carlo program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radplan.analysis.gamma import Gamma, GammaCriteria, gamma_index
from radplan.beams.beam import Beams
from radplan.engines import ApertureOptions, PhotonAperture, forward_model
from radplan.engines.aperture.model import ApertureModel
from radplan.engines.base import engine_from_spec
from radplan.engines.monte_carlo.fluence import fluence_maps
from radplan.engines.monte_carlo.photons import simulate_photons
from radplan.engines.monte_carlo.protons import check_program, simulate_protons
from radplan.engines.monte_carlo.simulated import SimulatedDose
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.influence import Dij
from radplan.influence.saved import SavedModel
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.rtdose import DoseImage
from radplan.io.load import load_machine
from radplan.io.plan_file.reading import read_plan_file
from radplan.io.reference import ReferenceDose
from radplan.machines import ParticleMachine, scanned_from
from radplan.patient.names import names_lung
from radplan.patient.patient import Patient
from radplan.plan import Plan, evaluate
from radplan.recalc import Recalculation, SceneOptions, recalculate, recalculate_ions
from radplan.recalc.comparison import Comparison, compare, inside_by
from radplan.workflows.radiation import wanted_engine
from radplan.workflows.reopening import load_plan
from radplan.workflows.voxel_means import of_means, points_grid, with_voxel_means

INDEPENDENT = ("monte_carlo",)
"""What a plan can be verified by."""

PHOTON_STEP = 3.0
"""How far apart the points of a voxel lie at most whose mean is put beside a simulated photon dose [mm]."""

SKIN = 10.0
"""Gamma is judged this far below the skin [mm]."""


@dataclass(frozen=True, eq=False)
class Verification:
    """A plan's dose beside an independent one.

    Parameters
    ----------
    plan : Plan
        radplan's dose.
    comparison : Comparison
        Its metrics and DVHs beside those of the independent dose, and gamma.
    simulated : SimulatedDose
        The independent dose of a fraction, its statistical error, histories and time.
    passing : dict of str to float
        Points that pass gamma [%]: of all, inside and outside structures whose names mean lung where there are some.
    recalculation : Recalculation, optional
        Of an RTPLAN: what was read, with the comparison.
    """

    plan: Plan
    comparison: Comparison
    simulated: SimulatedDose
    passing: dict[str, float]
    recalculation: Recalculation | None = None


def verify(
    plan: str | Path,
    patient: str | Path | Patient,
    engine: str = "monte_carlo",
    histories: int = 10_000_000,
    machine: str | Path | None = None,
    mlc: str | None = None,
    grid: float | tuple[float, float, float] | Grid = 3.0,
    options: ApertureOptions | None = None,
    criteria: GammaCriteria | None = None,
    scene: SceneOptions | None = None,
    fractions: int | None = None,
    seed: int = 1,
    device: str = "cpu",
) -> Verification:
    """Return a photon plan's dose beside that of a Monte Carlo, both as means over voxels: gamma, DVHs, error.

    Parameters
    ----------
    plan : path-like
        An RTPLAN.
    patient : path-like or Patient
        A DICOM folder, anything else `load_patient` takes, or ``"cylinder"``.
    engine : str
        ``"monte_carlo"``: pyRadMC (extra ``mc``).
    histories : int
        Photons to simulate.
    machine, mlc, grid, options, scene, fractions
        As `radplan.recalculate` takes them.
    criteria : GammaCriteria, optional
        3 %/3 mm above 10 % otherwise.
    seed : int
        Of the random numbers.
    device : str
        Where the Monte Carlo runs: ``"cpu"`` or ``"cuda:0"``.

    Raises
    ------
    UnknownNameError
        When no engine has that name.
    InputError
        When the Monte Carlo is not installed or cannot describe the machine, or fields are of several machines.
    """
    if engine not in INDEPENDENT:
        raise UnknownNameError("engine to verify by", engine, INDEPENDENT)
    first = recalculate(plan, patient, machine, mlc, grid=grid, options=options, fractions=fractions, scene=scene)
    model = first.plan.model
    if not isinstance(model, ApertureModel):
        raise InputError(
            f"the plan's fields are of several machines ({', '.join(first.machine_names)}), and the Monte Carlo has "
            "one spectrum: verify a plan for each energy"
        )
    maps = fluence_maps(model, np.asarray(model.variables.start), first.machines[0].sad)
    simulated = simulate_photons(first.plan.patient, maps, first.machines[0], model.grid, histories, seed, device)
    found = judged(_voxel_means(first, mlc), simulated, criteria)
    return replace(found, recalculation=replace(first, comparison=found.comparison))


def _voxel_means(first: Recalculation, mlc: str | None) -> Plan:
    """Return a recalculated plan whose dose is the mean over each voxel, as a Monte Carlo's is."""
    points = points_grid(first.grid, PHOTON_STEP)
    if points == first.grid:
        return first.plan
    patient, plan = first.plan.patient, replace(first.delivery, patient_position="")
    engine = PhotonAperture(mlc, replace(first.options, cache_depths=False))
    model = forward_model(patient, plan, first.machines[0], points, engine)
    return of_means(first.plan, evaluate(model, model.variables.start, patient, first.fractions), points)


def verify_protons(
    plan: str | Path | Plan,
    program: str | Path,
    machine: str | Path | ParticleMachine | None = None,
    histories: int = 1_000_000,
    criteria: GammaCriteria | None = None,
    seed: int = 1,
    threads: int = 1,
    patient: str | Path | Patient | None = None,
    grid: float | tuple[float, float, float] | Grid = 3.0,
    scene: SceneOptions | None = None,
    fractions: int | None = None,
) -> Verification:
    """Return a proton plan's dose beside that of MCsquare, both as means over voxels.

    Parameters
    ----------
    plan : path-like or Plan
        A plan, the folder that `save_plan` or ``radplan plan`` wrote, or an RT Ion Plan.
    program : path-like
        The opentps-core wheel that holds MCsquare, or its folder unpacked.
    machine : path-like or ParticleMachine, optional
        That of the plan otherwise.
    histories, seed, threads : int
        Protons to simulate, of the random numbers, and threads to use.
    criteria : GammaCriteria, optional
        3 %/3 mm above 10 % otherwise.
    patient : path-like or Patient, optional
        Of an RT Ion Plan; of a folder where it does not say.
    grid, scene, fractions
        Of an RT Ion Plan, as `radplan.recalc.recalculate_ions` takes them; other plans have their own.

    Raises
    ------
    InputError
        When the plan is of no protons, or MCsquare cannot describe it.
    FileError
        When plan or program cannot be read.
    """
    check_program(program)
    if isinstance(plan, Plan) or Path(plan).is_dir():
        known, chosen = _scored(plan, patient, machine)
    else:
        known, chosen = _scored_file(plan, patient, machine, grid, scene, fractions)
    beams = known.beams
    if not isinstance(beams, Beams):
        raise InputError("MCsquare verifies plans of beams of spots; this one has none")
    weights = np.asarray(known.x, dtype=np.float64)
    simulated = simulate_protons(
        known.patient, beams, chosen, weights, known.model.grid, program, histories, seed=seed, threads=threads
    )
    return judged(known, simulated, criteria, skin=0.0)


def _scored(
    plan: str | Path | Plan, patient: str | Path | Patient | None, machine: str | Path | ParticleMachine | None
) -> tuple[Plan, ParticleMachine]:
    """Return a plan with the voxel means of its dose, and its machine."""
    known = plan if isinstance(plan, Plan) else load_plan(plan, patient)
    beams = known.beams
    if known.model.radiation != "protons" or not isinstance(beams, Beams):
        raise InputError(f"MCsquare verifies plans of proton spots; this one is of {known.model.radiation}")
    named = beams.machine if machine is None else machine
    chosen = named if isinstance(named, ParticleMachine) else load_machine(named)
    if not isinstance(chosen, ParticleMachine):
        raise InputError(f"machine {chosen.name!r} gives no protons")
    if isinstance(plan, Plan):
        model = known.model.original if isinstance(known.model, SavedModel) else known.model
        settings = model.settings if isinstance(model, Dij) else {}
        engine = engine_from_spec(settings) if "name" in settings else None
    else:
        engine = wanted_engine(read_plan_file(Path(plan, "plan.json")), chosen)
    return with_voxel_means(known, chosen, engine), chosen


def _scored_file(
    plan: str | Path, patient: Any, machine: Any, grid: Any, scene: SceneOptions | None, fractions: int | None
) -> tuple[Plan, ParticleMachine]:
    """Return the voxel means of an RT Ion Plan's dose, and its machine."""
    if patient is None:
        raise InputError("give the patient, whose plan the RT Ion Plan is (--patient P)")
    first = recalculate_ions(plan, patient, machine, grid, scene=scene, fractions=fractions)
    distances = {field.virtual_sad for field in first.scanned}
    if first.scanned.radiation != "protons" or len(distances) > 1:
        raise InputError(
            f"MCsquare verifies plans of protons scanned from one pair of distances; this one is of "
            f"{first.scanned.radiation}, scanned from {len(distances)}"
        )
    points = points_grid(first.grid)
    fine = recalculate_ions(plan, patient, machine, points, scene=scene, fractions=fractions).plan
    return of_means(first.plan, fine, points), scanned_from(first.machine, distances.pop())


def judged(
    plan: Plan, simulated: SimulatedDose, criteria: GammaCriteria | None = None, skin: float = SKIN
) -> Verification:
    """Return a plan beside a simulated dose of one of its fractions.

    Gamma is of the simulated dose against radplan's, whose maximum is no outlier of statistics, from 1 cm below the
    skin: electrons from the head are not simulated.
    """
    grid = simulated.grid
    image = DoseImage(grid, simulated.dose, "PHYSICAL", "FRACTION", "", Orientation(patient_position="HFS"), 0.0)
    label = f"Monte Carlo ({simulated.told['program']})"
    comparison = compare(plan, ReferenceDose({}, image, label), criteria=criteria)
    region = inside_by(plan.patient, plan.model.grid, skin)
    ours = np.maximum(np.asarray(plan["physical_dose"], dtype=np.float64), 0.0)
    gamma = gamma_index(simulated.dose * plan.fractions, grid, ours, plan.model.grid, criteria, region)
    return Verification(plan, replace(comparison, gamma=gamma), simulated, _passing(plan, gamma))


def _passing(plan: Plan, gamma: Gamma) -> dict[str, float]:
    """Return how many points pass, lung apart from the rest."""
    shares = {"all": gamma.passing}
    structures = plan.patient.structures
    lungs = [structure for name, structure in structures.items() if names_lung(name)]
    if not lungs:
        return shares
    grid = plan.model.grid
    inside = np.zeros(grid.shape, dtype=bool)
    for structure in lungs:
        mask = structure.mask().reshape(structure.grid.shape).astype(np.float32)
        inside |= np.asarray(resample_linear(mask, structure.grid, grid)) > 0.5
    known = np.isfinite(gamma.values)
    for name, where in (("lung", known & inside), ("outside lung", known & ~inside)):
        if where.any():
            shares[name] = 100.0 * float(np.mean(gamma.values[where] <= 1.0))
    return shares


def verification_data(verification: Verification) -> Mapping[str, Any]:
    """Return what a report says of the independent dose, as plain data."""
    simulated, rows, gamma = verification.simulated, verification.comparison.rows, verification.comparison.gamma
    again = verification.recalculation
    model = None if again is None else again.plan.model
    scaling = {"density_scaling": model.density_scaling} if isinstance(model, ApertureModel) else {}
    return {
        "grid_mm": list(verification.plan.model.grid.spacing),
        **scaling,
        "histories": simulated.histories,
        "processor_seconds_of_simulation": round(simulated.seconds, 1),
        "rows": {row.structure: {"radplan": dict(row.ours), "monte_carlo": dict(row.reference)} for row in rows},
        "statistical_error_percent": round(simulated.statistical_percent, 3),
        "gamma": None if gamma is None else str(gamma.criteria),
        "gamma_passing_percent": {name: round(share, 2) for name, share in verification.passing.items()},
        **simulated.told,
    }
