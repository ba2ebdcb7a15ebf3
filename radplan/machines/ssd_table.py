"""Three-component pencil kernels tabulated by surface distance, as matRad's photon machines hold them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from radplan.arrays import Array, like, namespace
from radplan.errors import InputError
from radplan.machines.raster import pixel_count, regridded


@dataclass(frozen=True, eq=False)
class ExponentialBasis:
    r"""Radial tables times depth functions :math:`\frac{\beta_k}{\beta_k - m} (e^{-m t} - e^{-\beta_k t})`.

    The radial tables are matRad's: a value belongs to the pixel of side `pitch` whose centre lies at that radius and
    is an integral over that pixel; the value at radius 0 carries the peak of the kernel and has no meaning for
    another pixel size, so other pitches are served by redistributing areas.

    Parameters
    ----------
    attenuation : float
        m, the attenuation of the primary beam [1/mm].
    buildup : array of shape (K,)
        beta_k [1/mm], none equal to `attenuation`.
    radius : array of shape (r,)
        Increasing radii from 0 in the isocentre plane [mm].
    values : array of shape (K, r)
        Pixel integrals of the radial functions [Gy per unit bixel weight].
    pitch : float
        Side of the pixels that `values` are integrals over [mm].

    Source: Bortfeld, Schlegel, Rhein, Med. Phys. 20 (1993) 311, eq. 17 and 19.

    >>> basis = ExponentialBasis(0.0, np.asarray([1.0]), np.asarray([0.0, 1.0]), np.asarray([[4.0, 2.0]]), 1.0)
    >>> round(float(basis.weights(np.asarray([np.log(2.0)]), np.asarray([1.0]))[0, 0]), 12)
    0.5
    >>> basis.raster(1.0, 1.0)[0].tolist()
    [[0.0, 2.0, 0.0], [2.0, 4.0, 2.0], [0.0, 2.0, 0.0]]
    """

    attenuation: float
    buildup: Array
    radius: Array
    values: Array
    pitch: float = 0.5

    def __post_init__(self) -> None:
        if self.values.shape != (self.buildup.size, self.radius.size):
            expected = (self.buildup.size, self.radius.size)
            raise InputError(f"values must have shape {expected} (components, radii), got {self.values.shape}")
        if np.any(np.abs(self.buildup - self.attenuation) < 1e-9):
            raise InputError(f"no buildup may equal the attenuation {self.attenuation}/mm, got {self.buildup.tolist()}")

    @property
    def rank(self) -> int:
        """Number of radial functions."""
        return int(self.values.shape[0])

    @property
    def cutoff(self) -> float:
        """Radius in the isocentre plane beyond which the kernel is zero [mm]."""
        return float(self.radius[-1])

    def weights(self, depth: Array, stretch: Array) -> Array:
        """Return the depth functions, shape (K, n); they do not depend on the stretch. Depth below 0 counts as 0."""
        xp = namespace(depth)
        t = xp.clip(depth, min=0.0)[None, :]
        beta = like(self.buildup, depth)[:, None]
        return beta / (beta - self.attenuation) * (xp.exp(-self.attenuation * t) - xp.exp(-beta * t))

    def raster(self, pitch: float, half_width: float) -> Array:
        """Return the tables at pixel centres (own pitch) or redistributed by area, shape (K, 2 m + 1, 2 m + 1)."""
        own = abs(pitch - self.pitch) < 1e-9
        reach = half_width if own else min(half_width + pitch, self.cutoff) + self.pitch
        axis = np.arange(-(m := pixel_count(self.pitch, reach)), m + 1) * self.pitch
        distance = np.hypot(axis[:, None], axis)
        native = np.stack([np.interp(distance, self.radius, row, right=0.0) for row in self.values])
        return native if own else regridded(native, self.pitch, pitch, half_width)


@dataclass(frozen=True, eq=False)
class SSDTableKernel:
    """Kernel bases tabulated by surface distance; a beam takes the nearest.

    Parameters
    ----------
    ssd : array of shape (n,)
        Surface distances [mm].
    attenuation : float
        m [1/mm].
    buildup : array of shape (K,)
        beta_k [1/mm].
    radius : array of shape (r,)
        Radii in the isocentre plane [mm].
    values : array of shape (n, K, r)
        Pixel integrals of the radial functions per surface distance.
    pitch : float
        Side of the pixels that `values` are integrals over [mm].

    >>> table = np.asarray([[[1.0, 0.0]], [[3.0, 0.0]]])
    >>> line = np.asarray([0.0, 1.0])
    >>> SSDTableKernel(np.asarray([800.0, 900.0]), 0.0, np.asarray([1.0]), line, table).basis(880.0).values.tolist()
    [[3.0, 0.0]]
    """

    ssd: Array
    attenuation: float
    buildup: Array
    radius: Array
    values: Array
    pitch: float = 0.5

    def __post_init__(self) -> None:
        expected = (self.ssd.size, self.buildup.size, self.radius.size)
        if self.values.shape != expected or not self.ssd.size:
            raise InputError(
                f"values must have shape {expected} (surface distances, components, radii), got {self.values.shape}"
            )

    def basis(self, ssd: float) -> ExponentialBasis:
        """Return the kernels of the nearest tabulated surface distance (the first of two equally near)."""
        if not np.isfinite(ssd):
            raise InputError(f"ssd must be a finite distance [mm], got {ssd}: does the beam axis meet the patient?")
        nearest = int(np.argmin(np.abs(self.ssd - ssd)))
        return ExponentialBasis(self.attenuation, self.buildup, self.radius, self.values[nearest], self.pitch)
