"""Photon dose by pyRadMC (extra ``mc``): the same fluence as the aperture engine, other transport.

The patient is water of the electron density that the CT gives. Electrons from the head are not simulated, so that dose
in the first centimetre is too low. A monitor unit is worth what the aperture engine's dose in the middle of a 10x10 in
water says, 8 to 12 cm deep.

Source: pyRadMC 0.2.1 (github.com/e0404/pyRadMC, Apache-2.0); spectra of Ali and Rogers, Phys. Med. Biol. 57 (2012) 31.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines.aperture.model import aperture_model
from radplan.engines.aperture.options import ApertureOptions
from radplan.engines.monte_carlo.fluence import FluenceMap, fluence_maps, sampled_photons
from radplan.engines.monte_carlo.simulated import SimulatedDose
from radplan.engines.monte_carlo.water import inside_patient, water_density
from radplan.errors import CalculationError, InputError
from radplan.geometry.grid import Grid
from radplan.machines.photon import PhotonMachine
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

Floats = npt.NDArray[np.float64]

SPECTRA = {6: ("siemens-6mv", 5.5), 10: ("varian-10mv", None), 15: ("varian-15mv", None)}
"""Nominal energy [MV] -> pyRadMC's spectrum, and its filtration [(g/cm2)^0.5 of Al] where it is not the published."""

_SAME_QUALITY = 0.02
"""Largest relative difference of D20/D10 of the 10x10 between both engines."""

_BATCHES = 10


def simulate_photons(
    patient: Patient,
    maps: Sequence[FluenceMap],
    machine: PhotonMachine,
    grid: Grid,
    histories: int = 10_000_000,
    seed: int = 1,
    device: str = "cpu",
) -> SimulatedDose:
    """Return the Monte Carlo dose of fluence maps in a patient.

    Parameters
    ----------
    patient : Patient
        Gives electron density.
    maps : sequence of FluenceMap
        What the plan lets through.
    machine : PhotonMachine
        Gives energy and calibration.
    grid : Grid
        Transport and scoring grid.
    histories : int
        Photons, >= 1000.
    seed : int
        Of the random numbers.
    device : str
        ``"cpu"`` or ``"cuda:0"``.

    Raises
    ------
    InputError
        When pyRadMC is not installed, has no spectrum of this energy, or one of another quality than the machine's.
    """
    pyradmc = pyradmc_module()
    if histories < 1000:
        raise InputError(f"histories must be >= 1000, got {histories}")
    spectrum = _spectrum(pyradmc, machine)
    factor, told = _calibration(machine, max(histories // 10, 200_000), seed, device)
    total = sum(float(one.photons.sum()) for one in maps)
    started = time.process_time()
    density = water_density(patient, grid)
    scored = _run(pyradmc, spectrum, maps, density, grid, histories, (seed, device))
    dose, error = (inside_patient(values, density) for values in scored)
    seconds = time.process_time() - started
    told = {**told, "program": f"pyRadMC {pyradmc.__version__}", "spectrum": SPECTRA[round(machine.energy)][0]}
    return SimulatedDose(grid, dose * factor * total, error * factor * total, histories, seconds, told)


def _run(
    pyradmc: Any, spectrum: Any, maps: Sequence[FluenceMap], density: Floats, grid: Grid, histories: int,
    how: tuple[int, str],
) -> tuple[Floats, Floats]:  # fmt: skip
    """Return dose and error per history (nz, ny, nx) [MeV/g]."""
    seed, device = how
    low = np.asarray(grid.bounds[0]) / 10.0
    voxels = pyradmc.VoxelGrid(
        shape=grid.shape[::-1],
        spacing=tuple(step / 10.0 for step in grid.spacing),
        origin=tuple(low.tolist()),
        density=np.ascontiguousarray(np.transpose(density, (2, 1, 0))),
        material=np.zeros(grid.shape[::-1], dtype=np.int32),
    )
    sections = pyradmc.AnalyticCrossSections(((pyradmc.WATER, float(density.max())),))
    engine = pyradmc.WarpEngine(grid=voxels, cross_sections=sections, device=device)
    batch = max(histories // _BATCHES, 1)
    source = _source(pyradmc, spectrum, tuple(maps))
    result = engine.run(source, batch * _BATCHES, _BATCHES, seed, msc_model="gaussian")
    dose, sigma = (np.transpose(np.asarray(a, dtype=np.float64), (2, 1, 0)) for a in (result.dose, result.dose_sigma))
    return dose, sigma


def _source(pyradmc: Any, spectrum: Any, maps: tuple[FluenceMap, ...]) -> Any:
    class PlanSource(pyradmc.Source):  # type: ignore[misc]
        """Draws photons of all poses by their fluence."""

        @property
        def max_energy(self) -> float:
            return float(spectrum.max_energy)

        def emit(self, rng_state: Any) -> Any:
            raise CalculationError("photons of a plan are drawn in batches: this backend asks for one at a time")

        def sample_batch(self, seed: int, history_offset: int, n: int) -> dict[str, Any]:
            rng = np.random.default_rng([seed, history_offset])
            start, way = sampled_photons(maps, n, rng)
            columns = {"energy": spectrum.sample_energies(rng.random(n), rng.random(n)), "weight": np.ones(n)}
            columns |= {axis: start[:, i] / 10.0 for i, axis in enumerate("xyz")}
            columns |= {f"u{axis}": way[:, i] for i, axis in enumerate("xyz")}
            kinds = {"particle_type": np.ones(n, dtype=np.int32)}
            return kinds | {name: np.asarray(values, dtype=np.float32) for name, values in columns.items()}

    return PlanSource()


def pyradmc_module() -> Any:
    """Return pyRadMC; raises an InputError that says how to get it."""
    try:
        import warp

        warp.config.quiet = True  # in older versions
        warp.config.log_level = 40  # in later ones: errors alone
        import pyradmc
    except ImportError as error:
        raise InputError(
            f"the Monte Carlo needs pyRadMC, which is not there ({error}): pip install 'radplan[mc]'"
        ) from error
    return pyradmc


def _spectrum(pyradmc: Any, machine: PhotonMachine) -> Any:
    """Return the spectrum of a machine's nominal energy."""
    if round(machine.energy) not in SPECTRA:
        known = ", ".join(f"{energy} MV" for energy in SPECTRA)
        raise InputError(
            f"machine {machine.name!r} is of {machine.energy:g} MV, and the Monte Carlo has spectra of {known} alone"
        )
    name, filtration = SPECTRA[round(machine.energy)]
    beam = pyradmc.ALI_ROGERS_BEAMS[name]
    return pyradmc.ali_rogers_mv(beam if filtration is None else beam._replace(c2=filtration))


@cache
def _calibration(machine: PhotonMachine, histories: int, seed: int, device: str) -> tuple[float, dict[str, Any]]:
    """Return what a history per MU mm2 is worth [Gy g/MeV], by a 10x10 in water, and how both engines see it.

    Raises
    ------
    InputError
        When the beam qualities of both engines differ.
    """
    pyradmc = pyradmc_module()
    step, top = 10.0, 5.0
    grid = Grid((30, 30, 30), (step,) * 3, (-145.0, top, -145.0))
    body = Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external")
    water = Patient("reference field", CT(grid, np.zeros(grid.shape, dtype=np.float32)), Structures([body]))
    side = np.asarray([-50.0, 50.0])
    centre = np.asarray([0.0, 100.0, 0.0])
    points = tuple(ControlPoint(mu, 0.0, 0.0, 0.0, centre, side, side) for mu in (0.0, 1.0))
    field = TreatmentField("reference", 1, points, machine.sad)
    model = aperture_model(water, [field], machine, grid=grid, options=ApertureOptions(), dtype="float64")
    start = np.asarray(model.variables.start)
    ours = np.zeros(grid.size)
    ours[model.voxels] = np.asarray(model.forward(start)["physical_dose"])[0]
    ours = ours.reshape(grid.shape)
    maps = fluence_maps(model, start, machine.sad)
    density = np.ones(grid.shape)
    theirs, error = _run(pyradmc, _spectrum(pyradmc, machine), maps, density, grid, histories, (seed, device))
    depth, inner = grid.axes[1], slice(12, 18)
    means = {}
    for name, dose in (("radplan", ours), ("simulated", theirs)):
        curve = dose[inner, :, inner].mean(axis=(0, 2))
        means[name] = [float(curve[(depth > a) & (depth < b)].mean()) for a, b in ((80.0, 120.0), (180.0, 220.0))]
    if not means["simulated"][0] > 0:
        raise CalculationError("the Monte Carlo gave no dose in the reference field")
    quality = {name: values[1] / values[0] for name, values in means.items()}
    total = sum(float(one.photons.sum()) for one in maps)
    scatter = float(np.sqrt((error[inner, 8:12, inner] ** 2).sum()) / theirs[inner, 8:12, inner].sum())
    if abs(quality["simulated"] / quality["radplan"] - 1.0) > _SAME_QUALITY + 3.0 * scatter:
        raise InputError(
            f"machine {machine.name!r} has D20/D10 {quality['radplan']:.3f}, the Monte Carlo's spectrum of "
            f"{machine.energy:g} MV {quality['simulated']:.3f}: it cannot stand for this machine"
        )
    told = {
        "reference_field": "10x10 in water, SSD 90 cm, 8 to 12 cm deep, inner 6x6 cm: both engines made to agree",
        "reference_error_percent": 100.0 * scatter,
        "d20_over_d10": quality,
    }
    return means["radplan"][0] / means["simulated"][0] / total, told
