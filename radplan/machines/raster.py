"""Radial functions on a pixel grid, with the integrable singularity of a pencil kernel at the axis kept exact."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import numpy as np

from radplan.arrays import Array
from radplan.errors import InputError

# (largest pixel index, Gauss points per axis): g ~ 1/r is smooth on a pixel once that is a few pixels from the axis.
_QUADRATURE = ((2, 16), (12, 5), (40, 3), (10**9, 2))
_CHUNK = 200_000


def pixel_count(pitch: float, half_width: float) -> int:
    """Return m, so that pixel centres -m..m times the pitch reach the half width.

    >>> pixel_count(0.5, 10.0)
    20
    """
    if not (pitch > 0 and half_width >= 0):
        raise InputError(f"pitch must be > 0 mm and half_width >= 0 mm, got {pitch} and {half_width}")
    return ceil(half_width / pitch - 1e-9)


def radial_raster(
    density: Callable[[Array], Array], cumulated: Callable[[Array], Array], pitch: float, half_width: float
) -> Array:
    r"""Return radial functions integrated over the pixels of a square grid.

    The pixel on the axis is integrated in polar coordinates through the cumulated function,
    :math:`\frac{8}{2\pi} \int_0^{\pi/4} G(h / 2\cos\theta) \, d\theta`; the others by Gauss-Legendre products.

    Parameters
    ----------
    density : function of (n,) radii [mm] to (K, n)
        Values of the radial functions g_k [1/mm^2].
    cumulated : function of (n,) radii [mm] to (K, n)
        :math:`G_k(R) = \int_0^R g_k(r) 2 \pi r \, dr`.
    pitch, half_width : float
        Pixel side and reach [mm], see `pixel_count`.

    Returns
    -------
    numpy array of shape (K, 2 m + 1, 2 m + 1)

    >>> flat = radial_raster(lambda r: np.ones((1, r.size)), lambda r: np.pi * r[None] ** 2, 2.0, 2.0)
    >>> [round(float(v), 9) for v in flat[0, 0]]
    [4.0, 4.0, 4.0]
    """
    m = pixel_count(pitch, half_width)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    angle = (nodes + 1) * np.pi / 8
    centre = (cumulated(pitch / 2 / np.cos(angle)) * weights).sum(axis=1) / 2
    quadrant = np.zeros((centre.size, m + 1, m + 1))
    first = 1
    for last, order in _QUADRATURE:
        i, j = np.tril_indices(m + 1)
        ring = (i >= first) & (i <= last)
        i, j = i[ring], j[ring]
        for start in range(0, i.size, _CHUNK // order**2):
            part = slice(start, start + _CHUNK // order**2)
            values = _pixel_integrals(density, i[part], j[part], pitch, order)
            quadrant[:, i[part], j[part]] = values
            quadrant[:, j[part], i[part]] = values
        first = last + 1
    quadrant[:, 0, 0] = centre
    half = np.concatenate([quadrant[:, :0:-1], quadrant], axis=1)
    return np.concatenate([half[:, :, :0:-1], half], axis=2)


def _pixel_integrals(density: Callable[[Array], Array], i: Array, j: Array, pitch: float, order: int) -> Array:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    x = (i[:, None] + nodes / 2) * pitch
    y = (j[:, None] + nodes / 2) * pitch
    radius = np.hypot(x[:, :, None], y[:, None, :])
    values = density(radius.reshape(-1)).reshape(-1, i.size, order, order)
    return np.einsum("kpab,a,b->kp", values, weights, weights) * pitch**2 / 4


def regridded(raster: Array, pitch: float, new_pitch: float, half_width: float) -> Array:
    """Return pixel integrals moved to pixels of another size by the overlap of their areas; the sum is kept.

    Parameters
    ----------
    raster : array of shape (K, 2 n + 1, 2 n + 1)
        Integrals over pixels of side `pitch` centred on the axis.
    pitch, new_pitch, half_width : float
        Old and new pixel side, new reach [mm].

    >>> regridded(np.ones((1, 3, 3)), 1.0, 3.0, 0.0).tolist()
    [[[9.0]]]
    """
    n, m = raster.shape[-1] // 2, pixel_count(new_pitch, half_width)
    old, new = np.arange(-n, n + 1) * pitch, np.arange(-m, m + 1)[:, None] * new_pitch
    low = np.maximum(old - pitch / 2, new - new_pitch / 2)
    high = np.minimum(old + pitch / 2, new + new_pitch / 2)
    share = np.maximum(high - low, 0.0) / pitch
    return share @ raster @ share.T
