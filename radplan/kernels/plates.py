"""Compiled look-ups of how far points lie in the shadow that a plate of cells casts on a plane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

Array = Any

_FAR = 8.0
"""Distance from the edge beyond which the shadow is 0 or 1 to 1e-15 [spreads]."""


@njit(cache=True)
def shadow_shares(edge: Array, low: Array, pitch: float, x: Array, y: Array, spread: float) -> Array:
    r"""Return :math:`\mathrm{erfc}(d / (\sqrt 2\,\sigma)) / 2` of the distance d to a shadow's edge, at points.

    Parameters
    ----------
    edge : array of shape (rows, columns), two or more of each
        d at the centres of cells [mm], negative in the shadow; bilinear between, at the last centre's beyond.
    low : array of shape (2,)
        x and y of the first cell's lower corner [mm].
    pitch : float
        Side of a cell [mm].
    x, y : arrays of shape (n,)
        Points [mm].
    spread : float
        sigma of the edge [mm].

    Returns
    -------
    array of shape (n,)
        1 deep in the shadow, 0 far off.
    """
    rows, columns = edge.shape
    shares = np.empty(x.size)
    for n in range(x.size):
        column = min(max((x[n] - low[0]) / pitch - 0.5, 0.0), columns - 1.0)
        row = min(max((y[n] - low[1]) / pitch - 0.5, 0.0), rows - 1.0)
        i, j = min(int(row), rows - 2), min(int(column), columns - 2)
        v, u = row - i, column - j
        above = (1.0 - u) * edge[i, j] + u * edge[i, j + 1]
        below = (1.0 - u) * edge[i + 1, j] + u * edge[i + 1, j + 1]
        distance = (1.0 - v) * above + v * below
        if abs(distance) > _FAR * spread:
            shares[n] = 0.0 if distance > 0.0 else 1.0
        else:
            shares[n] = 0.5 * math.erfc(distance / (math.sqrt(2.0) * spread))
    return shares
