r"""Depth dose and LET of a broad proton beam in water: primaries, those scattered by nuclei, and secondary protons.

Doses here are energies per primary and depth [MeV/mm = keV/um]; times 10 they are the MeV cm^2/g of base data. LET is
unrestricted, in water.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from scipy.signal import fftconvolve

from radplan.arrays import Array
from radplan.machines.generate.nuclear import PER_MM, oxygen_elastic, oxygen_energy, proton_oxygen, proton_proton
from radplan.machines.generate.stopping import PROTON_MASS, cumulated, range_table

_HBAR_C = 197.327
"""[MeV fm]"""
_REACH = 7.0
"""Standard deviations of the range spectrum that are followed."""
_STEP, _LONGEST = 0.5, 420.0
"""Even axis along which knocked-out protons are followed [mm]."""
_LOSS_STEP = 0.05
_LONGEST_LOSS = 60.0
"""Grid of ranges lost in elastic scattering [mm]."""


@dataclass(frozen=True, eq=False)
class ProtonCurve:
    """A broad proton beam at each depth, per primary.

    Parameters
    ----------
    dose : array of shape (n,)
        Of all charged particles [MeV/mm].
    let, let_all : array of shape (n,)
        Dose-averaged LET of all protons, and of all charged particles [keV/um].
    primary_dose, primary_let : array of shape (n,)
        Of the protons that had no reaction [MeV/mm], and their dose-averaged LET [keV/um].
    fluence : array of shape (n,)
        Protons left that had no reaction.
    proton_dose, proton_fluence : array of shape (n,)
        Of all protons [MeV/mm], and the length of their tracks per depth, as many as `fluence` has of primaries.
    """

    dose: Array
    let: Array
    let_all: Array
    primary_dose: Array
    primary_let: Array
    fluence: Array
    proton_dose: Array
    proton_fluence: Array


@dataclass(frozen=True)
class ProtonModel:
    r"""Depth dose of protons in water.

    - Primaries have a Gaussian range spectrum (straggling and energy spread) and are lost by non-elastic reactions on
      oxygen (ICRU Report 63) and by elastic scattering on hydrogen (Fippel and Soukup 2004).
    - Elastic scattering on oxygen turns a primary of momentum p by a small angle, distributed as
      :math:`e^{-\langle r^2 \rangle q^2 / 3}` with :math:`q = p \theta / \hbar` and the radius r of the nucleus, so
      that a residual range R reaches less deep by :math:`R \theta^2 / 2`: ranges get a tail towards small ones.
    - Scattering on hydrogen leaves two protons, each with a flat energy spectrum up to E at
      :math:`\cos^2 \theta = T / E`.
    - A reaction on oxygen gives shares of E to protons, deuterons, and to alphas and recoils (ICRU Report 63). Of the
      protons `evaporated` with `evaporation_energy` on average stop where they are; the others, and deuterons, are
      knocked out as from hydrogen, but with a spectrum :math:`\propto (1 - T / E)^{softness}`. Alphas and recoils stop
      where they are; neutrons and photons carry the rest away.

    Parameters
    ----------
    evaporated, evaporation_energy : float
        Protons below 12 MeV that a reaction at high energy gives, and their mean energy [MeV]; ICRU Report 63.
    softness : float
        By it knocked-out protons get 0.57 E in the mean over their energy, as in ICRU Report 63 (deuterons as protons
        of their range); from hydrogen it is 0.67 E.
    radius : float
        Root mean square charge radius of oxygen [fm]; Angeli and Marinova (2013).
    local_let : float
        LET of heavier fragments [keV/um].

    Notes
    -----
    Nothing was fitted to a planning system's base data or to a Monte Carlo code. That cross sections and shares are
    those of ICRU Report 63 was decided beside such codes (docs/proton_plans.md): with those of Letaw, Silberberg and
    Tsao (1983) and 0.57 E to protons, peaks and the plateau before them were 1 to 5 % too high, the deeper the more.

    >>> curve = ProtonModel().curve(np.asarray([0.0, 20.0]), 157.8, 1.7)
    >>> [round(10 * float(d), 1) for d in curve.dose]  # build-up of secondaries outweighs the loss of primaries
    [5.7, 6.2]
    """

    evaporated: float = 0.8
    evaporation_energy: float = 6.3
    softness: float = 0.5
    radius: float = 2.70
    local_let: float = 20.0

    def curve(self, depth: Array, mean_range: float, sigma: float) -> ProtonCurve:
        """Return doses and LETs at depths.

        Parameters
        ----------
        depth : array of shape (n,)
            Depths [mm].
        mean_range, sigma : float
            Mean and standard deviation of the range spectrum, energy spread included [mm].
        """
        table = range_table("proton")
        longest = mean_range + _REACH * sigma
        residual = np.concatenate([np.geomspace(1e-5, 0.1, 250), np.arange(0.2, longest, 0.1)])
        energy = table.energy(residual) * table.species.mass
        stopping = table.stopping(energy / table.species.mass)
        start = residual + depth[:, None]
        alive = np.exp(self._optical(residual) - self._optical(start))
        present = np.gradient(residual) * self.spectrum(start - mean_range, mean_range, sigma) * alive
        primary, primary_let = present @ stopping, present @ stopping**2
        non_elastic, hydrogen = _non_elastic(energy), _hydrogen(energy)
        boiled = self.evaporated * self.evaporation_energy * np.clip((energy - 10.0) / 30.0, 0.0, 1.0)
        of_protons, of_deuterons, of_others = (share * energy for share in oxygen_energy(energy))
        knocked = np.maximum(of_protons - boiled, 0.0)
        from_oxygen = _flying(depth, energy, present * non_elastic, knocked, self.softness)
        from_hydrogen = _flying(depth, energy, present * hydrogen, energy, 0.0)
        deuterons = _flying(depth, energy, present * non_elastic, of_deuterons, self.softness)
        still, (still_let, still_length) = present @ (non_elastic * boiled), self._evaporation
        local = present @ (non_elastic * of_others)
        protons = primary + still + from_oxygen[0] + from_hydrogen[0]
        let_dose = primary_let + still * still_let + from_oxygen[1] + from_hydrogen[1]
        dose = protons + deuterons[0] + local
        fluence = present.sum(axis=1)
        return ProtonCurve(
            dose=dose,
            let=let_dose / np.maximum(protons, 1e-300),
            let_all=(let_dose + deuterons[1] + local * self.local_let) / np.maximum(dose, 1e-300),
            primary_dose=primary,
            primary_let=primary_let / np.maximum(primary, 1e-300),
            fluence=fluence,
            proton_dose=protons,
            proton_fluence=fluence + still * still_length + from_oxygen[2] + from_hydrogen[2],
        )

    def spectrum(self, difference: Array, mean_range: float, sigma: float) -> Array:
        r"""Return the density of ranges at differences from the mean range, reactions apart [1/mm].

        A Gaussian g, and for the share :math:`1 - e^{-W}` of the protons that oxygen scatters g folded with the ranges
        that are lost then; W is the mean number of such scatterings.

        Parameters
        ----------
        difference : array of any shape
            Range less mean range [mm].
        mean_range, sigma : float
            Of the Gaussian [mm].
        """
        steps = int((_REACH + 1.0) * sigma / _LOSS_STEP)
        axis = np.arange(-steps - round(_LONGEST_LOSS / _LOSS_STEP), steps + 1) * _LOSS_STEP
        gaussian = np.exp(-0.5 * (axis / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
        lost, number = self._losses(mean_range)
        folded = fftconvolve(gaussian[::-1], lost)[: axis.size][::-1]
        density = np.exp(-number) * gaussian - np.expm1(-number) * np.maximum(folded, 0.0)
        return np.interp(difference, axis, density, left=0.0, right=0.0)

    def _losses(self, mean_range: float) -> tuple[Array, float]:
        """Return the distribution of ranges lost in elastic scatterings, summing to 1, and the mean number of those."""
        table = range_table("proton")
        residual = (np.arange(300) + 0.5) * mean_range / 300
        energy = table.energy(residual) * table.species.mass
        square = energy * (energy + 2 * PROTON_MASS)
        mean_loss = np.maximum(residual * 1.5 * (_HBAR_C / self.radius) ** 2 / square, 0.02)
        rate = PER_MM * oxygen_elastic(energy)
        loss = np.arange(0.0, _LONGEST_LOSS, _LOSS_STEP)
        lost = (rate / mean_loss) @ np.exp(-loss / mean_loss[:, None])
        return lost / lost.sum(), float(rate.sum() * mean_range / 300)

    @cached_property
    def _removal(self) -> Array:
        """Mean number of reactions on the way from the ranges of the range table to rest."""
        table = range_table("proton")
        energy = table.energies * table.species.mass
        return cumulated(_non_elastic(energy) + _hydrogen(energy), table.ranges)

    def _optical(self, residual: Array) -> Array:
        return np.interp(residual, range_table("proton").ranges, self._removal)

    @cached_property
    def _evaporation(self) -> tuple[float, float]:
        """LETd down to rest and track length per energy [keV/um, mm/MeV] of evaporated protons.

        Their spectrum is T exp(-2 T / mean).
        """
        energy, table = np.linspace(0.2, 6 * self.evaporation_energy, 300), range_table("proton")
        number = energy * np.exp(-2 * energy / self.evaporation_energy)
        let = (number * energy * _mean_stopping(energy, np.zeros_like(energy))).sum() / (number * energy).sum()
        length = (number * table.range(energy / table.species.mass)).sum() / (number * energy).sum()
        return float(let), float(length)


def _flying(depth: Array, energy: Array, reacting: Array, given: Array, softness: float) -> tuple[Array, ...]:
    """Return dose, LET-weighted dose and track length per depth of protons knocked out, at depths.

    Parameters
    ----------
    depth : array of shape (n,)
        Depths [mm].
    energy : array of shape (m,)
        Energies of the protons that set them free [MeV].
    reacting : array of shape (n, m)
        Reactions per length at each depth and energy [1/mm].
    given : array of shape (m,)
        Energy that a reaction gives them [MeV].
    softness : float
        Of their spectrum.
    """
    axis = np.arange(0.0, min(float(depth[-1]), _LONGEST - _STEP) + _STEP, _STEP)
    spent = _STEP * np.interp(axis, depth, reacting @ given)
    mean_energy = (reacting @ energy) / np.maximum(reacting.sum(axis=1), 1e-300)
    nodes, kernels = _kernels(softness)
    at = np.log(np.maximum(np.interp(axis, depth, mean_energy), 1e-3))
    row = np.interp(at, np.log(nodes), np.arange(nodes.size))
    left = np.minimum(row.astype(int), nodes.size - 2)
    share, cell = row - left, np.arange(axis.size)
    spread = np.zeros((nodes.size, axis.size))
    spread[left, cell] = spent * (1 - share)
    spread[left + 1, cell] += spent * share
    even = [
        np.maximum(fftconvolve(spread, kernel[:, : axis.size], axes=1)[:, : axis.size].sum(axis=0), 0.0)
        for kernel in kernels
    ]
    behind = axis + 0.5 * _STEP
    return tuple(np.interp(depth, behind, values) for values in even)


@cache
def _kernels(softness: float) -> tuple[Array, Array]:
    """Return energies (e,), and dose, LET times dose and track length of a unit of energy given to protons (3, e, n).

    Per length, against depth, half a step behind each place of the even axis.
    """
    table, count = range_table("proton"), 400
    nodes = np.geomspace(5.0, 300.0, 40)
    edges = np.arange(0.0, _LONGEST + _STEP, _STEP)
    kernels = np.zeros((3, nodes.size, edges.size - 1))
    part = (np.arange(count) + 0.5) / count
    number = (1.0 - part) ** softness
    number /= (number * part).sum()
    for row, energy in enumerate(nodes):
        first = table.range(part * energy / table.species.mass)
        left = np.maximum(first[:, None] - edges / np.sqrt(part)[:, None], 0.0)
        kinetic = np.where(left > 0.0, table.energy(left) * table.species.mass, 0.0)
        per_energy = (number / (energy * _STEP))[:, None]
        spent = (kinetic[:, :-1] - kinetic[:, 1:]) * per_energy
        kernels[0, row] = spent.sum(axis=0)
        kernels[2, row] = ((left[:, :-1] - left[:, 1:]) * per_energy).sum(axis=0)
        kernels[1, row] = (spent * _mean_stopping(kinetic[:, :-1], kinetic[:, 1:])).sum(axis=0)
    return nodes, kernels


def _non_elastic(energy: Array) -> Array:
    """Return the non-elastic reactions of protons per length at energies [MeV] in 1/mm."""
    return PER_MM * proton_oxygen(energy)


def _hydrogen(energy: Array) -> Array:
    """Return the scatterings of protons on hydrogen per length at energies [MeV] in 1/mm."""
    return 2 * PER_MM * proton_proton(energy)


def _mean_stopping(high: Array, low: Array) -> Array:
    """Return the stopping power averaged over the energies between two [MeV], 0 where they are the same [keV/um]."""
    table = range_table("proton")
    energy = table.energies * table.species.mass
    integral = cumulated(table.stoppings, energy)
    spent = np.maximum(high - low, 1e-12)
    return np.where(
        high - low > 1e-9, (np.interp(high, energy, integral) - np.interp(low, energy, integral)) / spent, 0
    )
