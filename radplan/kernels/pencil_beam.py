"""Compiled build of a photon pencil-beam matrix: one beam at a time, row by row, both storage orders at once.

Bixels are handled as *runs*: neighbours whose distance is a whole number of table pixels and whose columns follow
each other. Along a run the bilinear position inside a table pixel does not change, so a run costs one set of
interpolation weights, and its entries are contiguous loads and contiguous stores.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, prange

Array = Any

LANES = 8
"""Entries of a run that are calculated together; tables carry as many unused values at their end."""


@njit(cache=True, inline="always")
def _span(across: float, along: float, radius2: float, step: float, size: int) -> tuple[int, int]:
    """Return the half-open range of a run's bixels nearer than the radius.

    No fast-math here: the counting and the filling pass must agree on every entry.
    """
    room = radius2 - across * across
    if room < 0.0:
        return 0, 0
    half = math.sqrt(room)
    low = max(math.ceil((-half - along) / step), 0)
    high = min(math.floor((half - along) / step) + 1, size)
    return (low, high) if high > low else (0, 0)


@njit(cache=True, parallel=True)
def count_entries(
    points: Array, rows: Array, edges: Array, runs: Array, firsts: Array, sizes: Array, radius: float, step: float,
    columns: int,
) -> tuple[Array, Array]:  # fmt: skip
    """Count a beam's entries in every row, and in every column of every block of rows.

    Parameters
    ----------
    points : (n, 2) float64 [mm]
        Voxels at the isocentre plane, (across, along) the runs.
    rows : (m,) int32
        Voxels that may be reached, ascending; `edges` (blocks + 1,) cuts them into blocks.
    runs : (r, 2) float64 [mm]
        First bixel of each run, (across, along); `firsts` (r,) its column, `sizes` (r,) the number of bixels.
    radius, step : float [mm]
        Lateral cut-off and distance between the bixels of a run.
    columns : int
        Number of bixels of the beam.

    Returns
    -------
    per_row : (m,) int32
    per_column : (blocks, columns) int64
    """
    blocks = edges.size - 1
    per_row = np.zeros(rows.size, dtype=np.int32)
    per_column = np.zeros((blocks, columns), dtype=np.int64)
    radius2 = radius * radius
    for block in prange(blocks):
        change = np.zeros(columns + 1, dtype=np.int64)
        for place in range(edges[block], edges[block + 1]):
            u, v = points[rows[place], 0], points[rows[place], 1]
            total = 0
            for run in range(firsts.size):
                low, high = _span(runs[run, 0] - u, runs[run, 1] - v, radius2, step, sizes[run])
                if high > low:
                    change[firsts[run] + low] += 1
                    change[firsts[run] + high] -= 1
                    total += high - low
            per_row[place] = total
        running = 0
        for column in range(columns):
            running += change[column]
            per_column[block, column] = running
    return per_row, per_column


@njit(cache=True, fastmath=True)
def _interpolate_run(
    values: Array, count: np.uint64, table: Array, plane: np.uint64, corners: tuple[Any, ...],
    fractions: tuple[Any, ...], weights: Array,
) -> None:  # fmt: skip
    """Write sum_k w_k table_k, bilinear, for consecutive bixels of one run.

    The count is rounded up to whole vectors (`LANES`), which compiles to loops without remainder; `values` and the
    table have room for it.
    """
    c00, c01, c10, c11 = corners
    f00, f01, f10, f11 = fractions
    lanes = np.uint64(LANES)
    wide = (count + lanes - np.uint64(1)) // lanes * lanes
    shift = np.uint64(0)
    for k in range(weights.size):
        weight = weights[k]
        a, b, c, d = f00 * weight, f01 * weight, f10 * weight, f11 * weight
        p, q, r, s = c00 + shift, c01 + shift, c10 + shift, c11 + shift
        if k == 0:
            for i in range(wide):
                values[i] = a * table[p + i] + b * table[q + i] + c * table[r + i] + d * table[s + i]
        else:
            for i in range(wide):
                values[i] += a * table[p + i] + b * table[q + i] + c * table[r + i] + d * table[s + i]
        shift += plane


@njit(cache=True, parallel=True)
def fill_entries(
    points: Array, rows: Array, edges: Array, runs: Array, firsts: Array, sizes: Array, radius: float, step: float,
    weights: Array, scale: Array, table: Array, layout: Array, pitch: float, reach: float, first_column: int,
    starts: Array, indices: Array, data: Array, column_starts: Array, t_indices: Array, t_data: Array,
) -> None:  # fmt: skip
    """Write a beam's entries into the matrix (CSR) and into its transpose (CSR).

    Parameters
    ----------
    weights : (m, K) float32
        Depth weights of the voxels in `rows`, inverse square included; `scale` (columns,) float32 multiplies bixels.
    table : (K * plane + LANES,) float32
        Blurred radial functions against (bixel - voxel), so ordered that the bixels of a run are contiguous.
    layout : (4,) int64
        Strides of the table: plane (one radial function), line (one pixel across), phase, and the pixels in a step.
    pitch, reach : float [mm]
        Table pixel and the offset of its first pixel centre from zero.
    first_column : int
        Column of the beam's first bixel in the matrix.
    starts : (m,) int64
        Where the entries of each row begin in `indices`, `data`; `column_starts` (blocks, columns) likewise for the
        transpose.
    points, rows, edges, runs, firsts, sizes, radius, step
        As in `count_entries`.
    """
    radius2 = radius * radius
    plane, line = np.uint64(layout[0]), np.uint64(layout[1])
    width, phases = np.uint64(layout[2]), np.uint64(layout[3])
    one = np.uint64(1)
    longest = sizes.max()
    for block in prange(edges.size - 1):
        heads = column_starts[block].astype(np.uint64)
        values = np.empty(longest + LANES, dtype=np.float32)
        for place in range(edges[block], edges[block + 1]):
            row = rows[place]
            u, v = points[row, 0], points[row, 1]
            at = np.uint64(starts[place])
            for run in range(firsts.size):
                across, along = runs[run, 0] - u, runs[run, 1] - v
                low, high = _span(across, along, radius2, step, sizes[run])
                if high <= low:
                    continue
                x = (across + reach) / pitch
                y = (along + low * step + reach) / pitch
                i, j = np.uint64(x), np.uint64(y)
                fx, fy = np.float32(x - i), np.float32(y - j)
                gx, gy = np.float32(1.0) - fx, np.float32(1.0) - fy
                near = i * line + (j % phases) * width + j // phases
                far = i * line + ((j + one) % phases) * width + (j + one) // phases
                count = np.uint64(high - low)
                bixel = np.uint64(firsts[run] + low)
                _interpolate_run(
                    values, count, table, plane, (near, far, near + line, far + line),
                    (gx * gy, gx * fy, fx * gy, fx * fy), weights[place],
                )  # fmt: skip
                for n in range(count):
                    values[n] *= scale[bixel + n]
                for n in range(count):
                    data[at + n] = values[n]
                column = np.int32(first_column + np.int64(bixel))
                for n in range(count):
                    indices[at + n] = column + np.int32(n)
                for n in range(count):
                    head = heads[bixel + n]
                    heads[bixel + n] = head + one
                    t_data[head] = values[n]
                    t_indices[head] = row
                at += count
