"""Lateral spread of ion beams: multiple Coulomb scattering in water and air, the beam in vacuum."""

from __future__ import annotations

import numpy as np

from radplan.arrays import Array
from radplan.machines.generate.stopping import ATOMIC_MASS, RangeTable, cumulated

RADIATION_LENGTH = 360.8
"""Of water [mm]."""
SCATTERING_LENGTH = 468.8
"""Of water, for scattering powers after Rossi [mm]."""
AIR = 0.0011
"""Water-equivalent thickness of air, relative."""


def momentum_velocity(table: RangeTable, energy: Array) -> Array:
    """Return pv, momentum times velocity, of a whole ion at energies [MeV/u] in MeV.

    >>> from radplan.machines.generate.stopping import range_table
    >>> round(float(momentum_velocity(range_table("proton"), np.asarray(150.0 / 1.00728))), 1)
    279.3
    """
    kinetic, mass = energy * table.species.mass, ATOMIC_MASS * table.species.mass
    return kinetic * (kinetic + 2 * mass) / (kinetic + mass)


def scattered(table: RangeTable, mean_range: float, depth: Array, model: str) -> Array:
    r"""Return the lateral standard deviation of a narrow beam in water [mm].

    Fermi-Eyges: :math:`\sigma^2(z) = \int_0^z T(x) (z - x)^2 dx`. Behind the range it stays what it is at its end.

    Parameters
    ----------
    table : RangeTable
        Of the beam's species.
    mean_range : float
        Mean range at depth 0 [mm].
    depth : array of shape (n,)
        Depths in water [mm].
    model : "moliere" or "highland"
        Scattering power T: Gottschalk's differential Moliere, or Highland's with its logarithm at the depth.

    Source: Gottschalk, Med. Phys. 37 (2010) 352; Gottschalk et al., Nucl. Instrum. Meth. B 74 (1993) 467.

    >>> from radplan.machines.generate.stopping import range_table
    >>> models, end = ("moliere", "highland"), np.asarray([157.8])
    >>> [round(float(scattered(range_table("proton"), 157.8, end, model)[0]), 1) for model in models]
    [3.5, 3.6]
    """
    path = np.linspace(0.0, mean_range * 0.9999, 2000)
    momentum = momentum_velocity(table, table.energy(mean_range - path))
    charge = table.species.charge
    if model == "moliere":
        lost = np.log10(np.clip(1 - (momentum / momentum[0]) ** 2, 1e-8, 1 - 1e-12))
        now = np.log10(momentum)
        correction = np.clip(0.5244 + 0.1975 * lost + 0.2320 * now - 0.0098 * now * lost, 0, None)
        power = correction * (15.0 * charge / momentum) ** 2 / SCATTERING_LENGTH
    else:
        power = (14.1 * charge / momentum) ** 2 / RADIATION_LENGTH
    at = np.minimum(depth, path[-1])
    moments = [np.interp(at, path, cumulated(power * path**k, path)) for k in range(3)]
    square = np.clip(at**2 * moments[0] - 2 * at * moments[1] + moments[2], 0, None)
    if model != "moliere":
        square = square * (1 + np.log10(np.maximum(at, 1e-5) / RADIATION_LENGTH) / 9) ** 2
    return np.sqrt(square)


def highland_angle(momentum: float, thickness: float, charge: int = 1) -> float:
    """Return the projected angle behind a thin layer [rad].

    Parameters
    ----------
    momentum : float
        pv [MeV].
    thickness : float
        Water-equivalent thickness [mm].
    charge : int
        Of the ion.

    >>> round(1000 * highland_angle(136.0, 1.0), 1)  # 70 MeV protons, 1 mm of water [mrad]
    3.9
    """
    part = thickness / RADIATION_LENGTH
    return float(14.1 * charge / momentum * np.sqrt(part) * (1 + np.log10(part) / 9))


def spot_in_air(
    table: RangeTable, energy: float, distance: Array, waist: float, window: float, charge: int = 1
) -> Array:
    r"""Return the standard deviation of a spot in air behind the nozzle [mm].

    The vacuum beam has its waist at the isocentre and a width that scales with :math:`1/\sqrt p` (constant normalised
    emittance); window and monitors scatter at the exit, air on the way:
    :math:`\sigma^2 = \sigma_0^2 p_{200} / p + (\theta_w s)^2 + (\theta_a(s) s)^2 / 3`.

    Parameters
    ----------
    table : RangeTable
        Of the beam's species.
    energy : float
        [MeV/u].
    distance : array of shape (n,)
        s, from the nozzle's exit [mm].
    waist : float
        Width in vacuum at 200 MeV/u [mm].
    window : float
        Water-equivalent thickness of window and monitors [mm].
    charge : int
        Of the ion.
    """
    momentum = float(momentum_velocity(table, np.asarray(energy)))
    per_nucleon = [np.sqrt(e * (e + 2 * ATOMIC_MASS)) for e in (200.0, energy)]
    s = np.maximum(distance, 0.0)
    angle = highland_angle(momentum, window, charge)
    air = np.asarray([highland_angle(momentum, max(AIR * float(x), 1e-3), charge) for x in s])
    return np.sqrt(waist**2 * per_nucleon[0] / per_nucleon[1] + (angle * s) ** 2 + (air * s) ** 2 / 3)
