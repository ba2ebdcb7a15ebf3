"""Compiled search for the gamma index: every reference point against shifts of the other dose, nearest first."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

Array = Any


@njit(cache=True, inline="always")
def _trilinear(dose: Array, z: float, y: float, x: float) -> float:
    """Return the dose at a fractional index, NaN outside the outermost voxel centres."""
    nz, ny, nx = dose.shape
    if not (0.0 <= z <= nz - 1 and 0.0 <= y <= ny - 1 and 0.0 <= x <= nx - 1):
        return np.nan
    k, j, i = min(int(z), max(nz - 2, 0)), min(int(y), max(ny - 2, 0)), min(int(x), max(nx - 2, 0))
    c, b, a = z - k, y - j, x - i
    k1, j1, i1 = min(k + 1, nz - 1), min(j + 1, ny - 1), min(i + 1, nx - 1)
    low = (1 - b) * ((1 - a) * dose[k, j, i] + a * dose[k, j, i1])
    low += b * ((1 - a) * dose[k, j1, i] + a * dose[k, j1, i1])
    high = (1 - b) * ((1 - a) * dose[k1, j, i] + a * dose[k1, j, i1])
    high += b * ((1 - a) * dose[k1, j1, i] + a * dose[k1, j1, i1])
    return (1 - c) * low + c * high


@njit(cache=True, parallel=True)
def search(
    dose: Array, index: Array, expected: Array, tolerance: Array, shifts: Array, distances: Array, largest: float
) -> Array:
    """Return the gamma index of every reference point.

    Parameters
    ----------
    dose : array of shape (nz, ny, nx)
        The dose under test.
    index : array of shape (n, 3)
        Reference points as fractional indices ``[z, y, x]`` into it.
    expected, tolerance : array of shape (n,)
        Dose of the reference and the difference that counts as one.
    shifts : array of shape (m, 3)
        Steps to try [voxel], by their length; the first is none.
    distances : array of shape (m,)
        Square of their length over the distance that counts as one.
    largest : float
        What no match within reach gives.
    """
    found = np.empty(expected.size)
    for point in prange(expected.size):
        best = largest * largest
        for step in range(distances.size):
            if distances[step] >= best:
                break
            value = _trilinear(
                dose, index[point, 0] + shifts[step, 0], index[point, 1] + shifts[step, 1],
                index[point, 2] + shifts[step, 2],
            )  # fmt: skip
            off = (value - expected[point]) / tolerance[point]
            squared = distances[step] + off * off
            if squared < best:
                best = squared
        found[point] = np.sqrt(best)
    return found
