"""Compiled build of particle matrices from finely sampled spots: sub-beamlets are added up voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from radplan.kernels.lanes import LANES
from radplan.kernels.spots import SpotField, dose_at, factor_at, first_ray, look_up, meet, window

Array = Any


@njit(cache=True, error_model="numpy")
def _gather(field: SpotField, v: int, sums: Array, seen: Array, found: Array) -> int:
    """Add a voxel's images up by column in `sums`, and return how many columns it sees; `found` lists them."""
    x, y, room, widest = window(field.points[v], field.depths[v], field.envelope, field.sad)
    wanted, count = field.factors[field.tissues[v]], 0
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
            column = field.columns[spot]
            if not seen[column]:
                seen[column] = True
                found[count] = column
                count += 1
                sums[:, column] = 0.0
            dose = dose_at(field, v, spot, row, part, dx, dy, r2)
            for k in range(sums.shape[0]):
                sums[k, column] += dose * factor_at(field, k, wanted, row, part)
    for n in range(count):
        seen[found[n]] = False
    return count


@njit(cache=True, parallel=True, error_model="numpy")
def write_blocks(
    field: SpotField, first_column: int, begins: Array, counts: Array, firsts: Array, values: Array, write: bool
) -> None:
    """Count the run blocks of a beam's rows, or write them into the matrices; see `radplan.kernels.spots`."""
    columns = field.columns.max() + 1
    for piece in prange(field.edges.size - 1):
        sums, seen = np.empty((values.shape[0], columns)), np.zeros(columns, dtype=np.bool_)
        found = np.empty(columns, dtype=np.int32)
        for v in range(field.edges[piece], field.edges[piece + 1]):
            block, first = begins[v], np.int64(-LANES)
            count = _gather(field, v, sums, seen, found)
            for column in np.sort(found[:count]):
                if column >= first + LANES:
                    first = np.int64(column)
                    if write:
                        firsts[block] = first_column + first
                    block += 1
                if write:
                    for k in range(values.shape[0]):
                        values[k, (block - 1) * LANES + column - first] = sums[k, column]
            counts[v] = block - begins[v]
