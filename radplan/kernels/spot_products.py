"""Compiled products of particle pencil beams with vectors, on the fly: entries are calculated, used and forgotten."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from radplan.kernels.spots import SpotField, dose_at, factor_at, first_ray, look_up, meet, window

Array = Any

GROUPS = 32
"""Parts of the voxels whose sums over columns are kept apart; fixed, so that sums do not depend on threads."""


@njit(cache=True, parallel=True, error_model="numpy")
def forward(field: SpotField, weights: Array, images: Array, out: Array) -> None:
    """Write the images of spot weights into `out`.

    Parameters
    ----------
    field : SpotField
        One beam.
    weights : (cols,) float64
        Weight of each column.
    images : (K,) int64
        Numbers of the images wanted.
    out : (K, m) float64
        Written.
    """
    for block in prange(field.edges.size - 1):
        total = np.zeros(images.size)
        for v in range(field.edges[block], field.edges[block + 1]):
            x, y, room, widest = window(field.points[v], field.depths[v], field.envelope, field.sad)
            total[:] = 0.0
            wanted = field.factors[field.tissues[v]]
            for ray in range(first_ray(field.ray_x, x - room), field.ray_x.size):
                if field.ray_x[ray] > x + room:
                    break
                if abs(field.ray_y[ray] - y) > room:
                    continue
                dx, dy, r2, depth = meet(field, v, ray, widest)
                if r2 < 0.0:
                    continue
                for spot in range(field.ray_spots[ray], field.ray_spots[ray + 1]):
                    weight = weights[field.columns[spot]]
                    if weight == 0.0:
                        continue
                    row, part = look_up(field, spot, depth, r2)
                    if row < 0:
                        continue
                    dose = weight * dose_at(field, v, spot, row, part, dx, dy, r2)
                    for k in range(images.size):
                        total[k] += dose * factor_at(field, images[k], wanted, row, part)
            out[:, v] = total


@njit(cache=True, parallel=True, error_model="numpy")
def adjoint(field: SpotField, cotangents: Array, images: Array, squares: bool, sums: Array) -> None:
    """Write what voxels send back to the columns, in parts that have yet to be added up, into `sums`.

    Parameters
    ----------
    field : SpotField
        One beam.
    cotangents : (K, m) float64
        One value for each image and voxel.
    images : (K,) int64
        Numbers of the images.
    squares : bool
        Whether entries are squared before they are multiplied.
    sums : (GROUPS, cols) float64
        Added to.
    """
    each = -(-(field.edges.size - 1) // GROUPS)
    for group in prange(GROUPS):
        own = sums[group]
        first, last = min(group * each, field.edges.size - 1), min(group * each + each, field.edges.size - 1)
        for v in range(field.edges[first], field.edges[last]):
            sent = cotangents[:, v]
            if not np.any(sent):
                continue
            x, y, room, widest = window(field.points[v], field.depths[v], field.envelope, field.sad)
            wanted = field.factors[field.tissues[v]]
            for ray in range(first_ray(field.ray_x, x - room), field.ray_x.size):
                if field.ray_x[ray] > x + room:
                    break
                if abs(field.ray_y[ray] - y) > room:
                    continue
                dx, dy, r2, depth = meet(field, v, ray, widest)
                if r2 < 0.0:
                    continue
                for spot in range(field.ray_spots[ray], field.ray_spots[ray + 1]):
                    row, part = look_up(field, spot, depth, r2)
                    if row < 0:
                        continue
                    dose, value = dose_at(field, v, spot, row, part, dx, dy, r2), 0.0
                    for k in range(images.size):
                        entry = dose * factor_at(field, images[k], wanted, row, part)
                        value += sent[k] * (entry * entry if squares else entry)
                    own[field.columns[spot]] += value
