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


@njit(cache=True, inline="always")
def _squared(dose: Array, at: Array, shift: Array, per_step: Array, expected: float, tolerance: float) -> float:
    """Return the square of what one shift [distances] gives."""
    value = _trilinear(
        dose, at[0] + shift[0] * per_step[0], at[1] + shift[1] * per_step[1], at[2] + shift[2] * per_step[2]
    )
    off = (value - expected) / tolerance
    return shift[0] * shift[0] + shift[1] * shift[1] + shift[2] * shift[2] + off * off


@njit(cache=True)
def _refined(
    dose: Array, at: Array, shift: Array, per_step: Array, expected: float, tolerance: float, best: float, step: float
) -> float:
    """Return the least square near a shift: one axis after the other, in halving steps."""
    for _ in range(5):
        step *= 0.5
        moved = True
        while moved:
            moved = False
            for axis in range(3):
                if per_step[axis] == 0.0:
                    continue
                for sign in (-1.0, 1.0):
                    shift[axis] += sign * step
                    squared = _squared(dose, at, shift, per_step, expected, tolerance)
                    if squared < best - 1e-12:
                        best = squared
                        moved = True
                    else:
                        shift[axis] -= sign * step
    return best


@njit(cache=True, parallel=True)
def search(
    dose: Array, index: Array, expected: Array, tolerance: Array, shifts: Array, per_step: Array, step: float,
    largest: float,
) -> Array:  # fmt: skip
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
        Steps to try [distances], by their length; the first is none.
    per_step : array of shape (3,)
        Voxels in a distance that counts as one; 0 for axes that are not searched.
    step : float
        Distance of neighbouring steps [distances].
    largest : float
        What no match within reach gives.
    """
    found = np.empty(expected.size)
    for point in prange(expected.size):
        best = largest * largest
        nearest = -1
        for trial in range(shifts.shape[0]):
            shift = shifts[trial]
            if shift[0] * shift[0] + shift[1] * shift[1] + shift[2] * shift[2] >= best:
                break
            squared = _squared(dose, index[point], shift, per_step, expected[point], tolerance[point])
            if squared < best:
                best, nearest = squared, trial
        if nearest >= 0:
            near = shifts[nearest].copy()
            best = _refined(dose, index[point], near, per_step, expected[point], tolerance[point], best, step)
        found[point] = np.sqrt(best)
    return found
