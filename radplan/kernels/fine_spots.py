"""Compiled build of particle matrices from finely sampled spots: sub-beamlets are added up voxel by voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange

from radplan.kernels.spots import SpotField, copy_columns, dose_at, factor_at, first_ray, look_up, meet, window

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
            dose = dose_at(field, spot, row, part, dx, dy, r2)
            for k in range(sums.shape[0]):
                sums[k, column] += dose * factor_at(field, k, wanted, row, part)
    for n in range(count):
        seen[found[n]] = False
    return count


@njit(cache=True, parallel=True, error_model="numpy")
def count_entries(field: SpotField, columns: int) -> tuple[Array, Array]:
    """Count the entries of every row ``(m,)``, and of every column of every block of rows ``(blocks, columns)``."""
    blocks = field.edges.size - 1
    per_row = np.zeros(field.points.shape[0], dtype=np.int32)
    per_column = np.zeros((blocks, columns), dtype=np.int64)
    for block in prange(blocks):
        sums, seen = np.empty((1, columns)), np.zeros(columns, dtype=np.bool_)
        found = np.empty(columns, dtype=np.int32)
        for v in range(field.edges[block], field.edges[block + 1]):
            count = _gather(field, v, sums, seen, found)
            per_row[v] = count
            for n in range(count):
                per_column[block, found[n]] += 1
    return per_row, per_column


@njit(cache=True, parallel=True, error_model="numpy")
def fill_entries(
    field: SpotField, rows: Array, first_column: int, begins: Array, indices: Array, data: Array, per_column: Array,
    column_begins: Array, t_indices: Array, t_data: Array,
) -> None:  # fmt: skip
    """Write a beam's entries into the matrices of all images and their transposes; see `radplan.kernels.spots`."""
    images, columns = data.shape[0], per_column.shape[1]
    for block in prange(field.edges.size - 1):
        sums, seen = np.empty((images, columns)), np.zeros(columns, dtype=np.bool_)
        found = np.empty(columns, dtype=np.int32)
        ends = np.cumsum(per_column[block])
        heads = ends - per_column[block]
        block_rows, block_data = np.empty(ends[-1], dtype=np.int32), np.empty((images, ends[-1]), dtype=np.float32)
        for v in range(field.edges[block], field.edges[block + 1]):
            at = begins[v]
            for n in range(_gather(field, v, sums, seen, found)):
                column = found[n]
                head = heads[column]
                heads[column] = head + 1
                indices[at] = first_column + column
                block_rows[head] = rows[v]
                for k in range(images):
                    data[k, at] = block_data[k, head] = sums[k, column]
                at += 1
        copy_columns(per_column[block], block_rows, block_data, column_begins[block], t_indices, t_data)
