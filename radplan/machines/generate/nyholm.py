"""The photon pencil kernel of Nyholm et al. 2006, a function of one number: the beam quality TPR20,10."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from radplan.arrays import Array
from radplan.errors import InputError

# Each kernel parameter is a polynomial in TPR20,10, coefficients in ascending powers; lengths in cm.
_COEFFICIENTS = {
    "A1": (0.0128018, -0.0577391, 0.1790839, -0.2467955, 0.1328192, -0.0194684),
    "A2": (16.7815028, -279.4672663, 839.0016549, -978.4915013, 470.5317337, -69.2485573),
    "A3": (-0.0889669, -0.2587584, 0.7069203, -0.3654033, 0.0029760, -0.0003786),
    "A4": (0.0017089, -0.0169150, 0.0514650, -0.0639530, 0.0324490, -0.0049121),
    "A5": (0.1431447, -0.2134626, 0.5825546, -0.2969273, -0.0011436, 0.0002219),
    "B1": (-42.7607523, 264.3424720, -633.4540368, 731.5311577, -402.5280374, 82.4936551),
    "B2": (0.2428359, -2.5029336, 7.6128101, -9.5273454, 4.8249840, -0.7097852),
    "B3": (-0.0910420, -0.2621605, 0.7157244, -0.3664126, 0.0000930, -0.0000232),
    "B4": (0.0017284, -0.0172146, 0.0522109, -0.0643946, 0.0322177, -0.0047015),
    "B5": (-30.4609625, 354.2866078, -1073.2952368, 1315.2670101, -656.3702845, 96.5983711),
    "a1": (-0.0065985, 0.0242136, -0.0647001, 0.0265272, 0.0072169, -0.0020479),
    "a2": (-26.3337419, 435.6865552, -1359.8342546, 1724.6602381, -972.7565415, 200.3468023),
    "b1": (-80.7027159, 668.1710175, -2173.2445309, 3494.2393490, -2784.4670834, 881.2276510),
    "b2": (3.4685991, -41.2468479, 124.9729952, -153.2610078, 76.5242757, -11.2624113),
    "b3": (-39.6550497, 277.7202038, -777.0749505, 1081.5724508, -747.1056558, 204.5432666),
    "b4": (0.6514859, -4.7179961, 13.6742202, -19.7521659, 14.1873606, -4.0478845),
    "b5": (0.4695047, -3.6644336, 10.0039321, -5.1195905, -0.0007387, 0.0002360),
}


@dataclass(frozen=True)
class NyholmKernel:
    r"""Dose per unit fluence of a photon pencil beam in water, :math:`p(r, z) = (A e^{-a r} + B e^{-b r}) / r`.

    The first term is the primary, the second the scattered radiation. Electron contamination is not in the model:
    it is meant for depths beyond about 5 mm.

    Parameters
    ----------
    quality : float
        TPR20,10, from 0.6 to 0.8.

    Source: Nyholm, Olofsson, Ahnesjö, Karlsson, Radiother. Oncol. 78 (2006) 347; corrigendum 98 (2011) 286.

    >>> kernel = NyholmKernel(0.68)
    >>> depths = np.asarray([100.0, 200.0])
    >>> tpr = kernel.square(depths, 50.0)
    >>> round(float(tpr[1] / tpr[0]), 3)
    0.673
    """

    quality: float

    def __post_init__(self) -> None:
        if not 0.6 <= self.quality <= 0.8:
            raise InputError(f"TPR20,10 must be in 0.6-0.8, where the kernel was fitted, got {self.quality}")

    @cached_property
    def _p(self) -> dict[str, float]:
        return {name: float(np.polynomial.polynomial.polyval(self.quality, c)) for name, c in _COEFFICIENTS.items()}

    def parameters(self, depth: Array) -> tuple[Array, Array, Array, Array]:
        """Return A/a, B/b [1] and a, b [1/mm] at depths [mm] of any shape."""
        p, z = self._p, np.asarray(depth, dtype=np.float64) / 10

        def shape(name: str) -> Array:
            rise = 1 - np.exp(p[name + "2"] * np.sqrt(z**2 + p[name + "5"] ** 2))
            return p[name + "1"] * rise * np.exp(p[name + "3"] * z + p[name + "4"] * z**2)

        return shape("A"), shape("B"), (p["a2"] + p["a1"] * z) / 10, shape("b") / 10

    def disk(self, depth: Array, radius: Array) -> Array:
        r"""Return the dose on the axis of a round field of unit fluence.

        :math:`2\pi [\frac{A}{a} (1 - e^{-a R}) + \frac{B}{b} (1 - e^{-b R})]`

        Parameters
        ----------
        depth, radius : arrays that broadcast
            Depth and field radius at that depth [mm].
        """
        primary, scatter, a, b = self.parameters(depth)
        return -2 * np.pi * (primary * np.expm1(-a * radius) + scatter * np.expm1(-b * radius))

    def scattered_disk(self, depth: Array, radius: Array) -> Array:
        """Return the part of `disk` that is dose of scattered photons, the second term."""
        _, scatter, _, b = self.parameters(depth)
        return -2 * np.pi * scatter * np.expm1(-b * radius)

    def slope(self, depth: Array, radius: Array) -> Array:
        """Return the derivative of `disk` with respect to the radius [1/mm]."""
        primary, scatter, a, b = self.parameters(depth)
        return 2 * np.pi * (primary * a * np.exp(-a * radius) + scatter * b * np.exp(-b * radius))

    def square(self, depth: Array, half_side: Array) -> Array:
        """Return the dose on the axis of a square field of unit fluence, the mean of `disk` over the azimuth.

        Parameters
        ----------
        depth, half_side : arrays that broadcast
            Depth and half the field's side at that depth [mm].
        """
        nodes, weights = np.polynomial.legendre.leggauss(48)
        reach = np.asarray(half_side)[..., None] / np.cos((nodes + 1) * np.pi / 8)
        return self.disk(np.asarray(depth)[..., None], reach) @ weights / 2
