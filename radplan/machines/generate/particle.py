"""Make the particle machines that radplan ships: ``python -m radplan.machines.generate.particle [name ...]``.

A machine is one entry of `MODELS`; a layer of it follows from its energy alone. The physics stands in `stopping`,
`nuclear`, `depth_dose`, `fragments`, `lateral` and `mkm` beside this file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from radplan.arrays import Array
from radplan.errors import UnknownNameError
from radplan.machines.generate.fragments import ORDER, IonModel
from radplan.machines.generate.halo import Halo, soukup_halo
from radplan.machines.generate.lateral import scattered, spot_in_air
from radplan.machines.generate.mkm import DOMAIN_RADIUS, NUCLEUS_RADIUS, Tissue, saturated_dose_table
from radplan.machines.generate.proton_model import ProtonModel
from radplan.machines.generate.stopping import MEAN_EXCITATION, SPECIES, RangeTable, range_table
from radplan.machines.particle import EnergyLayer, InitialFocus, ParticleMachine, distal_depth
from radplan.machines.particle_file import write_particle_machine

SAD = 10000.0
TISSUES = (Tissue(0.1, 0.05), Tissue(0.15, 0.05), Tissue(0.5, 0.05), Tissue(0.3, 0.03), Tissue(0.172, 0.0615))
"""Late-reacting (alpha/beta 2 and 3 Gy), tumour-like (10 Gy, twice), and human salivary gland cells."""
_CHAMBER = 1e8 * 0.7288
"""Particles per MU times their stopping power [keV/um]: 10^8 protons of 100 MeV, by the charge in a monitor chamber."""


@dataclass(frozen=True)
class ParticleModel:
    """The few numbers that a generic particle machine is made from.

    Parameters
    ----------
    name, radiation, species : str
        Name of the machine and of its file, what it delivers, and the beam's species.
    shortest, longest : float
        Mean ranges in water of its lowest and highest energy [mm].
    spacing : tuple of float
        Steps of the range up to 100 mm and beyond [mm].
    nozzle_water : float
        Water-equivalent thickness between the stated energy and the water's surface at the isocentre [mm].
    nozzle_distance : float
        From the nozzle's exit to the isocentre [mm].
    energy_sigma : tuple of float
        Energy spread at 70 MeV and its change per MeV [MeV, 1]; protons.
    ripple : float
        Width that a ripple filter adds to the range spectrum, standard deviation [mm]; ions.
    recoil : float
        Energy that target fragments leave on the spot, per reaction [MeV]; ions.
    scattering : "moliere" or "highland"
        Model of multiple scattering.
    scattering_scale : float
        Factor on its width [1].
    waist, window : float
        Width of the vacuum beam at 200 MeV/u, and water-equivalent thickness of the nozzle's window [mm].
    min_mu : float
        Least MU of a spot.
    """

    name: str
    radiation: str
    species: str
    shortest: float
    longest: float
    spacing: tuple[float, float]
    nozzle_water: float
    nozzle_distance: float
    energy_sigma: tuple[float, float]
    ripple: float
    recoil: float
    scattering: str
    scattering_scale: float
    waist: float
    window: float
    min_mu: float

    @property
    def table(self) -> RangeTable:
        """Ranges of the beam's species."""
        return range_table(self.species)

    @property
    def unit(self) -> float:
        """MeV/u per unit of the machine's energies, which are MeV for protons."""
        return 1 / self.table.species.mass if self.species == "proton" else 1.0

    def energies(self) -> Array:
        """Return the machine's energies, rounded to 0.01 [MeV/u; protons MeV]."""
        near = np.arange(self.shortest, 100.0, self.spacing[0])
        far = np.arange(100.0, self.longest + 1e-6, self.spacing[1])
        wanted = np.concatenate([near, far]) + self.nozzle_water
        return np.round(self.table.energy(wanted) / self.unit, 2)

    def spread(self, energy: float) -> float:
        """Return the standard deviation of the beam's energy [MeV/u; protons MeV]."""
        at_70, slope = self.energy_sigma
        return at_70 + slope * (energy - 70.0)


MODELS = (
    ParticleModel(
        name="generic_proton",
        radiation="protons",
        species="proton",
        shortest=20.0,
        longest=340.0,
        spacing=(2.0, 3.0),
        nozzle_water=0.0,
        nozzle_distance=500.0,
        energy_sigma=(1.23, -0.004),
        ripple=0.0,
        recoil=0.0,
        scattering="moliere",
        scattering_scale=1.0,
        waist=3.2,
        window=1.0,
        min_mu=0.02,
    ),
    ParticleModel(
        name="generic_helium",
        radiation="helium",
        species="helium",
        shortest=20.0,
        longest=300.0,
        spacing=(2.0, 2.5),
        nozzle_water=2.1,
        nozzle_distance=1000.0,
        energy_sigma=(0.0, 0.0),
        ripple=0.8,
        recoil=8.0,
        scattering="highland",
        scattering_scale=0.86,
        waist=2.5,
        window=1.0,
        min_mu=0.01,
    ),
    ParticleModel(
        name="generic_carbon",
        radiation="carbon",
        species="carbon",
        shortest=20.0,
        longest=300.0,
        spacing=(2.0, 2.5),
        nozzle_water=2.5,
        nozzle_distance=1000.0,
        energy_sigma=(0.0, 0.0),
        ripple=1.1,
        recoil=20.0,
        scattering="highland",
        scattering_scale=0.86,
        waist=2.5,
        window=1.0,
        min_mu=0.004,
    ),
)


def depth_nodes(mean_range: float, sigma: float, tail: float) -> Array:
    """Return depths at which a curve is tabulated, dense in the peak and in the build-up [mm].

    Parameters
    ----------
    mean_range, sigma : float
        Of the range spectrum [mm].
    tail : float
        How far behind the peak the fragments are followed; 0 for none [mm].
    """
    parts = [
        np.asarray([0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 13.0]),
        np.linspace(0.0, mean_range, 60),
        np.arange(mean_range - 20 * sigma, mean_range - 7 * sigma, sigma),
        np.arange(mean_range - 7 * sigma, mean_range + 5 * sigma, sigma / 8),
    ]
    if tail:
        parts.append(mean_range + 5 * sigma + tail * np.linspace(0.0, 1.0, 25) ** 2)
    nodes = np.unique(np.round(np.concatenate(parts), 3))
    nodes = nodes[nodes >= 0]
    return nodes[np.concatenate([[True], np.diff(nodes) > 0.02])]


def make_layer(model: ParticleModel, energy: float) -> EnergyLayer:
    """Return the layer of one energy [MeV/u; protons MeV]."""
    table = model.table
    at = energy * model.unit
    mean_range = float(table.range(at)) - model.nozzle_water
    energy_sigma = model.spread(energy)
    sigma = float(np.hypot(np.hypot(table.straggling(at), model.ripple), energy_sigma / table.stopping(at)))
    if model.species == "proton":
        tables = proton_tables(mean_range, sigma, soukup_halo)
    else:
        tables = _ion_tables(model, mean_range, sigma)
    return EnergyLayer(
        energy=energy,
        **tables,
        focus=_focus(model, at),
        mean_energy=energy,
        energy_sigma=energy_sigma,
        particles_per_mu=float(_CHAMBER / table.stopping(at)),
        min_mu=model.min_mu,
    )


def proton_tables(mean_range: float, sigma: float, halo: Halo) -> dict[str, Any]:
    """Return the tables against depth of protons with a Gaussian range spectrum [mm], by the names of `EnergyLayer`.

    Parameters
    ----------
    mean_range, sigma : float
        Of the range spectrum [mm].
    halo : Halo
        The model of the second Gaussian.
    """
    depth = depth_nodes(mean_range, sigma, 0.0)
    curve = _proton_model().curve(depth, mean_range, sigma)
    share, added = halo(mean_range, depth)
    spread = scattered(range_table("proton"), mean_range, depth, "moliere")
    return {
        "depth": depth,
        "dose": 10 * curve.dose,
        "peak": _maximum(depth, curve.dose),
        "range80": distal_depth(depth, curve.dose),
        "let": curve.let,
        "let_all": curve.let_all,
        "sigma1": spread,
        "sigma2": np.hypot(spread, added),
        "weight": np.clip(share, 0.0, 1.0),
        "primary_dose": 10 * curve.primary_dose,
        "primary_let": curve.primary_let,
        "primary_fluence": curve.fluence,
        "proton_dose": 10 * curve.proton_dose,
        "proton_fluence": curve.proton_fluence,
    }


def _ion_tables(model: ParticleModel, mean_range: float, sigma: float) -> dict[str, Any]:
    depth = depth_nodes(mean_range, sigma, min(150.0, 40.0 + 0.8 * mean_range))
    curve = IonModel(model.species, model.recoil).curve(depth, mean_range, sigma, _saturated_doses(model.species))
    spread = model.scattering_scale * scattered(model.table, mean_range, depth, model.scattering)
    return {
        "depth": depth,
        "dose": 10 * curve.dose,
        "peak": _maximum(depth, curve.dose),
        "range80": distal_depth(depth, curve.dose),
        "let": curve.let,
        "let_all": curve.let_all,
        "sigma1": spread,
        "sigma2": np.hypot(spread, curve.light_spread),
        "weight": np.clip(curve.light_share, 0.0, 1.0),
        "alpha": np.stack([t.alpha_x + t.beta_x * curve.weighted[_betas().index(t.beta_x)] for t in TISSUES]),
        "beta": np.stack([np.full(depth.size, t.beta_x) for t in TISSUES]),
    }


def make(model: ParticleModel) -> ParticleMachine:
    """Return the machine of a model, all its energies."""
    ions = model.species != "proton"
    return ParticleMachine(
        name=model.name,
        radiation=model.radiation,
        sad=SAD,
        nozzle_distance=model.nozzle_distance,
        layers=tuple(make_layer(model, float(energy)) for energy in model.energies()),
        fit_air_offset=model.nozzle_distance,
        tissue_alpha_x=np.asarray([tissue.alpha_x for tissue in TISSUES if ions]),
        tissue_beta_x=np.asarray([tissue.beta_x for tissue in TISSUES if ions]),
        provenance=provenance(model),
    )


@cache
def _proton_model() -> ProtonModel:
    return ProtonModel()


def _betas() -> list[float]:
    return sorted({tissue.beta_x for tissue in TISSUES})


@cache
def _saturated_doses(projectile: str) -> dict[str, Array]:
    """Return z* of the beam and its fragments at the nodes of their range tables, one row for each beta."""
    names = {projectile, *ORDER}
    return {name: saturated_dose_table(SPECIES[name], range_table(name).energies, _betas()) for name in sorted(names)}


def _focus(model: ParticleModel, energy: float) -> InitialFocus:
    exit_to_iso = model.nozzle_distance
    distance = np.linspace(-exit_to_iso, 300.0, 27)
    charge = model.table.species.charge
    sigma = spot_in_air(model.table, energy, exit_to_iso + distance, model.waist, model.window, charge)
    fwhm = np.sqrt(8 * np.log(2)) * np.interp(0.0, distance, sigma)
    return InitialFocus(SAD + distance[None, :], sigma[None, :], np.asarray([fwhm]))


def _maximum(depth: Array, dose: Array) -> float:
    """Return the depth of the maximum, by a parabola through the three highest entries."""
    top = int(np.clip(np.argmax(dose), 1, dose.size - 2))
    curvature, slope, _ = np.polyfit(depth[top - 1 : top + 2] - depth[top], dose[top - 1 : top + 2], 2)
    return float(depth[top] - slope / (2 * curvature))


def provenance(model: ParticleModel) -> dict[str, object]:
    """Return where a machine's numbers come from, what was tuned, and what error to expect; plain data."""
    common: dict[str, object] = {
        "made_by": "python -m radplan.machines.generate.particle",
        "model": asdict(model),
        "label": "generic, analytic, research only",
        "stopping": f"Bethe with shell correction, I = {MEAN_EXCITATION} eV (ICRU 49); effective charge of Barkas 1963",
        "straggling": "Bohr, relativistic",
        "energies": "at the nozzle; nozzle_water lies between it and the water surface at the isocentre, air included",
        "air": "tables include the air from the nozzle to the isocentre (fit_air_offset = nozzle_distance)",
        "focus": "vacuum waist of constant normalised emittance, Highland scattering in window and air; chosen here",
        "monitor": "particles_per_mu: 10^8 protons of 100 MeV, others by their stopping power; min_mu chosen here",
        "licence": "Apache-2.0",
    }
    return common | (_proton_provenance() if model.species == "proton" else _ion_provenance())


def _proton_provenance() -> dict[str, object]:
    return {
        "nuclear": "on oxygen, non-elastic and elastic, and what goes to protons, deuterons, alphas and recoils: ICRU "
        "Report 63 (2000); elastic on hydrogen: Fippel, Soukup 2004",
        "let": "unrestricted, in water; let: LETd of all protons, primary and secondary; let_all: with target "
        "fragments at 20 keV/um; primary_let: of protons without a reaction",
        "lateral": "core: differential Moliere (Gottschalk 2010); halo: Soukup, Fippel, Alber 2005",
        "energy_spread": "linear in energy, after an open clinical beam model (1.23 MeV at 70 MeV, 1.17 at 85 MeV)",
        "tuned": "nothing was fitted to another planning system's base data",
        "expected_error": "range 0.3 %; depth dose 0.5 % of its maximum, beside MCsquare 1.3 % per proton; LET 0.1-0.2 "
        "keV/um in the plateau (0.2-0.3 of all particles), 7 % in the peak; core 10 % beyond half range; halo too "
        "narrow: beyond 20 mm MCsquare has 1.2 to 3 times as much dose",
    }


def _ion_provenance() -> dict[str, object]:
    tissues = ", ".join(f"alpha_x {t.alpha_x} beta_x {t.beta_x}" for t in TISSUES)
    return {
        "nuclear": "Sihver 1993; same-velocity fragments in two and more generations, Goldhaber angles",
        "let": "let: primaries and projectile fragments; let_all: with target recoils at 20 keV/um",
        "lateral": "core: Highland with a factor; halo: hydrogen and helium fragments by their share of the dose",
        "biology": f"MKM (Hawkins 1996, Inaniwa 2010), Kiefer-Chatterjee tracks, domain {DOMAIN_RADIUS} um, nucleus "
        f"{NUCLEUS_RADIUS} um (human salivary gland), alpha = alpha_x + beta_x z*, beta = beta_x; {tissues}",
        "tuned": "cross-section scale, recoil, ripple, nozzle_water and multiplicities were chosen beside matRad's "
        "helium_Generic and carbon_Generic at three energies each, scattering_scale beside carbon_Generic (BSD-3)",
        "expected_error": "range 0.3 mm; depth dose 1-2 % in the mean, 4-10 % at the peak; tail 20 %; LET 5-15 % in "
        "carbon's plateau, up to 30 % in helium's and at the distal edge; lateral core 15 %, halo uncertain by a "
        "factor of 2; alpha 35 % against tables of the local effect model",
    }


def main(names: Sequence[str] = ()) -> None:
    """Write the named machines, or all, to the library folder."""
    models = {model.name: model for model in MODELS}
    for name in names or models:
        if name not in models:
            raise UnknownNameError("particle model", name, models)
        path = Path(__file__).parents[1] / "library" / f"{name}.npz"
        write_particle_machine(make(models[name]), path)
        sys.stdout.write(f"{path} ({path.stat().st_size / 1024:.0f} kB)\n")


if __name__ == "__main__":
    main(sys.argv[1:])
