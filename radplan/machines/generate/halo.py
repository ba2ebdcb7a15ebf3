"""The halo that nuclear reactions of protons put around a pencil beam in water: after Soukup, and after MCsquare."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from radplan.arrays import Array

Halo = Callable[[float, Array], tuple[Array, Array]]
"""Share and added standard deviation [mm] for a mean range [mm] and depths [mm]."""

DEPTHS = np.asarray([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.975, 1.0])
"""Depths that the halo is tabulated at, over the mean range."""

RANGES = np.asarray([40.8, 77.2, 157.8, 259.6, 317.5])
"""Mean ranges that it is tabulated for [mm]: protons of 70, 100, 150, 200, 225 MeV."""

SHARES = 0.01 * np.asarray(
    [
        [0.50, 0.50, 0.79, 1.26, 1.82, 2.37, 3.33, 4.40, 5.38, 6.75, 9.88, 12.83, 12.36, 14.31],
        [0.45, 0.69, 1.38, 2.06, 2.67, 3.49, 4.44, 5.82, 7.05, 7.44, 8.08, 10.40, 9.12, 7.56],
        [0.85, 1.56, 3.02, 4.43, 5.89, 6.88, 7.61, 8.31, 9.88, 10.56, 10.91, 12.13, 11.87, 7.37],
        [1.48, 2.59, 4.29, 6.14, 8.56, 10.41, 11.51, 12.09, 11.84, 12.44, 12.51, 13.57, 12.69, 5.88],
        [1.93, 3.11, 5.10, 7.37, 10.08, 12.60, 13.54, 14.11, 13.15, 12.94, 12.70, 12.95, 12.38, 5.20],
    ]
)
"""Share of the halo [1]: ranges, depths."""

SPREADS = np.asarray(
    [
        [7.7, 8.2, 7.5, 7.2, 6.5, 6.5, 6.0, 5.7, 5.7, 5.5, 4.5, 3.1, 3.1, 2.0],
        [11.2, 12.8, 11.7, 11.0, 10.8, 9.9, 9.4, 8.7, 8.6, 8.9, 9.0, 7.0, 5.5, 3.9],
        [14.6, 14.0, 15.5, 15.8, 15.2, 14.7, 14.5, 14.3, 13.2, 12.8, 13.0, 12.9, 10.6, 8.0],
        [12.2, 13.9, 16.8, 17.7, 17.9, 17.4, 17.4, 17.0, 17.7, 17.3, 16.9, 16.6, 15.1, 14.1],
        [11.9, 14.7, 17.6, 17.4, 17.4, 17.7, 18.0, 18.2, 19.0, 19.7, 20.2, 19.4, 18.5, 19.1],
    ]
)
"""Standard deviation that the halo adds to the core [mm]: ranges, depths."""


def soukup_halo(mean_range: float, depth: Array) -> tuple[Array, Array]:
    r"""Return share [1] and added standard deviation [mm] of the halo that nuclear reactions of protons make.

    :math:`w = 0.052 \ln(1.13 + \frac{z}{11.2 - 0.023 R}) + 0.35 \frac{0.0017 R^2 - R}{(R + 3)^2 - z^2} - 1.61 \cdot
    10^{-9} z (R + 3)^2`,
    :math:`\sigma = 2.85 + 0.0014 R \ln(z + 3) + 0.06 z - 7.4 \cdot 10^{-5} z^2 - 0.22 R / (z - R - 5)^2`, in mm.

    Parameters
    ----------
    mean_range : float
        R [mm].
    depth : array of shape (n,)
        z [mm]; values behind R count as R.

    Source: Soukup, Fippel, Alber, Phys. Med. Biol. 50 (2005) 5089.

    >>> share, spread = soukup_halo(158.0, np.asarray([79.0]))
    >>> round(float(share[0]), 3), round(float(spread[0]), 1)
    (0.122, 8.1)
    """
    z, r = np.minimum(depth, mean_range), mean_range
    share = 0.052 * np.log(1.13 + z / (11.2 - 0.023 * r))
    share += 0.35 * (0.0017 * r**2 - r) / ((r + 3) ** 2 - z**2) - 1.61e-9 * z * (r + 3) ** 2
    spread = 2.85 + 0.0014 * r * np.log(z + 3) + 0.06 * z - 7.4e-5 * z**2 - 0.22 * r / (z - r - 5) ** 2
    return np.clip(share, 0.0, 1.0), np.maximum(spread, 0.0)


def mcsquare_halo(mean_range: float, depth: Array) -> tuple[Array, Array]:
    r"""Return share [1] and added standard deviation [mm] of the Gaussian that stands for the halo of MCsquare.

    Linear in the table between ranges and between depths over the range; beyond its ranges those of the first and last
    row, and no halo at the surface. The table was fitted to the dose on the axis of fields of 2 x 2 to 8 x 8 cm over
    that of the 10 x 10, in which monitor units are calibrated. A single Gaussian then lacks a quarter to two thirds of
    the dose beyond 30 mm; neutrons were not simulated.

    Parameters
    ----------
    mean_range : float
        R [mm].
    depth : array of shape (n,)
        z [mm]; values behind R count as R.

    Source: simulated with MCsquare (Souris, Lee, Sterpin, Med. Phys. 43 (2016) 1700), opentps-core 2.0.0 (Apache-2.0),
    10^6 protons of each energy in water, November 2026; `tests/benchmarks/proton_halo.py`.

    >>> share, spread = mcsquare_halo(157.7, np.asarray([0.5 * 157.7]))
    >>> round(float(share[0]), 3), round(float(spread[0]), 1)
    (0.069, 14.7)
    """
    part = np.minimum(depth / mean_range, 1.0)
    row = np.interp(mean_range, RANGES, np.arange(RANGES.size))
    low = min(int(row), RANGES.size - 2)
    shares, spreads = ((1.0 - row + low) * table[low] + (row - low) * table[low + 1] for table in (SHARES, SPREADS))
    at_surface = np.concatenate([[0.0], DEPTHS]), np.concatenate([[0.0], shares])
    return np.interp(part, *at_surface), np.interp(part, DEPTHS, spreads)
