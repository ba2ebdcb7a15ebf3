"""Photon Monte Carlo kernels of slab phantoms, by pyRadMC, for the benchmark beside it.

    PYTHON tests/benchmarks/heterogeneity_mc.py PHANTOM HISTORIES OUTPUT.npz [--field MM] [--water] [--seed N]

PYTHON is an interpreter that can import pyradmc 0.2.1 and warp (``pip install "pyradmc[warp]==0.2.1"`` in an
environment of its own); radplan is not imported here. A pencil of 6 MV photons enters along the axis and its dose is
scored in depth bins and rings. In slabs that reach far to all sides the dose on the axis of a field is the integral of
the pencil's dose over the field at that depth, so that one run serves every field and every history counts. With
``--field`` a divergent square field is simulated instead and scored in 1 x 1 cm on its axis, which checks that step;
``--water`` scores dose to water and not to the medium.

The spectrum is the package's ``siemens-6mv`` (Ali and Rogers, Phys. Med. Biol. 57 (2012) 31) behind 30.3 instead of
23.4 g/cm2 of aluminium, which brings its depth dose in water to that of generic_photon_6mv: what is to be compared is
heterogeneity and not beam quality.

Cross sections: the package's closed forms for water, and for bone the same forms scaled by composition, within 1.2 %
of NIST's total attenuation for cortical bone from 0.15 to 6 MeV (1 % of which is another composition of bone).
Electrons: the package's Berger-Seltzer stopping of each composition, its Gaussian multiple scattering (its tables for
Goudsmit-Saunderson scattering take an hour to make). Lung is water of density 0.25, and 0.15 in the phantom "blind".
"""

from __future__ import annotations

import argparse
import json
import sys
import time

import numpy as np

STEP_MM = 2.5
"""Depth bins [mm]; every slab is a whole number of them."""

PHANTOM_MM = 350.0
"""Depth of all phantoms [mm]."""

SSD_MM = 900.0
"""Distance from the source to their surface [mm]."""

BONE_DENSITY = 1.85
"""Mass density of cortical bone [g/cm3]."""

SLABS = {
    "water": (0.0, 0.0, 1.0),
    "lung": (50.0, 150.0, 0.25),
    "bone": (30.0, 60.0, BONE_DENSITY),
    "blind": (30.0, 110.0, 0.15),
}
"""Where the slab begins and ends [mm], and its mass density [g/cm3]."""

FILTER = 5.5
"""Square root of the spectrum's aluminium filtration [(g/cm2)^0.5]."""

BATCHES = 10
"""Independent runs, from whose spread uncertainties are told."""

RING_EDGES_CM = np.concatenate([[0.0], np.geomspace(0.05, 20.0, 60)])


def depth_density(phantom: str) -> np.ndarray:
    """Return the mass density of every depth bin [g/cm3]."""
    begin, end, density = SLABS[phantom]
    centres = (np.arange(round(PHANTOM_MM / STEP_MM)) + 0.5) * STEP_MM
    return np.where((centres > begin) & (centres < end), density, 1.0)


def cross_sections(phantom: str):
    """Return pyRadMC's water, or its forms scaled by composition where there is bone."""
    from pyradmc import CORTICAL_BONE, MATERIALS, WATER, AnalyticCrossSections, PhotonProcess
    from pyradmc.data import berger_seltzer, goudsmit_saunderson
    from pyradmc.data.materials import STANDARD_ATOMIC_WEIGHT

    def moment(material: int, weight) -> float:
        return sum(share * weight(z) / STANDARD_ATOMIC_WEIGHT[z] for z, share in MATERIALS[material].composition)

    def over_water(material: int, weight) -> float:
        return moment(material, weight) / moment(WATER, weight)

    class Scaled(AnalyticCrossSections):
        """Compton by electrons, pair by Z (Z + 1), photoelectric by Z^4.5, each per atomic weight, from water's."""

        n_materials = CORTICAL_BONE + 1
        provenance = "closed forms for water, scaled by composition"

        def __init__(self) -> None:
            self._ready = False
            super().__init__(((WATER, 1.0), (CORTICAL_BONE, BONE_DENSITY)))
            span = range(self.n_materials)
            self._scale = {
                PhotonProcess.COMPTON: [
                    MATERIALS[m].electrons_per_gram / MATERIALS[WATER].electrons_per_gram for m in span
                ],
                PhotonProcess.PAIR: [over_water(m, lambda z: z * (z + 1)) for m in span],
                PhotonProcess.PHOTOELECTRIC: [over_water(m, lambda z: z**4.5) for m in span],
                PhotonProcess.RAYLEIGH: [0.0 for m in span],
            }
            self._radiative = [berger_seltzer.radiative_fit_coefficients(MATERIALS[m].radiative_anchors) for m in span]
            self._ranges = [berger_seltzer.csda_range_table(MATERIALS[m]) for m in span]

        def mu_over_rho(self, energy: float, material: int, process: int) -> float:
            return super().mu_over_rho(energy, WATER, process) * self._scale[process][material]

        def radiative_stopping_power(self, energy: float, material: int) -> float:
            return berger_seltzer.radiative_stopping(energy, self._radiative[material])

        def csda_range(self, energy: float, material: int) -> float:
            energies, values = self._ranges[material]
            return float(np.interp(np.log(energy), energies, values))

        def scattering_power(self, energy: float, material: int, delta_cut: float) -> float:
            return goudsmit_saunderson.transport_moment_scattering_power(
                MATERIALS[material].composition, energy, delta_cut
            )

    return Scaled() if phantom == "bone" else AnalyticCrossSections(((WATER, 1.0),))


def simulate(
    phantom: str, histories: int, seed: int, field_mm: float | None, mode: str = "dose_to_medium"
) -> tuple[np.ndarray, float]:
    """Return dose per history [MeV/g], ``(batches, depths, rings)`` or, of a field, ``(batches, depths)``; seconds."""
    from pyradmc import (
        ALI_ROGERS_BEAMS,
        CORTICAL_BONE,
        WATER,
        CylindricalScoringGrid,
        ScoringGrid,
        SpectralBeamSource,
        VoxelGrid,
        WarpEngine,
        ali_rogers_mv,
    )

    density, side, step, ssd = depth_density(phantom), 60.0, STEP_MM / 10, SSD_MM / 10
    bone = (density == BONE_DENSITY) & (phantom == "bone")
    grid = VoxelGrid(
        shape=(1, 1, density.size),
        spacing=(side, side, step),
        origin=(-side / 2, -side / 2, 0.0),
        density=density.reshape(1, 1, -1),
        material=np.where(bone, CORTICAL_BONE, WATER).astype(np.int32).reshape(1, 1, -1),
    )
    spectrum = ali_rogers_mv(ALI_ROGERS_BEAMS["siemens-6mv"]._replace(c2=FILTER))
    width = 0.0 if field_mm is None else field_mm / 10 * ssd / 100.0
    source = SpectralBeamSource(spectrum, (0.0, 0.0, -ssd), (0.0, 0.0, 0.0), width, width)
    if field_mm is None:
        areas = np.pi * np.diff(RING_EDGES_CM**2)
        edges = np.arange(density.size + 1) * step
        scoring = CylindricalScoringGrid((0.0, 0.0), edges, RING_EDGES_CM, np.outer(density * step, areas))
    else:
        scoring = ScoringGrid.rebin(grid, (1, 1, density.size), (1.0, 1.0, step), (-0.5, -0.5, 0.0))
    engine = WarpEngine(grid=grid, cross_sections=cross_sections(phantom), device="cpu")
    begun, doses = time.process_time(), []
    for batch in range(BATCHES):
        done = engine.run(
            source, histories // BATCHES, 1, seed + batch, scoring_grid=scoring, scoring_mode=mode, msc_model="gaussian"
        )
        doses.append(done.dose.reshape(density.size, -1).squeeze())
        print(f"{phantom}: batch {batch + 1} of {BATCHES}, {time.process_time() - begun:.0f} s", file=sys.stderr)
    return np.stack(doses), time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description="Monte Carlo dose of a slab phantom.")
    parser.add_argument("phantom", choices=SLABS)
    parser.add_argument("histories", type=float)
    parser.add_argument("output")
    parser.add_argument("--field", type=float)
    parser.add_argument("--water", action="store_true")
    parser.add_argument("--seed", type=int, default=1100)
    told = parser.parse_args()
    mode = "dose_to_water" if told.water else "dose_to_medium"
    dose, seconds = simulate(told.phantom, int(told.histories), told.seed, told.field, mode)
    np.savez_compressed(told.output, dose=dose.astype(np.float32), histories=told.histories, seconds=seconds)
    print("RESULT " + json.dumps({"phantom": told.phantom, "histories": told.histories, "seconds": seconds}))


if __name__ == "__main__":
    main()
