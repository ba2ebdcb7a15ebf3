"""Compiled reading of maps at scattered places, and its transpose.

A map holds K values per pixel, side by side. A place is read from 4 x 4 pixels, and each of their four rows is one
contiguous piece of 4 K values: reading is four rows times one short vector, writing the same backwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

LANES = 8
"""Values that are calculated together; a flat map has as many to spare at its end."""

PIECES = 64
"""Pieces that threads share when they read."""

COPIES = 8
"""Maps that are written side by side and then added, at most; their number does not depend on that of threads."""

FEW = 4096
"""Places fewer than which one thread does alone: others would take longer to wake up."""


@njit(cache=True, inline="always")
def _shares(spline: Array, f: Any) -> tuple[Any, Any, Any, Any]:
    """Return what four neighbouring pixels contribute to a place a fraction `f` past the second."""
    return (
        ((spline[0, 3] * f + spline[0, 2]) * f + spline[0, 1]) * f + spline[0, 0],
        ((spline[1, 3] * f + spline[1, 2]) * f + spline[1, 1]) * f + spline[1, 0],
        ((spline[2, 3] * f + spline[2, 2]) * f + spline[2, 1]) * f + spline[2, 0],
        ((spline[3, 3] * f + spline[3, 2]) * f + spline[3, 1]) * f + spline[3, 0],
    )


@njit(cache=True, fastmath=True, inline="always")
def _row_vector(vector: Array, weights: Array, i: int, spline: Array, f: Any) -> None:
    """Write the 4 K factors that are the same for all four rows of a place: share along the row times weight."""
    count = np.uint64(weights.shape[1])
    a, b, c, d = _shares(spline, f)
    for k in range(count):
        weight = weights[i, k]
        vector[k] = a * weight
        vector[count + k] = b * weight
        vector[np.uint64(2) * count + k] = c * weight
        vector[np.uint64(3) * count + k] = d * weight


@njit(cache=True)
def _whole_lanes(functions: int) -> np.uint64:
    """Return 4 K rounded up, so that vectorised loops leave no remainder."""
    return np.uint64((4 * functions + LANES - 1) // LANES * LANES)


def _gather(
    maps: Array, width: int, corners: Array, fractions: Array, weights: Array, spline: Array, rows: Array, out: Array
) -> None:
    """Write ``sum_k w_k map_k`` at every place into `out`.

    Parameters
    ----------
    maps : (P * K + LANES,) float
        Pixel by pixel, K values each.
    width : int
        Pixels in a row.
    corners : (m,) int32
        The first of the 4 x 4 pixels of a place.
    fractions : (m, 2) float
        How far a place lies past the second pixel, across and along the rows [pixel].
    weights : (m, K) float
        w_k.
    spline : (4, 4) float
        Shares of the four neighbours (first axis) as polynomials of the fraction (second axis: powers).
    rows : (m,) int32
        Where each place's sum goes in `out`; no two are the same.
    out : (n,) float
        Written at `rows`.
    """
    count = np.uint64(weights.shape[1])
    wide, step = _whole_lanes(weights.shape[1]), np.uint64(width) * count
    edges = np.linspace(0, rows.size, PIECES + 1).astype(np.int64)
    for piece in prange(PIECES):
        vector = np.zeros(wide, maps.dtype)
        for i in range(edges[piece], edges[piece + 1]):
            _row_vector(vector, weights, i, spline, fractions[i, 1])
            y0, y1, y2, y3 = _shares(spline, fractions[i, 0])
            p = np.uint64(corners[i]) * count
            q, r, s = p + step, p + step + step, p + step + step + step
            total = maps.dtype.type(0.0)
            for m in range(wide):
                total += vector[m] * (y0 * maps[p + m] + y1 * maps[q + m] + y2 * maps[r + m] + y3 * maps[s + m])
            out[rows[i]] = total


def _scatter(
    values: Array, width: int, corners: Array, fractions: Array, weights: Array, spline: Array, rows: Array, pixels: int
) -> Array:
    """Return the transpose of `_gather` for ``values (n,)``, map by map: ``(K, pixels)``."""
    count = np.uint64(weights.shape[1])
    wide, step = _whole_lanes(weights.shape[1]), np.uint64(width) * count
    number = min(COPIES, rows.size // FEW + 1)
    edges = np.linspace(0, rows.size, number + 1).astype(np.int64)
    copies = np.zeros((number, pixels * weights.shape[1] + LANES), values.dtype)
    for copy in prange(number):
        vector = np.zeros(wide, values.dtype)
        mine = copies[copy]
        for i in range(edges[copy], edges[copy + 1]):
            _row_vector(vector, weights, i, spline, fractions[i, 1])
            shares = _shares(spline, fractions[i, 0])
            value = values[rows[i]]
            p = np.uint64(corners[i]) * count
            for j in range(4):
                part = shares[j] * value
                for m in range(wide):
                    mine[p + m] += part * vector[m]
                p += step
    total = np.empty((weights.shape[1], pixels), values.dtype)
    for piece in prange(PIECES):
        low, high = np.uint64(piece * pixels // PIECES), np.uint64((piece + 1) * pixels // PIECES)
        added = copies[0]
        for copy in range(1, number):
            other = copies[copy]
            for at in range(low * count, high * count):
                added[at] += other[at]
        for pixel in range(low, high):
            for k in range(count):
                total[k, pixel] = added[pixel * count + k]
    return total


gather_maps = njit(cache=True, parallel=True, fastmath=True)(_gather)
gather_few = njit(cache=True, fastmath=True)(_gather)
scatter_maps = njit(cache=True, parallel=True, fastmath=True)(_scatter)
scatter_few = njit(cache=True, fastmath=True)(_scatter)
