"""Nyholm's photon kernel with the lateral spread of scatter that a Monte Carlo code finds: less of it far out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import map_coordinates

from radplan.arrays import Array
from radplan.machines.generate.nyholm import NyholmKernel

QUALITIES = np.asarray([0.6838, 0.7285, 0.7520])
"""Qualities that the kernel was simulated for: beams of 6, 10, 15 MV."""

DEPTHS = np.asarray([10.0, 20.0, 30.0, 50.0, 100.0, 150.0, 200.0, 300.0])
"""Depths of the table [mm]."""

RADII = np.asarray([15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 130.0, 160.0, 200.0])
"""Radii of the table [mm]."""

RATIOS = np.asarray(
    [
        [
            [0.989, 0.991, 0.993, 0.995, 0.997, 0.999, 1.001, 1.003, 1.005, 1.007, 1.007, 1.008],
            [0.990, 0.995, 0.997, 0.998, 0.999, 1.000, 1.000, 1.000, 1.000, 0.999, 0.999, 0.999],
            [0.989, 0.996, 0.998, 1.000, 1.001, 1.000, 1.000, 0.998, 0.996, 0.995, 0.994, 0.993],
            [0.988, 0.996, 1.000, 1.002, 1.003, 1.001, 0.999, 0.995, 0.992, 0.990, 0.988, 0.988],
            [0.985, 0.993, 0.997, 1.000, 1.002, 1.001, 0.999, 0.994, 0.990, 0.986, 0.984, 0.983],
            [0.986, 0.992, 0.995, 0.998, 1.000, 1.001, 1.000, 0.996, 0.992, 0.987, 0.984, 0.982],
            [0.989, 0.993, 0.995, 0.997, 0.999, 1.000, 1.000, 0.998, 0.994, 0.989, 0.984, 0.980],
            [0.997, 1.000, 1.000, 1.000, 1.000, 1.000, 1.000, 0.998, 0.995, 0.989, 0.982, 0.972],
        ],
        [
            [0.996, 0.995, 0.996, 0.997, 0.998, 0.999, 1.000, 1.002, 1.003, 1.004, 1.005, 1.005],
            [0.992, 0.996, 0.998, 0.999, 1.000, 1.000, 1.000, 1.000, 0.999, 0.999, 0.998, 0.998],
            [0.988, 0.997, 1.000, 1.001, 1.001, 1.001, 1.000, 0.998, 0.996, 0.995, 0.994, 0.994],
            [0.984, 0.996, 1.001, 1.003, 1.003, 1.001, 0.999, 0.996, 0.993, 0.990, 0.989, 0.989],
            [0.981, 0.994, 0.999, 1.002, 1.003, 1.001, 0.999, 0.994, 0.990, 0.987, 0.985, 0.985],
            [0.981, 0.992, 0.997, 0.999, 1.001, 1.001, 0.999, 0.995, 0.991, 0.987, 0.984, 0.983],
            [0.983, 0.994, 0.998, 1.000, 1.001, 1.001, 1.000, 0.997, 0.993, 0.988, 0.984, 0.981],
            [0.987, 0.996, 0.998, 0.999, 1.000, 1.000, 0.999, 0.997, 0.994, 0.987, 0.981, 0.974],
        ],
        [
            [1.007, 1.000, 0.999, 0.999, 0.999, 1.000, 1.000, 1.001, 1.001, 1.001, 1.002, 1.001],
            [1.000, 1.000, 1.000, 1.000, 1.001, 1.000, 1.000, 0.999, 0.998, 0.998, 0.998, 0.997],
            [0.990, 0.997, 1.000, 1.002, 1.002, 1.001, 1.000, 0.998, 0.996, 0.995, 0.995, 0.995],
            [0.979, 0.993, 0.999, 1.002, 1.003, 1.001, 0.999, 0.996, 0.993, 0.991, 0.991, 0.991],
            [0.973, 0.988, 0.996, 1.001, 1.002, 1.001, 0.999, 0.995, 0.992, 0.989, 0.988, 0.989],
            [0.970, 0.985, 0.993, 0.998, 1.001, 1.001, 1.000, 0.996, 0.993, 0.990, 0.988, 0.988],
            [0.970, 0.985, 0.992, 0.997, 1.000, 1.000, 1.000, 0.998, 0.995, 0.991, 0.989, 0.987],
            [0.972, 0.985, 0.992, 0.996, 0.999, 1.000, 1.000, 0.999, 0.996, 0.991, 0.987, 0.982],
        ],
    ]
)
"""Dose of disks over that of the 10x10, simulated over Nyholm's: qualities, depths, radii."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(48)

_STEP, _FARTHEST = 1.0, 260.0
"""Radii at which the ratio is looked up [mm]; constant beyond."""


@dataclass(frozen=True)
class SimulatedKernel:
    r"""Nyholm's kernel, the dose of whose disks is multiplied by what pyRadMC finds beside it.

    The ratio is linear in quality and depth and smooth in radius; nearer to the axis than 15 mm and farther than 200 mm
    it stays, and a 10 x 10 field keeps the depth dose that it has by Nyholm. What is added or taken away counts as
    scattered dose.

    Parameters
    ----------
    quality : float
        TPR20,10, from 0.6 to 0.8, as of `NyholmKernel`.

    Source: narrow beams of 6, 10 and 15 MV in water by pyRadMC 0.2.1 (github.com/e0404/pyRadMC, Apache-2.0), spectra of
    Ali and Rogers (2012); made by `tests/benchmarks/photon_kernel.py`, November 2026.

    >>> old, new = (k(0.68).square(np.asarray(100.0), np.asarray([25.0, 50.0, 100.0])) for k in KERNELS.values())
    >>> (old / old[1]).round(3).tolist(), (new / old[1]).round(3).tolist()
    ([0.932, 1.0, 1.081], [0.931, 1.0, 1.068])
    """

    quality: float

    @cached_property
    def nyholm(self) -> NyholmKernel:
        """The kernel that is corrected."""
        return NyholmKernel(self.quality)

    @cached_property
    def _ratios(self) -> tuple[Array, Array]:
        """Ratio and its slope [1/mm] at the depths of the table and radii in steps of `_STEP`."""
        row = float(np.interp(self.quality, QUALITIES, np.arange(QUALITIES.size)))
        low = min(int(row), QUALITIES.size - 2)
        table = (1.0 - row + low) * RATIOS[low] + (row - low) * RATIOS[low + 1]
        radius = np.concatenate([[0.0], RADII, [_FARTHEST]])
        values = np.concatenate([table[:, :1], table, table[:, -1:]], axis=1)
        curve = PchipInterpolator(radius, values, axis=1)
        fine = np.arange(0.0, _FARTHEST + _STEP, _STEP)
        reach = 50.0 / np.cos((_NODES + 1.0) * np.pi / 8.0)
        square = (curve(reach) * self.nyholm.disk(DEPTHS[:, None], reach)) @ _WEIGHTS / 2.0
        kept = self.nyholm.square(DEPTHS, np.full(DEPTHS.shape, 50.0)) / square
        return kept[:, None] * curve(fine), kept[:, None] * curve(fine, 1)

    def _at(self, table: Array, depth: Array, radius: Array) -> Array:
        row = np.asarray(np.interp(depth, DEPTHS, np.arange(DEPTHS.size)))
        places = np.stack(np.broadcast_arrays(row, np.asarray(radius) / _STEP))
        return np.asarray(map_coordinates(table, places, order=1, mode="nearest"))

    def disk(self, depth: Array, radius: Array) -> Array:
        """Return the dose on the axis of a round field of unit fluence; depth and radius there [mm]."""
        return self._at(self._ratios[0], depth, radius) * self.nyholm.disk(depth, radius)

    def scattered_disk(self, depth: Array, radius: Array) -> Array:
        """Return the part of `disk` that is dose of scattered photons."""
        added = (self._at(self._ratios[0], depth, radius) - 1.0) * self.nyholm.disk(depth, radius)
        return self.nyholm.scattered_disk(depth, radius) + added

    def slope(self, depth: Array, radius: Array) -> Array:
        """Return the derivative of `disk` with respect to the radius [1/mm]."""
        ratio, rise = (self._at(table, depth, radius) for table in self._ratios)
        return ratio * self.nyholm.slope(depth, radius) + rise * self.nyholm.disk(depth, radius)

    def square(self, depth: Array, half_side: Array) -> Array:
        """Return the dose on the axis of a square field of unit fluence, the mean of `disk` over the azimuth."""
        reach = np.asarray(half_side)[..., None] / np.cos((_NODES + 1.0) * np.pi / 8.0)
        return self.disk(np.asarray(depth)[..., None], reach) @ _WEIGHTS / 2.0


Kernel = NyholmKernel | SimulatedKernel

KERNELS: Mapping[str, type[NyholmKernel] | type[SimulatedKernel]] = {
    "nyholm": NyholmKernel,
    "simulated": SimulatedKernel,
}
"""Kernels of photon machines by name."""

_NYHOLM = "Nyholm et al., Radiother. Oncol. 78 (2006) 347, corrigendum 98 (2011) 286"

KERNEL_SOURCES: Mapping[str, str] = {
    "nyholm": _NYHOLM,
    "simulated": f"{_NYHOLM}; scatter by pyRadMC, see radplan.machines.generate.simulated_kernel",
}
"""Where kernels come from, for provenance."""
