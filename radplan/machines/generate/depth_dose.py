r"""Depth dose and LET of a broad beam in water: primaries that straggle and react, and the protons set free by protons.

Doses here are energies per primary and depth [MeV/mm = keV/um]; times 10 they are the MeV cm^2/g of base data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.signal import fftconvolve

from radplan.arrays import Array
from radplan.machines.generate.nuclear import survival
from radplan.machines.generate.stopping import range_table

_REACH = 7.0
"""Standard deviations of the range spectrum that are followed."""


@dataclass(frozen=True, eq=False)
class Primaries:
    """What a beam's own particles do at each depth.

    Parameters
    ----------
    depth : array of shape (n,)
        Depths [mm].
    fluence : array of shape (n,)
        Particles left per primary.
    dose : array of shape (n,)
        Energy they lose electronically [MeV/mm].
    let_dose : array of shape (n,)
        `dose` weighted with their stopping power [MeV/mm keV/um].
    reactions : array of shape (n,)
        Nuclear reactions per length [1/mm].
    reaction_energy : array of shape (n,)
        Mean energy of the particles that react [MeV/u].
    weighted : array of shape (k, n)
        `dose` weighted with the k functions of energy that were asked for.
    """

    depth: Array
    fluence: Array
    dose: Array
    let_dose: Array
    reactions: Array
    reaction_energy: Array
    weighted: Array


def primaries(name: str, depth: Array, mean_range: float, sigma: float, weights: Array | None = None) -> Primaries:
    r"""Follow primaries whose ranges have a Gaussian spectrum.

    With the residual range r, :math:`D(z) = \int g(r + z - R) \, S(r) \, P(r + z \to r) \, dr`, where g is the spectrum
    about the mean range R, S the stopping power and P the survival of nuclear reactions. S is finite down to rest, so
    that LET needs no cut.

    Parameters
    ----------
    name : str
        A species.
    depth : array of shape (n,)
        Depths [mm].
    mean_range, sigma : float
        Mean and standard deviation of the range spectrum, energy spread included [mm].
    weights : array of shape (k, nodes), optional
        Functions of energy at the nodes of the species' range table, see `Primaries.weighted`.

    >>> beam = primaries("proton", np.asarray([0.0, 150.0, 157.0]), 157.8, 1.7)
    >>> [round(10 * float(d), 1) for d in beam.dose]  # a 150 MeV proton: 5.4 MeV cm^2/g, then the Bragg peak
    [5.4, 17.3, 31.1]
    """
    table, alive = range_table(name), survival(name)
    residual = np.concatenate([np.geomspace(1e-5, 0.1, 250), np.arange(0.2, mean_range + _REACH * sigma, 0.1)])
    energy = table.energy(residual)
    stopping = table.stopping(energy)
    spectrum = np.gradient(residual) / (np.sqrt(2 * np.pi) * sigma)
    start = residual + depth[:, None]
    present = spectrum * np.exp(-0.5 * ((start - mean_range) / sigma) ** 2) * alive.between(start, residual)
    rate = alive.rate(energy)
    reactions = present @ rate
    extra = np.zeros((0, residual.size))
    if weights is not None:
        extra = np.stack([np.interp(energy, table.energies, row) for row in weights])
    return Primaries(
        depth=depth,
        fluence=present.sum(axis=1),
        dose=present @ stopping,
        let_dose=present @ stopping**2,
        reactions=reactions,
        reaction_energy=(present @ (rate * energy)) / np.maximum(reactions, 1e-300),
        weighted=(present @ (stopping * extra).T).T,
    )


@dataclass(frozen=True)
class ProtonModel:
    r"""Depth dose of protons: primaries, the protons that reactions set free, and what reactions leave behind.

    A reaction of a proton of energy E gives `secondary` E to protons of a flat energy spectrum up to E, whose paths
    project on the beam's direction by `projection` (they make the build-up), and `local` E to fragments that stop where
    they are; neutrons and photons carry the rest away.

    Parameters
    ----------
    secondary, local : float
        Parts of the energy, by ICRU Report 63's partition for oxygen.
    projection : float
        Mean cosine of secondary protons.
    local_let : float
        LET of what stays behind [keV/um].

    >>> dose, *_ = ProtonModel().curve(np.asarray([0.0, 20.0]), 157.8, 1.7)
    >>> [round(10 * float(d), 2) for d in dose]  # build-up of secondaries outweighs the loss of primaries
    [5.51, 5.94]
    """

    secondary: float = 0.57
    local: float = 0.045
    projection: float = 0.85
    local_let: float = 20.0

    _step: float = 0.5
    _longest: float = 420.0

    def curve(self, depth: Array, mean_range: float, sigma: float) -> tuple[Array, Array, Array]:
        """Return dose [MeV/mm per primary], LET of all protons and LET of all charged particles [keV/um] at depths.

        Parameters
        ----------
        depth : array of shape (n,)
            Depths [mm].
        mean_range, sigma : float
            Mean and standard deviation of the range spectrum [mm].
        """
        beam = primaries("proton", depth, mean_range, sigma)
        energy = beam.reaction_energy * range_table("proton").species.mass
        axis = np.arange(0.0, min(float(depth[-1]), self._longest - self._step) + self._step, self._step)
        source = np.interp(axis, depth, beam.reactions)
        born, born_let = self._secondaries(source, np.interp(axis, depth, energy))
        local = beam.reactions * energy * np.where(energy < 8.0, self.local + self.secondary, self.local)
        protons = beam.dose + np.interp(depth, axis, born)
        let_dose = beam.let_dose + np.interp(depth, axis, born_let)
        dose = protons + local
        let = let_dose / np.maximum(protons, 1e-300)
        return dose, let, (let_dose + local * self.local_let) / np.maximum(dose, 1e-300)

    def _secondaries(self, source: Array, energy: Array) -> tuple[Array, Array]:
        """Return dose and LET-weighted dose of secondary protons on the even depth axis of their source."""
        nodes, kernels = self._kernels
        place = np.interp(np.log(np.maximum(energy, 1e-3)), np.log(nodes), np.arange(nodes.size))
        left = np.minimum(place.astype(int), nodes.size - 2)
        share = place - left
        given = source * energy * self.secondary * self._step * (energy >= 8.0)
        spread = np.zeros((nodes.size, source.size))
        cell = np.arange(source.size)
        spread[left, cell] = given * (1 - share)
        spread[left + 1, cell] += given * share
        born, born_let = (
            np.maximum(fftconvolve(spread, kernel[:, : source.size], axes=1)[:, : source.size].sum(axis=0), 0.0)
            for kernel in kernels
        )
        return born, born_let

    @cached_property
    def _kernels(self) -> tuple[Array, Array]:
        """Dose of one unit of energy set free as protons, against depth: energies (e,) and (2, e, depths) with LET."""
        table = range_table("proton")
        nodes = np.geomspace(5.0, 300.0, 40)
        path = np.arange(0.0, self._longest, self._step) / self.projection
        kernels = np.zeros((2, nodes.size, path.size))
        for row, energy in enumerate(nodes):
            longest = float(table.range(energy / table.species.mass))
            start = (np.arange(400) + 0.5) * longest / 400
            reached = int(np.searchsorted(path, longest))
            left = start - path[:reached, None]
            stopping = np.where(left > 0, table.stopping(table.energy(left)), 0.0)
            number = table.stopping(table.energy(start))
            dose = stopping @ number
            scale = 1 / (dose.sum() * self._step)
            kernels[:, row, :reached] = dose * scale, (stopping**2) @ number * scale
        return nodes, kernels
