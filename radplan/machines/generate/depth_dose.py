r"""Depth dose and LET of the primaries of a broad beam in water, which straggle and react.

Doses here are energies per primary and depth [MeV/mm = keV/um]; times 10 they are the MeV cm^2/g of base data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    [5.4, 17.2, 30.8]
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
