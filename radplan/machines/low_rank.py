"""A pencil kernel compressed to a few radial functions whose weights depend on depth and distance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline

from radplan.arrays import Array, interp2, like, namespace
from radplan.errors import InputError
from radplan.machines.raster import radial_raster


@dataclass(frozen=True, eq=False)
class LowRankKernel:
    r"""One kernel basis for all distances, :math:`p(r, t, s) = \sum_k w_k(t, s) \, g_k(r)` in the isocentre plane.

    The radial functions are held cumulated, :math:`G_k(R) = \int_0^R g_k(r) 2\pi r\,dr`, which stays finite and
    smooth where the kernel itself grows as 1/r. Between nodes G_k is a cubic spline, beyond the last it is constant.
    Weights are bilinear between nodes and clamped at the edges of their table: depth 0.5 mm to 40 cm, stretch
    0.15 to 1.5 in the shipped machines.

    Parameters
    ----------
    radius : array of shape (r,)
        Increasing radii in the isocentre plane, from 0 to the cut-off [mm].
    cumulated : array of shape (K, r)
        G_k at these radii, 0 at the first [1].
    depth : array of shape (d,)
        Increasing radiological depths [mm].
    stretch : array of shape (e,)
        Increasing distances from the source over SAD [1].
    table : array of shape (K, d, e)
        Weights w_k, calibration included [Gy per unit bixel weight].
    scattered : array of shape (K, d, e), optional
        What part of them is dose of scattered photons; the rest is that of the primary. None where it is not known.

    Raises
    ------
    InputError
        When shapes disagree, an axis does not increase or a value is not finite.

    Source: Nyholm et al., Radiother. Oncol. 78 (2006) 347 for the kernels of the shipped machines.

    >>> line = np.asarray([0.0, 1.0])
    >>> flat = LowRankKernel(np.arange(5.0), np.arange(5.0)[None], line, line, np.ones((1, 2, 2)))
    >>> flat.basis(900.0).weights(np.asarray([0.3]), np.asarray([2.0])).tolist()
    [[1.0]]
    """

    radius: Array
    cumulated: Array
    depth: Array
    stretch: Array
    table: Array
    scattered: Array | None = None

    def __post_init__(self) -> None:
        rank = self.cumulated.shape[0]
        if self.cumulated.shape != (rank, self.radius.size):
            raise InputError(f"cumulated must have shape (K, {self.radius.size}), got {self.cumulated.shape}")
        if self.table.shape != (rank, self.depth.size, self.stretch.size):
            expected = (rank, self.depth.size, self.stretch.size)
            raise InputError(f"table must have shape {expected} (K, depths, stretches), got {self.table.shape}")
        if self.scattered is not None and self.scattered.shape != self.table.shape:
            raise InputError(f"scattered must have the shape of table, {self.table.shape}, got {self.scattered.shape}")
        for name, axis in (("radius", self.radius), ("depth", self.depth), ("stretch", self.stretch)):
            if axis.size < 2 or not np.all(np.diff(axis) > 0):
                raise InputError(f"{name} must have at least two increasing values")
        if self.radius[0] != 0 or np.any(self.cumulated[:, 0] != 0):
            raise InputError("radius must start at 0, where cumulated must be 0")
        tables = (self.table,) if self.scattered is None else (self.table, self.scattered)
        if not all(np.all(np.isfinite(values)) for values in (self.cumulated, *tables)):
            raise InputError("cumulated, table and scattered must be finite")

    @property
    def rank(self) -> int:
        """Number of radial functions."""
        return int(self.cumulated.shape[0])

    @property
    def cutoff(self) -> float:
        """Radius in the isocentre plane beyond which the kernel is zero [mm]."""
        return float(self.radius[-1])

    def basis(self, ssd: float) -> LowRankKernel:
        """Return this basis itself: one serves every surface distance."""
        return self

    def weights(self, depth: Array, stretch: Array) -> Array:
        """Return w_k bilinear in the table, clamped to its edges, shape (K, n)."""
        return self._read(self.table, depth, stretch)

    def parted_weights(self, depth: Array, primary: Array, scatter: Array) -> Array:
        """Return w_k with a stretch of its own for the primary and for scatter, shape (K, n).

        Parameters
        ----------
        depth : array of shape (n,)
            Radiological depth [mm].
        primary, scatter : arrays of shape (n,)
            How much wider than in the isocentre plane, in water, each part is [1]; equal ones give `weights`.

        Raises
        ------
        InputError
            When the kernel does not know its scattered part.
        """
        if self.scattered is None:
            raise InputError("this kernel does not tell scatter from primary: give LowRankKernel its `scattered` part")
        return self._read(self.table - self.scattered, depth, primary) + self._read(self.scattered, depth, scatter)

    def _read(self, table: Array, depth: Array, stretch: Array) -> Array:
        """Return a table at depths and stretches (n,), shape (K, n)."""
        xp = namespace(depth, stretch)
        rows, columns = like(self.depth, depth), like(self.stretch, depth)
        return interp2(depth, xp.astype(stretch, depth.dtype), rows, columns, like(table, depth))

    def cumulative(self, radius: Array) -> Array:
        """Return G_k at radii [mm] of shape (n,), as a numpy array of shape (K, n)."""
        return self._spline(np.minimum(radius, self.cutoff)).T

    def density(self, radius: Array) -> Array:
        r"""Return :math:`g_k = G_k' / 2 \pi r` at radii [mm] > 0 of shape (n,), as numpy (K, n) [1/mm^2]."""
        inside = radius <= self.cutoff
        return (self._slope(np.minimum(radius, self.cutoff)).T / (2 * np.pi * radius)) * inside

    def raster(self, pitch: float, half_width: float) -> Array:
        """Return g_k integrated over pixels, shape (K, 2 m + 1, 2 m + 1)."""
        return radial_raster(self.density, self.cumulative, pitch, half_width)

    @cached_property
    def _spline(self) -> CubicSpline:
        return CubicSpline(self.radius, self.cumulated.T)

    @cached_property
    def _slope(self) -> CubicSpline:
        return self._spline.derivative()
