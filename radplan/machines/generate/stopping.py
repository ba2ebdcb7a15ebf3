r"""Stopping power, range and range straggling of light ions in liquid water.

Energies are kinetic energies per nucleon [MeV/u], so that particles of one energy have one velocity (a proton of
kinetic energy T has T / 1.00728 MeV/u). Lengths are mm, stopping powers keV/um, which is MeV/mm.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from radplan.arrays import Array

ELECTRON_MASS = 0.51099895
"""[MeV]"""
ATOMIC_MASS = 931.494
"""[MeV]"""
PROTON_MASS = 938.272
"""[MeV]"""
WATER_Z_A = 0.55508
"""Z/A of water, electrons per unit of atomic mass."""
MOLECULES = 3.343e22
"""Molecules of water per cm^3 at 1 g/cm^3."""
MEAN_EXCITATION = 75.0
"""I-value of water [eV] of ICRU 49 and PSTAR; ICRU 90 has 78 eV, which lengthens ranges by 0.5 %."""

_K = 0.0307075  # 4 pi N_A r_e^2 m_e c^2 at 1 g/cm^3 [MeV mm^-1 per Z/A]
_BLEND, _BLEND_WIDTH = 4.0, 0.15


@dataclass(frozen=True)
class Species:
    """A light nucleus: its charge, nucleons and mass in atomic units.

    >>> SPECIES["proton"].mass > 1.007, SPECIES["carbon"].mass
    (True, 12.0)
    """

    name: str
    charge: int
    nucleons: int
    mass: float


SPECIES = {
    species.name: species
    for species in (
        Species("proton", 1, 1, PROTON_MASS / ATOMIC_MASS),
        Species("deuteron", 1, 2, 2.0),
        Species("triton", 1, 3, 3.0),
        Species("helium3", 2, 3, 3.0),
        Species("helium", 2, 4, 4.0),
        Species("lithium", 3, 7, 7.0),
        Species("beryllium", 4, 9, 9.0),
        Species("boron", 5, 11, 11.0),
        Species("carbon", 6, 12, 12.0),
    )
}
"""What a beam consists of or breaks into; isotopes are represented by the most common one."""


def beta_squared(energy: Array) -> Array:
    """Return v^2/c^2 at an energy per nucleon [MeV/u].

    >>> round(float(beta_squared(np.asarray(931.494))), 6)
    0.75
    """
    return 1 - (1 + energy / ATOMIC_MASS) ** -2


def bethe(energy: Array, excitation: float = MEAN_EXCITATION) -> Array:
    r"""Return the stopping power of a unit charge by Bethe's formula with shell correction [keV/um].

    :math:`S = K \frac{Z}{A} \frac{1}{\beta^2} [\frac{1}{2} \ln \frac{2 m c^2 \beta^2 \gamma^2 T_{max}}{I^2} - \beta^2
    - C/Z]`, valid above about 3 MeV/u.

    Source: ICRU Report 49 (1993), shell correction after Bichsel; PDG review of the passage of particles.

    >>> round(float(bethe(np.asarray(100.0 / 1.00728))), 4)  # PSTAR, 100 MeV: 0.7289
    0.7288
    """
    gamma = 1 + energy / ATOMIC_MASS
    beta2 = 1 - gamma**-2
    eta2 = beta2 * gamma**2
    ratio = ELECTRON_MASS / PROTON_MASS
    largest = 2 * ELECTRON_MASS * eta2 / (1 + 2 * gamma * ratio + ratio**2)
    number = 0.5 * np.log(2 * ELECTRON_MASS * eta2 * largest / (excitation * 1e-6) ** 2) - beta2
    shell = (0.422377 / eta2 + 0.0304043 / eta2**2 - 0.00038106 / eta2**3) * 1e-6 * excitation**2
    shell += (3.858019 / eta2 - 0.1667989 / eta2**2 + 0.00157955 / eta2**3) * 1e-9 * excitation**3
    return _K * WATER_Z_A / beta2 * (number - shell / 7.2)


def varelas_biersack(energy: Array) -> Array:
    """Return the stopping power of a unit charge below a few MeV/u [keV/um].

    The form is Varelas and Biersack's; its four numbers are a fit to ICRU 49's water at 0.1-6 MeV.

    Source: Varelas, Biersack, Nucl. Instrum. Meth. 79 (1970) 213.

    >>> round(float(varelas_biersack(np.asarray(1.0))), 1)  # ICRU 49: 26.1
    26.1
    """
    kilo = energy * 1e3
    low = 4.744 * kilo**0.45
    high = 2090.0 / kilo * np.log(1 + 1972.0 / kilo + 0.0531 * kilo)
    return low * high / (low + high) * MOLECULES * 1e-22


def unit_charge_stopping(energy: Array, excitation: float = MEAN_EXCITATION) -> Array:
    """Return the stopping power of a proton at its velocity: Bethe above 4 MeV/u, a fit below, blended [keV/um]."""
    energy = np.asarray(energy, dtype=np.float64)
    high = bethe(np.maximum(energy, 0.5), excitation)
    low = varelas_biersack(np.maximum(energy, 1e-5))
    share = 0.5 * (1 + np.tanh(np.log(np.maximum(energy, 1e-6) / _BLEND) / _BLEND_WIDTH))
    node = np.asarray(_BLEND)
    match = bethe(node, excitation) / varelas_biersack(node)
    return share * high + (1 - share) * low * (1 + (match - 1) * share)


def effective_charge(charge: int, energy: Array) -> Array:
    r"""Return :math:`Z (1 - e^{-125 \beta Z^{-2/3}})`, the charge that an ion keeps at its velocity.

    Source: Barkas, Nuclear Research Emulsions (1963).

    >>> round(float(effective_charge(6, np.asarray(100.0))), 3)
    6.0
    """
    return charge * -np.expm1(-125 * np.sqrt(beta_squared(energy)) * charge ** (-2 / 3))


def stopping_power(species: Species, energy: Array, excitation: float = MEAN_EXCITATION) -> Array:
    """Return the stopping power of an ion: a proton's at its velocity, scaled by the effective charges [keV/um].

    >>> round(float(stopping_power(SPECIES["carbon"], np.asarray(100.0))), 2)
    26.09
    """
    scale = 1.0 if species.charge == 1 else effective_charge(species.charge, energy) / effective_charge(1, energy)
    return scale**2 * unit_charge_stopping(energy, excitation)


@dataclass(frozen=True)
class RangeTable:
    r"""Range :math:`R = A \int de / S` and its straggling against energy, for one species.

    Straggling is Bohr's with relativistic factors:
    :math:`\sigma_R^2 = A \int \frac{d\sigma_E^2/dx}{S^3} de`,
    :math:`d\sigma_E^2/dx = 0.01569 \frac{Z}{A} z^2 \frac{1 - \beta^2/2}{1 - \beta^2}` [MeV^2/mm].

    Parameters
    ----------
    species : Species
        What is stopped.
    highest : float
        Energy up to which the table goes [MeV/u].
    excitation : float
        I-value of water [eV].

    Source: Bohr (1915); Rossi, High Energy Particles (1952).

    >>> table = RangeTable(SPECIES["proton"])
    >>> round(float(table.range(150.0 / 1.00728)), 1)  # PSTAR, 150 MeV: 157.7 mm
    157.8
    """

    species: Species
    highest: float = 500.0
    excitation: float = MEAN_EXCITATION

    @cached_property
    def energies(self) -> Array:
        """Nodes of the table [MeV/u]."""
        return np.geomspace(1e-3, self.highest, 5000)

    @cached_property
    def stoppings(self) -> Array:
        """Stopping powers at the nodes [keV/um]."""
        return stopping_power(self.species, self.energies, self.excitation)

    @cached_property
    def ranges(self) -> Array:
        """Ranges at the nodes [mm]."""
        first = self.energies[0] / self.stoppings[0]
        return self.species.mass * (first + cumulated(1 / self.stoppings, self.energies))

    @cached_property
    def _variance(self) -> Array:
        beta2 = beta_squared(self.energies)
        charge = effective_charge(self.species.charge, self.energies)
        growth = 0.01569 * WATER_Z_A * charge**2 * (1 - beta2 / 2) / (1 - beta2)
        return self.species.mass * cumulated(growth / self.stoppings**3, self.energies)

    def range(self, energy: Array) -> Array:
        """Return the mean range at energies [MeV/u] in mm."""
        return np.interp(energy, self.energies, self.ranges)

    def energy(self, residual: Array) -> Array:
        """Return the energy [MeV/u] that is left at residual ranges [mm]."""
        return np.interp(residual, self.ranges, self.energies)

    def stopping(self, energy: Array) -> Array:
        """Return the stopping power at energies [MeV/u] in keV/um."""
        return np.interp(energy, self.energies, self.stoppings)

    def straggling(self, energy: Array) -> Array:
        """Return the standard deviation of the range at energies [MeV/u] in mm."""
        return np.sqrt(np.interp(energy, self.energies, self._variance))


def cumulated(values: Array, axis: Array) -> Array:
    """Return the running integral by the trapezoidal rule, 0 at the first node.

    >>> cumulated(np.asarray([1.0, 3.0]), np.asarray([0.0, 2.0])).tolist()
    [0.0, 4.0]
    """
    return np.concatenate([[0.0], np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(axis))])


@cache
def range_table(name: str) -> RangeTable:
    """Return the table of a species by name; the same one each time."""
    return RangeTable(SPECIES[name])
