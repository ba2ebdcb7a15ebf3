"""A photon plan judged by an independent dose: the same fluence, transported by a Monte Carlo program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from radplan.analysis.gamma import GammaCriteria, gamma_index
from radplan.engines import ApertureOptions
from radplan.engines.aperture.model import ApertureModel
from radplan.engines.monte_carlo.fluence import fluence_maps
from radplan.engines.monte_carlo.photons import simulate_photons
from radplan.engines.monte_carlo.simulated import SimulatedDose
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.rtdose import DoseImage
from radplan.io.reference import ReferenceDose
from radplan.patient.patient import Patient
from radplan.recalc import Recalculation, SceneOptions, recalculate
from radplan.recalc.comparison import compare, inside_by

ENGINES = ("monte_carlo",)
"""What a plan can be verified by."""

SKIN = 10.0
"""Gamma is judged this far below the skin [mm]."""


@dataclass(frozen=True, eq=False)
class Verification:
    """A plan's dose beside an independent one.

    Parameters
    ----------
    recalculation : Recalculation
        radplan's dose, and in its comparison the independent one as reference.
    simulated : SimulatedDose
        The independent dose of a fraction, its statistical error, histories and time.
    passing : dict of str to float
        Points that pass gamma [%]: of all, inside and outside structures called lung where there are some.
    """

    recalculation: Recalculation
    simulated: SimulatedDose
    passing: dict[str, float]


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
    """Return a photon plan's dose beside that of a Monte Carlo, with gamma, DVHs and the statistical error.

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
    if engine not in ENGINES:
        raise UnknownNameError("engine to verify by", engine, ENGINES)
    first = recalculate(plan, patient, machine, mlc, grid=grid, options=options, fractions=fractions, scene=scene)
    model = first.plan.model
    if not isinstance(model, ApertureModel):
        raise InputError("the plan's fields are of several machines: verify it by one at a time, with machine=")
    maps = fluence_maps(model, np.asarray(model.variables.start), first.machines[0].sad)
    simulated = simulate_photons(first.plan.patient, maps, first.machines[0], model.grid, histories, seed, device)
    return judged(first, simulated, criteria)


def judged(first: Recalculation, simulated: SimulatedDose, criteria: GammaCriteria | None = None) -> Verification:
    """Return a recalculated plan beside a simulated dose of one of its fractions.

    Gamma is of the simulated dose against radplan's, whose maximum is no outlier of statistics, from 1 cm below the
    skin: electrons from the head are not simulated.
    """
    grid = simulated.grid
    image = DoseImage(grid, simulated.dose, "PHYSICAL", "FRACTION", "", Orientation(patient_position="HFS"), 0.0)
    label = f"Monte Carlo ({simulated.told['program']})"
    comparison = compare(first.plan, ReferenceDose({}, image, label), criteria=criteria)
    region = inside_by(first.plan.patient, first.grid, SKIN)
    gamma = gamma_index(simulated.dose * first.fractions, grid, first.dose, first.grid, criteria, region)
    beside = replace(first, comparison=replace(comparison, gamma=gamma))
    return Verification(beside, simulated, _passing(beside))


def _passing(recalculation: Recalculation) -> dict[str, float]:
    """Return how many points pass, lung apart from the rest."""
    comparison = recalculation.comparison
    if comparison is None or comparison.gamma is None:
        return {}
    gamma = comparison.gamma
    shares = {"all": gamma.passing}
    structures = recalculation.plan.patient.structures
    lungs = [structure for name, structure in structures.items() if "lung" in name.casefold()]
    if not lungs:
        return shares
    grid = recalculation.grid
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
    simulated = verification.simulated
    return {
        "histories": simulated.histories,
        "processor_seconds_of_simulation": round(simulated.seconds, 1),
        "statistical_error_percent": round(simulated.statistical_percent, 3),
        "gamma_passing_percent": {name: round(share, 2) for name, share in verification.passing.items()},
        **simulated.told,
    }
