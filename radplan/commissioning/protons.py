"""A proton machine from a clinic's beam model: energies, spread, phase space and monitor units, and measured peaks."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.beams.spots import AIR
from radplan.errors import FileError, InputError
from radplan.machines.beam_model import BeamModel, read_beam_model
from radplan.machines.emittance import Emittance
from radplan.machines.generate.halo import mcsquare_halo
from radplan.machines.generate.lateral import highland_angle, momentum_velocity
from radplan.machines.generate.particle import proton_tables
from radplan.machines.generate.stopping import range_table
from radplan.machines.particle import EnergyLayer, InitialFocus, ParticleMachine, distal_depth

Floats = npt.NDArray[np.float64]
Curve = tuple[npt.ArrayLike, npt.ArrayLike]

_STEP = 1.0
"""Distance of the energies that tables are made for where none are asked for [MeV]."""

_BEHIND, _BEFORE = 300.0, 1000.0
"""How far behind and in front of the isocentre the widths in air are tabulated [mm]."""


@dataclass(frozen=True, eq=False)
class MeasuredFit:
    """What measured depth doses changed in a beam model, at their nominal energies.

    Parameters
    ----------
    nominal : array of shape (n,)
        [MeV]
    energy, energy_sigma : array of shape (n,)
        Mean energy and its standard deviation that meet the measured range and fall-off [MeV].

    >>> MeasuredFit(np.zeros(0), np.zeros(0), np.zeros(0)).nominal.size
    0
    """

    nominal: Floats
    energy: Floats
    energy_sigma: Floats


def particle_machine_from_beam_model(
    model: str | Path | BeamModel,
    *,
    name: str | None = None,
    plane: float | None = None,
    energies: Iterable[float] | None = None,
    sad: float | tuple[float, float] = 2000.0,
    min_mu: float = 0.0,
    max_mu: float = inf,
    measured: Mapping[float, Curve] | None = None,
) -> ParticleMachine:
    """Return a proton machine for a beam model.

    Depth dose and LET follow from the true mean energy and its spread by `radplan.machines.generate.proton_model`, the
    halo of secondary protons from `radplan.machines.generate.halo`; spots are as wide, divergent and correlated along x
    and y as the model says in its plane, air on the way to the patient scatters them further, and they drift on in the
    patient.

    Parameters
    ----------
    model : path-like or BeamModel
        The beam model, or its file; see `radplan.machines.beam_model.read_beam_model`.
    name : str, optional
        Name of the machine; that of the model otherwise.
    plane : float, optional
        Distance from the model's plane to the isocentre [mm]; what the file states otherwise.
    energies : iterable of float, optional
        Nominal energies to make tables for [MeV]; every 1 MeV otherwise. Plans may use others in between.
    sad : float or (float, float)
        Distances from the points that spots are scanned from along x and y to the isocentre [mm]; plans state theirs.
    min_mu, max_mu : float
        Least and largest MU of a spot.
    measured : mapping of float to (depth, dose), optional
        Depth doses in water with the surface at the isocentre by nominal energy: depths [mm] and doses in any unit. The
        mean energy then meets the measured distal 80 %, its spread the distance from there to 20 %; between measured
        energies both corrections are linear, beyond them constant.

    Raises
    ------
    FileError
        When the file is no beam model; names column and line.
    InputError
        When an energy lies outside the model, or a measured curve has no peak.
    """
    beam = model if isinstance(model, BeamModel) else read_beam_model(model, plane)
    if plane is not None and not isinstance(model, str | Path):
        raise InputError("plane is for files of beam models; this one states its distance")
    distances = (float(sad), float(sad)) if isinstance(sad, int | float) else (float(sad[0]), float(sad[1]))
    if not all(d > beam.distance for d in distances):
        raise InputError(f"sad must be farther than the plane at {beam.distance:g} mm, got {distances}")
    fit = fit_measured(beam, measured or {})
    middle = sqrt(distances[0] * distances[1])
    wanted = _energies(beam) if energies is None else np.unique(np.asarray(list(energies), dtype=np.float64))
    layers = tuple(_layer(beam, float(energy), fit, middle, (min_mu, max_mu)) for energy in wanted)
    return ParticleMachine(
        name=name or beam.name,
        radiation="protons",
        sad=middle,
        nozzle_distance=beam.distance,
        layers=layers,
        provenance=_provenance(beam, fit),
        virtual_sad=distances,
    )


def read_measured(path: str | Path) -> dict[float, tuple[Floats, Floats]]:
    """Read measured depth doses: rows of nominal energy [MeV], depth in water [mm] and dose in any unit.

    Raises
    ------
    FileError
        When the file cannot be read or a row does not hold three numbers; names the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows: list[list[float]] = []
    for number, cells in enumerate(csv.reader(lines), start=1):
        try:
            values = [float(cell) for cell in cells]
        except ValueError:
            if not rows:
                continue
            raise FileError(path, f"line {number}: expected energy, depth and dose, got {','.join(cells)!r}") from None
        if values and len(values) != 3:
            raise FileError(path, f"line {number}: expected energy, depth and dose, got {len(values)} numbers")
        rows += [values] if values else []
    if not rows:
        raise FileError(path, "holds no rows of energy, depth and dose")
    table = np.asarray(rows)
    return {
        float(energy): (table[table[:, 0] == energy, 1], table[table[:, 0] == energy, 2])
        for energy in np.unique(table[:, 0])
    }


def fit_measured(beam: BeamModel, measured: Mapping[float, Curve]) -> MeasuredFit:
    """Return mean energies and spreads of a beam model that meet measured depth doses.

    Raises
    ------
    InputError
        When a curve has no peak, or falls more steeply than straggling allows; names the energy.
    """
    nominal = np.asarray(sorted(measured), dtype=np.float64)
    pairs = [_fitted(beam, float(energy), measured[float(energy)]) for energy in nominal]
    energy, sigma = (np.asarray([pair[k] for pair in pairs], dtype=np.float64) for k in (0, 1))
    return MeasuredFit(nominal, energy, sigma)


def _fitted(beam: BeamModel, nominal: float, curve: Curve) -> tuple[float, float]:
    depth, dose = (np.asarray(values, dtype=np.float64) for values in curve)
    label = f"measured depth dose of {nominal:g} MeV"
    if depth.ndim != 1 or depth.shape != dose.shape or depth.size < 5 or not np.all(np.diff(depth) > 0):
        raise InputError(f"{label}: needs five or more increasing depths with a dose each, got shape {depth.shape}")
    near, far = (distal_depth(depth, dose, level) for level in (0.8, 0.2))
    if not far < depth[-1] or not np.argmax(dose) > 0:
        raise InputError(f"{label}: has no peak that falls to 20 %")
    row, table = beam.at(nominal), range_table("proton")
    air, mass = AIR * beam.distance, table.species.mass
    middle, spread = float(table.range(row["energy"] / mass)), row["energy_sigma"]
    least = float(table.straggling(row["energy"] / mass))
    sigma = float(np.hypot(least, spread / table.stopping(row["energy"] / mass)))
    for _ in range(8):
        tables = proton_tables(middle, sigma, mcsquare_halo)
        ours = [distal_depth(tables["depth"], tables["dose"], level) - air for level in (0.8, 0.2)]
        middle += near - ours[0]
        sigma = max(sigma * (far - near) / (ours[1] - ours[0]), least)
    energy = float(table.energy(middle)) * mass
    extra = max(sigma**2 - float(table.straggling(energy / mass)) ** 2, 0.0)
    return energy, float(np.sqrt(extra) * table.stopping(energy / mass))


def _energies(beam: BeamModel) -> Floats:
    low, high = float(beam.nominal[0]), float(beam.nominal[-1])
    return np.unique(np.append(np.arange(low, high, _STEP), high))


def _layer(beam: BeamModel, nominal: float, fit: MeasuredFit, sad: float, limits: tuple[float, float]) -> EnergyLayer:
    row, table = beam.at(nominal), range_table("proton")
    energy, sigma = row["energy"], row["energy_sigma"]
    if fit.nominal.size:
        stated = [beam.at(float(measured)) for measured in fit.nominal]
        energy += float(np.interp(nominal, fit.nominal, fit.energy - np.asarray([r["energy"] for r in stated])))
        sigma *= float(
            np.interp(nominal, fit.nominal, fit.energy_sigma / np.asarray([r["energy_sigma"] for r in stated]))
        )
    per_nucleon = energy / table.species.mass
    spread = float(np.hypot(table.straggling(per_nucleon), sigma / table.stopping(per_nucleon)))
    phase = beam.emittance(nominal, _air_scattering(per_nucleon, beam.distance))
    return EnergyLayer(
        energy=nominal,
        **proton_tables(float(table.range(per_nucleon)), spread, mcsquare_halo),
        focus=_focus(phase, sad),
        emittance=phase,
        mean_energy=energy,
        energy_sigma=sigma,
        particles_per_mu=row["protons_per_mu"],
        min_mu=limits[0],
        max_mu=limits[1],
    )


def _air_scattering(energy: float, distance: float) -> float:
    """Return the scattering power of air between plane and isocentre [rad^2/mm], after Highland."""
    if distance <= 0.0:
        return 0.0
    momentum = float(momentum_velocity(range_table("proton"), np.asarray(energy)))
    return highland_angle(momentum, AIR * distance) ** 2 / distance


def _focus(phase: Emittance, sad: float) -> InitialFocus:
    """Return the widths in air, x and y averaged, that stand in where spots are taken for round."""
    behind = np.linspace(-min(_BEFORE, phase.distance), _BEHIND, 27)
    sigma = np.sqrt([phase.variance(float(place)).mean() for place in behind])
    fwhm = sqrt(8 * np.log(2)) * float(np.interp(0.0, behind, sigma))
    return InitialFocus(sad + behind[None, :], sigma[None, :], np.asarray([fwhm]))


def _provenance(beam: BeamModel, fit: MeasuredFit) -> dict[str, object]:
    return {
        "made_by": "radplan commission protons",
        "beam_model": beam.name,
        "plane_mm": beam.distance,
        "label": "research only, not commissioned for clinical use",
        "depth_dose": "analytic: see radplan.machines.generate.proton_model; LET unrestricted, in water",
        "lateral": "phase space of the beam model, Highland scattering in air; in water differential Moliere "
        "(Gottschalk 2010) and a Gaussian halo simulated with MCsquare, see radplan.machines.generate.halo",
        "measured_MeV": fit.nominal.tolist(),
        "fitted_energy_MeV": fit.energy.round(4).tolist(),
        "fitted_energy_sigma_MeV": fit.energy_sigma.round(4).tolist(),
    }
