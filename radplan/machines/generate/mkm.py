r"""Microdosimetric kinetic model: what dose of a track a cell's domain sees, and the alpha and beta that follow.

Lengths here are um, doses Gy, LET keV/um, energies MeV/u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from radplan.arrays import Array
from radplan.machines.generate.stopping import Species, beta_squared, effective_charge, stopping_power

DOMAIN_RADIUS = 0.32
"""Of human salivary gland cells [um]."""
NUCLEUS_RADIUS = 3.9
"""Of human salivary gland cells [um]."""


@dataclass(frozen=True)
class Tissue:
    """LQ parameters of photons, the limit of vanishing LET [1/Gy, 1/Gy^2].

    >>> Tissue(0.1, 0.05).alpha_x
    0.1
    """

    alpha_x: float
    beta_x: float


@dataclass(frozen=True)
class Track:
    r"""Radial dose about an ion's path after Kiefer and Chatterjee: a flat core in a penumbra that falls as 1/r^2.

    :math:`r_c = 0.0116 \beta`, :math:`r_p = 0.0616 E^{1.7}`, :math:`D_p = K r^{-2}` with
    :math:`K = 1.25 \cdot 10^{-4} (z_{eff} / \beta)^2`; the core holds what is left of the LET.

    Parameters
    ----------
    core_radius, penumbra_radius : float
        [um].
    penumbra : float
        K [Gy um^2].
    core : float
        Dose in the core [Gy].

    Source: Kiefer, Straaten, Phys. Med. Biol. 31 (1986) 1201; Chatterjee, Schaefer, Radiat. Environ. Biophys. 13
    (1976) 215.
    """

    core_radius: float
    penumbra_radius: float
    penumbra: float
    core: float

    @classmethod
    def of(cls, species: Species, energy: float) -> Track:
        """Return the track of a species at an energy [MeV/u]."""
        at = np.asarray(energy)
        beta = float(np.sqrt(beta_squared(at)))
        charge = float(effective_charge(species.charge, at))
        core_radius = 0.0116 * beta
        penumbra_radius = max(0.0616 * energy**1.7, core_radius * 1.001)
        penumbra = 1.25e-4 * (charge / beta) ** 2
        whole = 0.1602 * float(stopping_power(species, at))
        core = (whole - 2 * np.pi * penumbra * np.log(penumbra_radius / core_radius)) / (np.pi * core_radius**2)
        return cls(core_radius, penumbra_radius, penumbra, max(core, penumbra / core_radius**2))

    def domain_dose(self, impact: Array, radius: float = DOMAIN_RADIUS) -> Array:
        """Return the mean dose in a cylinder alongside the track [Gy].

        Parameters
        ----------
        impact : array of shape (n,)
            Distances of the cylinder's axis from the path [um].
        radius : float
            Of the cylinder [um].
        """
        return (self._ring(impact, radius, core=True) + self._ring(impact, radius, core=False)) / (np.pi * radius**2)

    def _ring(self, impact: Array, radius: float, *, core: bool) -> Array:
        """Integrate dose times the arc inside the cylinder over track radii, of the core or the penumbra."""
        low, high = np.maximum(impact - radius, 0.0), np.minimum(impact + radius, self.penumbra_radius)
        if core:
            low, high = np.maximum(low, 1e-6), np.minimum(high, self.core_radius)
        else:
            low = np.maximum(low, self.core_radius)
        some = high > low
        part = np.linspace(0.0, 1.0, 160)
        b, low, high = impact[some, None], low[some, None], high[some, None]
        r = low + (high - low) * part if core else low * (high / low) ** part
        cosine = (r * r + b * b - radius**2) / np.maximum(2 * r * b, 1e-12)
        arc = np.arccos(np.clip(cosine, -1, 1)) / np.pi
        inside = np.where(r + b <= radius, 1.0, np.where(np.abs(r - b) >= radius, (r <= radius - b) * 1.0, arc))
        dose = self.core if core else self.penumbra / r**2
        result = np.zeros(impact.size)
        result[some] = np.trapezoid(dose * 2 * np.pi * r * inside, r, axis=1)
        return result


def saturated_dose(species: Species, energy: float, betas: Sequence[float], *, radius: float = DOMAIN_RADIUS) -> Array:
    r"""Return z*, the dose mean of a domain's specific energy with saturation [Gy], for each beta [1/Gy^2].

    :math:`z^* = \frac{\int z_{sat}^2 x \, dx}{\int z \, x \, dx}`, :math:`z_{sat}^2 = z_0^2 (1 - e^{-(z / z_0)^2})`,
    :math:`z_0 = \frac{(R_n / r_d)^2}{\sqrt{\beta (1 + (R_n / r_d)^2)}}`, over impact parameters x.

    Source: Hawkins, Int. J. Radiat. Biol. 69 (1996) 739; Inaniwa et al., Phys. Med. Biol. 55 (2010) 6721.

    >>> from radplan.machines.generate.stopping import SPECIES
    >>> [round(float(saturated_dose(SPECIES["carbon"], e, (0.0615,))[0]), 1) for e in (10.0, 100.0)]  # pyMKM 25.8, 7.4
    [25.9, 7.2]
    """
    track = Track.of(species, energy)
    reach = radius + max(track.penumbra_radius, radius) + 1e-3
    impact = np.concatenate([np.linspace(0, radius * 1.2, 60), np.geomspace(radius * 1.21, reach, 60)])
    dose = track.domain_dose(impact, radius)
    ratio = (NUCLEUS_RADIUS / radius) ** 2
    mean = np.trapezoid(dose * impact, impact)
    result = []
    for beta in betas:
        limit = ratio / np.sqrt(beta * (1 + ratio))
        result.append(np.trapezoid(-(limit**2) * np.expm1(-((dose / limit) ** 2)) * impact, impact) / mean)
    return np.asarray(result)


def saturated_dose_table(species: Species, energies: Array, betas: Sequence[float]) -> Array:
    """Return z* at energies [MeV/u], shape (betas, n) [Gy]: exact at 50 nodes, in between linear in ln(E).

    >>> from radplan.machines.generate.stopping import SPECIES
    >>> saturated_dose_table(SPECIES["helium"], np.asarray([1.0, 10.0]), (0.05, 0.06)).shape
    (2, 2)
    """
    nodes = np.geomspace(0.01, 500.0, 50)
    exact = np.stack([saturated_dose(species, float(node), betas) for node in nodes])
    return np.stack([np.interp(np.log(energies), np.log(nodes), column) for column in exact.T])
